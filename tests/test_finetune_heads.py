"""Training the heads on cached outputs of the towers equals training them behind frozen towers."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from finetune_small import make_clap, make_corpus

from humanclap import load_clap, score_pairs
from humanclap.finetune import FinetuneConfig, Trainer, data, finetune, finetune_variants, prepare
from humanclap.finetune.train import make_optimizer, reproducible

CPU = torch.device("cpu")
CONFIG = FinetuneConfig(trains="heads", epochs=3, learning_rate=1e-3, batch_size=8)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=[False, True], ids=["unfused", "fused"])
def material(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("heads")
    pairs = make_corpus(root)
    clap = load_clap(make_clap(root / "clap", pairs["text"], request.param), device="cpu")
    return root, clap, pairs[:30], pairs[30:]


def test_it_equals_the_general_path_with_frozen_towers(material):
    root, clap, *sets = material
    whole = [prepare(clap, part, root, progress=False) for part in sets]
    pooled = [prepare(clap, part, root, progress=False, trains="heads") for part in sets]
    assert pooled[0].features["pooled"].shape == (30, 16)  # a row per clip, as wide as the tower
    with reproducible(CPU):
        heads = Trainer(CONFIG, clap.model, *pooled, CPU)
        frozen = Trainer(replace(CONFIG, trains="all", dropout=False), clap.model, *whole, CPU)
        for tower in (frozen.model.audio_model, frozen.model.text_model):
            tower.requires_grad_(False)
        frozen.optimizer = make_optimizer(frozen.model, CONFIG)
        for epoch in (1, 2, 3):
            ours, theirs = heads.train_epoch(epoch), frozen.train_epoch(epoch)
            assert ours == pytest.approx(theirs, abs=1e-5)
            (ours, score), (theirs, expected) = heads.validate(epoch), frozen.validate(epoch)
            assert ours == pytest.approx(theirs, abs=1e-5)
            np.testing.assert_allclose(score, expected, atol=1e-5)
    before, after, expected = clap.model.state_dict(), heads.model.state_dict(), frozen.model.state_dict()
    for name, values in after.items():
        assert torch.allclose(values, expected[name], atol=1e-5), name
        is_head = "projection" in name or name == "logit_scale_a"
        assert torch.equal(values, before[name]) != is_head, name  # the heads have moved, nothing else has


def test_every_caption_has_the_output_of_its_own_whatever_their_lengths(material):
    root, clap, train, _ = material
    texts = [f"a {'very ' * (i % 7)}loud bell {i}" for i in range(30)]
    pooled = prepare(clap, train.assign(text=texts), root, progress=False, trains="heads").tokens["pooled"]
    for text, row in zip(texts, pooled, strict=True):
        with torch.inference_mode():
            alone = clap.model.text_model(**clap.text_tokens([text])).pooler_output[0]
        assert torch.allclose(row, alone, atol=1e-5), text


def test_what_comes_out_is_an_ordinary_clapmodel_and_resumes(material, tmp_path):
    from transformers import ClapModel

    root, clap, train, validation = material
    settings = {"audio_root": root, "base": clap, "progress": False, "cache_dir": tmp_path / "cache"}
    result = finetune(CONFIG, train, validation, output_dir=tmp_path / "run", **settings)
    assert result.settings["config"]["trains"] == "heads"
    scores = score_pairs(
        load_clap(result.checkpoint, device="cpu"), [root / name for name in validation["audio"]], validation["text"], progress=False
    )  # fmt: skip
    np.testing.assert_allclose(scores["clap_score"], result.validation["clap_score"], atol=1e-5)
    assert ClapModel.from_pretrained(result.checkpoint).config.projection_dim == 32
    again = finetune(CONFIG, train, validation, output_dir=tmp_path / "again", **settings)  # from the cache
    assert again.history.equals(result.history)
    with pytest.raises(ValueError, match=r"prepare them with this base \(trains='heads'\)"):
        finetune(CONFIG, *(prepare(clap, part, root, progress=False) for part in (train, validation)), base=clap)


def test_the_cache_is_by_content_and_weights(material, tmp_path, monkeypatch):
    root, clap, train, _ = material
    first = prepare(clap, train, root, False, tmp_path, trains="heads")
    monkeypatch.setattr(type(clap), "audio_features", None)  # nothing is heard again
    second = prepare(clap, train, root, False, tmp_path, trains="heads")
    assert torch.equal(first.features["pooled"], second.features["pooled"])
    other = copy.copy(clap)
    monkeypatch.setattr(type(clap), "checkpoint_sha256", "0" * 64)
    with pytest.raises(TypeError):  # other weights: it would have to be heard
        prepare(other, train, root, False, tmp_path, trains="heads")


def test_variants_train_heads_side_by_side_to_the_same_bytes(material, tmp_path):
    root, clap, train, validation = material
    sets = [prepare(clap, part, root, progress=False, trains="heads") for part in (train, validation)]
    chosen = {"kinds": ["wsce+mae", "mse"], "seeds": [0, 1], "base": clap, "progress": False}
    one = finetune_variants(CONFIG, *sets, output_dir=tmp_path / "one", **chosen)
    two = finetune_variants(CONFIG, *sets, output_dir=tmp_path / "two", workers=2, **chosen)
    for run, result in one.results.items():
        assert (two.results[run].checkpoint / "model.safetensors").read_bytes() == (
            result.checkpoint / "model.safetensors"
        ).read_bytes()


def test_clips_are_not_decoded_far_ahead_of_the_tower(material, monkeypatch):
    root, clap, train, _ = material
    made, passed, most = 0, 0, 0
    features, pooled = type(clap).audio_features, data._pooled

    def counted(self, paths):
        nonlocal made, most
        made += 1
        most = max(most, made - passed)
        return features(self, paths)

    def slow(given, name, inputs):
        nonlocal passed
        passed += len(next(iter(inputs.values()))) if name == "audio" else 0
        return pooled(given, name, inputs)

    monkeypatch.setattr(type(clap), "audio_features", counted)
    monkeypatch.setattr(data, "_pooled", slow)
    monkeypatch.setattr(data, "_AHEAD", 2)
    monkeypatch.setattr(data, "_AT_ONCE", 3)
    prepare(clap, train, root, False, trains="heads")
    assert made == len(train) and most <= 2 + 3 + 1
