"""Scoring many files: side by side, in bounded memory, resumed after a stop, and without opening the model."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from clap_folders import CAPTIONS, save_clap, save_clips

from humanclap import load_clap, score_pairs
from humanclap.audio import AudioError
from humanclap.clap import embedder
from humanclap.clap.fast_cpu import OneDnnLinear
from humanclap.pipeline import _in_flight


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


class AngleClap:
    """The protocol and no more: a "file" is an angle in degrees, "bad..." can't be read, captions point east."""

    name, checkpoint_sha256, sample_rate = "angles", "0" * 64, 1
    window, precision, device = "first", "fp32", "cpu"

    def __init__(self):
        self.calls = []

    def embed_audio(self, paths):
        self.calls.append(list(paths))
        for path in paths:
            if path.startswith("bad"):
                raise AudioError(path, "spoilt")
        angles = np.radians([float(path) for path in paths])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    def embed_text(self, texts):
        return np.tile(np.float32([1, 0]), (len(texts), 1))


class HalvesClap(AngleClap):
    """With the two halves, on a device that is no CPU: counts the features that are there at one time."""

    device = "elsewhere"

    def __init__(self, slow_model: bool = False):
        super().__init__()
        self.slow, self.alive, self.most, self.batches = slow_model, 0, 0, []
        self.lock = threading.Lock()

    def audio_features(self, paths):
        if paths[0].startswith("bad"):
            raise AudioError(paths[0], "spoilt")
        with self.lock:
            self.alive += 1
            self.most = max(self.most, self.alive)
        return {"angle": torch.tensor([float(paths[0])])}

    def embed_features(self, features):
        time.sleep(0.01 * self.slow)
        n = len(features["angle"])
        self.batches.append(n)
        with self.lock:
            self.alive -= n
        return super().embed_audio([str(angle) for angle in features["angle"].tolist()])

    def text_tokens(self, texts):
        return {"input_ids": torch.zeros(len(texts), max(map(len, texts)), dtype=torch.long)}

    def embed_tokens(self, tokens):
        return np.tile(np.float32([1, 0]), (len(tokens["input_ids"]), 1))


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


def test_64_clips_in_two_processes_have_the_same_scores(folder, clap, pairs, tmp_path):
    table = score_pairs(clap, *pairs, progress=False)
    order = np.random.default_rng(1).permutation(64)
    shuffled = pd.DataFrame({"audio": np.array(pairs[0], dtype=str)[order], "text": np.array(pairs[1])[order]})
    found = []
    for number, rows in enumerate((shuffled, shuffled.iloc[::-1])):  # two processes, at the same time
        rows.to_csv(tmp_path / f"{number}.csv", index=False)
        command = [sys.executable, "-m", "humanclap", "score", tmp_path / f"{number}.csv", "--clap", folder, "--quiet"]
        command += ["--no-cache", "--device", "cpu", "--batch-size", 7 + number, "--out", tmp_path / f"out{number}.csv"]
        found.append(subprocess.Popen(list(map(str, command))))
    assert [process.wait() for process in found] == [0, 0]
    first, second = (pd.read_csv(tmp_path / f"out{number}.csv")["cosine"].to_numpy() for number in (0, 1))
    np.testing.assert_allclose(first, table["cosine"].to_numpy()[order], atol=1e-6)
    np.testing.assert_allclose(second[::-1], first, atol=1e-6)


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


def test_captions_go_together_by_their_number_of_tokens():
    clap, widths = HalvesClap(), []
    own = clap.embed_tokens
    clap.embed_tokens = lambda tokens: widths.append(tuple(tokens["input_ids"].shape)) or own(tokens)
    texts = ["aa", "bbbb", "cc", "dddd", "ee", "aa"]
    score_pairs(clap, ["0"] * 6, texts, batch_size=2, progress=False)
    assert sorted(widths) == [(1, 2), (2, 2), (2, 4)]  # never two lengths, never more than two, "aa" once


def test_what_is_decoded_ahead_is_bounded():
    clap, n = HalvesClap(slow_model=True), 400
    table = score_pairs(clap, [str(i % 360 + i / 1000) for i in range(n)], ["east"] * n, batch_size=8, progress=False)
    angles = np.radians([i % 360 + i / 1000 for i in range(n)])
    np.testing.assert_allclose(table["cosine"], np.cos(angles), atol=1e-5)  # and nothing is mixed up
    assert clap.batches == [8] * 50
    assert 8 <= clap.most <= 3 * 8 + 16


def test_a_bad_file_does_not_cost_its_batch_on_any_way_through():
    paths = ["0", "bad 1", "60", "bad 2", "180"]
    for clap in (AngleClap(), HalvesClap()):
        table = score_pairs(clap, paths, ["east"] * 5, batch_size=5, progress=False)
        np.testing.assert_allclose(table["cosine"], [1, np.nan, 0.5, np.nan, -1], atol=1e-6)
        assert table["status"].tolist() == ["ok", "spoilt", "ok", "spoilt", "ok"]


def test_an_error_that_names_another_path_is_still_that_files():
    class Renaming(AngleClap):
        def embed_audio(self, paths):
            try:
                return super().embed_audio(paths)
            except AudioError as error:
                raise AudioError("/elsewhere/" + error.path, error.reason) from error

    table = score_pairs(Renaming(), ["0", "bad", "90"], ["east"] * 3, progress=False)
    assert table["status"].tolist() == ["ok", "spoilt", "ok"]


def test_an_upstream_window_gets_whole_batches_and_keeps_nothing(tmp_path):
    clap = AngleClap()
    clap.window = "upstream"
    paths = [str(angle) for angle in range(7)]
    for _ in range(2):
        score_pairs(clap, paths, ["east"] * 7, batch_size=4, cache_dir=tmp_path, progress=False)
    assert clap.calls == [paths[:4], paths[4:]] * 2


def test_no_more_calls_are_begun_than_allowed():
    begun, most, taken = [], 0, 0
    with ThreadPoolExecutor(4) as pool:
        for value in _in_flight(pool, lambda i: begun.append(i) or i, range(100), limit=6):
            assert value == taken
            most, taken = max(most, len(begun) - taken), taken + 1
    assert taken == 100 and 1 <= most <= 6


def test_an_error_of_the_model_comes_through(clap, pairs):
    class Broken(HalvesClap):
        device = "cpu"

        def embed_features(self, features):
            raise RuntimeError("out of memory")

    for broken in (Broken(), type("BrokenElsewhere", (Broken,), {"device": "elsewhere"})()):
        with pytest.raises(RuntimeError, match="out of memory"):
            score_pairs(broken, [str(i) for i in range(50)], ["east"] * 50, progress=False)


# --- resumed --------------------------------------------------------------------------------------------


def test_what_was_embedded_before_a_stop_is_not_embedded_again(tmp_path):
    class Stopping(HalvesClap):
        def embed_features(self, features):
            if len(self.batches) == 3:
                raise KeyboardInterrupt
            return super().embed_features(features)

    paths = []
    for angle in range(20):
        paths.append(str(tmp_path / f"{angle}"))
        (tmp_path / f"{angle}").write_text(str(angle))

    def by_content(clap):
        clap.audio_features = lambda paths, own=clap.audio_features: own([open(paths[0]).read()])
        return clap

    arguments = (paths, ["east"] * 20)
    with pytest.raises(KeyboardInterrupt):
        score_pairs(by_content(Stopping()), *arguments, batch_size=4, cache_dir=tmp_path / "cache", progress=False)
    rest = by_content(HalvesClap())
    table = score_pairs(rest, *arguments, batch_size=4, cache_dir=tmp_path / "cache", progress=False)
    assert sum(rest.batches) == 20 - 3 * 4
    np.testing.assert_allclose(table["cosine"], np.cos(np.radians(range(20))), atol=1e-6)


# --- opened only if need be -----------------------------------------------------------------------------


def test_with_everything_in_the_cache_no_weights_are_read(folder, clap, pairs, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    table = score_pairs(load_clap(folder, device="cpu"), *pairs, cache_dir=cache, progress=False)
    pd.testing.assert_frame_equal(table, score_pairs(clap, *pairs, progress=False), atol=1e-6)

    def refuse(*_, **__):
        raise AssertionError("the weights were read")

    monkeypatch.setattr(embedder, "read_weights", refuse)
    second = load_clap(folder, device="cpu")
    again = score_pairs(second, [*pairs[0], tmp_path / "none.wav"], [*pairs[1], "rain"], cache_dir=cache, progress=False)
    pd.testing.assert_frame_equal(again.iloc[:64], table)
    assert again["status"][64] == "file not found"  # no weights are read to refuse a file
    with pytest.raises(AssertionError, match="weights were read"):
        score_pairs(second, pairs[0][:1], ["a caption that is new"], cache_dir=cache, progress=False)


# --- oneDNN ---------------------------------------------------------------------------------------------


@torch.inference_mode()
def test_linear_layers_give_the_same_sums_through_one_dnn():
    generator = torch.Generator().manual_seed(0)
    for shape, n_out in (((1, 96), 96), ((3, 7, 96), 384), ((257, 384), 96), ((2, 5, 1, 768), 512)):
        x = torch.randn(shape, generator=generator)
        weight, bias = torch.randn(n_out, shape[-1], generator=generator), torch.randn(n_out, generator=generator)
        for own_bias in (bias, None):
            expected = F.linear(x.double(), weight.double(), None if own_bias is None else bias.double())
            with OneDnnLinear():
                found = F.linear(x, weight, own_bias)
                transposed = F.linear(x.transpose(0, -2).contiguous().transpose(0, -2), weight, own_bias)
            torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-5)
            torch.testing.assert_close(transposed, found)
            assert found.dtype == torch.float32


def test_one_dnn_stands_aside_where_it_does_not_belong(monkeypatch):
    from humanclap.clap import fast_cpu

    calls = []
    monkeypatch.setattr(fast_cpu, "_OPERATOR", lambda *arguments: calls.append(arguments))
    weight = torch.randn(96, 96)
    with OneDnnLinear():
        x = torch.randn(2, 96, requires_grad=True)
        F.linear(x, weight).sum().backward()  # a graph
        assert x.grad is not None
        with torch.inference_mode():
            F.linear(torch.randn(2, 96).double(), weight.double())  # another dtype
            F.linear(torch.randn(2, 8), torch.randn(8, 8), None)  # too small
            F.linear(torch.randn(0, 96), weight, None)  # nothing to do
            with torch.autocast("cpu", dtype=torch.bfloat16):
                assert F.linear(torch.randn(2, 96), weight, None).dtype == torch.bfloat16
            assert not calls
            F.linear(torch.randn(2, 96), weight, None)
            assert len(calls) == 1
