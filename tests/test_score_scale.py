"""Scoring many files: side by side, in bounded memory, resumed after a stop, and over several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from angle_clap import AngleClap, angle_files
from clap_folders import CAPTIONS, save_clap, save_clips

from humanclap import load_clap, score_pairs
from humanclap.clap import embedder
from humanclap.score import _in_flight, score_as_launched


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_clap(tmp_path_factory.mktemp("claps") / "tiny")


@pytest.fixture(scope="module")
def clap(folder):
    return load_clap(folder, device="cpu")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """64 clips of different length, and a caption for each."""
    root = tmp_path_factory.mktemp("clips")
    clips = [path for seed in range(11) for path in save_clips(root / str(seed), seed=seed)][:64]
    return clips, [CAPTIONS[i % 5] for i in range(64)]


# --- batches, threads, memory ---------------------------------------------------------------------------


def test_64_clips_in_any_batch_order_and_number_of_threads(clap, pairs):
    table = score_pairs(clap, *pairs, progress=False)
    expected = (clap.embed_audio(pairs[0]).astype(np.float64) * clap.embed_text(pairs[1])).sum(axis=1)
    np.testing.assert_allclose(table["cosine"], expected, atol=1e-6)
    assert table["cosine"].std() > 0.01
    order = np.random.default_rng(0).permutation(64)
    shuffled = [[values[i] for i in order] for values in pairs]
    before = torch.get_num_threads()
    try:
        for batch_size, n_threads in ((1, 2), (5, 3), (64, 1)):
            torch.set_num_threads(n_threads)
            other = score_pairs(clap, *shuffled, batch_size=batch_size, progress=False)
            np.testing.assert_allclose(other["cosine"], table["cosine"][order], atol=1e-6)
            assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)


def test_torchs_settings_are_left_as_they_were(clap, pairs):
    def settings():
        flags = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.enabled, torch.is_grad_enabled()
        return (*flags, torch.get_num_threads(), torch.is_inference_mode_enabled())

    before, state = settings(), torch.get_rng_state()
    for _ in range(3):
        score_pairs(clap, *pairs, batch_size=1, progress=False)
    assert settings() == before and torch.equal(torch.get_rng_state(), state)
    with ThreadPoolExecutor(1) as pool:  # a thread that is born after it
        assert pool.submit(torch.get_num_threads).result() == torch.get_num_threads()


def test_captions_go_together_by_their_number_of_tokens(tmp_path):
    clap, shapes = AngleClap("elsewhere"), []
    clap.embed_tokens = lambda tokens, own=clap.embed_tokens: (
        shapes.append(tuple(tokens["input_ids"].shape)) or own(tokens)
    )
    texts = ["aa", "bbbb", "cc", "dddd", "ee", "aa"]
    score_pairs(clap, angle_files(tmp_path, 0) * 6, texts, batch_size=2, progress=False)
    assert sorted(shapes) == [(1, 2), (2, 2), (2, 4)]  # never two lengths, never more than two, "aa" once


def test_what_is_decoded_ahead_is_bounded(tmp_path):
    clap, angles = AngleClap("elsewhere", seconds_per_batch=0.01), np.arange(400) % 360 + np.arange(400) / 1000
    table = score_pairs(clap, angle_files(tmp_path, *angles), ["east"] * 400, batch_size=8, progress=False)
    np.testing.assert_allclose(table["cosine"], np.cos(np.radians(angles)), atol=1e-6)  # and nothing is mixed up
    assert clap.batches == [8] * 50
    assert 8 <= clap.most_alive <= 3 * 8 + 16


@pytest.mark.parametrize("settings", [{"device": "cpu"}, {"device": "elsewhere"}, {"window": "upstream"}])
def test_a_bad_file_does_not_cost_its_batch_on_any_way_through(tmp_path, settings):
    clap = AngleClap()
    vars(clap).update(settings)
    paths = angle_files(tmp_path, 0, "bad", 60, "bad", 180)
    table = score_pairs(clap, paths, ["east"] * 5, batch_size=5, progress=False)
    np.testing.assert_allclose(table["cosine"], [1, np.nan, 0.5, np.nan, -1], atol=1e-6)
    assert table["status"].tolist() == ["ok", "spoilt", "ok", "spoilt", "ok"]


def test_an_upstream_window_gets_whole_batches_and_keeps_nothing(tmp_path):
    clap, paths = AngleClap(), [str(path) for path in angle_files(tmp_path / "clips", *range(7))]
    clap.window, calls = "upstream", []
    clap.embed_audio = lambda paths, own=clap.embed_audio: calls.append(list(paths)) or own(paths)
    for _ in range(2):
        score_pairs(clap, paths, ["east"] * 7, batch_size=4, cache_dir=tmp_path / "cache", progress=False)
    assert calls == [paths[:4], paths[4:]] * 2


def test_no_more_calls_are_begun_than_allowed():
    begun, most, taken = [], 0, 0
    with ThreadPoolExecutor(4) as pool:
        for value in _in_flight(pool, lambda i: begun.append(i) or i, range(100), limit=6):
            assert value == taken
            most, taken = max(most, len(begun) - taken), taken + 1
    assert taken == 100 and 1 <= most <= 6


@pytest.mark.parametrize("device", ["cpu", "elsewhere"])
def test_an_error_of_the_model_comes_through(tmp_path, device):
    class Broken(AngleClap):
        def embed_features(self, features):
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        score_pairs(Broken(device), angle_files(tmp_path, *range(50)), ["east"] * 50, progress=False)


# --- resumed --------------------------------------------------------------------------------------------


def test_what_was_embedded_before_a_stop_is_not_embedded_again(tmp_path):
    class Stopping(AngleClap):
        def embed_features(self, features):
            if len(self.batches) == 3:
                raise KeyboardInterrupt
            return super().embed_features(features)

    arguments = (angle_files(tmp_path / "clips", *range(20)), ["east"] * 20)
    settings = {"batch_size": 4, "cache_dir": tmp_path / "cache", "progress": False}
    with pytest.raises(KeyboardInterrupt):
        score_pairs(Stopping("elsewhere"), *arguments, **settings)
    rest = AngleClap("elsewhere")
    table = score_pairs(rest, *arguments, **settings)
    assert sum(rest.batches) == 20 - 3 * 4
    np.testing.assert_allclose(table["cosine"], np.cos(np.radians(range(20))), atol=1e-6)


def test_a_resumed_run_differs_from_a_straight_one_by_less_than_1e6(clap, pairs, tmp_path):
    """Batches are made up differently where some clips are in the cache already."""
    straight = score_pairs(clap, *pairs, progress=False)
    score_pairs(clap, pairs[0][::3], pairs[1][::3], cache_dir=tmp_path, progress=False)
    resumed = score_pairs(clap, *pairs, cache_dir=tmp_path, progress=False)
    np.testing.assert_allclose(resumed["cosine"], straight["cosine"], atol=1e-6)
    pd.testing.assert_frame_equal(
        score_pairs(clap, *pairs, cache_dir=tmp_path, progress=False), resumed, check_exact=True
    )


# --- over processes -------------------------------------------------------------------------------------

COMMAND = """
import os, signal, sys
from pathlib import Path
from humanclap import cli
from humanclap.clap.embedder import Embedder

rank, counts, own = os.environ["RANK"], {"clips": 0, "captions": 0}, {}
for name, kind in (("embed_features", "clips"), ("embed_tokens", "captions")):
    def counting(clap, batch, name=name, kind=kind):
        if kind == "clips" and rank == os.environ.get("RANK_THAT_DIES"):
            os.kill(os.getpid(), signal.SIGKILL)
        counts[kind] += len(next(iter(batch.values())))
        return own[name](clap, batch)
    own[name] = getattr(Embedder, name)
    setattr(Embedder, name, counting)
status = cli.main(sys.argv[1:])
Path(f"{os.environ['COUNTS']}-{rank}").write_text(f"{counts['clips']} {counts['captions']}")
sys.exit(status)
"""


def launch(tmp_path, *arguments, **environment) -> subprocess.CompletedProcess:
    """The command line under torchrun, in two processes that count what they embed."""
    (tmp_path / "command.py").write_text(COMMAND)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, tmp_path / "command.py", "score", *arguments, "--quiet", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COUNTS": str(tmp_path / "counts"), **environment}
    return subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=300)


def test_two_processes_each_embed_their_part_and_make_the_table_of_one(folder, clap, pairs, tmp_path):
    paths, texts = [*pairs[0][:20], tmp_path / "none.wav", pairs[0][0]], [*pairs[1][:20], "rain", "Birds sing"]
    pd.DataFrame({"audio": paths, "text": texts}).to_csv(tmp_path / "pairs.csv", index=False)
    arguments = [tmp_path / "pairs.csv", "--clap", folder, "--cache", tmp_path / "cache", "--out", tmp_path / "out.csv"]
    done = launch(tmp_path, *arguments)
    alone = score_pairs(clap, paths, texts, progress=False)
    table = pd.read_csv(tmp_path / "out.csv", keep_default_na=False, na_values={"cosine": [""]})
    np.testing.assert_allclose(table["cosine"], alone["cosine"], atol=1e-6)
    assert table["status"].tolist() == ["ok"] * 20 + ["file not found", "ok"] == alone["status"].tolist()
    counts = [tuple(map(int, (tmp_path / f"counts-{rank}").read_text().split())) for rank in (0, 1)]
    assert sorted(counts) == [(10, 2), (10, 3)]  # 21 clips, of which one can't be read, and 5 captions
    assert done.returncode != 0 and done.stdout.count("21 of 22 pairs scored") == 1  # once, by the main process
    assert done.stderr.count("scored 21 of 22 pairs with tiny") == 1


def test_a_process_that_dies_does_not_leave_the_other_waiting(folder, pairs, tmp_path):
    pd.DataFrame({"audio": pairs[0][:8], "text": "rain"}).to_csv(tmp_path / "pairs.csv", index=False)
    arguments = [tmp_path / "pairs.csv", "--clap", folder, "--cache", tmp_path / "cache", "--out", tmp_path / "out.csv"]
    done = launch(tmp_path, *arguments, RANK_THAT_DIES="1")
    assert done.returncode != 0 and not (tmp_path / "out.csv").exists()


def test_several_processes_need_a_cache_to_hand_over_their_embeddings(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="leave --no-cache out"):
        score_as_launched(AngleClap, ["a.wav"], ["rain"])


# --- weights are read only if need be -----------------------------------------------------------------


def test_with_everything_in_the_cache_no_weights_are_read(folder, clap, pairs, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    table = score_pairs(load_clap(folder, device="cpu"), *pairs, cache_dir=cache, progress=False)
    pd.testing.assert_frame_equal(table, score_pairs(clap, *pairs, progress=False), atol=1e-6)

    def refuse(*_, **__):
        raise AssertionError("the weights were read")

    monkeypatch.setattr(embedder, "read_weights", refuse)
    second = load_clap(folder, device="cpu")
    again = score_pairs(
        second, [*pairs[0], tmp_path / "none.wav"], [*pairs[1], "rain"], cache_dir=cache, progress=False
    )
    pd.testing.assert_frame_equal(again.iloc[:64], table)
    assert again["status"][64] == "file not found"  # no weights are read to refuse a file
    with pytest.raises(AssertionError, match="weights were read"):
        score_pairs(second, pairs[0][:1], ["a caption that is new"], cache_dir=cache, progress=False)
