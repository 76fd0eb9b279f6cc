"""Scoring: every pair accounted for, equal numbers in any batch, order, thread or process, bounded memory, a sound cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from angle_clap import AngleClap, angle_files
from clap_folders import CAPTIONS, save_clap, save_clips

from humanclap import load_clap, score, score_pairs
from humanclap.clap import embedder

QUIET = {"progress": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_clap(tmp_path_factory.mktemp("claps") / "tiny")


@pytest.fixture(scope="module")
def clap(folder):
    return load_clap(folder, device="cpu")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """30 clips of different length with a caption each, and six of them with another, mixed up: 36 pairs."""
    root = tmp_path_factory.mktemp("clips")
    clips = [path for seed in range(5) for path in save_clips(root / str(seed), seed=seed)]
    clips += clips[:6]
    order = np.random.default_rng(3).permutation(36)
    return [clips[i] for i in order], [CAPTIONS[i % 5] for i in order]


def summary(capsys) -> str:
    """The last line that scoring has said."""
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("scored")][-1]


# --- the table ------------------------------------------------------------------------------------------


def test_scores_are_the_cosines_of_the_embeddings_row_by_row(clap, pairs):
    table = score_pairs(clap, *pairs, **QUIET)
    assert tuple(table.columns) == score.COLUMNS
    assert table["audio"].tolist() == [str(path) for path in pairs[0]] and table["text"].tolist() == pairs[1]
    expected = (clap.embed_audio(pairs[0]).astype(np.float64) * clap.embed_text(pairs[1])).sum(axis=1)
    np.testing.assert_allclose(table["cosine"], expected, atol=1e-6)
    assert (table["status"] == "ok").all() and table["cosine"].std() > 0.01
    facts = table[["model", "checkpoint_sha256", "window", "precision", "device"]].drop_duplicates()
    assert facts.values.tolist() == [["tiny", clap.checkpoint_sha256, "first", "fp32", "cpu"]]
    pd.testing.assert_frame_equal(score_pairs(clap, *pairs, **QUIET), table, check_exact=True)
    assert score_pairs(clap, [], [], **QUIET).dtypes["cosine"] == np.float64


def test_a_negative_cosine_is_kept_beside_a_score_of_zero(tmp_path):
    table = score_pairs(AngleClap(), angle_files(tmp_path, 0, 60, 90, 180), ["east"] * 4, **QUIET)
    np.testing.assert_allclose(table["cosine"], [1.0, 0.5, 0.0, -1.0], atol=1e-7)
    np.testing.assert_allclose(table["clap_score"], [1.0, 0.5, 0.0, 0.0], atol=1e-7)


def test_each_file_and_caption_is_embedded_once_however_it_is_written(tmp_path, monkeypatch):
    angle_files(tmp_path, 0, 60)
    monkeypatch.chdir(tmp_path)
    clap = AngleClap()
    table = score_pairs(clap, ["0", "./0", "1", "0"], ["rain", "rain ", " rain", "wind"], batch_size=4, **QUIET)
    assert sorted(clap.files) == ["0", "1"] and sorted(clap.captions) == ["rain", "wind"]
    assert table["audio"].tolist() == ["0", "./0", "1", "0"] and table["text"].tolist()[1] == "rain "
    np.testing.assert_allclose(table["cosine"], [1, 1, 0.5, 1], atol=1e-7)


def test_inputs_may_be_columns_of_a_filtered_table_and_results_go_by_position(tmp_path):
    table = pd.DataFrame({"audio": angle_files(tmp_path, 0, 60, 180), "text": "east"}, index=[2, 0, 2])
    scores = score_pairs(AngleClap(), table["audio"], table["text"], **QUIET)
    assert scores.index.tolist() == [0, 1, 2]
    np.testing.assert_allclose(scores["cosine"], [1, 0.5, -1], atol=1e-7)


# --- pairs without a score ------------------------------------------------------------------------------


def test_bad_files_have_a_reason_and_the_rest_is_scored(clap, pairs, tmp_path, capsys):
    """With the cache on: a pipe that is opened waits for ever, also for a checksum."""
    good = pairs[0][0]
    bad = {name: tmp_path / f"{name}.wav" for name in ("missing", "pipe", "nan")}
    os.mkfifo(bad["pipe"])
    soundfile.write(bad["nan"], np.full(16_000, np.nan), 16_000, subtype="FLOAT")
    paths = [good, *bad.values(), tmp_path, f"{tmp_path}/half \ud83d", f"{tmp_path}/a\0b", good]
    arguments = {"batch_size": 4, "cache_dir": tmp_path / "cache", "progress": False}
    table = score_pairs(clap, paths, ["rain"] * len(paths), **arguments)
    status = table["status"].tolist()
    expected = [
        "ok", "file not found", "not a file but a named pipe", "the samples hold NaN", "not a file but a folder",
        "no file can have this name", "no file can have this name", "ok",
    ]  # fmt: skip
    assert [found.startswith(start) for found, start in zip(status, expected, strict=True)] == [True] * len(paths)
    assert table[["cosine", "clap_score"]].isna().all(axis=1).tolist() == [found != "ok" for found in status]
    alone = score_pairs(clap, [good], ["rain"], **QUIET)["cosine"][0]
    np.testing.assert_allclose(table["cosine"][[0, len(paths) - 1]], alone, atol=1e-6)
    assert table.attrs["counts"]["ok"] == 2 and sum(table.attrs["counts"].values()) == len(paths)
    pd.testing.assert_frame_equal(score_pairs(clap, paths, ["rain"] * len(paths), **arguments), table)
    assert summary(capsys).startswith("scored 2 of 8 pairs with tiny; 6 not: ")


@pytest.mark.parametrize("settings", [{"device": "cpu"}, {"device": "elsewhere"}, {"window": "upstream"}])
def test_a_bad_file_does_not_cost_its_batch_on_any_way_through(tmp_path, settings):
    class Fragile(AngleClap):
        def audio_features(self, paths):
            if paths[0].endswith("4") and self.window != "upstream":
                raise RuntimeError("can't allocate\nmemory")
            return super().audio_features(paths)

    clap = Fragile()
    vars(clap).update(settings)
    paths = angle_files(tmp_path, 0, "bad", 60, "bad", 10 if clap.window == "first" else "bad", 180)
    table = score_pairs(clap, paths, ["east"] * 6, batch_size=6, **QUIET)
    np.testing.assert_allclose(table["cosine"], [1, np.nan, 0.5, np.nan, np.nan, -1], atol=1e-6)
    odd = "no features of it (RuntimeError: can't allocate memory)" if clap.window == "first" else "spoilt"
    assert table["status"].tolist() == ["ok", "spoilt", "ok", "spoilt", odd, "ok"]


def test_a_caption_with_half_a_character_is_its_rows_status(clap, pairs, tmp_path):
    for cache in (None, tmp_path):
        table = score_pairs(clap, [*pairs[0][:2], "none.wav"], ["rain", "rain \ud83d", "rain"], 32, cache, False)
        assert table["status"].tolist()[::2] == ["ok", "file not found"]
        assert table["status"][1].startswith("the caption holds half a character, '\\ud83d'")
        assert table["cosine"].isna().tolist() == [False, True, True]


def test_an_embedding_without_direction_is_no_score(tmp_path):
    class Broken(AngleClap):
        def embed_features(self, features):
            vectors = super().embed_features(features)
            vectors[features["angle"] == 10] = np.nan
            vectors[features["angle"] == 20] = 0.0
            return vectors

        def embed_tokens(self, tokens):
            return super().embed_tokens(tokens) * (tokens["input_ids"][:, :1].numpy() != ord("0"))

    paths = angle_files(tmp_path, 10, 20, 60, 60)
    table = score_pairs(Broken(), paths, ["east", "east", "0 is no direction", "east"], **QUIET)
    assert table["status"].tolist() == ["the embedding is zero or not finite"] * 3 + ["ok"]
    np.testing.assert_allclose(table["clap_score"], [np.nan] * 3 + [0.5], atol=1e-7)


def test_silence_is_scored_and_odd_clips_are_counted(clap, tmp_path, capsys):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000)
    odd = {"silence.wav": samples * 0, "loud.wav": samples * 32_768, "antiphase.wav": np.c_[samples, -samples]}
    for name, content in odd.items():
        soundfile.write(tmp_path / name, content, 16_000, subtype="FLOAT")
    table = score_pairs(clap, [tmp_path / name for name in odd], ["rain"] * 3, **QUIET)
    assert (table["status"] == "ok").all() and np.isfinite(table["cosine"]).all()
    assert set(table.attrs["notes"]) == {str(tmp_path / "loud.wav"), str(tmp_path / "antiphase.wav")}
    assert summary(capsys) == "scored 3 of 3 pairs with tiny; 2 clip(s) scored with a warning, see above"


def test_bad_arguments_are_refused(clap, pairs):
    for path in ("", float("nan")):
        with pytest.raises(ValueError, match="row 1: the audio path is"):
            score_pairs(clap, ["dog.wav", path], ["A dog barks"] * 2, **QUIET)
    with pytest.raises(TypeError, match="audio_paths is one str"):
        score_pairs(clap, "dog.wav", ["A dog barks"])
    for batch_size in (0, 2.5, True):
        with pytest.raises(ValueError, match="batch_size"):
            score_pairs(clap, *pairs, batch_size=batch_size)


# --- batches, threads, memory ---------------------------------------------------------------------------


def test_any_batch_order_and_number_of_threads_give_equal_scores_and_leave_torch_as_it_was(clap, pairs):
    def settings():
        flags = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.enabled, torch.is_grad_enabled()
        return (*flags, torch.is_inference_mode_enabled())

    table, order = score_pairs(clap, *pairs, **QUIET), np.random.default_rng(0).permutation(36)
    shuffled = [[values[i] for i in order] for values in pairs]
    before, state, threads = settings(), torch.get_rng_state(), torch.get_num_threads()
    try:
        for batch_size, n_threads in ((1, 2), (5, 3), (36, 1)):
            torch.set_num_threads(n_threads)
            other = score_pairs(clap, *shuffled, batch_size=batch_size, **QUIET)
            np.testing.assert_allclose(other["cosine"], table["cosine"][order], atol=1e-6)
            with ThreadPoolExecutor(1) as pool:  # a thread that is born after it
                assert pool.submit(torch.get_num_threads).result() == torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(threads)
    assert settings() == before and torch.equal(torch.get_rng_state(), state)


def test_captions_go_together_by_their_number_of_tokens(tmp_path):
    clap, shapes = AngleClap("elsewhere"), []
    clap.embed_tokens = lambda tokens, own=clap.embed_tokens: (
        shapes.append(tuple(tokens["input_ids"].shape)) or own(tokens)
    )
    score_pairs(clap, angle_files(tmp_path, 0) * 6, ["aa", "bbbb", "cc", "dddd", "ee", "aa"], batch_size=2, **QUIET)
    assert sorted(shapes) == [(1, 2), (2, 2), (2, 4)]  # never two lengths, never more than two, "aa" once


def test_what_is_decoded_ahead_is_bounded(tmp_path):
    clap, angles = AngleClap("elsewhere", seconds_per_batch=0.01), np.arange(400) % 360 + np.arange(400) / 1000
    table = score_pairs(clap, angle_files(tmp_path, *angles), ["east"] * 400, batch_size=8, **QUIET)
    np.testing.assert_allclose(table["cosine"], np.cos(np.radians(angles)), atol=1e-6)  # and nothing is mixed up
    assert clap.batches == [8] * 50
    assert 8 <= clap.most_alive <= 3 * 8 + 16


def test_an_upstream_window_gets_whole_batches_and_keeps_nothing(tmp_path):
    clap, paths = AngleClap(), [str(path) for path in angle_files(tmp_path / "clips", *range(7))]
    clap.window, calls = "upstream", []
    clap.embed_audio = lambda paths, own=clap.embed_audio: calls.append(list(paths)) or own(paths)
    for _ in range(2):
        score_pairs(clap, paths, ["east"] * 7, batch_size=4, cache_dir=tmp_path / "cache", **QUIET)
    assert calls == [paths[:4], paths[4:]] * 2


@pytest.mark.parametrize("device", ["cpu", "elsewhere"])
def test_an_error_of_the_model_comes_through(tmp_path, device):
    class Broken(AngleClap):
        def embed_features(self, features):
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        score_pairs(Broken(device), angle_files(tmp_path, *range(50)), ["east"] * 50, **QUIET)


# --- the cache ------------------------------------------------------------------------------------------


def test_a_second_call_computes_nothing_and_gives_the_same_table(tmp_path):
    arguments = (angle_files(tmp_path / "clips", *range(0, 180, 10)), [f"east {i % 5}" for i in range(18)])
    first = score_pairs(AngleClap(), *arguments, cache_dir=tmp_path / "cache", **QUIET)
    pd.testing.assert_frame_equal(first, score_pairs(AngleClap(), *arguments, **QUIET))
    second = AngleClap()
    again = score_pairs(second, *arguments, cache_dir=tmp_path / "cache", **QUIET)
    pd.testing.assert_frame_equal(again, first, check_exact=True)
    assert not second.files and not second.captions


def test_the_cache_goes_by_content_and_not_by_name(tmp_path):
    paths, clap = angle_files(tmp_path, 0, 60), AngleClap()
    arguments = {"cache_dir": tmp_path / "cache", "progress": False}
    score_pairs(clap, paths[:1], ["east"], **arguments)
    shutil.copy(paths[0], tmp_path / "renamed")
    assert score_pairs(clap, [tmp_path / "renamed"], ["east"], **arguments)["cosine"][0] == 1 and len(clap.files) == 1
    os.utime(paths[1], ns=(paths[0].stat().st_mtime_ns,) * 2)
    shutil.copy2(paths[1], paths[0])  # another content with the same name, size and time
    assert score_pairs(clap, paths[:1], ["east"], **arguments)["cosine"][0] == pytest.approx(0.5)
    assert score_pairs(clap, [tmp_path / "late"], ["east"], **arguments)["status"][0] == "file not found"
    shutil.copy(paths[1], tmp_path / "late")  # what fails is not kept
    assert score_pairs(clap, [tmp_path / "late"], ["east"], **arguments)["status"][0] == "ok"


def test_no_clip_is_cached_under_a_checksum_that_its_decoded_bytes_do_not_have(tmp_path):
    class Racing(AngleClap):
        """Another program writes the clip between its checksum and its decoding."""

        def audio_features(self, paths):
            if self.angles:
                path.write_text(str(self.angles.pop()))
            return super().audio_features(paths)

    [path] = angle_files(tmp_path / "clips", 0)
    racing, arguments = Racing(), {"cache_dir": tmp_path / "cache", "progress": False}
    racing.angles = [60]
    assert score_pairs(racing, [path], ["east"], **arguments)["cosine"][0] == pytest.approx(0.5)
    path.write_text("0")
    assert score_pairs(AngleClap(), [path], ["east"], **arguments)["cosine"][0] == 1
    racing.angles = [30, 31, 32, 33, 34]
    path.write_text("180")
    assert "changes while it is read" in score_pairs(racing, [path], ["east"], **arguments)["status"][0]


def test_other_weights_windows_and_precisions_have_their_own_entries(folder, clap, pairs, tmp_path):
    claps = [
        clap,
        load_clap(save_clap(tmp_path / "retrained", seed=1), device="cpu"),
        load_clap(folder, device="cpu", window="center"),
        load_clap(folder, device="cpu", precision="bf16"),
        load_clap(save_clap(tmp_path / "other mels", frequency_min=0), device="cpu"),
    ]
    assert claps[4].checkpoint_sha256 == clap.checkpoint_sha256  # the preprocessor alone differs
    for one in claps:
        fresh = score_pairs(one, *pairs, **QUIET)
        pd.testing.assert_frame_equal(score_pairs(one, *pairs, cache_dir=tmp_path / "cache", **QUIET), fresh)


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


def test_a_resumed_run_is_within_1e6_and_reads_no_weights_where_all_is_cached(
    folder, clap, pairs, tmp_path, monkeypatch
):
    """Batches are made up differently where some clips are in the cache already."""
    straight = score_pairs(clap, *pairs, **QUIET)
    score_pairs(clap, pairs[0][::3], pairs[1][::3], cache_dir=tmp_path, **QUIET)
    resumed = score_pairs(clap, *pairs, cache_dir=tmp_path, **QUIET)
    np.testing.assert_allclose(resumed["cosine"], straight["cosine"], atol=1e-6)

    def refuse(*_, **__):
        raise AssertionError("the weights were read")

    monkeypatch.setattr(embedder, "read_weights", refuse)
    fresh = load_clap(folder, device="cpu")
    again = score_pairs(fresh, [*pairs[0], tmp_path / "none.wav"], [*pairs[1], "rain"], cache_dir=tmp_path, **QUIET)
    pd.testing.assert_frame_equal(again.iloc[:36], resumed, check_exact=True)
    assert again["status"][36] == "file not found"  # no weights are read to refuse a file
    with pytest.raises(AssertionError, match="weights were read"):
        score_pairs(fresh, pairs[0][:1], ["a caption that is new"], cache_dir=tmp_path, **QUIET)


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


def launch(folder, paths, texts, tmp_path, **environment) -> subprocess.CompletedProcess:
    """The command line under torchrun, in two processes that count what they embed; it writes out.csv."""
    (tmp_path / "command.py").write_text(COMMAND)
    pd.DataFrame({"audio": paths, "text": texts}).to_csv(tmp_path / "pairs.csv", index=False)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, tmp_path / "command.py", "score", tmp_path / "pairs.csv", "--clap", folder, "--quiet"]
    command += ["--cache", tmp_path / "cache", "--out", tmp_path / "out.csv", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COUNTS": str(tmp_path / "counts"), **environment}
    return subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=300)


def test_two_processes_each_embed_their_part_and_make_the_table_of_one(folder, clap, tmp_path):
    clips = [path for seed in range(4) for path in save_clips(tmp_path / str(seed), seed=seed)][:20]
    paths, texts = (
        [*clips, tmp_path / "none.wav", clips[0]],
        [CAPTIONS[i % 5] for i in range(20)] + ["rain", "Birds sing"],
    )
    done, alone = launch(folder, paths, texts, tmp_path), score_pairs(clap, paths, texts, **QUIET)
    table = pd.read_csv(tmp_path / "out.csv", keep_default_na=False, na_values={"cosine": [""]})
    np.testing.assert_allclose(table["cosine"], alone["cosine"], atol=1e-6)
    assert table["status"].tolist() == ["ok"] * 20 + ["file not found", "ok"] == alone["status"].tolist()
    counts = [tuple(map(int, (tmp_path / f"counts-{rank}").read_text().split())) for rank in (0, 1)]
    assert sorted(counts) == [(10, 2), (10, 3)]  # 21 clips, of which one can't be read, and 5 captions
    assert done.returncode != 0 and done.stdout.count("21 of 22 pairs scored") == 1  # once, by the main process
    assert done.stderr.count("scored 21 of 22 pairs with tiny") == 1


def test_a_process_that_dies_does_not_leave_the_other_waiting(folder, pairs, tmp_path):
    done = launch(folder, pairs[0][:8], "rain", tmp_path, RANK_THAT_DIES="1")
    assert done.returncode != 0 and not (tmp_path / "out.csv").exists()
