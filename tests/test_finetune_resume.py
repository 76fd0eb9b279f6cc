"""A training that was stopped: where it goes on, when it refuses to, and what is whole in the meantime."""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from finetune_small import make_clap, make_corpus

from humanclap.clap import load_clap
from humanclap.files import lock
from humanclap.finetune import CheckpointError, FinetuneConfig, Trainer, finetune, prepare

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
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def results(folder: Path) -> dict[str, str]:
    """What two equal runs share to the last byte."""
    return {name: value for name, value in content(folder).items() if name not in ("settings.json", ".lock")}


@pytest.mark.parametrize("settings", [{}, {"freeze_batch_norm": False, "seed": 3, "precision": "bf16"}])
def test_a_resumed_run_ends_as_one_that_was_never_stopped(clap, sets, tmp_path, settings):
    """Dropout, order, optimizer, running statistics: weights and history are equal to the last bit."""
    config = replace(CONFIG, **settings)
    whole = run(clap, sets, tmp_path / "whole", config)
    stop_in(clap, sets, tmp_path / "stopped", config, epoch=2)
    stop_in(clap, sets, tmp_path / "stopped", config, epoch=4, resume=True)
    resumed = run(clap, sets, tmp_path / "stopped", config, resume=True)
    assert results(tmp_path / "stopped") == results(tmp_path / "whole")
    assert {"history.csv", "validation.csv", "model/model.safetensors", "model/README.md"} <= set(
        results(tmp_path / "whole")
    )
    pd.testing.assert_frame_equal(resumed.history, whole.history, check_exact=True)
    pd.testing.assert_frame_equal(resumed.validation, whole.validation, check_exact=True)
    assert resumed.best_epoch == whole.best_epoch
    assert resumed.settings["resumed"] == [1, 3] and whole.settings["resumed"] == []


def test_other_threads_and_another_torch_warn(clap, sets, stopped, tmp_path, monkeypatch):
    """The order of summation may be another one, so the promise of bit-equality is off."""
    from humanclap.finetune import result

    shutil.copytree(stopped, tmp_path / "changed")
    honest = result.version
    monkeypatch.setattr(result, "version", lambda name: "0.1" if name == "torch" else honest(name))
    monkeypatch.setattr("humanclap.finetune.train.SMALL_MODEL", 0)  # else a model of this size has one thread
    torch.set_num_threads(2)
    try:
        says = rf"trained with threads 1, now 2 and torch {re.escape(honest('torch'))}, now 0\.1: .*bit-equal"
        with pytest.warns(UserWarning, match=says):
            assert run(clap, sets, tmp_path / "changed", resume=True).settings["resumed"] == [3]
    finally:
        torch.set_num_threads(1)


def test_resume_begins_where_there_is_no_run_and_returns_a_finished_one(clap, sets, tmp_path, monkeypatch):
    stop_in(clap, sets, tmp_path / "run", CONFIG, epoch=1, resume=True)  # before the first epoch ended
    first = run(clap, sets, tmp_path / "run", resume=True)
    assert first.settings["resumed"] == []
    (tmp_path / "run" / "checkpoint.pt").touch()  # it was stopped while it tidied up
    before = {name: value for name, value in content(tmp_path / "run").items() if name != "checkpoint.pt"}
    monkeypatch.setattr(Trainer, "__init__", None)  # nothing is trained
    again = run(clap, sets, tmp_path / "run", resume=True)
    assert content(tmp_path / "run") == before
    pd.testing.assert_frame_equal(again.history, first.history, check_exact=True)
    pd.testing.assert_frame_equal(again.validation, first.validation, check_exact=True)
    assert (again.best_epoch, again.settings) == (first.best_epoch, first.settings)
    weights = first.model.state_dict()
    assert all(torch.equal(values, weights[name]) for name, values in again.model.state_dict().items())
    with pytest.raises(CheckpointError, match="is of another fine-tuning: epochs 4, now 9"):
        run(clap, sets, tmp_path / "run", replace(CONFIG, epochs=9), resume=True)


def test_what_is_there_is_not_touched_unasked(clap, sets, stopped):
    before = content(stopped)
    with pytest.raises(FileExistsError, match=r"already holds .*checkpoint.pt.*resume=True .*overwrite=True"):
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
        ({"precision": "bf16"}, "precision fp32, now bf16"),
    ],
)
def test_another_configuration_is_refused(clap, sets, stopped, change, says):
    before = content(stopped)
    with pytest.raises(CheckpointError, match=f"checkpoint.pt is of another fine-tuning: {says}. Nothing was changed"):
        run(clap, sets, stopped, replace(CONFIG, **change), resume=True)
    assert content(stopped) == before


def test_other_data_and_another_base_are_refused(clap, sets, stopped, tmp_path, monkeypatch):
    before, pairs = content(stopped), make_corpus(tmp_path)
    other = [
        prepare(clap, part.assign(target=1 - part["target"]), tmp_path, progress=False)
        for part in (pairs[:24], pairs[24:])
    ]
    with pytest.raises(CheckpointError, match="fine-tuning: the training pairs .*, now .*; the validation pairs"):
        run(clap, other, stopped, resume=True)
    monkeypatch.setattr(clap.model.logit_scale_a, "data", clap.model.logit_scale_a.data + 1)
    with pytest.raises(CheckpointError, match="another fine-tuning: the base's weights"):
        run(clap, sets, stopped, resume=True)
    assert content(stopped) == before


def test_where_the_base_lay_and_how_the_pairs_were_drawn_make_no_other_run(clap, sets, stopped, tmp_path):
    shutil.copytree(stopped, tmp_path / "run")
    moved = replace(CONFIG, base="elsewhere/clap", n_train=7, split_seed=3)
    assert run(clap, sets, tmp_path / "run", moved, resume=True).settings["resumed"] == [3]


@pytest.mark.parametrize("left", [0, 0.5])
def test_a_truncated_checkpoint_is_refused_with_what_to_do(clap, sets, stopped, tmp_path, left):
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    file = folder / "checkpoint.pt"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(left * len(whole)) if isinstance(left, float) else left])
    before = content(folder)
    says = r"checkpoint.pt is damaged .*best model until then is in .*model.*another output_dir, or begin anew with overwrite"
    with pytest.raises(CheckpointError, match=says):
        run(clap, sets, folder, resume=True)
    assert content(folder) == before
    load_clap(folder / "model", device="cpu")
    if left == 0:  # as the message says
        assert run(clap, sets, folder, overwrite=True).best_epoch >= 1


def test_a_checkpoint_that_would_run_code_is_refused(clap, sets, stopped, tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    shutil.copytree(stopped, tmp_path / "run")
    torch.save({"settings": Evil()}, tmp_path / "run" / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="is damaged"):
        run(clap, sets, tmp_path / "run", resume=True)
    assert not (tmp_path / "ran").exists()


def test_a_best_model_or_settings_that_are_gone_or_spoilt(clap, sets, stopped, tmp_path):
    shutil.copytree(stopped, tmp_path / "run")
    saved = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    torch.save(saved | {"best_epoch": 1}, tmp_path / "run" / "checkpoint.pt")
    shutil.rmtree(tmp_path / "run" / "model")
    with pytest.raises(CheckpointError, match="epoch 1, the best so far, is in no checkpoint any more"):
        run(clap, sets, tmp_path / "run", resume=True)
    (tmp_path / "run" / "settings.json").write_text('{"status": "fin')
    with pytest.raises(CheckpointError, match=r"settings.json can't be read .*overwrite=True begins anew"):
        run(clap, sets, tmp_path / "run", resume=True)


def test_two_trainings_do_not_share_a_folder(clap, sets, tmp_path):
    with lock(tmp_path / ".lock"), pytest.raises(RuntimeError, match=r"another process trains in .* right now"):
        run(clap, sets, tmp_path)
    assert run(clap, sets, tmp_path).best_epoch >= 1
