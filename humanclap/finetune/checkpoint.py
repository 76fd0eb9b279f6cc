"""Where a training stands after an epoch, on disk, whole or not at all: all that going on from there needs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from humanclap.files import flush, flush_folder, remove_folder
from humanclap.finetune.trainer import Trainer

WEIGHTS, OPTIMIZER, STATE, SUMS = "model.safetensors", "optimizer.safetensors", "state.json", "sha256sums"
_NAME = re.compile(r"epoch-(\d{4,})")


class CheckpointError(ValueError):
    """A checkpoint that a training can't go on from; the message says which, why, and what is whole."""


@dataclass(frozen=True)
class Progress:
    """How far a training has come, beside weights and optimizer.

    rows, times: of history.csv and times.csv, one for each epoch from 0. best_epoch: None before the first.
    resumed: the epochs after which the training was taken up again. settings: what `describe` returned.
    """

    epoch: int
    rows: list[dict]
    times: list[dict]
    best_epoch: int | None
    best_loss: float | None
    resumed: list[int]
    settings: dict


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run folder: `epoch-0007/`, complete from the moment it has that name.

    A checkpoint is written under another name, flushed to the disk and then renamed, so no moment is unsafe. Two
    are kept, the last and the one before it; the older one goes before a third is begun.
    """

    folder: Path

    def epochs(self) -> list[int]:
        """The epochs of which a checkpoint is there, in order."""
        if not self.folder.is_dir():
            return []
        found = [_NAME.fullmatch(path.name) for path in self.folder.iterdir()]
        return sorted(int(match[1]) for match in found if match)

    def path(self, epoch: int) -> Path:
        """Where the checkpoint of an epoch lies."""
        return self.folder / f"epoch-{epoch:04d}"

    def save(self, trainer: Trainer, progress: Progress) -> None:
        """Write the checkpoint of `progress.epoch`. Raises OSError, and leaves the one before as it is."""
        for epoch in self.epochs()[:-1]:
            remove_folder(self.path(epoch))
        target = self.path(progress.epoch)
        part = target.with_name(f".{target.name}-part")
        shutil.rmtree(part, ignore_errors=True)
        try:
            part.mkdir()
            with writing():
                save_file(_on_cpu(trainer.model.state_dict()), part / WEIGHTS)
                save_file(_optimizer_tensors(trainer), part / OPTIMIZER)
            scaler = trainer.engine.accelerator.scaler
            state = vars(progress) | {"scaler": None if scaler is None else scaler.state_dict()}
            (part / STATE).write_text(json.dumps(state), encoding="utf-8")
            sums = "".join(f"{_sha256(part / name)}  {name}\n" for name in (WEIGHTS, OPTIMIZER, STATE))
            (part / SUMS).write_text(sums, encoding="utf-8")
            flush_folder(part)
            remove_folder(target)  # of a training that a corrupt file made go back
            part.rename(target)
            flush(self.folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def read(self, epoch: int) -> Progress:
        """What the checkpoint of `epoch` says, its files checked. Raises CheckpointError for a spoilt one."""
        path = self.path(epoch)
        try:
            sums = dict(reversed(line.split("  ")) for line in (path / SUMS).read_text("utf-8").splitlines())
            spoilt = [name for name in (WEIGHTS, OPTIMIZER, STATE) if sums.get(name) != _sha256(path / name)]
        except (OSError, ValueError) as error:
            spoilt = [f"{SUMS} or a file that it names ({error})"]
        if spoilt:
            others = [other for other in self.epochs() if other != epoch]
            advice = (
                f"the checkpoint of epoch {others[-1]}, {self.path(others[-1])}, is the last one before it: remove "
                f"{path} to go on from there"
                if others
                else "there is no other; the best model until then is in model/: overwrite=True begins anew"
            )
            raise CheckpointError(f"{path} is damaged: {', '.join(spoilt)} is not what was written; {advice}")
        state = json.loads((path / STATE).read_text("utf-8"))
        return Progress(**{name: state[name] for name in Progress.__dataclass_fields__})

    def restore(self, trainer: Trainer, epoch: int) -> None:
        """Put weights and optimizer of the checkpoint, read before, into `trainer`."""
        path = self.path(epoch)
        trainer.model.load_state_dict(load_file(path / WEIGHTS))
        _restore_optimizer(trainer, load_file(path / OPTIMIZER))
        scaler = json.loads((path / STATE).read_text("utf-8"))["scaler"]
        if scaler is not None:
            trainer.engine.accelerator.scaler.load_state_dict(scaler)

    def remove(self) -> None:
        """Remove all checkpoints and what a killed process left of one."""
        for epoch in reversed(self.epochs()):
            remove_folder(self.path(epoch))
        self.clear()

    def clear(self) -> None:
        """Remove what a killed process left half written or half removed."""
        for remains in self.folder.glob(".epoch-*"):
            shutil.rmtree(remains, ignore_errors=True)


@contextmanager
def writing() -> Iterator[None]:
    """Turn what safetensors raises for a full disk into an OSError."""
    try:
        yield
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1]))) from error


def _on_cpu(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: values.detach().cpu().contiguous() for name, values in tensors.items()}


def _named(trainer: Trainer) -> list[str]:
    """Names of the parameters, in the order in which the optimizer numbers them."""
    name_of = {id(values): name for name, values in trainer.model.named_parameters()}
    return [name_of[id(values)] for group in trainer.optimizer.param_groups for values in group["params"]]


def _optimizer_tensors(trainer: Trainer) -> dict[str, torch.Tensor]:
    state, names = trainer.optimizer.state_dict()["state"], _named(trainer)
    tensors = {f"{names[place]}|{key}": values for place, held in state.items() for key, values in held.items()}
    return _on_cpu(tensors)


def _restore_optimizer(trainer: Trainer, tensors: dict[str, torch.Tensor]) -> None:
    place_of = {name: place for place, name in enumerate(_named(trainer))}
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, values in tensors.items():
        name, _, entry = key.rpartition("|")
        state.setdefault(place_of[name], {})[entry] = values
    groups = trainer.optimizer.state_dict()["param_groups"]
    trainer.optimizer.load_state_dict({"state": state, "param_groups": groups})


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
