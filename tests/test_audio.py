"""Decoding, mixing, resampling and windows: equal to librosa's, and every bad file named with its reason."""

from __future__ import annotations

import os
import pickle

import librosa
import numpy as np
import pytest
import soundfile

from humanclap import audio
from humanclap.audio import AudioError, load_audio, window


@pytest.fixture
def noise(tmp_path):
    """Writes a noise file of so many seconds and returns its path and samples."""

    def write(name="noise.wav", rate=16_000, seconds=0.5, channels=1, **settings):
        rng = np.random.default_rng(7)
        shape = (round(rate * seconds), channels) if channels > 1 else round(rate * seconds)
        samples = rng.uniform(-0.5, 0.5, shape)
        soundfile.write(tmp_path / name, samples, rate, **settings)
        return tmp_path / name, samples

    return write


# --- what is read ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dog.wav", "train.wav"])
@pytest.mark.parametrize("sample_rate", [48_000, 44_100, 16_000])
def test_recordings_load_as_librosa_loads_them(recordings, name, sample_rate):
    expected, _ = librosa.load(recordings / name, sr=sample_rate)
    waveform = load_audio(recordings / name, sample_rate)
    assert waveform.dtype == np.float32
    np.testing.assert_array_equal(waveform, expected)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_any_rate_and_channels_load_as_librosa_loads_them(noise, rate, channels):
    path, _ = noise(rate=rate, seconds=0.3337, channels=channels)
    expected, _ = librosa.load(path, sr=44_100)
    np.testing.assert_array_equal(load_audio(path, 44_100), expected)


def test_stereo_is_the_mean_of_its_channels(noise):
    path, samples = noise(channels=2, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(path, 16_000), samples.mean(axis=1), atol=1e-7)


def test_resampling_keeps_a_tone_where_it_is(tmp_path):
    seconds, frequency = 1.0, 1_000.0
    at = {rate: np.sin(2 * np.pi * frequency * np.arange(rate * seconds) / rate) for rate in (8_000, 48_000)}
    soundfile.write(tmp_path / "tone.wav", at[8_000], 8_000, subtype="FLOAT")
    waveform = load_audio(tmp_path / "tone.wav", 48_000)
    middle = slice(4_800, -4_800)  # away from the edges, where the filter sees silence
    np.testing.assert_allclose(waveform[middle], at[48_000][middle], atol=1e-3)


def test_flac_and_str_paths_are_read(noise):
    path, samples = noise("noise.flac")
    np.testing.assert_allclose(load_audio(str(path), 16_000), samples, atol=1e-4)


def test_digital_silence_is_audio(tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(8_000), 16_000)
    assert not load_audio(tmp_path / "silence.wav", 48_000).any()


# --- what is refused ------------------------------------------------------------------------------------


def _text(path):
    path.write_text("this is a caption and no audio at all")


def _nan(path):
    samples = np.zeros(16_000)
    samples[123] = np.nan
    soundfile.write(path, samples, 16_000, subtype="FLOAT")


def _infinite(path):
    soundfile.write(path, np.full((16_000, 2), np.inf), 16_000, subtype="FLOAT")


BAD_FILES = {
    "missing": (lambda path: None, "file not found"),
    "folder": (lambda path: path.mkdir(), "not a file"),
    "empty": (lambda path: path.touch(), r"empty \(0 bytes\)"),
    "text": (_text, "not readable as audio"),
    "header only": (lambda path: path.write_bytes(b"RIFF\x24\0\0\0WAVEfmt "), "not readable as audio"),
    "no samples": (lambda path: soundfile.write(path, np.zeros(0), 16_000), "no samples"),
    "10 ms": (lambda path: soundfile.write(path, np.ones(160), 16_000), "too short: 0.010 s"),
    "NaN": (_nan, "NaN or infinity"),
    "infinite": (_infinite, "NaN or infinity"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_named_with_its_reason(tmp_path, kind):
    write, reason = BAD_FILES[kind]
    path = tmp_path / "bad.wav"
    write(path)
    with pytest.raises(AudioError, match=reason) as caught:
        load_audio(path, 48_000)
    assert caught.value.path == os.fspath(path) and str(path) in str(caught.value)
    assert str(path) not in caught.value.reason and "\n" not in caught.value.reason
    assert isinstance(caught.value, ValueError)


def test_headerless_samples_are_refused_as_audio(tmp_path):
    (tmp_path / "clip.raw").write_bytes(bytes(32_000))
    with pytest.raises(AudioError, match="not readable as audio"):
        load_audio(tmp_path / "clip.raw", 48_000)


def test_a_wav_is_cut_short_only_where_its_header_says_a_length(tmp_path):
    """Writers that count the header twice, and pipes, which know no length, are no cut files."""
    whole = tmp_path / "whole.wav"
    soundfile.write(whole, np.ones(16_000) / 2, 16_000)
    content, expected = whole.read_bytes(), load_audio(whole, 16_000)
    for said in (len(content), len(content) - 9, 0xFFFF_FFFF, 0x7FFF_FFFF, 0):
        other = tmp_path / "other.wav"
        other.write_bytes(content[:4] + said.to_bytes(4, "little") + content[8:])
        np.testing.assert_array_equal(load_audio(other, 16_000), expected)
    other.write_bytes(content[:-200])
    with pytest.raises(AudioError, match="cut short: its header says 32,044 bytes, 31,844 are there"):
        load_audio(other, 16_000)


def test_the_shortest_clip_is_as_stated(tmp_path):
    n = round(audio.MIN_SECONDS * 16_000)
    soundfile.write(tmp_path / "enough.wav", np.ones(n), 16_000)
    soundfile.write(tmp_path / "short.wav", np.ones(n - 1), 16_000)
    assert len(load_audio(tmp_path / "enough.wav", 16_000)) == n
    with pytest.raises(AudioError, match="too short"):
        load_audio(tmp_path / "short.wav", 16_000)


def test_the_error_survives_a_trip_between_processes():
    error = pickle.loads(pickle.dumps(AudioError("a.wav", "file not found")))
    assert (error.path, error.reason, str(error)) == ("a.wav", "file not found", "a.wav: file not found")


@pytest.mark.parametrize("bad", [0, -1, 44_100.5, True])
def test_a_bad_sample_rate_is_refused(noise, bad):
    with pytest.raises(ValueError, match="sample_rate"):
        load_audio(noise()[0], bad)


# --- windows --------------------------------------------------------------------------------------------


def test_a_long_clip_is_cut_by_policy():
    waveform = np.arange(11.0)
    assert window(waveform, 4, "first").tolist() == [0, 1, 2, 3]
    assert window(waveform, 4, "center").tolist() == [3, 4, 5, 6]
    assert window(waveform, 4).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("policy", audio.WINDOWS)
def test_a_short_clip_is_repeated_whole_and_then_filled_with_zeros(policy):
    assert window(np.array([1.0, 2, 3]), 8, policy).tolist() == [1, 2, 3, 1, 2, 3, 0, 0]
    assert window(np.array([1.0, 2, 3]), 5, policy).tolist() == [1, 2, 3, 0, 0]
    assert window(np.array([1.0, 2, 3]), 3, policy).tolist() == [1, 2, 3]


def test_windows_keep_dtype_and_length():
    for length in (1, 7, 99, 100, 101, 1000):
        for policy in audio.WINDOWS:
            cut = window(np.ones(length, dtype=np.float32), 100, policy)
            assert cut.shape == (100,) and cut.dtype == np.float32


def test_bad_windows_are_refused():
    with pytest.raises(ValueError, match="unknown window 'random'; known: first, center"):
        window(np.ones(5), 4, "random")
    with pytest.raises(ValueError, match="n_samples"):
        window(np.ones(5), 0)
    for bad in (np.ones(0), np.ones((5, 2))):
        with pytest.raises(ValueError, match="shape"):
            window(bad, 4)


# --- what people bring ----------------------------------------------------------------------------------


def test_formats_and_shapes_that_people_bring_are_read(tmp_path):
    """96 kHz, 24 bits, float, FLAC, OGG, MP3, 8 channels: one sound, up to what the format loses."""
    time = np.arange(48_000) / 48_000
    tone = 0.5 * np.sin(2 * np.pi * 440 * time)
    written = {
        "24.wav": (tone, 48_000, {"subtype": "PCM_24"}),
        "float.wav": (tone, 48_000, {"subtype": "FLOAT"}),
        "x.flac": (tone, 48_000, {"subtype": "PCM_24"}),
        "x.ogg": (tone, 48_000, {}),
        "x.mp3": (tone, 48_000, {}),
        "96k.wav": (
            0.5 * np.sin(2 * np.pi * 440 * np.arange(96_000) / 96_000),
            96_000,
            {"subtype": "PCM_24"},
        ),
        "8 channels.wav": (np.stack([tone] * 8, axis=1), 48_000, {}),
        "surround.flac": (np.stack([tone * gain for gain in (2, 0, 1, 1, 1, 1)], axis=1), 48_000, {}),
    }
    for name, (samples, rate, settings) in written.items():
        soundfile.write(tmp_path / name, samples, rate, **settings)
        heard = load_audio(tmp_path / name, 16_000)
        lossy = name.endswith(("ogg", "mp3"))
        assert heard.dtype == np.float32
        assert abs(len(heard) - 16_000) <= (1_200 if lossy else 0), name  # an MP3 has a delay
        middle = heard[4_000:12_000]
        spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
        assert spectrum.argmax() * 16_000 / len(middle) == pytest.approx(440, abs=2), name
        assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.02), name


def test_an_hour_is_read(tmp_path):
    """3,600 s of silence with one tone in the middle: found where it is after resampling."""
    samples = np.zeros(3_600 * 8_000, dtype=np.float32)
    samples[1_800 * 8_000 : 1_801 * 8_000] = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8_000) / 8_000)
    soundfile.write(tmp_path / "hour.flac", samples, 8_000)
    heard = load_audio(tmp_path / "hour.flac", 16_000)
    assert len(heard) == 3_600 * 16_000
    loud = np.flatnonzero(np.abs(heard) > 0.1)
    assert loud[0] / 16_000 == pytest.approx(1_800, abs=0.01)
    assert loud[-1] / 16_000 == pytest.approx(1_801, abs=0.01)
    assert audio.windows(heard, 160_000, "mean").shape == (360, 160_000)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_sample_that_is_no_number_is_refused_wherever_it_is(tmp_path, value):
    samples = np.zeros((48_000, 8), dtype=np.float32)
    samples[-1, 7] = value
    soundfile.write(tmp_path / "bad.wav", samples, 48_000, subtype="FLOAT")
    with pytest.raises(AudioError, match="bad.wav: the samples hold NaN or infinity"):
        load_audio(tmp_path / "bad.wav", 16_000)
