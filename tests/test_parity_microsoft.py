"""MS CLAP 2022 and 2023 at full size: our numbers are CLAPWrapper's, for files in the published format."""

from __future__ import annotations

import random

import full_size
import numpy as np
import pytest
import soundfile
import torch
from test_parity_laion import run_in_surroundings

from humanclap import audio, load_clap, score_pairs
from humanclap.audio import decode_mono
from humanclap.clap import embedder
from humanclap.files import sha256_of

pytestmark = pytest.mark.slow

LIMIT = 1e-5
"""Of 1 - cosine. Measured on a CPU: at most 1e-12, for audio and for text."""


@pytest.fixture(scope="module")
def folder(request, tmp_path_factory):
    return full_size.session_folder(request, tmp_path_factory)


@pytest.fixture(scope="module")
def captions(real_ratings):
    return sorted(real_ratings["text"].unique())


@pytest.fixture(scope="module", autouse=True)
def hub(folder, captions):
    root = full_size.hub(folder, captions)
    with full_size.serving(root):
        yield root


@pytest.fixture(scope="module")
def clips(tmp_path_factory, recordings):
    made = full_size.save_clips(tmp_path_factory.mktemp("clips"))
    return [*made, recordings / "dog.wav", recordings / "train.wav"]


@pytest.fixture(scope="module", params=["2022", "2023"])
def version(request):
    return request.param


@pytest.fixture(scope="module")
def checkpoint(folder, hub, version):
    return full_size.msclap_checkpoint(folder, version)


@pytest.fixture(scope="module")
def upstream(checkpoint, version):
    return full_size.upstream_msclap(checkpoint, version)


def _open(checkpoint, version, **settings):
    return load_clap(f"msclap-{version}", checkpoint=checkpoint, device="cpu", **settings)


@pytest.fixture(scope="module")
def clap(checkpoint, version):
    return _open(checkpoint, version)


def _with(clap, window, seed=0):
    """`clap` under another window, without loading half a gigabyte anew."""
    other = object.__new__(type(clap))
    other.__dict__.update(clap.__dict__, window=window, seed=seed)
    return other


def test_upstream_is_the_packages_own_call_under_the_same_seed(clap, upstream, clips, monkeypatch):
    """Every clip over 5 s or 7 s is cropped at random; all but the reading of files is msclap's."""
    import torchaudio

    monkeypatch.setattr(torchaudio, "load", full_size.soundfile_load)
    state = random.getstate()
    random.seed(3)
    expected = upstream.get_audio_embeddings([str(path) for path in clips]).numpy()
    random.setstate(state)
    assert full_size.worst_angle(_with(clap, "upstream", 3).embed_audio(clips), expected) < LIMIT
    seeds = [_with(clap, "upstream", seed).embed_audio(clips[4:5]) for seed in (3, 4)]
    assert full_size.worst_angle(*seeds) > 10 * LIMIT


def test_every_fixed_window_is_what_the_package_gives_for_it(clap, upstream, clips, version):
    import torchaudio

    seconds = {"2022": 5, "2023": 7}[version]
    some, vectors = [clips[0], clips[3], clips[4]], {}
    for window in ("first", "center", "mean"):
        expected = []
        for path in some:
            mono, rate = decode_mono(path)
            waveform = torchaudio.transforms.Resample(rate, 44_100)(torch.from_numpy(mono)).numpy()
            cuts = audio.windows(waveform, seconds * 44_100, window, fill="repeat")
            parts = upstream._get_audio_embeddings(torch.from_numpy(cuts)[:, None]).numpy()
            parts /= np.linalg.norm(parts, axis=1, keepdims=True)
            expected.append(full_size.mean_direction(parts))
        vectors[window] = _with(clap, window).embed_audio(some)
        assert full_size.worst_angle(vectors[window], np.stack(expected)) < LIMIT, window
    for one, other in (("first", "center"), ("first", "mean"), ("center", "mean")):
        assert full_size.worst_angle(vectors[one][2:3], vectors[other][2:3]) > 10 * LIMIT
        assert full_size.worst_angle(vectors[one][:1], vectors[other][:1]) < 1e-9


def test_captions_are_the_packages(clap, upstream, captions):
    """Padded to the longest in the batch, where msclap pads to the limit; 2023 pads with "!"."""
    texts = [*captions[:10], "Dogs bark!", "!", "A loud!! bang! then silence"]
    expected = upstream.get_text_embeddings(texts).numpy()
    assert full_size.worst_angle(clap.embed_text(texts), expected) < LIMIT


def test_a_caption_that_breaks_the_package_is_cut_and_noted(clap, upstream, captions, caplog):
    long = "a man speaks and " * 60
    with pytest.raises(RuntimeError):
        upstream.get_text_embeddings([captions[0], long])
    tokens = clap.text_tokens([captions[0], long])
    assert tokens["input_ids"].shape == (2, clap.max_tokens)
    assert (
        tokens["input_ids"][1, -1] == tokens["input_ids"][0][tokens["attention_mask"][0].bool()][-1]
    )  # the end
    assert f"reads only the first {clap.max_tokens} tokens" in caplog.text
    alone = clap.embed_text([captions[0]])
    assert full_size.worst_angle(clap.embed_text([captions[0], long])[:1], alone) < 1e-6


def test_a_clip_has_one_score_in_any_batch_and_order(clap, clips, captions):
    some, texts = clips[3:6], captions[:3]
    together = clap.embed_audio(some)
    alone = np.concatenate([clap.embed_audio([path]) for path in some[::-1]])[::-1]
    np.testing.assert_allclose(alone, together, atol=1e-6)
    scores = [score_pairs(clap, some, texts, batch_size=n, progress=False)["cosine"] for n in (2, 32)]
    np.testing.assert_allclose(*scores, atol=1e-6)


def test_stereo_is_mixed_down_where_the_package_plays_left_then_right(clap, clips, tmp_path):
    mono, rate = soundfile.read(clips[0])
    soundfile.write(
        tmp_path / "stereo.wav", np.stack([mono * 1.5, mono * 0.5], axis=1), rate, subtype="FLOAT"
    )
    soundfile.write(tmp_path / "mono.wav", mono, rate, subtype="FLOAT")
    stereo, mono = clap.embed_audio([tmp_path / "stereo.wav", tmp_path / "mono.wav"])
    assert full_size.worst_angle(stereo[None], mono[None]) < LIMIT


def test_a_file_alone_is_opened_by_its_weights_and_lower_precision_stays_near(
    checkpoint, version, clap, clips
):
    low = load_clap(checkpoint, device="cpu", precision="bf16")
    assert (low.name, low.version, low.window) == (checkpoint.name, version, "first")
    assert low.checkpoint_sha256 == clap.checkpoint_sha256 == sha256_of(checkpoint)
    assert 1e-7 < full_size.worst_angle(low.embed_audio(clips[:3]), clap.embed_audio(clips[:3])) < 1e-2


def test_weights_that_do_not_fit_are_named(checkpoint, version, monkeypatch):
    """msclap itself loads what is there and leaves the rest random."""
    other = {"2022": "2023", "2023": "2022"}[version]
    with pytest.raises(ValueError, match=f"is MS CLAP {other}, and .* is {version}"):
        _open(checkpoint, other)
    with pytest.raises(ValueError, match="these are MS CLAP's"):
        load_clap("laion", checkpoint=checkpoint, device="cpu")
    key, read = "caption_encoder.projection.linear1.weight", embedder.read_weights
    monkeypatch.setattr(
        embedder, "read_weights", lambda paths: ({k: v for k, v in read(paths)[0].items() if k != key}, "0" * 64)
    )
    with pytest.raises(ValueError, match=rf"1 missing weight\(s\): {key}"):
        _ = _open(checkpoint, version).model


def test_what_people_bring_is_scored_or_refused_with_a_reason(clap, tmp_path):
    rng = np.random.default_rng(0)
    noise = 0.1 * rng.standard_normal((96_000, 8)).clip(-3, 3)
    files = {
        "hour.flac": (np.tile(noise[:, 0], 300), 8_000, "PCM_16"),
        "8 channels at 96 kHz.wav": (noise, 96_000, "PCM_24"),
        "silence.wav": (np.zeros(48_000), 48_000, "PCM_16"),
        "nan.wav": (np.full(48_000, np.nan), 48_000, "FLOAT"),
        "odd rate.wav": (noise[:, 0], 44_101, "PCM_16"),
    }
    for name, (samples, rate, subtype) in files.items():
        soundfile.write(tmp_path / name, samples, rate, subtype=subtype)
    table = score_pairs(clap, [tmp_path / name for name in files], ["rain"] * len(files), progress=False)
    status = dict(zip(files, table["status"], strict=True))
    assert status.pop("nan.wav") == "the samples hold NaN or infinity"
    assert "44101 Hz can't be resampled" in status.pop("odd rate.wav")
    assert set(status.values()) == {"ok"}


def test_nothing_around_it_changes(folder, clips, hub):
    checkpoint = full_size.msclap_checkpoint(folder, "2023")
    assert run_in_surroundings("msclap-2023", checkpoint, clips[0], hub) == "as before\n"
