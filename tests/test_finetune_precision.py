"""Precision of the towers and of validation, progress, and LAION's checkpoints through a fine-tuning and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from clap_folders import save_clap
from finetune_small import make_clap, make_corpus

from humanclap.clap import load_clap
from humanclap.cli import main as humanclap
from humanclap.finetune import FinetuneConfig, Trainer, finetune, prepare
from humanclap.finetune.loop import reproducible

CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def clap(tmp_path_factory):
    root = tmp_path_factory.mktemp("clap")
    return load_clap(make_clap(root / "clap", make_corpus(root)["text"]), device="cpu")


@pytest.fixture(scope="module")
def sets(clap, tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    pairs = make_corpus(root)
    return [prepare(clap, part, root, progress=False) for part in (pairs[:24], pairs[24:])]


def run(clap, sets, **settings):
    config = FinetuneConfig(**{"epochs": 2, "learning_rate": 1e-3, **settings})
    return finetune(config, *sets, base=clap, progress=False)


def test_bf16_autocast_trains_float32_weights(clap, sets):
    full, half = run(clap, sets, dropout=False), run(clap, sets, dropout=False, precision="bf16")
    assert (full.settings["precision"], half.settings["precision"]) == ("fp32", "bf16")
    assert {values.dtype for values in half.model.parameters()} == {torch.float32}
    for name in ("train_loss", "validation_loss"):
        ours, theirs = half.history[name].dropna(), full.history[name].dropna()
        assert not np.array_equal(ours, theirs)
        np.testing.assert_allclose(ours, theirs, rtol=0.02)  # 8 bits of mantissa in the towers


def test_validation_is_in_float32_whatever_the_precision(clap, sets):
    """It chooses the epoch, and whoever opens the checkpoint scores in float32."""
    config, seen = FinetuneConfig(precision="bf16", learning_rate=1e-3), []
    with reproducible(CPU):
        trainer = Trainer(config, clap.model, *sets, CPU)
        for tower in (trainer.model.audio_model, trainer.model.text_model):
            tower.register_forward_pre_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
        trainer.train_epoch(1)
        assert seen and all(seen)
        seen.clear()
        means, score = trainer.validate(1)
        with torch.autocast("cpu", dtype=torch.bfloat16):  # of a caller
            again = trainer.validate(1)
        assert seen and not any(seen)
        full = Trainer(FinetuneConfig(precision="fp32"), trainer.model, *sets, CPU)
        expected = full.validate(1)
    assert means == expected[0] == again[0]
    assert np.array_equal(score, expected[1]) and np.array_equal(score, again[1])


def test_fp16_without_a_gpu_is_told(clap, sets):
    with pytest.raises(ValueError, match="precision 'fp16' needs a GPU; allowed here: 'auto', 'fp32' and 'bf16'"):
        run(clap, sets, precision="fp16")


def test_float32_is_not_rounded_to_tf32_and_the_flags_come_back(clap, sets):
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    seen = []
    with reproducible(CPU):
        trainer = Trainer(FinetuneConfig(), clap.model, *sets, CPU)
        trainer.train_epoch(1, lambda step, loss: seen.append((cudnn.allow_tf32, matmul.allow_tf32)))
    assert set(seen) == {(False, False)} and (cudnn.allow_tf32, matmul.allow_tf32) == before


def test_each_step_is_reported_with_its_loss(clap, sets):
    seen = []
    with reproducible(CPU):
        trainer = Trainer(FinetuneConfig(learning_rate=1e-3), clap.model, *sets, CPU)
        means = trainer.train_epoch(1, lambda step, loss: seen.append((step, loss.item())))
    assert [step for step, _ in seen] == [1, 2, 3]
    assert np.mean([loss for _, loss in seen]) == pytest.approx(means["loss"], rel=1e-6)


@pytest.mark.extra("laion")
def test_a_laion_checkpoint_is_fine_tuned_and_goes_back_to_laion(tmp_path):
    """.pt -> ClapModel -> fine-tuning -> .pt -> ClapModel, by `humanclap convert`: all trained weights are there."""
    from full_size import save_clips
    from laion_small import save_laion, small_laion

    tokenizer = save_clap(tmp_path / "tokenizer")
    checkpoint = save_laion(small_laion(False), tmp_path / "laion.pt")
    to_transformers = ["--to", "clapmodel", "--tokenizer", str(tokenizer)]
    assert humanclap(["convert", str(checkpoint), str(tmp_path / "base"), *to_transformers]) == 0
    clips = save_clips(tmp_path, seconds=(0.5, 1.0, 1.5, 2.0))
    pairs = pd.DataFrame({"audio": [Path(clip).name for clip in clips], "target": [0.1, 0.9, 0.4, 0.6]})
    pairs["text"] = ["a dog", "rain", "a bell", "a train"]
    config = FinetuneConfig(epochs=1, learning_rate=1e-3, batch_size=2, base=str(tmp_path / "base"))
    root = Path(clips[0]).parent
    result = finetune(config, pairs[:2], pairs[2:], root, tmp_path / "run", device="cpu", progress=False)
    back = ["convert", str(result.checkpoint), str(tmp_path / "back.pt"), "--to", "laion", "--base", str(checkpoint)]
    assert humanclap(back) == 0
    assert humanclap(["convert", str(tmp_path / "back.pt"), str(tmp_path / "again"), *to_transformers]) == 0
    before, again = (load_clap(tmp_path / name, device="cpu").model.state_dict() for name in ("base", "again"))
    trained = result.model.state_dict()
    assert all(torch.equal(again[name], values) for name, values in trained.items())
    changed = [name for name in trained if not torch.equal(trained[name], before[name])]
    assert len(changed) > len(trained) / 2
