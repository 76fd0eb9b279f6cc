"""Decoding, mixing, resampling and windows: equal to librosa's, and every bad file named with its reason."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
import soundfile

from humanclap import audio
from humanclap.audio import AudioError, decode_mono, load_audio, note_of


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


def reason(path, sample_rate=16_000, seconds=None) -> str:
    """Why a file is refused; the error names it, once."""
    with pytest.raises(AudioError) as caught:
        load_audio(path, sample_rate, seconds)
    error = pickle.loads(pickle.dumps(caught.value))  # survives a trip between processes
    assert error.path == os.fspath(path) and str(error) == f"{os.fspath(path)}: {error.reason}"
    assert "\n" not in error.reason and isinstance(error, ValueError)
    return error.reason


# --- what is read ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample_rate", [48_000, 44_100, 16_000])
@pytest.mark.parametrize("name", ["dog.wav", "train.wav"])
def test_recordings_load_as_librosa_loads_them(recordings, name, sample_rate):
    librosa = pytest.importorskip("librosa")
    expected, _ = librosa.load(recordings / name, sr=sample_rate)
    waveform = load_audio(recordings / name, sample_rate)
    assert waveform.dtype == np.float32
    np.testing.assert_array_equal(waveform, expected)


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 96_000])
@pytest.mark.parametrize("channels", [1, 5])
def test_any_rate_and_number_of_channels_loads_as_librosa_loads_it(noise, rate, channels):
    librosa = pytest.importorskip("librosa")
    path, _ = noise(rate=rate, seconds=0.3337, channels=channels)
    expected, _ = librosa.load(path, sr=44_100)
    np.testing.assert_array_equal(load_audio(path, 44_100), expected)


FORMATS = {
    "24.wav": {"subtype": "PCM_24"}, "float.wav": {"subtype": "FLOAT"}, "x.flac": {"subtype": "PCM_24"},
    "x.aiff": {}, "x.ogg": {}, "x.opus": {"format": "OGG", "subtype": "OPUS"}, "x.mp3": {},
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_a_tone_is_the_same_tone_in_every_format(tmp_path, name):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000)
    soundfile.write(tmp_path / name, np.stack([tone] * 2, axis=1), 48_000, **FORMATS[name])
    heard = load_audio(str(tmp_path / name), 16_000)
    lossy = name.endswith(("ogg", "opus", "mp3"))
    assert abs(len(heard) - 16_000) <= (1_200 if lossy else 0)  # an MP3 has a delay
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    middle = slice(4_000, 12_000)  # away from the edges, where filters see silence
    np.testing.assert_allclose(heard[middle], expected[middle], atol=0.05 if lossy else 1e-3)


# --- long files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["long.wav", "long.flac", "long.mp3", "long.ogg"])
def test_a_beginning_is_the_beginning_of_the_whole_to_the_last_bit(noise, name):
    path, _ = noise(name, rate=44_100, seconds=20, channels=2)  # several blocks
    whole, at_once = load_audio(path, 48_000), soundfile.read(path, dtype="float32")[0].mean(axis=1)
    for seconds in (0.1, 1.0, 19.99, 60):
        beginning = load_audio(path, 48_000, seconds)
        np.testing.assert_array_equal(beginning, whole[: round(seconds * 48_000)])
        np.testing.assert_array_equal(decode_mono(path, seconds)[0], at_once[: round(seconds * 44_100)])
    np.testing.assert_array_equal(load_audio(path, 44_100), at_once)


def test_memory_follows_what_is_heard_and_not_the_length_of_the_file(tmp_path):
    """Half an hour of silence in a small FLAC: its first 10 s need little, the whole its own size and no more."""
    with soundfile.SoundFile(tmp_path / "long.flac", "w", 16_000, 2) as file:
        for _ in range(30):
            file.write(np.zeros((960_000, 2), dtype=np.float32))
    script = (
        "import resource, sys; from humanclap.audio import load_audio; import soundfile, soxr\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "start = peak(); n = len(load_audio(sys.argv[1], 48_000, 10)); first = peak() - start\n"
        "whole = load_audio(sys.argv[1], 48_000); print(n, first, len(whole), peak() - start - whole.nbytes // 2**20)"
    )
    found = subprocess.run([sys.executable, "-c", script, tmp_path / "long.flac"], capture_output=True, check=True)
    n_first, first_mb, n_whole, beyond_whole_mb = map(int, found.stdout.split())
    assert (n_first, n_whole) == (480_000, 1_800 * 48_000)
    assert first_mb < 40 and beyond_whole_mb < 80  # the whole is 330 MB


def test_a_file_that_needs_more_memory_than_there_is_is_refused_by_itself(noise, monkeypatch):
    def exhausted(*_):
        raise MemoryError

    path, _ = noise()
    monkeypatch.setattr(audio, "_joined", exhausted)
    assert "too long for this machine's memory" in reason(path)


# --- what is refused ------------------------------------------------------------------------------------


def _sound(samples, rate=16_000, **settings):
    return lambda path: soundfile.write(path, samples, rate, **settings)


BAD_FILES = {
    "header only": (lambda path: path.write_bytes(b"RIFF\x24\0\0\0WAVEfmt "), "not readable as audio"),
    "one sample too few": (_sound(np.ones(799)), "too short"),
    "infinity": (_sound(np.c_[np.zeros(16_000), np.full(16_000, -np.inf)], subtype="FLOAT"), "NaN or infinity"),
    "2 GHz": (_sound(np.ones(32_000) / 2, 2_000_000_000), "a broken header: its sample rate is 2,000,000,000 Hz"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_named_with_its_reason(tmp_path, kind):
    write, expected = BAD_FILES[kind]
    path = tmp_path / "bad.wav"
    write(path)
    assert expected in reason(path, 48_000)


def test_digital_silence_and_the_shortest_clip_are_audio(tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(800), 16_000)
    assert len(load_audio(tmp_path / "silence.wav", 16_000)) == audio.MIN_SECONDS * 16_000
    assert not load_audio(tmp_path / "silence.wav", 48_000).any() and note_of(tmp_path / "silence.wav") is None


def test_names_that_are_no_text_are_read_or_refused_like_any_other(noise, tmp_path):
    path, _ = noise()
    strange = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    os.rename(path, strange)
    np.testing.assert_array_equal(load_audio(os.fsdecode(strange), 16_000), soundfile.read(strange, dtype="float32")[0])
    for name in ("a\0b.wav", "half \ud83d.wav"):
        assert reason(f"{tmp_path}/{name}").startswith("no file can have this name")
    assert "too long" in reason(tmp_path / ("a" * 300)).lower()


def test_a_file_that_is_not_found_may_be_there_under_another_spelling(tmp_path):
    assert "write it with /" in reason("clips\\dog.wav")
    for form, other in (("NFC", "NFD"), ("NFD", "NFC")):
        folder = tmp_path / form
        folder.mkdir()
        (folder / unicodedata.normalize(form, "café.wav")).touch()
        assert f"in Unicode form {form}" in reason(folder / unicodedata.normalize(other, "café.wav"))
    assert reason(tmp_path / "other.wav") == "file not found"


# --- cut short, and streams that know no length ---------------------------------------------------------

CONTAINERS = {
    "x.wav": ("WAV", "PCM_16"), "float.wav": ("WAV", "FLOAT"), "adpcm.wav": ("WAV", "IMA_ADPCM"),
    "rf64.wav": ("RF64", "PCM_16"), "x.w64": ("W64", "PCM_16"), "x.aiff": ("AIFF", "PCM_16"), "x.au": ("AU", "PCM_16"),
    "x.flac": ("FLAC", "PCM_16"), "x.ogg": ("OGG", "VORBIS"), "x.mp3": ("MP3", "MPEG_LAYER_III"),
    "x.caf": ("CAF", "PCM_16"),
}  # fmt: skip


@pytest.mark.parametrize("seconds", [None, 1])
@pytest.mark.parametrize("name", CONTAINERS)
def test_a_file_that_is_cut_short_is_refused_in_every_format(noise, name, seconds):
    """Also where only its beginning is asked for."""
    form, subtype = CONTAINERS[name]
    path, _ = noise(name, rate=44_100, seconds=20, format=form, subtype=subtype)
    n_expected = 44_100 if seconds else 882_000
    assert abs(len(load_audio(path, 44_100, seconds)) - n_expected) < 2_000
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 4])
    assert reason(path, 44_100, seconds).startswith("cut short")


def test_a_wav_is_cut_short_only_where_its_header_states_a_length(noise, tmp_path):
    """Writers that count the header twice, and pipes, which know no length, are no cut files."""
    path, _ = noise()
    content, expected, other = path.read_bytes(), load_audio(path, 16_000), tmp_path / "other.wav"
    data = content.index(b"data") + 4
    for said in (len(content), len(content) - 9, 0xFFFF_FFFF, 0x7FFF_FFFF, 0x7FFF_F024, 0):
        size = said.to_bytes(4, "little")
        other.write_bytes(content[:4] + size + content[8:])
        np.testing.assert_array_equal(load_audio(other, 16_000), expected)
        if not said or said > 2**30:  # a stream: neither size is known
            other.write_bytes(content[:4] + size + content[8:data] + size + content[data + 4 :])
            np.testing.assert_array_equal(load_audio(other, 16_000), expected)
    other.write_bytes(content[:data] + bytes(4))
    assert "cut short" in reason(other)


def test_a_flac_of_unknown_length_is_decoded_to_its_end(noise, tmp_path):
    path, _ = noise("known.flac", rate=44_100, seconds=8, channels=2)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # 36 bits of STREAMINFO: the number of samples, 0 for a stream
    content[22:26] = bytes(4)
    unknown = tmp_path / "unknown.flac"
    unknown.write_bytes(content)
    np.testing.assert_array_equal(load_audio(unknown, 48_000), load_audio(path, 48_000))
    np.testing.assert_array_equal(load_audio(unknown, 48_000, 1), load_audio(path, 48_000, 1))


# --- odd, and scored ------------------------------------------------------------------------------------


def test_odd_samples_are_read_with_one_warning_per_file(tmp_path, caplog):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000)
    odd = {
        "loud.wav": samples * 32_768,
        "antiphase.wav": np.c_[samples, -samples],
        "one side.wav": np.c_[samples, samples * 0],
    }
    for name, content in odd.items():
        soundfile.write(tmp_path / name, content, 16_000, subtype="FLOAT")
        for _ in range(2):
            assert len(load_audio(tmp_path / name, 16_000)) == 16_000
    assert [record.getMessage().split(": ")[0] for record in caplog.records] == [
        str(tmp_path / name) for name in ("loud.wav", "antiphase.wav")
    ]
    assert "1.638e+04 times full scale" in note_of(tmp_path / "loud.wav")
    assert "cancel each other" in note_of(tmp_path / "antiphase.wav")
    soundfile.write(tmp_path / "loud.wav", samples, 16_000)
    load_audio(tmp_path / "loud.wav", 16_000)
    assert note_of(tmp_path / "loud.wav") is None


# --- windows --------------------------------------------------------------------------------------------


def test_a_long_clip_is_cut_by_policy():
    waveform = np.arange(11.0)
    assert audio.windows(waveform, 4, "first").tolist() == [[0, 1, 2, 3]]
    assert audio.windows(waveform, 4, "center").tolist() == [[3, 4, 5, 6]]
    assert audio.windows(waveform, 4, "mean").tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [7, 8, 9, 10]]
    assert audio.windows(waveform, 4, "upstream", lambda overflow: overflow - 2).tolist() == [[5, 6, 7, 8]]


@pytest.mark.parametrize("policy", audio.POLICIES)
def test_a_short_clip_is_repeated_whole_and_then_filled(policy):
    clip = np.array([1.0, 2, 3], dtype=np.float32)
    assert audio.windows(clip, 8, policy).tolist() == [[1, 2, 3, 1, 2, 3, 0, 0]]
    assert audio.windows(clip, 3, policy).tolist() == [[1, 2, 3]]
    assert audio.windows(clip, 8, policy, fill="repeat").tolist() == [[1, 2, 3, 1, 2, 3, 1, 2]]
    assert audio.windows(clip, 8, policy).dtype == np.float32


def test_bad_windows_are_refused():
    with pytest.raises(ValueError, match="unknown window 'random'.*first, center, mean, upstream"):
        audio.windows(np.ones(5), 4, "random")
    with pytest.raises(ValueError, match="shape"):
        audio.windows(np.ones((5, 2)), 4, "first")
