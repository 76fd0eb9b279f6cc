"""Window policies: what each hears, and that "upstream" is transformers' own call under the same seed."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from clap_folders import CAPTIONS, save_clap, save_clips
from transformers import ClapFeatureExtractor, ClapModel

from humanclap import audio, load_clap
from humanclap.audio import load_audio
from humanclap.clap.embedder import BATCH_SIZE
from humanclap.clap.front_end import chunk_starts

RATE = 16_000  # of the tiny models, whose window is 1 s


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("claps")
    return {fused: save_clap(root / ("fused" if fused else "unfused"), fused) for fused in (False, True)}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return save_clips(tmp_path_factory.mktemp("clips"))


# --- waveforms ------------------------------------------------------------------------------------------


def test_mean_hears_all_of_a_clip_the_last_window_flush_with_the_end():
    def starts(length, n):
        return audio.windows(np.arange(length), n, "mean")[:, 0].tolist()

    assert starts(25, 10) == [0, 10, 15]
    assert starts(20, 10) == [0, 10]
    assert starts(21, 10) == [0, 10, 11]
    assert starts(11, 10) == [0, 1]
    assert starts(10, 10) == [0]
    for length in range(1, 40):
        cuts = audio.windows(np.arange(length), 10, "mean")
        assert cuts.shape == (max(1, -(-length // 10)), 10)
        assert set(range(length)) <= set(cuts.ravel().tolist())
        assert length < 10 or cuts[-1, -1] == length - 1


def test_a_short_clip_is_filled_as_the_model_was_trained():
    clip = np.array([1, 2, 3])
    for policy in audio.POLICIES:
        assert audio.windows(clip, 8, policy).tolist() == [[1, 2, 3, 1, 2, 3, 0, 0]]
        assert audio.windows(clip, 8, policy, fill="repeat").tolist() == [[1, 2, 3, 1, 2, 3, 1, 2]]
        assert audio.windows(clip, 3, policy, fill="repeat").tolist() == [[1, 2, 3]]


def test_upstream_starts_where_it_is_drawn():
    assert audio.windows(np.arange(9), 4, "upstream", lambda overflow: overflow - 2).tolist() == [
        [3, 4, 5, 6]
    ]
    with pytest.raises(ValueError, match="needs `draw`"):
        audio.windows(np.arange(9), 4, "upstream")
    for bad in ({"policy": "random"}, {"policy": "first", "fill": "zeros"}):
        with pytest.raises(
            ValueError, match="windows: first, center, mean, upstream; fills: repeatpad, repeat"
        ):
            audio.windows(np.arange(9), 4, **bad)


def test_the_chunks_of_a_long_clip_lie_in_its_three_thirds():
    assert chunk_starts(9) == [1, 4, 7]
    assert chunk_starts(2) == [0, 1, 0] and chunk_starts(1) == [0, 0, 0]
    rng = np.random.RandomState(0)
    for n_places in (1, 2, 3, 100):
        np.random.seed(n_places)
        thirds = [third if len(third) else [0] for third in np.array_split(list(range(n_places)), 3)]
        expected = [np.random.choice(third) for third in thirds]
        assert chunk_starts(n_places, np.random.RandomState(n_places)) == expected
    assert {start // 100 for start in chunk_starts(300, rng)} == {0, 1, 2}


# --- a model that hears them ----------------------------------------------------------------------------


@pytest.mark.parametrize("fused", [False, True])
def test_mean_is_the_mean_of_the_windows_unit_vectors(folders, clips, fused, tmp_path):
    first, mean = (load_clap(folders[fused], device="cpu", window=name) for name in ("first", "mean"))
    expected = []
    for clip in clips:
        waveform, parts = load_audio(clip, RATE), []
        for number, cut in enumerate(audio.windows(waveform, RATE, "mean")):
            parts.append(tmp_path / f"{clip.stem}-{number}.wav")
            soundfile.write(parts[-1], cut, RATE, subtype="FLOAT")
        total = first.embed_audio(parts).astype(np.float64).sum(axis=0)
        expected.append(total / np.linalg.norm(total))
    together = mean.embed_audio(clips)
    np.testing.assert_allclose(together, expected, atol=1e-6)
    np.testing.assert_allclose(
        np.concatenate([mean.embed_audio([clip]) for clip in clips]), together, atol=1e-6
    )
    assert np.abs(together - first.embed_audio(clips)).max() > 1e-3
    assert mean.audio_features(clips)["windows"].tolist() == [1, 1, 2, 3, 1, 2]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("which", ["all", "short"])
def test_upstream_is_transformers_own_call_under_the_same_seed(folders, clips, fused, which):
    """Random crops and chunks and, with fusion and only short clips, the flag on one of them."""
    paths = clips if which == "all" else [clips[0], clips[1], clips[4]]
    extractor = ClapFeatureExtractor.from_pretrained(folders[fused])
    model = ClapModel.from_pretrained(folders[fused]).eval()
    clap = load_clap(folders[fused], device="cpu", window="upstream", seed=5)
    state = np.random.get_state()
    np.random.seed(5)
    inputs = extractor([load_audio(p, RATE) for p in paths], sampling_rate=RATE, return_tensors="pt")
    np.random.set_state(state)
    with torch.inference_mode():
        expected = model.get_audio_features(**inputs)
        expected = expected if isinstance(expected, torch.Tensor) else expected.pooler_output
    np.testing.assert_allclose(clap.embed_audio(paths), expected.numpy(), atol=1e-6)
    np.testing.assert_array_equal(clap.embed_audio(paths), clap.embed_audio(paths))
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state()[1:], state[1:], strict=True))
    if fused:
        assert clap.audio_features(paths)["is_longer"].sum() == (2 if which == "all" else 1)


def test_upstream_depends_on_its_seed_and_says_so(folders, clips):
    claps = [load_clap(folders[False], device="cpu", window="upstream", seed=seed) for seed in (0, 1)]
    one, other = (clap.embed_audio(clips) for clap in claps)
    np.testing.assert_allclose(one[:2], other[:2], atol=1e-6)  # nothing to draw
    assert np.abs(one[3] - other[3]).max() > 1e-3
    assert claps[0].front_end != claps[1].front_end
    assert (
        load_clap(folders[False], device="cpu", seed=1).front_end
        == load_clap(folders[False], device="cpu").front_end
    )


def test_upstream_is_one_call_however_long_the_list(folders, clips):
    """transformers draws once for a whole list, and marks at most one short clip in it."""
    clap = load_clap(folders[True], device="cpu", window="upstream")
    many = [clips[0], clips[1]] * BATCH_SIZE
    plain = load_clap(folders[True], device="cpu", window="first").embed_audio(many)
    assert (np.abs(clap.embed_audio(many) - plain).max(axis=1) > 1e-4).sum() == 1


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precisions_are_near_fp32(folders, clips, precision):
    for fused in (False, True):
        full, low = (load_clap(folders[fused], device="cpu", precision=p) for p in ("fp32", precision))
        assert low.precision == precision
        for method, items in (("embed_audio", clips), ("embed_text", CAPTIONS)):
            a, b = getattr(full, method)(items), getattr(low, method)(items)
            assert b.dtype == np.float32
            assert (a * b).sum(axis=1).min() > 0.98
            assert np.abs(b - a).max() > 0
