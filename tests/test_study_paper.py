"""The paper profile's own parts: pre-flight, random crops against windows, scores of many checkpoints, the runner."""

from __future__ import annotations

import importlib

import nbformat
import numpy as np
import pandas as pd
import pytest

from clap_folders import save_clap, save_clips
from humanclap import study
from humanclap.study import runner


preflight_module = importlib.import_module("humanclap.study.preflight")  # the package has a function of that name


@pytest.fixture
def places(tmp_path, monkeypatch):
    for name, folder in (("RUNS", "runs"), ("DATA", "data")):
        monkeypatch.setenv(f"HUMANCLAP_{name}", str(tmp_path / folder))
    for name in ("HUMANCLAP_RELATE", "HUMANCLAP_CHECKPOINTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


# --- pre-flight ---


def test_what_is_missing_stands_with_the_command_that_brings_it(places, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(places / "hub"))
    check = study.preflight("paper", study.lineup("paper"))
    assert set(check.missing["command"]) - {""} == {
        f"humanclap fetch {name}" for name in ("relate", "relate-audio", "laion", "msclap", "human-clap")
    }
    with pytest.raises(study.StudyError, match="this run can't start:") as error:
        check.require()
    for name in ("scores/REL.csv", "CLAP_weights_2022.pth", "630k-audioset-fusion-best.pt", "humanclap fetch msclap"):
        assert name in str(error.value)


def test_files_of_ones_own_are_taken_as_they_are(places, monkeypatch):
    folder = places / "mine"
    (folder / "scores").mkdir(parents=True)
    (folder / "scores" / "REL.csv").touch()
    for name in ("laion-clapmodel", "human-clap-released"):
        (places / "own" / name).mkdir(parents=True)
    for name in ("laion-clap.pt", "msclap-2022.pth", "msclap-2023.pth"):
        (places / "own" / name).touch()
    monkeypatch.setenv("HUMANCLAP_RELATE", str(folder))
    monkeypatch.setenv("HUMANCLAP_CHECKPOINTS", str(places / "own"))
    check = study.preflight("paper", study.lineup("paper"))
    assert check.missing["need"].tolist() == ["RELATE_wave"]
    assert check.missing["command"].tolist() == ["humanclap fetch relate-audio"]


def test_a_small_disk_stops_the_run_and_says_how_to_go_on(places, monkeypatch):
    usage = type("Usage", (), {"free": 10**9})
    monkeypatch.setattr(preflight_module.shutil, "disk_usage", lambda folder: usage)
    lineup = study.Lineup({}, "none", "")
    check = study.preflight("paper", lineup)
    row = check.table.set_index("need").loc["disk"]
    assert row["state"] == "too small" and "HUMANCLAP_RUNS" in row["command"]
    demo = study.preflight("demo", lineup)
    assert demo.missing.empty and "estimate" not in str(demo) and "estimate" in str(check)


@pytest.mark.parametrize("gigabytes, doubt", [(80, False), (12, True)])
def test_a_small_gpu_is_told_and_not_refused(places, monkeypatch, gigabytes, doubt):
    import torch

    properties = type("Properties", (), {"total_memory": gigabytes * 10**9})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(preflight_module, "_matrix_rate", lambda device: 1e14)
    row = study.preflight("paper", study.Lineup({}, "none", "")).table.set_index("need").loc["GPU memory"]
    assert row["state"] == "here" and ("lower batch_size" in row["detail"]) == doubt and f"{gigabytes} GB" in row["detail"]


def test_the_estimate_grows_with_the_work_and_falls_with_the_speed(places, monkeypatch):
    lineup, hours = study.Lineup({}, "none", ""), []
    for rate, epochs, seeds in ((1e12, 50, 1), (1e12, 100, 1), (1e12, 50, 3), (2e12, 50, 1)):
        monkeypatch.setattr(preflight_module, "_matrix_rate", lambda device, rate=rate: rate)
        hours.append(study.preflight("paper", lineup, epochs=epochs, seeds=seeds).hours)
    assert hours[0] < hours[1] < hours[2] and hours[3] == pytest.approx(hours[0] / 2)
    # by hand: 5 losses x 50 epochs x 1,925 pairs x 0.05 TFLOP, and ten models that score 5,784 pairs twice
    flop = 5 * 50 * 1925 * 0.05e12 + 10 * 2 * 5784 * 15.2e9
    assert hours[0] == pytest.approx(flop / (0.35 * 1e12) / 3600)


# --- random crops ---


def test_the_effect_of_a_window_by_hand():
    clips = study.LongClips(["a", "b", "c"], ["x", "y", "z"], np.array([0.1, 0.5, 0.9]), "3 clips")
    scores = pd.DataFrame({"first": [0.1, 0.2, 0.3], "center": [0.2, 0.3, 0.4], "mean": [0.3, 0.2, 0.1]})
    scores = scores.assign(**{"crop 1": [0.1, 0.2, 0.3], "crop 2": [0.3, 0.2, 0.1]})
    effect = study.window_effect(scores, clips).set_index("policy")
    assert effect["srcc"].tolist() == [1, 1, -1, 0]
    assert effect.loc["random crop", ["srcc_low", "srcc_high", "draws", "n"]].tolist() == [-1, 1, 2, 3]
    assert effect["moved"].tolist() == pytest.approx([0, 0.1, 0.4 / 3, 0.4 / 3])
    unrated = study.LongClips(clips.paths, clips.texts, None, "")
    assert study.window_effect(scores, unrated)["srcc"].isna().all()


# --- scores of many checkpoints ---


def test_checkpoints_are_found_by_loss_and_seed_in_their_order(places):
    run = study.open_study("demo", "04_breakdowns")
    with pytest.raises(study.StudyError, match="no checkpoint of wsce.mse, .*03_human_clap_finetuning"):
        study.checkpoints(run)
    from humanclap.losses import KINDS

    for kind in KINDS:
        for seed in (0, 2, 10):
            run.path(f"human-clap/{kind}/seed{seed}/model").mkdir(parents=True)
    found = study.checkpoints(run)
    assert list(found) == [(kind, seed) for kind in KINDS for seed in (0, 2, 10)]
    other = study.open_study("demo", "04_breakdowns", rated_set="ratings.csv")
    assert study.checkpoints(other) == found  # those of the profile, wherever the tables go


@pytest.mark.parametrize("limit_bytes, reads", [(10**9, 6), (0, 12)])
def test_shared_features_are_made_once_and_change_no_score(tmp_path, monkeypatch, limit_bytes, reads):
    from humanclap.clap.huggingface import HuggingFaceClap
    from humanclap.clap.lazy import LazyClap
    from humanclap.score import score_pairs
    from humanclap.study.shared_features import SharedFeatures

    tiny_clap_folder, clips = save_clap(tmp_path / "tiny"), save_clips(tmp_path / "clips")
    texts = [f"sound number {i}" for i in range(len(clips))]
    alone = score_pairs(LazyClap(tiny_clap_folder), clips, texts, progress=False)
    calls, own = [], HuggingFaceClap.audio_features
    monkeypatch.setattr(HuggingFaceClap, "audio_features", lambda clap, paths: calls.append(paths) or own(clap, paths))
    shared = SharedFeatures(limit_bytes)
    for _ in range(2):  # two checkpoints with one front end
        scores = score_pairs(shared.through(LazyClap(tiny_clap_folder)), clips, texts, progress=False)
        assert (scores["status"] == "ok").all()
        np.testing.assert_allclose(scores["cosine"], alone["cosine"], atol=1e-6)
    assert len(calls) == reads


def test_the_blind_guess_becomes_a_model_with_one_row_a_pair():
    scores = pd.DataFrame({"model": ["m", "m", "b"], "training_seed": [0, 1, np.nan], "audio": "a", "text": "t"})
    scores = scores.assign(clap_score=[0.1, 0.2, 0.3], cosine=[0.1, 0.2, 0.3], blind=0.7)
    guess = study.with_blind(scores).query("model == 'blind'")
    assert guess["clap_score"].tolist() == [0.7] and guess[["training_seed", "cosine"]].isna().all(axis=None)
    assert study.with_blind(scores.drop(columns="blind")).equals(scores.drop(columns="blind"))


# --- the runner ---


@pytest.fixture
def small_notebooks(tmp_path, monkeypatch):
    """Two notebooks in the place of the project's: 01 writes a table, 02 fails with a StudyError."""
    folder = tmp_path / "notebooks"
    (folder / "profiles").mkdir(parents=True)
    (folder / "profiles" / "demo.yaml").write_text("profile: demo\nseed: 3\n", encoding="utf-8")
    begin = "from humanclap import study\nimport pandas as pd"
    save = (
        "run = study.open_study(profile, '01_writes', seed=seed, n_splits=n_splits)\n"
        "run.save_table(pd.DataFrame({'value': [seed, float(n_splits), None]}), '01_headline', 'synthetic')"
    )
    fail = "raise study.StudyError('no clips: bring them')"
    contents = {
        "01_writes": ("profile = 'demo'\nseed = 0\nn_splits = 10", begin, save),
        "02_fails": ("profile = 'demo'", begin, fail),
    }
    for name, sources in contents.items():
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
        notebook.cells[0].metadata["tags"] = ["parameters"]
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, folder / f"{name}.ipynb")
    monkeypatch.setattr(runner, "NOTEBOOKS", folder)
    return folder


def test_the_runner_hands_each_notebook_what_it_has_and_logs_its_tables(places, small_notebooks, capsys):
    log = study.run_notebooks("demo", ["01"], {"n_splits": 20})
    row = log.iloc[0]
    assert (row["notebook"], row["table"], row["rows"], row["empty_values"]) == ("01", "01_headline", 3, 1)
    table = pd.read_csv(places / "runs/demo/tables/01_headline.csv")
    assert table["value"].tolist()[:2] == [3, 20]  # the profile's seed, and the override
    assert (places / "runs/demo/01_writes.ipynb").is_file() and "== 01_writes" in capsys.readouterr().out


def test_a_failing_notebook_ends_in_its_message_and_loses_nothing_before_it(places, small_notebooks, capsys):
    from humanclap.study.__main__ import _main

    assert _main(["run", "demo"]) == 1
    said = capsys.readouterr()
    assert "StudyError: no clips: bring them" in said.err and "Traceback" not in said.err
    assert (places / "runs/demo/log.csv").is_file() and (places / "runs/demo/tables/01_headline.csv").is_file()
