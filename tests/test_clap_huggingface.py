"""The ClapModel backend against transformers' own processor and model, on tiny random models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from clap_folders import CAPTIONS, save_clap, save_clips
from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel, ClapProcessor

from humanclap import clap_score, load_clap
from humanclap.audio import AudioError, load_audio
from humanclap.clap import Clap
from humanclap.clap.huggingface import BATCH_SIZE
from humanclap.files import sha256_of


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
    """A copy of the unfused model's folder, to be spoilt."""
    return Path(shutil.copytree(folders[False], tmp_path / "spoilt"))


def _edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _features(output):
    """transformers 5 returns an object where 4 returns the tensor."""
    return output if isinstance(output, torch.Tensor) else output.pooler_output


# --- equal to transformers ------------------------------------------------------------------------------


def test_unfused_embeddings_equal_the_processor_and_model_of_transformers(folders, claps, clips):
    """Clips that fit the window leave transformers nothing to draw."""
    fitting = [path for path in clips if len(load_audio(path, 16_000)) <= 16_000]
    assert len(fitting) == 3
    model = ClapModel.from_pretrained(folders[False]).eval()
    processor = ClapProcessor.from_pretrained(folders[False])
    waveforms = [load_audio(path, 16_000) for path in fitting]
    inputs = processor(
        text=list(CAPTIONS), audio=waveforms, sampling_rate=16_000, return_tensors="pt", padding=True,
        truncation=True,
    )  # fmt: skip
    # The processor hands `truncation` to both of its halves; the audio half takes its own from the folder.
    audio = ClapFeatureExtractor.from_pretrained(folders[False])(
        waveforms, sampling_rate=16_000, return_tensors="pt"
    )
    with torch.inference_mode():
        text_emb = _features(model.get_text_features(inputs["input_ids"], inputs["attention_mask"])).numpy()
        audio_emb = _features(model.get_audio_features(**audio)).numpy()
    np.testing.assert_allclose(claps[False].embed_text(CAPTIONS), text_emb, atol=1e-6)
    np.testing.assert_allclose(claps[False].embed_audio(fitting), audio_emb, atol=1e-6)


def test_the_first_window_is_what_transformers_gives_a_clip_cut_there(folders, claps, clips):
    extractor = ClapFeatureExtractor.from_pretrained(folders[False])
    waveforms = [load_audio(path, 16_000)[:16_000] for path in clips]
    expected = extractor(waveforms, sampling_rate=16_000, return_tensors="pt")
    features = claps[False].audio_features(clips)
    assert features["input_features"].shape == (6, 1, 51, 16)
    assert features["is_longer"].shape == (6, 1) and not features["is_longer"].any()
    torch.testing.assert_close(features["input_features"], expected["input_features"].float())


def test_fused_features_equal_transformers_with_its_draws_held_fixed(folders, claps, clips, monkeypatch):
    extractor = ClapFeatureExtractor.from_pretrained(folders[True])
    # The middle of each third. A long clip is in the list, so no short one is marked as longer.
    monkeypatch.setattr(np.random, "choice", lambda places: places[len(places) // 2])
    waveforms = [load_audio(path, 16_000) for path in clips]
    expected = extractor(waveforms, sampling_rate=16_000, return_tensors="pt")
    features = claps[True].audio_features(clips)
    assert features["input_features"].shape == (6, 4, 51, 64)
    torch.testing.assert_close(features["input_features"], expected["input_features"].float())
    # Lengths: 0.3 s, 1 s, 1.01 s (below one hop over), 2.5 s, 0.7 s, 1.6 s.
    assert features["is_longer"].flatten().tolist() == [False, False, False, True, False, True]
    assert expected["is_longer"].flatten().tolist() == features["is_longer"].flatten().tolist()
    model = ClapModel.from_pretrained(folders[True]).eval()
    with torch.inference_mode():
        audio_emb = _features(model.get_audio_features(**expected)).numpy()
    np.testing.assert_allclose(claps[True].embed_audio(clips), audio_emb, atol=1e-6)


def test_a_fused_model_hears_a_long_clip_by_its_window(folders, claps, clips):
    scores = {}
    for name in ("fusion", "first", "center"):
        clap = load_clap(folders[True], device="cpu", window=name)
        assert clap.window == name
        scores[name] = clap.embed_audio(clips)
    np.testing.assert_allclose(scores["fusion"][:2], scores["first"][:2], atol=1e-6)
    np.testing.assert_allclose(scores["center"][:2], scores["first"][:2], atol=1e-6)
    for one, other in (("fusion", "first"), ("fusion", "center"), ("first", "center")):
        assert np.abs(scores[one][3] - scores[other][3]).max() > 1e-3
    assert claps[True].window == "fusion" and claps[False].window == "first"


def test_real_recordings_are_scored_as_by_transformers(folders, claps, recordings):
    """5.4 s and 7.8 s at 48 kHz: resampled, then cut to the model's window."""
    paths = [recordings / "dog.wav", recordings / "train.wav"]
    extractor = ClapFeatureExtractor.from_pretrained(folders[False])
    model = ClapModel.from_pretrained(folders[False]).eval()
    waveforms = [load_audio(path, 16_000)[:16_000] for path in paths]
    with torch.inference_mode():
        features = extractor(waveforms, sampling_rate=16_000, return_tensors="pt")
        expected = _features(model.get_audio_features(**features)).numpy()
    np.testing.assert_allclose(claps[False].embed_audio(paths), expected, atol=1e-6)


# --- promises of the interface --------------------------------------------------------------------------


@pytest.mark.parametrize("fused", [False, True])
def test_embeddings_are_unit_vectors_whatever_the_batch_and_the_order(claps, clips, fused):
    clap = claps[fused]
    for embed, items in ((clap.embed_audio, clips), (clap.embed_text, list(CAPTIONS))):
        together = embed(items)
        assert together.dtype == np.float32 and together.shape == (len(items), 8)
        np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
        alone = np.concatenate([embed([item]) for item in items])
        np.testing.assert_allclose(alone, together, atol=1e-6)
        np.testing.assert_allclose(embed(items[::-1])[::-1], together, atol=1e-6)
        many = embed(items * (BATCH_SIZE // 2))
        np.testing.assert_allclose(many, np.tile(together, (BATCH_SIZE // 2, 1)), atol=1e-6)
        # The items differ by far more than that, so equality above means something.
        assert np.abs(together[0] - together[1]).max() > 1e-2


def test_two_runs_are_equal_and_no_global_generator_is_touched(claps, clips):
    before = np.random.get_state()[1].copy(), torch.random.get_rng_state()
    first, second = (claps[True].embed_audio(clips) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(before[0], np.random.get_state()[1])
    assert torch.equal(before[1], torch.random.get_rng_state())


def test_attributes_are_those_of_the_protocol(folders, claps):
    clap = claps[False]
    assert isinstance(clap, Clap)
    assert (clap.name, clap.window, clap.precision, clap.device) == ("unfused", "first", "fp32", "cpu")
    assert clap.sample_rate == 16_000
    assert clap.checkpoint_sha256 == sha256_of(folders[False] / "model.safetensors")
    assert not clap.model.training


def test_projections_are_differentiable_and_their_direction_is_the_embedding(claps, clips):
    clap = claps[False]
    audio = clap.encode_audio(clap.audio_features(clips[:5]))
    text = clap.encode_text(clap.text_tokens(CAPTIONS))
    assert audio.requires_grad and text.requires_grad
    lengths = audio.norm(dim=1)
    assert (lengths - 1).abs().min() > 1e-3
    np.testing.assert_allclose((audio.T / lengths).T.detach().numpy(), clap.embed_audio(clips[:5]), atol=1e-6)
    expected = clap_score(clap.embed_audio(clips[:5]), clap.embed_text(CAPTIONS))
    np.testing.assert_allclose(clap_score(audio, text).detach().numpy(), expected, atol=1e-6)


def test_embedding_leaves_train_mode(folders, clips):
    clap = load_clap(folders[False], device="cpu")
    expected = clap.embed_audio(clips), clap.embed_text(CAPTIONS)
    statistics = clap.model.audio_model.audio_encoder.batch_norm.running_mean.clone()
    clap.model.train()
    np.testing.assert_array_equal(clap.embed_audio(clips), expected[0])
    clap.model.train()
    np.testing.assert_array_equal(clap.embed_text(CAPTIONS), expected[1])
    assert torch.equal(clap.model.audio_model.audio_encoder.batch_norm.running_mean, statistics)
    assert not torch.is_inference_mode_enabled()


def test_tokens_are_padded_on_the_right_and_cut_at_the_models_end(folders, claps, caplog):
    clap = claps[False]
    long = "a dog barks and " * 40
    tokens = clap.text_tokens(["rain", CAPTIONS[0], long])
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    pad = clap.tokenizer.pad_token_id
    assert ids.dtype == mask.dtype == torch.int64
    assert ids.shape == (3, 48) and clap.max_tokens == 48
    assert torch.equal(ids != pad, mask.bool())
    assert (mask.diff(dim=1) <= 0).all() and mask[2].all()
    assert ids[2, -1] == clap.tokenizer.eos_token_id
    expected = AutoTokenizer.from_pretrained(folders[False])(["rain", CAPTIONS[0]], padding=True)
    assert clap.text_tokens(["rain", CAPTIONS[0]])["input_ids"].tolist() == expected["input_ids"]
    assert "reads only 48 tokens" in caplog.text
    assert clap.embed_text([long]).shape == (1, 8)


def test_the_text_encoders_positions_limit_a_tokenizer_that_has_no_limit(folder):
    _edit_json(folder / "tokenizer_config.json", model_max_length=10**30)
    clap = load_clap(folder, device="cpu")
    assert clap.max_tokens == 62  # 64 positions, of which RoBERTa's padding takes the first two
    assert np.isfinite(clap.embed_text(["a dog barks and " * 40])).all()


def test_no_files_and_no_captions_give_no_rows(claps):
    assert claps[False].embed_audio([]).shape == (0, 8) == claps[False].embed_text([]).shape


def test_bf16_is_near_fp32_and_says_so(folders, claps, clips):
    clap = load_clap(folders[False], device="cpu", precision="bf16")
    assert clap.precision == "bf16"
    embedding = clap.embed_audio(clips)
    assert embedding.dtype == np.float32
    np.testing.assert_allclose(embedding, claps[False].embed_audio(clips), atol=0.05)
    assert np.abs(embedding - claps[False].embed_audio(clips)).max() > 0


def test_the_front_end_names_what_decides_features(folders, claps, folder, tmp_path):
    clap = claps[False]
    clap.text_tokens(CAPTIONS)
    clap.save_front_end(tmp_path / "copy")
    for file in ("config.json", "model.safetensors"):
        shutil.copy(folders[False] / file, tmp_path / "copy")
    copy = load_clap(tmp_path / "copy", device="cpu")
    assert copy.front_end == clap.front_end and "\n" not in clap.front_end
    np.testing.assert_array_equal(copy.embed_text(CAPTIONS), clap.embed_text(CAPTIONS))
    others = {claps[True].front_end, load_clap(folder, device="cpu", window="center").front_end}
    _edit_json(folder / "preprocessor_config.json", frequency_min=0)
    others.add(load_clap(folder, device="cpu").front_end)
    assert len(others | {clap.front_end}) == 4


def test_one_path_in_place_of_a_list_is_refused(claps):
    for call in (claps[False].embed_audio, claps[False].audio_features, claps[False].embed_text):
        with pytest.raises(TypeError, match="give a list"):
            call("dog.wav")


def test_bad_items_are_named(claps, clips, tmp_path):
    with pytest.raises(AudioError, match="nowhere.wav: file not found"):
        claps[False].embed_audio([clips[0], tmp_path / "nowhere.wav"])
    for bad in ("", "  ", None, float("nan")):
        with pytest.raises(ValueError, match="caption 1 is"):
            claps[False].embed_text(["rain", bad])
