"""Several losses and seeds: side by side as one after the other, what was interrupted, and which one is chosen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
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
    """All that must be equal to the last byte; of the settings, all but the time."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name == "settings.json":
            manifest = json.loads(path.read_text())
            found[name] = json.dumps({key: value for key, value in manifest.items() if key != "seconds"})
        elif path.is_file() and path.name != ".lock":
            found[name] = path.read_bytes()
    return found


def test_two_workers_leave_what_one_leaves(clap, sets, tmp_path):
    chosen = {"kinds": ("wsce+mae", "mse"), "seeds": (0, 3)}
    alone = finetune_variants(CONFIG, *sets, output_dir=tmp_path / "one", base=clap, progress=False, **chosen)
    runs = finetune_variants(CONFIG, *sets, output_dir=tmp_path / "two", base=clap, progress=False, workers=2, **chosen)
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
    single = finetune(replace(CONFIG, kind="mse"), *sets, base=clap, progress=False)
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


def test_a_training_that_fails_loses_no_other(clap, sets, tmp_path):
    """A run of another configuration lies in one folder; the next training is finished all the same."""
    finetune(
        replace(CONFIG, kind="mae", epochs=1), *sets, base=clap, output_dir=tmp_path / "mae" / "seed0", progress=False
    )
    settings = {"output_dir": tmp_path, "kinds": ("mae", "mse"), "base": clap, "progress": False}
    says = "1 of 2 trainings failed, mae with seed 0: CheckpointError: .*another fine-tuning.*1 are finished and stay"
    with pytest.raises(VariantsFailed, match=says) as one:
        finetune_variants(CONFIG, *sets, **settings, resume=True)
    assert list(one.value.failed) == [("mae", 0)]
    assert FinetuneResult.read(tmp_path / "mse" / "seed0", replace(CONFIG, kind="mse")).best_epoch >= 1


@pytest.mark.slow
def test_a_worker_that_dies_is_named_and_all_go_on_from_where_they_were(place, tmp_path):
    """One of two processes is killed in its training: its sibling stops too, what is finished stays, both resume."""
    program = """
import sys, pandas as pd
from humanclap import finetune
root, out, resume = sys.argv[1], sys.argv[2], sys.argv[3] == "resume"
pairs = pd.read_csv(f"{root}/pairs.csv")
config = finetune.FinetuneConfig(epochs=40, learning_rate=1e-3, base=f"{root}/clap")
finetune.finetune_variants(
    config, pairs[:24], pairs[24:], root, out, kinds=["mse", "mae"], workers=2, device="cpu", progress=False, resume=resume
)
"""

    def started(how: str) -> subprocess.Popen:
        path = os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, "-", str(place), str(tmp_path / "out"), how]  # as in a notebook, main has no file
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}, text=True
        )

    first = started("begin")
    first.stdin.write(program)
    first.stdin.close()
    while not list((tmp_path / "out").glob("*/seed0/checkpoint.pt")):
        assert first.poll() is None, first.stderr.read()
        time.sleep(0.05)
    children = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
    workers = [int(child) for child in children if b"popen_loky" in Path(f"/proc/{child}/cmdline").read_bytes()]
    os.kill(workers[0], signal.SIGKILL)
    error = first.stderr.read()
    assert first.wait() == 1
    assert "VariantsFailed" in error and "a training process died" in error and "resume=True goes on" in error
    second = started("resume")
    assert second.communicate(program)[1] is not None and second.returncode == 0
    settings = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*/seed0/settings.json")]
    assert len(settings) == 2 and any(one["resumed"] for one in settings)
    config = FinetuneConfig(epochs=40, learning_rate=1e-3, base=f"{place}/clap", kind="mae")
    pairs = pd.read_csv(place / "pairs.csv")
    finetune(config, pairs[:24], pairs[24:], place, tmp_path / "whole", device="cpu", progress=False)
    for name in ("model/model.safetensors", "history.csv"):
        assert (tmp_path / "out" / "mae" / "seed0" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_one_training_at_a_time_on_each_gpu(clap, monkeypatch):
    from humanclap.finetune import variants

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert variants._devices(clap, "cuda", 2) == ["cuda:0", "cuda:1"]
    assert variants._devices(clap, "auto", 3) == ["cpu"] * 3
    with pytest.raises(ValueError, match=r"workers is 3, one per GPU, and torch sees 2 GPU\(s\)"):
        variants._devices(clap, "cuda", 3)


def made_up(losses: list[float], srccs: list[float]) -> FinetuneResult:
    """A result with this validation loss and SRCC in epochs 0, 1, ..."""
    history = pd.DataFrame({"epoch": range(len(losses)), "validation_loss": losses, "validation_srcc": srccs})
    best = int(np.argmin(losses[1:])) + 1
    return FinetuneResult(CONFIG, history, best, pd.DataFrame(), None, {})


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
        ({"workers": 0}, ValueError, "workers must be a whole number of at least 1, not 0"),
        ({"output_dir": None}, ValueError, "output_dir is None"),
        ({"overwrite": True, "resume": True}, ValueError, "give one of them"),
    ],
)
def test_unfit_arguments_are_named(clap, sets, tmp_path, change, error, says):
    with pytest.raises(error, match=says):
        finetune_variants(CONFIG, *sets, **{"output_dir": tmp_path, "base": clap, "kinds": KINDS, **change})
