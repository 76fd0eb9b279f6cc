"""What identifies a fine-tuning, and what came out of it."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch

from humanclap import __version__
from humanclap.finetune.config import FinetuneConfig
from humanclap.finetune.data import CheckedPairs, PairData
from humanclap.tables import read_table

CHECKPOINT, HISTORY, SCORES, SETTINGS, MODEL = (
    "checkpoint.pt",
    "history.csv",
    "validation.csv",
    "settings.json",
    "model",
)
FINISHED, RUNNING = "finished", "running"
PACKAGES = ("torch", "transformers", "numpy", "pandas", "safetensors")
_NOT_COMPARED = ("base", "n_train", "split_by", "split_seed", "precision")
"""Settings that say where base and pairs came from, or what the device makes of them: all are compared by content."""


class CheckpointError(ValueError):
    """A run that can't be resumed or read; the message says why, and what to do."""


@dataclass(frozen=True, eq=False)
class FinetuneResult:
    """What came out of one fine-tuning.

    history: one row per epoch, 0 to `config.epochs`, epoch 0 being the base before any step. Columns: epoch;
        train_loss, train_contrastive (SCE or wSCE), train_regression (MSE or MAE), means over the pairs as
        the epoch went by, empty for epoch 0, and terms that the loss does not have are empty; negative_share,
        the share of training pairs whose cosine was below 0, which get no gradient from the regression term;
        validation_loss, validation_contrastive, validation_regression, validation_negative_share;
        validation_srcc (of CLAPScore, NaN where undefined); temperature (τ, after the epoch).
    best_epoch: the trained epoch (1 or later) with the lowest validation loss, the earliest of equal ones.
    validation: one row per validation pair: audio, text, target, base_clap_score, clap_score (of the best epoch).
    checkpoint: the folder the model of that epoch lies in, for `load_clap` or `ClapModel.from_pretrained`; None
        without output_dir.
    settings: configuration, base and data with sha256, device, precision, versions, and how the run ended.
    """

    config: FinetuneConfig
    history: pd.DataFrame
    best_epoch: int
    validation: pd.DataFrame
    checkpoint: Path | None
    settings: dict
    held: dict[str, torch.nn.Module] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, folder: Path, config: FinetuneConfig) -> FinetuneResult:
        """What a finished run left in its folder. Raises CheckpointError for one that is not finished."""
        settings = read_settings(folder)
        if settings is None or settings["status"] != FINISHED:
            raise CheckpointError(f"{folder} holds no finished fine-tuning: resume=True goes on with it")
        history = pd.read_csv(folder / HISTORY, float_precision="round_trip")
        scores = read_table(folder / SCORES).frame()
        numbers = dict.fromkeys(("target", "base_clap_score", "clap_score"), float)
        return cls(config, history, settings["best_epoch"], scores.astype(numbers), folder / MODEL, settings)

    @property
    def model(self) -> torch.nn.Module:
        """The ClapModel of the best epoch, in eval mode; where the training did not leave it in memory, it is read
        from `checkpoint` at its first use, on the CPU."""
        if "model" not in self.held:
            from transformers import ClapModel

            self.held["model"] = ClapModel.from_pretrained(self.checkpoint, local_files_only=True).eval()
        return self.held["model"]

    @property
    def improved(self) -> bool:
        """Whether the best epoch has a lower validation loss than the base had."""
        loss = self.history.set_index("epoch")["validation_loss"]
        return bool(loss[self.best_epoch] < loss[0])


def read_settings(folder: Path) -> dict | None:
    """A run's settings.json, or None where there is none. Raises CheckpointError for a damaged one."""
    try:
        return json.loads((folder / SETTINGS).read_text("utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise CheckpointError(f"{folder / SETTINGS} can't be read ({error}); overwrite=True begins anew") from error


def describe(
    config: FinetuneConfig,
    clap,
    train: PairData | CheckedPairs,
    validation: PairData | CheckedPairs,
    device: torch.device,
    precision: str,
) -> dict:
    """What decides the outcome: configuration, base, data (with sha256), device, threads and versions.

    data.shared counts the pairs, captions and clips that are in both sets.
    """
    weights = hashlib.sha256()
    for name, values in sorted(clap.model.state_dict().items()):
        weights.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        weights.update(values.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    keys = {"pairs": ["audio", "text"], "captions": ["text"], "clips": ["audio"]}
    shared = {
        name: len(train.pairs[columns].drop_duplicates().merge(validation.pairs[columns].drop_duplicates()))
        for name, columns in keys.items()
    }
    data = {
        name: {"pairs": len(part.pairs), "sha256": part.sha256}
        for name, part in (("train", train), ("validation", validation))
    }
    return {
        "config": config.to_dict(),
        "base": {
            "name": clap.name,
            "checkpoint_sha256": clap.checkpoint_sha256,
            "weights_sha256": weights.hexdigest(),
        },
        "data": data | {"shared": shared, "front_end": clap.front_end},
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "precision": precision,
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "humanclap": __version__,
            **{name: version(name) for name in PACKAGES},
        },
    }


def differences(before: dict, now: dict) -> list[str]:
    """What keeps a run from going on as if it had not been stopped: "learning_rate 0.001, now 0.002"."""
    return _changed(_identity(before), _identity(now))


def conditions_changed(before: dict, now: dict) -> list[str]:
    """What rounding depends on and may change in between: "threads 2, now 1", "torch 2.8.0, now 2.9.0"."""
    old, new = ({"threads": each["threads"], "torch": each["versions"]["torch"]} for each in (before, now))
    return _changed(old, new)


def _identity(settings: dict) -> dict[str, object]:
    config = {name: value for name, value in settings["config"].items() if name not in _NOT_COMPARED}
    return config | {
        "the base's weights": settings["base"]["weights_sha256"],
        "the training pairs": settings["data"]["train"]["sha256"],
        "the validation pairs": settings["data"]["validation"]["sha256"],
        "the front end": settings["data"]["front_end"],
        "kind of device": settings["device"].partition(":")[0],
        "precision": settings["precision"],
    }


def _changed(old: dict, new: dict) -> list[str]:
    return [f"{name} {_short(old.get(name))}, now {_short(new[name])}" for name in new if old.get(name) != new[name]]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:16]}…"
