"""The health check: a collapsed tower is named with its number, once, and the result is remembered by checksum."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from clap_folders import CAPTIONS, save_clap, save_clips

from humanclap import load_clap
from humanclap.clap import health
from humanclap.clap.huggingface import save_clapmodel


@pytest.fixture(autouse=True)
def memory(tmp_path, monkeypatch):
    """An empty memory, in this process and on disk."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(health, "_known", {})
    return tmp_path / "cache" / "humanclap" / "health"


@pytest.fixture
def collapsed(tmp_path):
    """A model whose text tower gives one vector for everything, as `laion/larger_clap_music` on the hub."""
    clap = load_clap(save_clap(tmp_path / "whole"), device="cpu")
    with torch.no_grad():
        clap.model.text_projection.linear2.weight.mul_(1e-6)
    return save_clapmodel(tmp_path / "collapsed", clap.model, clap.front_end_parts)


def test_a_collapsed_tower_is_named_with_its_number(collapsed, tmp_path, caplog, memory):
    clap, clips = load_clap(collapsed, device="cpu"), save_clips(tmp_path / "clips")
    clap.embed_audio(clips)
    assert "has collapsed" not in caplog.text  # the audio tower is sound
    for _ in range(2):
        clap.embed_text(CAPTIONS)
    messages = [record.message for record in caplog.records if "has collapsed" in record.message]
    assert len(messages) == 1 and "the text tower has collapsed" in messages[0] and "1.0000" in messages[0]
    assert clap.checkpoint_sha256 in messages[0]
    vectors = clap.embed_text(health.CAPTIONS).astype(np.float64)
    mean = np.mean([vectors[i] @ vectors[j] for i in range(8) for j in range(i)])  # the definition, pair by pair
    remembered = json.loads((memory / f"{clap.checkpoint_sha256}.json").read_text())
    assert remembered["text"] == pytest.approx(mean, abs=1e-6) and remembered["audio"] < health.LIMIT


def test_the_result_is_remembered_by_checksum_and_a_second_run_warns_without_computing(collapsed, caplog, monkeypatch):
    load_clap(collapsed, device="cpu").embed_text(CAPTIONS)
    monkeypatch.setattr(health, "mean_cosine", lambda vectors: pytest.fail("computed again"))
    for n_warnings in (1, 2):  # a second model in this process, and another process
        load_clap(collapsed, device="cpu").embed_text(CAPTIONS)
        assert caplog.text.count("has collapsed") == n_warnings
        monkeypatch.setattr(health, "_known", {})


def test_a_memory_that_is_spoilt_or_can_not_be_written_is_no_error(collapsed, memory, caplog):
    memory.parent.mkdir(parents=True)
    memory.write_text("a file where the folder would be")
    load_clap(collapsed, device="cpu").embed_text(CAPTIONS)
    memory.unlink()
    memory.mkdir()
    clap = load_clap(collapsed, device="cpu")
    (memory / f"{clap.checkpoint_sha256}.json").write_text('{"text": "x"')
    clap.embed_text(CAPTIONS)
    assert caplog.text.count("has collapsed") == 1


def test_the_check_changes_no_number_and_no_generator_and_training_does_not_run_it(tmp_path, memory, monkeypatch):
    folder, clips = save_clap(tmp_path / "clap", fused=True), save_clips(tmp_path / "clips")
    clap = load_clap(folder, device="cpu", window="upstream", seed=3)
    clap.encode_text(clap.text_tokens(CAPTIONS)), clap.encode_audio(clap.audio_features(clips))
    assert not memory.exists()
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    checked = clap.embed_audio(clips), clap.embed_text(CAPTIONS)
    assert len(list(memory.iterdir())) == 1
    assert np.array_equal(before[0], np.random.get_state()[1]) and torch.equal(before[1], torch.get_rng_state())
    monkeypatch.setattr(health, "check", lambda *_: None)
    unchecked = load_clap(folder, device="cpu", window="upstream", seed=3)
    np.testing.assert_array_equal(unchecked.embed_audio(clips), checked[0])
    np.testing.assert_array_equal(unchecked.embed_text(CAPTIONS), checked[1])


def test_weights_that_give_no_numbers_count_as_collapsed(caplog, memory):
    nan = np.full((8, 4), np.nan)
    assert np.isnan(health.check("x", "0" * 64, "audio", lambda: nan))
    assert "the audio tower has collapsed" in caplog.text and not memory.exists()


def test_the_sounds_are_eight_the_same_each_time_and_unlike_each_other():
    sounds = health.sounds(16_000)
    assert [(sound.shape, sound.dtype) for sound in sounds] == [((32_000,), np.float32)] * 8
    assert all(np.array_equal(a, b) for a, b in zip(sounds, health.sounds(16_000), strict=True))
    assert all(0.49 < np.abs(sound).max() <= 0.5 for sound in sounds)
    assert np.abs(np.corrcoef(sounds) - np.eye(8)).max() < 0.9


def test_it_is_seen_on_the_command_line(collapsed, tmp_path):
    clip = save_clips(tmp_path / "clips")[0]
    (tmp_path / "pairs.csv").write_text(f"audio,text\n{clip},rain\n")
    command = [
        sys.executable,
        "-m",
        "humanclap",
        "score",
        "pairs.csv",
        "--clap",
        str(collapsed),
        "--out",
        "out.csv",
        "--quiet",
    ]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0 and "collapsed: the text tower has collapsed" in done.stderr, done.stderr
