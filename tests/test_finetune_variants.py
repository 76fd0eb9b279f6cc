"""Several losses and seeds: side by side as one after the other, what was interrupted, and which one is chosen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from finetune_small import make_clap, make_corpus

from humanclap.clap import load_clap
from humanclap.finetune import (
    KINDS,
    FinetuneConfig,
    FinetuneResult,
    FinetuneRuns,
    VariantsFailed,
    finetune,
    finetune_variants,
    prepare,
)
from humanclap.finetune.handover import load_base, load_pairs, save_base, save_pairs, work_folder
from humanclap.finetune.workers import Pool

CONFIG = FinetuneConfig(epochs=2, learning_rate=1e-3)
PROJECT = Path(__file__).resolve().parent.parent


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the clips and the base."""
    root = tmp_path_factory.mktemp("corpus")
    pairs = make_corpus(root)
    make_clap(root / "clap", pairs["text"])
    pairs.to_csv(root / "pairs.csv", index=False)
    return root


@pytest.fixture(scope="module")
def clap(place):
    return load_clap(place / "clap", device="cpu")


@pytest.fixture(scope="module")
def sets(place, clap):
    pairs = pd.read_csv(place / "pairs.csv")
    return [prepare(clap, part, place, progress=False) for part in (pairs[:24], pairs[24:])]


def files(folder: Path) -> dict[str, bytes]:
    """All that must be equal to the last byte; of the manifest, all but the time."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name == "manifest.json":
            manifest = json.loads(path.read_text())
            found[name] = json.dumps({key: value for key, value in manifest.items() if key != "seconds"})
        elif path.is_file() and path.name != "times.csv":
            found[name] = path.read_bytes()
    return found


def test_two_workers_leave_what_one_leaves(clap, sets, tmp_path):
    chosen = {"kinds": ("wsce+mae", "mse"), "seeds": (0, 3)}
    alone = finetune_variants(CONFIG, *sets, output_dir=tmp_path / "one", base=clap, progress=False, **chosen)
    runs = finetune_variants(
        CONFIG, *sets, output_dir=tmp_path / "two", base=clap, progress=False, workers=2, **chosen
    )
    left = files(tmp_path / "one")
    other = files(tmp_path / "two")
    assert len(left) > 4 * 8 and left.keys() == other.keys()
    assert [name for name in left if left[name] != other[name]] == []
    assert list(runs.results) == [("wsce+mae", 0), ("wsce+mae", 3), ("mse", 0), ("mse", 3)]
    assert runs.results["mse", 3].checkpoint == tmp_path / "two" / "mse" / "seed3" / "model"
    pd.testing.assert_frame_equal(runs.histories(), alone.histories(), check_exact=True)
    pd.testing.assert_frame_equal(runs.summary(), alone.summary(), check_exact=True)
    assert list(runs.histories().columns[:3]) == ["model", "training_seed", "epoch"]
    assert len(runs.histories()) == 4 * 3 and runs.chosen == alone.chosen
    # By itself each is the same training, too.
    single = finetune(CONFIG.variant("mse"), *sets, base=clap, progress=False)
    of_runs = runs.results["mse", 0].model.state_dict()
    assert all(torch.equal(of_runs[name], values) for name, values in single.model.state_dict().items())
    # Finished runs are read, and not begun again.
    again = finetune_variants(
        CONFIG, *sets, output_dir=tmp_path / "one", base=clap, progress=False, resume=True, **chosen
    )
    pd.testing.assert_frame_equal(again.histories(), alone.histories(), check_exact=True)
    with pytest.raises(FileExistsError, match=r"seed3 already holds a fine-tuning .*resume=True"):
        finetune_variants(CONFIG, *sets, output_dir=tmp_path / "one", base=clap, kinds=["wsce", "mse"], seeds=[3])
    assert not (tmp_path / "one" / "wsce").exists()  # nothing was begun


def test_a_training_that_fails_loses_no_finished_one(clap, sets, tmp_path):
    broken = FinetuneConfig(epochs=2, learning_rate=1e30)
    good = finetune(CONFIG.variant("mae"), *sets, base=clap, output_dir=tmp_path / "mae" / "seed0", progress=False)
    with pytest.raises(VariantsFailed, match="1 of 2 trainings failed, mae with seed 0: .*another fine-tuning") as one:
        finetune_variants(
            broken, *sets, output_dir=tmp_path, kinds=("mae", "mse"), base=clap, resume=True, progress=False
        )
    assert list(one.value.failed) == [("mae", 0)]
    with pytest.raises(VariantsFailed, match="mse with seed 0: NonFiniteLoss: the loss is nan"):
        finetune_variants(broken, *sets, output_dir=tmp_path, kinds=["mse"], base=clap, progress=False)
    assert good.checkpoint.is_dir()


@pytest.mark.slow
def test_what_fails_in_a_worker_is_told_as_it_was_raised(clap, sets, tmp_path):
    broken = FinetuneConfig(epochs=2, learning_rate=1e30)
    with pytest.raises(VariantsFailed, match="wsce with seed 0: NonFiniteLoss: the loss is nan"):
        finetune_variants(
            broken, *sets, output_dir=tmp_path, kinds=["wsce"], base=clap, progress=False, workers=2
        )
    assert not list(tmp_path.glob(".work-*"))


@pytest.mark.slow
def test_a_worker_that_dies_is_told_and_its_run_goes_on(clap, sets, tmp_path, monkeypatch):
    start, config = Pool._start, FinetuneConfig(epochs=12, learning_rate=1e-3)

    def start_and_kill(self, errors):
        process = start(self, errors)

        def kill():
            while not list(tmp_path.glob("*/seed0/epoch-*")):
                time.sleep(0.02)
            os.kill(process.pid, signal.SIGKILL)

        threading.Thread(target=kill, daemon=True).start()
        return process

    monkeypatch.setattr(Pool, "_start", start_and_kill)
    arguments = {"output_dir": tmp_path, "kinds": ["mae"], "base": clap, "progress": False, "workers": 2}
    with pytest.raises(VariantsFailed, match=r"mae with seed 0: the process was killed by signal 9.*resume=True"):
        finetune_variants(config, *sets, **arguments)
    monkeypatch.undo()
    runs = finetune_variants(config, *sets, **arguments, resume=True)
    whole = finetune(config.variant("mae"), *sets, base=clap, output_dir=tmp_path / "whole", progress=False)
    resumed = runs.results["mae", 0]
    assert resumed.settings["resumed"] and not whole.settings["resumed"]
    weights = "model/model.safetensors"
    for name in (weights, "history.csv"):
        assert (tmp_path / "mae" / "seed0" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
def test_it_works_where_main_has_no_file(place, tmp_path):
    """As in a notebook's kernel: the program comes through standard input."""
    program = f"""
import pandas as pd
from humanclap import finetune
pairs = pd.read_csv({str(place / "pairs.csv")!r})
config = finetune.FinetuneConfig(epochs=1, learning_rate=1e-3, base={str(place / "clap")!r})
runs = finetune.finetune_variants(
    config, pairs[:24], pairs[24:], {str(place)!r}, {str(tmp_path)!r}, kinds=["mse", "mae"], workers=2, device="cpu"
)
print(len(runs.results))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-"], input=program, env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "2"


def test_what_is_handed_over_is_removed_when_its_owner_is_dead_and_not_before(tmp_path):
    program = f"""
import os, sys, time
from pathlib import Path
from humanclap.finetune.handover import work_folder
with work_folder(Path({str(tmp_path)!r})) as work:
    (work / "base").touch()
    print(work, flush=True)
    sys.stdin.read()
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True) as other:
        theirs = Path(other.stdout.readline().strip())
        try:
            with work_folder(tmp_path) as ours:
                assert (theirs / "base").exists() and ours != theirs
                with work_folder(tmp_path):  # of another thread, say
                    assert ours.is_dir()
            assert not ours.exists() and (theirs / "base").exists()
        finally:
            other.kill()
        other.wait()
    assert (theirs / "base").exists()  # nobody tidied up after it
    with work_folder(tmp_path) as ours:
        assert list(tmp_path.iterdir()) == [ours]
    assert not list(tmp_path.iterdir())


def test_where_folders_can_not_be_locked_none_is_removed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    (tmp_path / ".work-of-somebody").mkdir()
    with work_folder(tmp_path) as ours:
        assert ours.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == [".work-of-somebody"]


def made_up(losses: list[float], srccs: list[float]) -> FinetuneResult:
    """A result with this validation loss and SRCC in epochs 0, 1, ..."""
    history = pd.DataFrame({"epoch": range(len(losses)), "validation_loss": losses, "validation_srcc": srccs})
    best = int(np.argmin(losses[1:])) + 1
    return FinetuneResult(CONFIG, history, best, None, 1, 1, {}, pd.DataFrame())


def test_validation_decides_over_the_seeds_and_then_among_them():
    runs = FinetuneRuns(
        {
            # By its best seed this kind would win; by the mean of its seeds it does not.
            ("mse", 0): made_up([0.5, 0.4, 0.3], [0.0, 0.1, 0.9]),
            ("mse", 1): made_up([0.5, 0.2, 0.3], [0.0, 0.1, 0.9]),
            ("mae", 4): made_up([0.5, 0.6, 0.7], [0.0, 0.5, 0.9]),
            ("mae", 5): made_up([0.5, 0.6, 0.4], [0.0, 0.8, 0.7]),
        }
    )
    assert runs.chosen == ("mae", 5)
    summary = runs.summary().set_index("kind")
    assert list(summary.index) == ["mse", "mae"] and summary["chosen"].tolist() == [False, True]
    assert summary.loc["mse", ["validation_loss", "validation_srcc"]].tolist() == pytest.approx([0.25, 0.5])
    assert summary.loc["mse", "validation_loss_sd"] == pytest.approx(0.1 / np.sqrt(2))
    assert summary.loc["mae", "validation_srcc_sd"] == pytest.approx(0.2 / np.sqrt(2))
    assert summary["best_epochs"].tolist() == ["2, 1", "1, 2"] and summary["n_improved"].tolist() == [2, 1]
    single = FinetuneRuns({("mse", 0): made_up([0.5, 0.4], [0.0, 0.1])})
    assert np.isnan(single.summary()["validation_srcc_sd"][0]) and single.chosen == ("mse", 0)
    with pytest.raises(ValueError, match=r"of every kind there are seeds that have no .* \(mse: 1 of 1 seeds\)"):
        _ = FinetuneRuns({("mse", 0): made_up([0.5, 0.4], [np.nan, np.nan])}).chosen


def test_one_lucky_seed_does_not_win_for_those_without_a_correlation():
    runs = FinetuneRuns(
        {
            ("mse", 0): made_up([0.5, 0.4], [0.0, 0.9]),
            ("mse", 1): made_up([0.5, 0.4], [0.0, np.nan]),
            ("mse", 2): made_up([0.5, 0.4], [0.0, np.nan]),
            ("mae", 0): made_up([0.5, 0.4], [0.0, 0.2]),
            ("mae", 1): made_up([0.5, 0.4], [0.0, 0.1]),
        }
    )
    with pytest.warns(UserWarning, match=r"not chosen among .* no validation SRCC.* \(mse: 2 of 3 seeds\)"):
        assert runs.chosen == ("mae", 0)
    with pytest.warns(UserWarning, match="mse: 2 of 3 seeds"):
        summary = runs.summary().set_index("kind")
    assert summary["n_without_srcc"].tolist() == [2, 0] and summary["chosen"].tolist() == [False, True]
    assert summary.loc["mse", ["validation_srcc", "validation_srcc_sd"]].isna().all()
    assert summary.loc["mse", "validation_loss"] == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"kinds": []}, ValueError, "kinds is .*at least one"),
        ({"kinds": "mse"}, ValueError, "kinds is 'mse'; give a list"),
        ({"kinds": ["mse", "mse"]}, ValueError, "each once"),
        ({"kinds": ["nse"]}, ValueError, "kind is 'nse'"),
        ({"seeds": [-1]}, ValueError, "seed is -1"),
        ({"workers": 0}, ValueError, "workers is 0"),
        ({"output_dir": None}, ValueError, "output_dir is None"),
        ({"overwrite": True, "resume": True}, VariantsFailed, "give one of them"),
    ],
)
def test_unfit_arguments_are_named(clap, sets, tmp_path, change, error, says):
    with pytest.raises(error, match=says):
        finetune_variants(CONFIG, *sets, **{"output_dir": tmp_path, "base": clap, "kinds": KINDS, **change})


def test_what_workers_are_given_is_what_there_was(clap, sets, tmp_path):
    train = sets[0]
    save_pairs(train, tmp_path / "train")
    again = load_pairs(tmp_path / "train")
    pd.testing.assert_frame_equal(again.pairs, train.pairs, check_exact=True)
    for part in ("features", "tokens"):
        ours, theirs = getattr(train, part), getattr(again, part)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in ours)
    for name in ("clip", "caption", "target"):
        assert torch.equal(getattr(train, name), getattr(again, name))
    assert (again.sha256, again.front_end, again.audio_root) == (train.sha256, train.front_end, train.audio_root)
    save_base(clap, tmp_path / "base")
    base = load_base(tmp_path / "base")
    assert (base.name, base.checkpoint_sha256) == (clap.name, clap.checkpoint_sha256)
    assert base.front_end == clap.front_end
