"""`humanclap finetune`: tables of ratings read strictly, trained on, and what it says at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from finetune_small import make_clap, make_corpus

from humanclap import evaluate, relate, score_pairs
from humanclap.clap import load_clap
from humanclap.cli import main
from humanclap.finetune import FinetuneConfig, finetune, read_pairs, split_pairs
from humanclap.tables import TableError

PROJECT = Path(__file__).resolve().parent.parent
HEAD = "audio,text,rating,listener,system,split\n"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with 48 clips, the table that `humanclap screen` could have written, and a base."""
    root = tmp_path_factory.mktemp("corpus")
    pairs = make_corpus(root)
    pairs["text"] = [f"{text} twice" if i % 5 else text for i, text in enumerate(pairs["text"])]
    pairs["system"] = ["natural", "tango", "audioldm"] * 16
    pairs.to_csv(root / "pairs.csv", index=False)
    make_clap(root / "clap", pairs["text"])
    return root


def arguments(place: Path, table: Path, out: Path, *more: str) -> list[str]:
    settings = ["--base", str(place / "clap"), "--device", "cpu", "--epochs", "2", "--learning-rate", "1e-3", "--quiet"]
    return ["finetune", str(table), "--audio-root", str(place), "--out", str(out), *settings, *more]


# --- reading --------------------------------------------------------------------------------------------


def read(tmp_path, text, **options):
    (tmp_path / "ratings.csv").write_text(text)
    return read_pairs(tmp_path / "ratings.csv", **options)


def test_ratings_of_a_pair_are_averaged_and_text_stays_text(tmp_path):
    rows = "./a.wav, None ,1,l1,natural,train\na.wav,None,4,l2,natural,train\nb.wav,NA,5,l1,007,test\n"
    pairs, notes = read(tmp_path, HEAD + rows, scale=(1, 5))
    assert pairs.to_dict("list") == {
        "audio": ["a.wav", "b.wav"], "text": ["None", "NA"], "n_ratings": [2, 1], "target": [0.375, 1.0],
        "system": ["natural", "007"], "split": ["train", "test"],
    }  # fmt: skip
    assert notes == ["3 ratings of 2 pairs were averaged"]
    pairs, notes = read(tmp_path, "audio,text,rating\na.wav,A dog,7\n")
    assert pairs["target"].tolist() == [0.7] and list(pairs.columns) == ["audio", "text", "n_ratings", "target"]


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("audio,text\na,b\n", {}, "line 1: no column 'rating'"),
        ("audio,text,rating\n", {}, "has a header and no ratings"),
        (HEAD + "a.wav,A dog,11,l1,natural,train\n", {}, "line 2, column 'rating': '11'.*0 to 10 here.*--scale 1 5"),
        (HEAD + "a.wav,A dog,nan,l1,natural,train\n", {}, "'nan' is not allowed"),
        (HEAD + "a.wav,A dog,6,l1,natural,train\n", {"scale": (1, 5)}, "'6' is not allowed; rating runs from 1 to 5"),
        (HEAD + "a.wav,A dog,1,l1,natural,train\n", {"scale": (5, 1)}, "the scale 5 1 must run from the lowest"),
        ("audio,text,target\na.wav,A dog,7\n", {}, "target runs from 0 to 1"),
        ("audio,text,target\na.wav,A dog,1\n", {"scale": (1, 5)}, "a scale goes with a column 'rating'"),
        (HEAD + "a.wav,,1,l1,natural,train\n", {}, "column 'text'.*a caption must not be empty"),
        (HEAD + "../a.wav,A dog,1,l1,natural,train\n", {}, "stay below it"),
        (HEAD + "a.wav,A dog,1,l1,natural,valid\n", {}, "'valid' is not allowed; split is one of train, validation, test"),
        (HEAD + "a.wav,A dog,1,l1,natural,train\na.wav,A dog,2,l1,natural,train\n", {}, "line 3, column 'listener': 'l1' has"),
        (HEAD + "a.wav,A dog,1,l1,natural,train\na.wav,A dog,2,l2,tango,train\n", {}, "line 3, column 'system': 'tango' is not"),
        (HEAD + "a.wav,A dog,1,l1,natural,train\na.wav,A dog,2,l2,natural,test\n", {}, "line 3, column 'split': 'test' is not"),
        (HEAD + "1,a.wav,A dog,1,l1,natural,train\n", {}, "line 2: 7 fields where the header has 6"),
        ("wav_name,text,score\na,b,1\n", {}, "RELATE's format: humanclap screen makes pairs"),
    ],
)  # fmt: skip
def test_a_table_that_can_not_be_used_is_refused_with_its_line(tmp_path, text, options, says):
    with pytest.raises(TableError, match=says):
        read(tmp_path, text, **options)


@pytest.mark.parametrize("by", ["caption", "pair"])
def test_pairs_are_split_as_the_settings_say_and_no_test_pair_trains(by):
    split = ["train"] * 40 + ["test"] * 8
    pairs = pd.DataFrame({"audio": map(str, range(48)), "text": [str(i // 3) for i in range(48)], "split": split})
    config = FinetuneConfig(n_train=30, split_by=by, split_seed=4, seed=9)
    expected = relate.split_train_validation(pairs, n_train=30, by=by, seed=4)
    for ours, theirs in zip(split_pairs(pairs, config), expected, strict=True):
        pd.testing.assert_frame_equal(ours, theirs)
    marked = pairs.assign(split=["train"] * 20 + ["validation"] * 20 + ["test"] * 8)
    train, validation = split_pairs(marked, config)
    assert train["audio"].tolist() == [str(i) for i in range(20)]
    assert validation["audio"].tolist() == [str(i) for i in range(20, 40)]
    with pytest.raises(ValueError, match="no pair has the split 'train'"):
        split_pairs(marked[20:], config)


# --- the command ----------------------------------------------------------------------------------------


def test_it_trains_what_finetune_trains_and_says_what_that_reached(place, tmp_path, capsys):
    (tmp_path / "settings.yaml").write_text("kind: mse\nbatch_size: 6\ndropout: false\nseed: 5\nn_train: 24\n")
    more = ("--config", str(tmp_path / "settings.yaml"), "--seed", "3", "--cache", str(tmp_path / "cache"))
    command = arguments(place, place / "pairs.csv", tmp_path / "cli", *more)
    assert main(command) == 0
    said = capsys.readouterr().out
    config = FinetuneConfig(
        kind="mse", batch_size=6, dropout=False, seed=3, epochs=2, learning_rate=1e-3, n_train=24,
        base=str(place / "clap"),
    )  # fmt: skip
    train, validation = split_pairs(pd.read_csv(place / "pairs.csv"), config)
    result = finetune(config, train, validation, place, tmp_path / "api", device="cpu", progress=False)
    for name in ("history.csv", "validation.csv", "model/model.safetensors"):
        assert (tmp_path / "cli" / name).read_bytes() == (tmp_path / "api" / name).read_bytes()
    assert json.loads((tmp_path / "cli" / "settings.json").read_text())["config"] == asdict(config)
    # The report: SRCC before and after from the models themselves, intervals and floor from `evaluate`.
    found = []
    for folder in (place / "clap", tmp_path / "cli" / "model"):
        paths = [place / name for name in validation["audio"]]
        scores = score_pairs(load_clap(folder, device="cpu"), paths, validation["text"].tolist(), progress=False)
        found.append(evaluate.bootstrap_correlations(scores["clap_score"], validation["target"], validation["text"]))
    shown = [f"{one.estimate.srcc:.3f} [{one.low.srcc:.3f}, {one.high.srcc:.3f}]" for one in found]
    assert f"validation SRCC of the base {shown[0]}, fine-tuned {shown[1]} (95 % intervals" in said
    floors = evaluate.blind_baselines(train, validation).query("subset == 'all'")
    assert f"floor {floors['srcc'].max():.3f}: " in said and "never hears the audio" in said
    assert f"epoch {result.best_epoch} of 2 has the lowest validation loss" in said
    assert "24 pairs train, 24 validate" in said
    card = (tmp_path / "cli" / "model" / "README.md").read_text()
    assert "the ratings of pairs.csv" in card and "validation SRCC of the base" in card
    # The command that it prints does score.
    line = next(line for line in said.splitlines() if line.startswith("score with it: humanclap "))
    assert (
        main([*line.removeprefix("score with it: humanclap ").split(), "--device", "cpu", "--no-cache", "--quiet"]) == 0
    )
    assert len(pd.read_csv(tmp_path / "cli" / "scores.csv")) == 48
    # Again: refused, or returned as it is.
    capsys.readouterr()
    assert main(command) == 2
    assert "already holds a fine-tuning" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0
    assert shown[1] in capsys.readouterr().out


def test_a_plain_csv_of_ratings_is_enough(place, tmp_path, capsys):
    """Two listeners per pair on a scale of 1 to 5, no systems, no split; equal captions of one kind."""
    pairs = pd.read_csv(place / "pairs.csv")
    rng = np.random.default_rng(0)
    parts = [pairs.assign(rating=rng.integers(1, 6, 48), listener=f"l{i}") for i in range(2)]
    pd.concat(parts)[["audio", "text", "rating", "listener"]].to_csv(tmp_path / "ratings.csv", index=False)
    command = arguments(place, tmp_path / "ratings.csv", tmp_path / "run", "--scale", "1", "5", "--resume")
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "96 ratings of 48 pairs were averaged" in said and "split by caption, n_train 0.8" in said
    assert "validation SRCC of the base" in said and "model: " in said
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert settings["data"]["shared"]["captions"] == 0 and settings["config"]["n_train"] == 0.8


def test_ratings_that_are_all_equal_warn_and_have_no_srcc(place, tmp_path, capsys):
    pairs = pd.read_csv(place / "pairs.csv").assign(target=0)
    pairs.to_csv(tmp_path / "pairs.csv", index=False)
    with pytest.warns(UserWarning, match="ratings of the (train|validation) pairs are 0"):
        assert main(arguments(place, tmp_path / "pairs.csv", tmp_path / "run")) == 0
    assert "validation SRCC of the base does not exist, fine-tuned does not exist" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--kind", "nse"), "kind must be one of"),
        (("--validation", "nowhere.csv"), "there is no file nowhere.csv"),
        (("--config", "bad.yaml"), "bad.yaml: unknown setting epoch; allowed: .*epochs"),
        (("--config", "nowhere.yaml"), "there is no file nowhere.yaml"),
        (("--config", "broken.yaml"), "broken.yaml is no YAML file: while parsing .*line 2"),
        (("--config", "list.yaml"), "list.yaml: it must map names of settings to values"),
        (("--out", "list.yaml"), "list.yaml is a file; give the name of a folder"),
        (("--audio-root", "nowhere"), "of .* audio files are not there, the first is nowhere"),
        (("--base", "nope"), "unknown CLAP 'nope'"),
        (("--drop-path", "0.1"), "No such option"),
        (("--n-train", "2.5"), "n_train must be a whole number of pairs or a share below 1"),
        (("--resume", "--overwrite"), "give one of them"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(place, tmp_path, monkeypatch, capsys, more, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text("epoch: 3\n")
    (tmp_path / "broken.yaml").write_text("{bad: [\n")
    (tmp_path / "list.yaml").write_text("- 3\n")
    assert main(arguments(place, place / "pairs.csv", tmp_path / "out", *more)) == 2
    error = capsys.readouterr().err
    assert pd.Series([error]).str.contains(says)[0] and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_ctrl_c_says_how_to_go_on_and_resume_does(place, tmp_path):
    more = ("--epochs", "400")
    command = [sys.executable, "-m", "humanclap", *arguments(place, place / "pairs.csv", tmp_path / "run", *more)]
    path = os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")])
    # SIGINT is ignored by what a background job starts, so it is given back here.
    reset = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}
    run = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}, **reset
    )
    while not (tmp_path / "run" / "checkpoint.pt").exists():
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    _, error = run.communicate(timeout=120)
    assert run.returncode == 130
    assert (
        error.decode()
        .splitlines()[-1]
        .endswith("stopped; the same command with --resume goes on after the last whole epoch")
    )
    import torch

    assert len(torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["rows"]) > 1
