"""LAION's models at full size: our numbers are laion_clap's own, for files in the published format."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import full_size
import numpy as np
import pytest
import torch

from humanclap import audio, load_clap, score_pairs
from humanclap.audio import load_audio
from humanclap.clap import embedder
from humanclap.files import sha256_of

pytestmark = pytest.mark.slow

LIMIT = 1e-5
"""Of 1 - cosine. Measured on a CPU: at most 1e-10 for audio and for text, by FFT and in other batches."""


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


@pytest.fixture(scope="module", params=[False, True], ids=["unfused", "fused"])
def fused(request):
    return request.param


@pytest.fixture(scope="module")
def checkpoint(folder, hub, fused):
    return full_size.laion_checkpoint(folder, fused=fused)


@pytest.fixture(scope="module")
def upstream(checkpoint, fused):
    return full_size.upstream_laion(checkpoint, fused=fused)


def _open(checkpoint, fused, **settings):
    return load_clap("laion-fusion" if fused else "laion", checkpoint=checkpoint, device="cpu", **settings)


@pytest.fixture(scope="module")
def clap(checkpoint, fused):
    return _open(checkpoint, fused)


def _with(clap, window, seed=0):
    """`clap` under another window, without loading half a gigabyte anew."""
    other = object.__new__(type(clap))
    other.__dict__.update(clap.__dict__, window=window, seed=seed)
    return other


def test_upstream_is_the_packages_own_call_under_the_same_seed(clap, upstream, clips):
    state = np.random.get_state()
    np.random.seed(3)
    with torch.no_grad():
        expected = upstream.get_audio_embedding_from_filelist([str(path) for path in clips])
    np.random.set_state(state)
    assert full_size.worst_angle(_with(clap, "upstream", 3).embed_audio(clips), expected) < LIMIT
    long = clips[4:5]  # 25 s: another seed, other places
    seeds = [_with(clap, "upstream", seed).embed_audio(long) for seed in (3, 4)]
    assert full_size.worst_angle(*seeds) > 10 * LIMIT


def test_every_fixed_window_is_what_the_package_gives_for_it(clap, upstream, clips):
    def expected(path, window):
        cuts = audio.windows(load_audio(path, 48_000), 480_000, window)
        with torch.no_grad():
            return full_size.mean_direction(
                upstream.get_audio_embedding_from_data([cut.copy() for cut in cuts])
            )

    some = [clips[0], clips[3], clips[4]]  # 0.5 s, which fits, 10.24 s and 25 s
    vectors = {window: _with(clap, window).embed_audio(some) for window in ("first", "center", "mean")}
    for window, ours in vectors.items():
        assert full_size.worst_angle(ours[:1], vectors["first"][:1]) < 1e-9
        theirs = [expected(path, window) for path in some[window != "first" :]]
        assert full_size.worst_angle(ours[-len(theirs) :], np.stack(theirs)) < LIMIT, window
    for one, other in (("first", "center"), ("first", "mean"), ("center", "mean")):
        assert full_size.worst_angle(vectors[one][2:], vectors[other][2:]) > 10 * LIMIT


def test_fusion_is_the_package_with_its_draws_held_fixed(
    checkpoint, clap, upstream, clips, fused, monkeypatch
):
    """Long clips are flagged, short ones are not, each by itself."""
    if not fused:
        assert clap.window == "first"
        with pytest.raises(ValueError, match="unknown window 'fusion'; known for laion: first"):
            _open(checkpoint, False, window="fusion")
        return
    assert clap.window == "fusion"
    monkeypatch.setattr(np.random, "choice", lambda places: places[len(places) // 2])
    with torch.no_grad():
        expected = [upstream.get_audio_embedding_from_filelist([str(path)])[0] for path in clips]
    assert full_size.worst_angle(clap.embed_audio(clips), np.stack(expected)) < LIMIT
    flags = clap.audio_features(clips)["is_longer"].flatten().tolist()
    assert flags == [False, False, False, True, True, False, False]


def test_captions_are_the_packages(clap, upstream, captions):
    """Padded to the longest in the batch, where the package always pads to 77; also one that it cuts."""
    texts = [*captions[:10], "Dog!", "a man speaks and " * 30]
    with torch.no_grad():
        expected = upstream.get_text_embedding(texts)
    assert full_size.worst_angle(clap.embed_text(texts), expected) < LIMIT
    ids = clap.text_tokens(captions[:500])["input_ids"]
    slow = upstream.tokenize(captions[:500], padding=True, truncation=True, max_length=77)["input_ids"]
    assert ids.tolist() == slow


def test_a_clip_has_one_score_in_any_batch_and_order(clap, clips, captions):
    some, texts = clips[3:6], captions[:3]
    together = clap.embed_audio(some)
    alone = np.concatenate([clap.embed_audio([path]) for path in some[::-1]])[::-1]
    np.testing.assert_allclose(alone, together, atol=1e-6)
    scores = [score_pairs(clap, some, texts, batch_size=n, progress=False)["cosine"] for n in (2, 32)]
    np.testing.assert_allclose(*scores, atol=1e-6)


def test_a_file_alone_is_opened_by_its_weights_and_lower_precision_stays_near(checkpoint, fused, clap, clips):
    low = load_clap(checkpoint, device="cpu", precision="bf16")
    assert (low.name, low.window) == (checkpoint.name, "fusion" if fused else "first")
    assert low.checkpoint_sha256 == clap.checkpoint_sha256 == sha256_of(checkpoint)
    features = low.audio_features(clips[:3])
    assert torch.equal(features["input_features"], clap.audio_features(clips[:3])["input_features"])
    assert 1e-7 < full_size.worst_angle(low.embed_features(features), clap.embed_audio(clips[:3])) < 1e-2


def test_weights_that_do_not_fit_are_named(checkpoint, fused, monkeypatch):
    wrong = "laion" if fused else "laion-fusion"
    with pytest.raises(ValueError, match=f"load_clap\\('{'laion-fusion' if fused else 'laion'}'"):
        load_clap(wrong, checkpoint=checkpoint, device="cpu")
    key, read = "audio_branch.layers.2.blocks.5.attn.qkv.weight", embedder.read_weights
    monkeypatch.setattr(
        embedder, "read_weights", lambda paths: ({k: v for k, v in read(paths)[0].items() if k != key}, "0" * 64)
    )
    with pytest.raises(ValueError, match=rf"1 missing weight\(s\): {key}"):
        _ = _open(checkpoint, fused).model


def test_what_people_bring_is_scored_or_refused_with_a_reason(clap, tmp_path):
    import soundfile

    rng = np.random.default_rng(0)
    hour = np.zeros(3_600 * 8_000, dtype=np.float32)
    hour[::1_000] = rng.uniform(-0.5, 0.5, len(hour) // 1_000)
    noise = 0.1 * rng.standard_normal((96_000, 8)).clip(-3, 3)
    files = {
        "hour.flac": (hour, 8_000, "PCM_16"),
        "8 channels at 96 kHz.wav": (noise, 96_000, "PCM_24"),
        "silence.wav": (np.zeros(48_000), 48_000, "PCM_16"),
        "nan.wav": (np.full(48_000, np.nan), 48_000, "FLOAT"),
        "song.mp3": (noise[:, 0], 48_000, None),
    }
    for name, (samples, rate, subtype) in files.items():
        soundfile.write(tmp_path / name, samples, rate, **({"subtype": subtype} if subtype else {}))
    table = score_pairs(clap, [tmp_path / name for name in files], ["rain"] * len(files), progress=False)
    status = dict(zip(files, table["status"], strict=True))
    assert status.pop("nan.wav") == "the samples hold NaN or infinity"
    assert set(status.values()) == {"ok"}
    assert table["cosine"].notna().sum() == 4


def test_the_larger_architecture_is_opened_by_its_weights(folder, hub, clips, captions):
    """HTSAT-base, without a name."""
    path = full_size.laion_checkpoint(folder, base=True)
    clap, upstream = load_clap(path, device="cpu"), full_size.upstream_laion(path, base=True)
    assert (clap.name, clap.window) == (path.name, "first")
    with torch.no_grad():
        audio_emb = upstream.get_audio_embedding_from_filelist([str(path) for path in clips[:1]])
        text_emb = upstream.get_text_embedding(captions[:2])
    assert full_size.worst_angle(clap.embed_audio(clips[:1]), audio_emb) < LIMIT
    assert full_size.worst_angle(clap.embed_text(captions[:2]), text_emb) < LIMIT
    path.unlink()


SURROUNDINGS = """
import logging, random, sys, warnings
import numpy as np, torch, transformers
import torch._dynamo  # which adds a class of its own to torch's allow-list
from humanclap import load_clap
assert not {"laion_clap", "clap_module", "msclap"} & set(sys.modules)
def around():
    return (
        list(sys.path), list(warnings.filters), warnings.showwarning, random.getstate(),
        torch.is_grad_enabled(),
        np.random.get_state()[1].tolist(), np.random.get_state()[2], torch.random.get_rng_state().tolist(),
        logging.root.level, list(logging.root.handlers), logging.root.manager.disable,
        transformers.utils.logging.get_verbosity(), torch.get_default_dtype(),
        set(torch.serialization.get_safe_globals()), torch.backends.cudnn.allow_tf32,
    )
before = around()
clap = load_clap(sys.argv[1], checkpoint=sys.argv[2], device="cpu")
assert around() == before, [i for i, (a, b) in enumerate(zip(around(), before)) if a != b]
clap.embed_text(["rain"]), clap.embed_audio([sys.argv[3]])
assert around() == before, [i for i, (a, b) in enumerate(zip(around(), before)) if a != b]
print("as before")
"""


def run_in_surroundings(name: str, checkpoint: Path, clip: Path, hub: Path) -> str:
    """Load and use a model in a fresh process, without a network, that looks at what changed around it."""
    environment = os.environ | {"HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", SURROUNDINGS, name, str(checkpoint), str(clip)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_around_it_changes(folder, clips, hub):
    assert run_in_surroundings("laion", full_size.laion_checkpoint(folder), clips[0], hub) == "as before\n"
