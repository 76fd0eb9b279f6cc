"""A training that was stopped: where it goes on, when it refuses to, and what is whole in the meantime."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from finetune_small import make_clap, make_corpus

from humanclap.clap import load_clap
from humanclap.finetune import CheckpointError, FinetuneConfig, Trainer, finetune, prepare
from humanclap.finetune.checkpoint import Checkpoints
from humanclap.finetune.folder import RunFolder

CONFIG = FinetuneConfig(epochs=4, learning_rate=1e-3, batch_size=6)


class Stopped(BaseException):
    """As an interrupt: nobody catches it."""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def clap(tmp_path_factory):
    root = tmp_path_factory.mktemp("clap")
    return load_clap(make_clap(root / "tiny", make_corpus(root)["text"]), device="cpu")


@pytest.fixture(scope="module")
def sets(clap, tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    pairs = make_corpus(root)
    return [prepare(clap, part, root, progress=False) for part in (pairs[:24], pairs[24:])]


@pytest.fixture(scope="module")
def stopped(clap, sets, tmp_path_factory):
    """The folder of a run that was stopped in its fourth epoch."""
    folder = tmp_path_factory.mktemp("runs") / "stopped"
    stop_in(clap, sets, folder, CONFIG, epoch=4)
    return folder


def stop_in(clap, sets, folder: Path, config: FinetuneConfig, epoch: int, **more) -> None:
    with pytest.MonkeyPatch.context() as patch:
        train = Trainer.train_epoch

        def until(self, number, *arguments):
            if number == epoch:
                raise Stopped
            return train(self, number, *arguments)

        patch.setattr(Trainer, "train_epoch", until)
        with pytest.raises(Stopped):
            run(clap, sets, folder, config, **more)


def run(clap, sets, folder, config=CONFIG, **more):
    return finetune(config, *sets, base=clap, output_dir=folder, progress=False, **more)


def content(folder: Path) -> dict[str, str]:
    """Every file, with its hash."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def results(folder: Path) -> dict[str, str]:
    """What two equal runs share to the last byte."""
    return {name: value for name, value in content(folder).items() if not name.startswith(("times", "manifest"))}


@pytest.mark.parametrize(
    "settings", [{}, {"spec_augment": True, "drop_path": 0.2, "freeze_batch_norm": False}, {"precision": "bf16"}]
)
def test_a_resumed_run_ends_as_one_that_was_never_stopped(clap, sets, tmp_path, settings):
    """Dropout, order, optimizer, running statistics: weights and history are equal to the last bit."""
    config = replace(CONFIG, **settings)
    whole = run(clap, sets, tmp_path / "whole", config)
    stop_in(clap, sets, tmp_path / "stopped", config, epoch=2)
    stop_in(clap, sets, tmp_path / "stopped", config, epoch=4, resume=True)
    resumed = run(clap, sets, tmp_path / "stopped", config, resume=True)
    assert results(tmp_path / "stopped") == results(tmp_path / "whole")
    pd.testing.assert_frame_equal(resumed.history, whole.history, check_exact=True)
    assert resumed.best_epoch == whole.best_epoch and len(resumed.times) == 5
    assert resumed.settings["resumed"] == [1, 3] and whole.settings["resumed"] == []
    changing = ("seconds", "resumed")
    assert {name: value for name, value in resumed.settings.items() if name not in changing} == {
        name: value for name, value in whole.settings.items() if name not in changing
    }


def test_other_threads_and_another_torch_are_told(clap, sets, stopped, tmp_path, monkeypatch):
    """The order of summation may be another one, so the promise of bit-equality is off."""
    from humanclap.finetune import manifest, repeat

    for name in ("same", "changed"):
        shutil.copytree(stopped, tmp_path / name)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        run(clap, sets, tmp_path / "same", resume=True)
    assert not [warning for warning in told if "bit-equal" in str(warning.message)]
    honest = manifest.version
    monkeypatch.setattr(manifest, "version", lambda name: "0.1" if name == "torch" else honest(name))
    monkeypatch.setattr(repeat, "SMALL_MODEL", 0)  # else a model of this size has one thread
    torch.set_num_threads(2)
    try:
        old = re.escape(honest("torch"))
        says = rf"epoch-0003 was trained with 1 threads, now 2 and torch {old}, now 0\.1: .*bit-equal"
        with pytest.warns(UserWarning, match=says):
            resumed = run(clap, sets, tmp_path / "changed", resume=True)
    finally:
        torch.set_num_threads(1)
    assert resumed.settings["resumed"] == [3] and len(resumed.history) == 5


def test_resume_begins_where_there_is_nothing(clap, sets, tmp_path):
    first = run(clap, sets, tmp_path / "new", resume=True)
    stop_in(clap, sets, tmp_path / "early", CONFIG, epoch=1)  # the base is measured, no epoch is done
    second = run(clap, sets, tmp_path / "early", resume=True)
    assert first.settings["resumed"] == second.settings["resumed"] == []
    assert results(tmp_path / "new") == results(tmp_path / "early")


def test_a_finished_run_is_read_and_not_trained(clap, sets, tmp_path, monkeypatch):
    first = run(clap, sets, tmp_path)
    before = content(tmp_path)
    monkeypatch.setattr(Trainer, "train_epoch", None)
    again = run(clap, sets, tmp_path, resume=True)
    assert content(tmp_path) == before
    pd.testing.assert_frame_equal(again.history, first.history, check_exact=True)
    pd.testing.assert_frame_equal(again.times, first.times, check_exact=True)
    assert again.settings == first.settings and again.best_epoch == first.best_epoch
    assert (again.n_train, again.n_validation, again.checkpoint) == (24, 24, tmp_path / "model")
    weights = first.model.state_dict()
    assert all(torch.equal(values, weights[name]) for name, values in again.model.state_dict().items())
    with pytest.raises(CheckpointError, match="is of another fine-tuning: epochs 4, now 9"):
        run(clap, sets, tmp_path, replace(CONFIG, epochs=9), resume=True)


def test_a_run_that_was_stopped_while_it_tidied_up(clap, sets, tmp_path, monkeypatch):
    def stop(self):
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "remove", stop)
        with pytest.raises(Stopped):
            # Twice: `clear` calls it, too, on the way in.
            patch.setattr(RunFolder, "clear", lambda self: None)
            run(clap, sets, tmp_path)
    assert [path.name for path in tmp_path.glob("epoch-*")] != []
    assert run(clap, sets, tmp_path, resume=True).best_epoch >= 1
    assert [path.name for path in tmp_path.glob("epoch-*")] == []


def test_what_is_there_is_not_touched_unasked(clap, sets, stopped):
    before = content(stopped)
    with pytest.raises(FileExistsError, match=r"already holds .*epoch-0003.*resume=True .*overwrite=True"):
        run(clap, sets, stopped)
    with pytest.raises(ValueError, match="give one of them"):
        run(clap, sets, stopped, resume=True, overwrite=True)
    with pytest.raises(ValueError, match="resume=True needs an output_dir"):
        run(clap, sets, None, resume=True)
    assert content(stopped) == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"learning_rate": 2e-3}, "learning_rate 0.001, now 0.002"),
        ({"seed": 1, "kind": "mse"}, "kind wsce.mae, now mse; seed 0, now 1"),
        ({"epochs": 9}, "epochs 4, now 9"),
        ({"precision": "bf16"}, "precision fp32, now bf16"),
    ],
)
def test_another_configuration_is_refused(clap, sets, stopped, change, says):
    before = content(stopped)
    with pytest.raises(CheckpointError, match=f"epoch-0003 is of another fine-tuning: {says}. Nothing was changed"):
        run(clap, sets, stopped, replace(CONFIG, **change), resume=True)
    assert content(stopped) == before


def test_other_data_and_another_base_are_refused(clap, sets, stopped, monkeypatch):
    before = content(stopped)
    other = [data.with_target(1 - data.pairs["target"]) for data in sets]
    says = "another fine-tuning: the training pairs .*, now .*; the validation pairs"
    with pytest.raises(CheckpointError, match=says):
        run(clap, other, stopped, resume=True)
    monkeypatch.setattr(clap.model.logit_scale_a, "data", clap.model.logit_scale_a.data + 1)
    with pytest.raises(CheckpointError, match="another fine-tuning: the base's weights"):
        run(clap, sets, stopped, resume=True)
    assert content(stopped) == before


def test_where_the_base_lay_and_how_the_pairs_were_drawn_make_no_other_run(clap, sets, stopped, tmp_path):
    shutil.copytree(stopped, tmp_path / "run")
    moved = replace(CONFIG, base="elsewhere/clap", n_train=7, split_seed=3)
    assert run(clap, sets, tmp_path / "run", moved, resume=True).settings["resumed"] == [3]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((name, "cut") for name in ("model.safetensors", "optimizer.safetensors", "state.json", "sha256sums")),
        ("optimizer.safetensors", "gone"),
        ("state.json", "flipped"),
    ],
)
def test_a_damaged_checkpoint_is_told_and_the_one_before_goes_on(clap, sets, stopped, tmp_path, name, damage):
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    file = folder / "epoch-0003" / name
    whole = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        file.write_bytes(whole[:middle] if damage == "cut" else flipped)
    before = content(folder)
    with pytest.raises(CheckpointError, match=r"epoch-0003 is damaged: .*epoch-0002, is the last one before it"):
        run(clap, sets, folder, resume=True)
    assert content(folder) == before
    if name == "model.safetensors":  # as the message says
        shutil.rmtree(folder / "epoch-0003")
        assert run(clap, sets, folder, resume=True).settings["resumed"] == [2]
        run(clap, sets, tmp_path / "whole")
        assert results(folder) == results(tmp_path / "whole")


def test_a_damaged_checkpoint_with_none_before_it(clap, sets, tmp_path):
    stop_in(clap, sets, tmp_path, CONFIG, epoch=2)
    (tmp_path / "epoch-0001" / "state.json").unlink()
    with pytest.raises(CheckpointError, match="there is no other; the best model until then is in model/"):
        run(clap, sets, tmp_path, resume=True)
    load_clap(tmp_path / "model", device="cpu")
    assert run(clap, sets, tmp_path, overwrite=True).best_epoch >= 1


def test_a_best_model_that_is_gone_is_told(clap, sets, tmp_path):
    still = [sets[0].with_target(np.ones(24)), sets[1].with_target(np.zeros(24))]  # each epoch is worse
    config = replace(CONFIG, kind="mae")
    stop_in(clap, still, tmp_path, config, epoch=4)
    shutil.rmtree(tmp_path / "model")
    with pytest.raises(CheckpointError, match="epoch 1, the best so far, is in no checkpoint any more"):
        run(clap, still, tmp_path, config, resume=True)


def test_a_spoilt_manifest_is_told(clap, sets, stopped, tmp_path):
    shutil.copytree(stopped, tmp_path / "run")
    (tmp_path / "run" / "manifest.json").write_text('{"status": "fin')
    with pytest.raises(ValueError, match=r"manifest.json can't be read .*overwrite=True begins anew"):
        run(clap, sets, tmp_path / "run", resume=True)


def test_no_more_than_two_checkpoints_ever_lie_on_the_disk(clap, sets, tmp_path, monkeypatch):
    from humanclap.finetune import checkpoint

    flush, seen = checkpoint.flush_folder, []

    def counted(folder):
        flush(folder)
        seen.append(sorted(path.name for path in folder.parent.glob("*epoch-*")))

    monkeypatch.setattr(checkpoint, "flush_folder", counted)
    run(clap, sets, tmp_path)
    assert seen == [
        [".epoch-0001-part"],
        [".epoch-0002-part", "epoch-0001"],
        [".epoch-0003-part", "epoch-0002"],
        [".epoch-0004-part", "epoch-0003"],
    ]


def test_a_checkpoint_is_plain_data(stopped):
    """Nothing in it could run code when it is read."""
    names = sorted(path.name for path in (stopped / "epoch-0003").iterdir())
    assert names == ["model.safetensors", "optimizer.safetensors", "sha256sums", "state.json"]
    state = json.loads((stopped / "epoch-0003" / "state.json").read_text())
    assert state["epoch"] == 3 and len(state["rows"]) == 4 and state["settings"]["config"]["batch_size"] == 6


def test_two_trainings_do_not_share_a_folder(clap, sets, tmp_path):
    with (
        RunFolder(tmp_path).held(),
        pytest.raises(RuntimeError, match=r"another process trains in .* right now"),
    ):
        run(clap, sets, tmp_path)
    assert run(clap, sets, tmp_path).best_epoch >= 1


def test_without_an_exchange_in_one_step_the_model_is_replaced_all_the_same(clap, sets, tmp_path, monkeypatch):
    monkeypatch.setattr("humanclap.files._exchange", lambda one, other: False)
    result = run(clap, sets, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.csv", "manifest.json", "model", "times.csv"]
    weights = load_clap(tmp_path / "model", device="cpu").model.state_dict()
    assert all(torch.equal(weights[name], values) for name, values in result.model.state_dict().items())
