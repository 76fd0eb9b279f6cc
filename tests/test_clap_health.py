"""The health check: a collapsed tower is named with its number, once, and the result is remembered by checksum."""

from __future__ import annotations

import json

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
    monkeypatch.setattr(health, "_warned", set())
    return tmp_path / "cache" / "humanclap" / "health"


@pytest.fixture
def collapsed(tmp_path):
    """A model whose text tower gives one vector for everything, as `laion/larger_clap_music` on the hub."""
    clap = load_clap(save_clap(tmp_path / "whole"), device="cpu")
    with torch.no_grad():
        clap.model.text_projection.linear2.weight.mul_(1e-6)
    return save_clapmodel(tmp_path / "collapsed", clap.model, clap.front_end_parts)


def test_a_collapsed_tower_is_named_with_its_number_and_remembered(collapsed, tmp_path, caplog, memory, monkeypatch):
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
    monkeypatch.setattr(health, "_warned", set())  # as in another process, which warns without computing
    health.check("x", clap.checkpoint_sha256, "text", lambda: pytest.fail("computed again"))
    assert caplog.text.count("has collapsed") == 2


def test_a_memory_that_is_spoilt_or_can_not_be_written_is_no_error(collapsed, memory, caplog, monkeypatch):
    memory.parent.mkdir(parents=True)
    memory.write_text("a file where the folder would be")
    load_clap(collapsed, device="cpu").embed_text(CAPTIONS)
    memory.unlink()
    memory.mkdir()
    clap = load_clap(collapsed, device="cpu")
    (memory / f"{clap.checkpoint_sha256}.json").write_text('{"text": "x"')
    monkeypatch.setattr(health, "_warned", set())
    clap.embed_text(CAPTIONS)
    assert caplog.text.count("has collapsed") == 2


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
    assert np.abs(np.corrcoef(sounds) - np.eye(8)).max() < 0.9
