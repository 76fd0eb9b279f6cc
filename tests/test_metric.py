"""HumanCLAPScore is the mean of what score_pairs says of the same clips."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from finetune_small import make_clap

from humanclap import HumanCLAPScore, load_clap, score_pairs

TEXTS = ["rain", "a dog", "wind"]


def test_paths_and_waveforms_give_the_mean_of_score_pairs(tmp_path):
    clap = load_clap(make_clap(tmp_path / "clap", TEXTS * 20), device="cpu")
    waves = np.random.default_rng(0).normal(0, 0.1, (3, 8000)).astype(np.float32)
    paths = [tmp_path / f"{i}.wav" for i in range(3)]
    for path, wave in zip(paths, waves, strict=True):
        soundfile.write(path, wave, 8000, subtype="FLOAT")
    scores = score_pairs(clap, paths, TEXTS, progress=False)["clap_score"]
    expected = scores.mean()
    metric = HumanCLAPScore(clap, sample_rate=8000)
    with pytest.raises(ValueError, match="call update"):
        metric.compute()
    metric.update(paths[:2], TEXTS[:2])
    metric.update(torch.from_numpy(waves[2]), TEXTS[2])
    assert metric.compute() == pytest.approx(expected, abs=1e-6)
    metric.reset()
    metric.update(torch.from_numpy(waves[:2]), TEXTS[:2])
    assert metric.compute() == pytest.approx(scores[:2].mean(), abs=1e-6) != pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match="audio"):
        metric.update(paths, TEXTS[:2])
    with pytest.raises(ValueError, match="need a sample rate"):
        HumanCLAPScore(clap).update(waves, TEXTS)
