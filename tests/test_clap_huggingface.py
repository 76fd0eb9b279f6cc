"""The ClapModel backend against transformers' own processor and model, on tiny random models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from clap_folders import CAPTIONS, save_clap, save_clips
from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

from humanclap import audio, clap_score, load_clap
from humanclap.audio import AudioError, load_audio
from humanclap.clap import Clap
from humanclap.clap.embedder import BATCH_SIZE
from humanclap.clap.huggingface import chunk_starts
from humanclap.files import sha256_of

RATE = 16_000  # of the tiny models, whose window is 1 s


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("claps")
    return {fused: save_clap(root / ("fused" if fused else "unfused"), fused) for fused in (False, True)}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return save_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def claps(folders):
    return {fused: load_clap(folder, device="cpu") for fused, folder in folders.items()}


@pytest.fixture
def folder(folders, tmp_path):
    """A copy of the unfused model's folder, to be changed."""
    return Path(shutil.copytree(folders[False], tmp_path / "own"))


def _edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _embedded(folder, inputs, kind="audio"):
    """By transformers' own model; transformers 5 returns an object where 4 returns the tensor."""
    model = ClapModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        output = getattr(model, f"get_{kind}_features")(**inputs)
    return (output if isinstance(output, torch.Tensor) else output.pooler_output).numpy()


def _extracted(folder, waveforms):
    return ClapFeatureExtractor.from_pretrained(folder)(waveforms, sampling_rate=RATE, return_tensors="pt")


# --- equal to transformers ------------------------------------------------------------------------------


def test_embeddings_are_transformers_own(folders, claps, clips, recordings):
    """Clips cut to the window leave transformers nothing to draw; recordings at 48 kHz are resampled before."""
    paths = [*clips, recordings / "dog.wav", recordings / "train.wav"]
    expected = _extracted(folders[False], [load_audio(path, RATE)[:RATE] for path in paths])
    features = claps[False].audio_features(paths)
    assert features["input_features"].shape == (8, 1, 51, 16)
    assert features["is_longer"].shape == (8, 1) and not features["is_longer"].any()
    torch.testing.assert_close(features["input_features"], expected["input_features"].float())
    np.testing.assert_allclose(claps[False].embed_audio(paths), _embedded(folders[False], expected), atol=1e-6)
    tokenizer = AutoTokenizer.from_pretrained(folders[False])
    inputs = tokenizer(list(CAPTIONS), padding=True, truncation=True, max_length=48, return_tensors="pt")
    np.testing.assert_allclose(claps[False].embed_text(CAPTIONS), _embedded(folders[False], inputs, "text"), atol=1e-6)


def test_fused_features_equal_transformers_with_its_draws_fixed(folders, claps, clips, monkeypatch):
    # The middle of each third. A long clip is in the list, so no short one is marked as longer.
    monkeypatch.setattr(np.random, "choice", lambda places: places[len(places) // 2])
    expected = _extracted(folders[True], [load_audio(path, RATE) for path in clips])
    features = claps[True].audio_features(clips)
    assert features["input_features"].shape == (6, 4, 51, 64)
    torch.testing.assert_close(features["input_features"], expected["input_features"].float())
    # Lengths: 0.3 s, 1 s, 1.01 s (below one hop over), 2.5 s, 0.7 s, 1.6 s.
    assert features["is_longer"].flatten().tolist() == [False, False, False, True, False, True]
    assert expected["is_longer"].flatten().tolist() == features["is_longer"].flatten().tolist()
    np.testing.assert_allclose(claps[True].embed_audio(clips), _embedded(folders[True], expected), atol=1e-6)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("which", ["all", "short"])
def test_upstream_is_transformers_own_call_under_the_same_seed(folders, clips, fused, which):
    """Random crops and chunks and, with fusion and only short clips, the flag on one of them."""
    paths = clips if which == "all" else [clips[0], clips[1], clips[4]]
    clap = load_clap(folders[fused], device="cpu", window="upstream", seed=5)
    state = np.random.get_state()
    np.random.seed(5)
    expected = _embedded(folders[fused], _extracted(folders[fused], [load_audio(path, RATE) for path in paths]))
    np.random.set_state(state)
    np.testing.assert_allclose(clap.embed_audio(paths), expected, atol=1e-6)
    np.testing.assert_array_equal(clap.embed_audio(paths), clap.embed_audio(paths))
    other = load_clap(folders[fused], device="cpu", window="upstream", seed=6)
    assert other.front_end != clap.front_end
    if which == "all":
        assert np.abs(other.embed_audio(paths)[3] - expected[3]).max() > 1e-3


def test_upstream_is_one_call_however_long_the_list(folders, clips):
    """transformers draws once for a whole list, and marks at most one short clip in it."""
    clap = load_clap(folders[True], device="cpu", window="upstream")
    many = [clips[0], clips[1]] * BATCH_SIZE
    plain = load_clap(folders[True], device="cpu", window="first").embed_audio(many)
    assert (np.abs(clap.embed_audio(many) - plain).max(axis=1) > 1e-4).sum() == 1


def test_settings_in_the_file_of_a_whole_processor_are_read(folder, claps):
    """transformers 5 saves a ClapProcessor without a preprocessor_config.json."""
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    content = {"processor_class": "ClapProcessor", "feature_extractor": settings}
    (folder / "processor_config.json").write_text(json.dumps(content))
    assert load_clap(folder, device="cpu").front_end == claps[False].front_end


# --- windows --------------------------------------------------------------------------------------------


def test_the_chunks_of_a_long_clip_lie_in_its_three_thirds():
    assert chunk_starts(9) == [1, 4, 7]
    assert chunk_starts(2) == [0, 1, 0] and chunk_starts(1) == [0, 0, 0]
    for n_places in (1, 2, 3, 100):
        np.random.seed(n_places)
        thirds = [third if len(third) else [0] for third in np.array_split(list(range(n_places)), 3)]
        expected = [np.random.choice(third) for third in thirds]
        assert chunk_starts(n_places, np.random.RandomState(n_places)) == expected


@pytest.mark.parametrize("fused", [False, True])
def test_mean_is_the_mean_of_the_windows_unit_vectors(folders, claps, clips, fused, tmp_path):
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
    np.testing.assert_allclose(np.concatenate([mean.embed_audio([clip]) for clip in clips]), together, atol=1e-6)
    assert np.abs(together - first.embed_audio(clips)).max() > 1e-3
    assert mean.audio_features(clips)["windows"].tolist() == [1, 1, 2, 3, 1, 2]
    assert claps[fused].window == ("fusion" if fused else "first")


# --- what the interface promises ------------------------------------------------------------------------


@pytest.mark.parametrize("fused", [False, True])
def test_embeddings_are_unit_vectors_whatever_the_batch_and_the_order(claps, clips, fused):
    clap, before = claps[fused], (np.random.get_state()[1].copy(), torch.random.get_rng_state())
    for embed, items in ((clap.embed_audio, clips), (clap.embed_text, list(CAPTIONS))):
        together = embed(items)
        assert together.dtype == np.float32 and together.shape == (len(items), 8)
        np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(np.concatenate([embed([item]) for item in items]), together, atol=1e-6)
        many = embed(items[::-1] * (BATCH_SIZE // 2))
        np.testing.assert_allclose(many, np.tile(together[::-1], (BATCH_SIZE // 2, 1)), atol=1e-6)
        # The items differ by far more than that, so equality above means something.
        assert np.abs(together[0] - together[1]).max() > 1e-2
    assert np.array_equal(before[0], np.random.get_state()[1]) and torch.equal(before[1], torch.random.get_rng_state())


def test_everything_but_the_model_is_known_without_its_weights(folders, claps):
    clap = load_clap(folders[False], device="cpu")
    assert isinstance(clap, Clap)
    assert (clap.name, clap.window, clap.precision, clap.device) == ("unfused", "first", "fp32", "cpu")
    assert clap.sample_rate == RATE and clap.front_end == claps[False].front_end
    assert clap.checkpoint_sha256 == sha256_of(folders[False] / "model.safetensors")
    assert clap.embed_audio([]).shape == (0, 8) == clap.embed_text([]).shape
    assert "model" not in vars(clap)
    with pytest.raises(AudioError, match="nowhere.wav: file not found"):
        clap.embed_audio(["nowhere.wav"])
    assert "model" not in vars(clap)  # no gigabytes are read to refuse a file
    assert not clap.model.training and "model" in vars(clap)


def test_projections_are_differentiable_and_their_direction_is_the_embedding(folders, clips):
    clap = load_clap(folders[False], device="cpu")
    clap.embed_audio(clips[:1])  # which loads the weights, in inference mode
    audio_emb = clap.encode_audio(clap.audio_features(clips[:5]))
    text_emb = clap.encode_text(clap.text_tokens(CAPTIONS))
    audio_emb.sum().backward()
    assert clap.model.audio_projection.linear1.weight.grad.abs().sum() > 0 and text_emb.requires_grad
    unit = torch.nn.functional.normalize(audio_emb, dim=1).detach().numpy()
    np.testing.assert_allclose(unit, clap.embed_audio(clips[:5]), atol=1e-6)
    expected = clap_score(clap.embed_audio(clips[:5]), clap.embed_text(CAPTIONS))
    np.testing.assert_allclose(clap_score(audio_emb, text_emb).detach().numpy(), expected, atol=1e-6)


def test_embedding_leaves_train_mode(folders, clips):
    clap = load_clap(folders[False], device="cpu")
    for embed, items in ((clap.embed_audio, clips), (clap.embed_text, CAPTIONS)):
        expected = embed(items)
        clap.model.train()
        np.testing.assert_array_equal(embed(items), expected)
    assert not torch.is_inference_mode_enabled()


def test_tokens_are_padded_on_the_right_and_cut_at_the_models_end(folders, claps, caplog):
    texts = ["rain", CAPTIONS[0], "a dog barks and " * 40]
    tokens = claps[False].text_tokens(texts)
    expected = AutoTokenizer.from_pretrained(folders[False])(texts, padding=True, truncation=True, max_length=48)
    for name in ("input_ids", "attention_mask"):
        assert tokens[name].dtype == torch.int64 and tokens[name].shape == (3, 48)
        assert tokens[name].tolist() == expected[name]
    assert "reads only the first 48 tokens" in caplog.text


def test_the_text_encoders_positions_limit_a_tokenizer_that_has_no_limit(folder):
    _edit_json(folder / "tokenizer_config.json", model_max_length=10**30)
    clap = load_clap(folder, device="cpu")
    assert clap.max_tokens == 62  # 64 positions, of which RoBERTa's padding takes the first two
    assert np.isfinite(clap.embed_text(["a dog barks and " * 40])).all()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precisions_are_near_fp32(folders, claps, clips, precision):
    for fused in (False, True):
        low = load_clap(folders[fused], device="cpu", precision=precision)
        for method, items in (("embed_audio", clips), ("embed_text", CAPTIONS)):
            a, b = getattr(claps[fused], method)(items), getattr(low, method)(items)
            assert b.dtype == np.float32 and (a * b).sum(axis=1).min() > 0.98 and np.abs(b - a).max() > 0


def test_the_front_end_names_what_decides_features(claps, folder):
    """Not what the tokenizer was last asked for."""
    claps[False].text_tokens(CAPTIONS)
    own = load_clap(folder, device="cpu").front_end
    assert own == claps[False].front_end and "\n" not in own
    others = {own, claps[True].front_end, load_clap(folder, device="cpu", window="center").front_end}
    _edit_json(folder / "preprocessor_config.json", frequency_min=0)
    others.add(load_clap(folder, device="cpu").front_end)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:-1]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert len(others | {load_clap(folder, device="cpu").front_end}) == 5


def test_bad_items_are_refused_and_named(claps, clips):
    for call in (claps[False].embed_audio, claps[False].audio_features, claps[False].embed_text):
        with pytest.raises(TypeError, match="give a list"):
            call("dog.wav")
    for bad in ("", "  ", None, float("nan")):
        with pytest.raises(ValueError, match="caption 1 is"):
            claps[False].embed_text(["rain", bad])
