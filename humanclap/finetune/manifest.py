"""What went into a fine-tuning and decides its outcome: for the manifest, and to tell whether two runs are one."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import version

import torch

from humanclap import __version__
from humanclap.finetune.batches import repeated_captions
from humanclap.finetune.trainer import Trainer

PACKAGES = ("torch", "transformers", "accelerate", "numpy", "pandas", "safetensors")
_NO_PART = ("base", "n_train", "split_by", "split_seed", "precision")
"""Settings that say where base and pairs came from, or what the device makes of them: all are compared by content."""


def describe(trainer: Trainer, clap, shared: dict[str, int]) -> dict:
    """What decides the outcome: configuration, base, data (with sha256), device, threads and versions.

    `shared` counts what stands in the training and in the validation set.
    """
    train, validation = trainer.train_pairs, trainer.validation_pairs
    device = trainer.device
    return {
        "config": trainer.config.to_dict(),
        "base": {
            "name": clap.name,
            "checkpoint_sha256": clap.checkpoint_sha256,
            "weights_sha256": weights_sha256(clap.model),
        },
        "data": {
            "train": {"pairs": len(train), "sha256": train.sha256},
            "validation": {"pairs": len(validation), "sha256": validation.sha256},
            "shared": shared,
            "repeated_captions_in_epoch_1": repeated_captions(trainer.batches(1)),
            "front_end": train.front_end,
        },
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "precision": trainer.engine.precision,
        "processes": trainer.engine.world,
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "humanclap": __version__,
            **{name: version(name) for name in PACKAGES},
        },
    }


def identity(settings: dict) -> dict[str, object]:
    """Of what `describe` returned, all that must be equal for a run to go on as if it had not been stopped."""
    config = {name: value for name, value in settings["config"].items() if name not in _NO_PART}
    return config | {
        "the base's weights": settings["base"]["weights_sha256"],
        "the training pairs": settings["data"]["train"]["sha256"],
        "the validation pairs": settings["data"]["validation"]["sha256"],
        "the front end": settings["data"]["front_end"],
        "kind of device": settings["device"].partition(":")[0],
        "precision": settings["precision"],
        "processes": settings["processes"],
    }


def differences(before: dict, now: dict) -> list[str]:
    """What differs between two runs' settings, each in words: "learning_rate 0.001, now 0.002"."""
    old, new = identity(before), identity(now)
    return [f"{name} {_short(old.get(name))}, now {_short(new[name])}" for name in new if old.get(name) != new[name]]


def conditions_changed(before: dict, now: dict) -> list[str]:
    """What rounding depends on and may change in between, each in words: "2 threads, now 1", "torch 2.8.0, now 2.9.0".

    Another number of threads, or another torch, may sum in another order.
    """
    changed = []
    if before["threads"] != now["threads"]:
        changed.append(f"{before['threads']} threads, now {now['threads']}")
    old, new = before["versions"]["torch"], now["versions"]["torch"]
    return [*changed, f"torch {old}, now {new}"] if old != new else changed


def weights_sha256(model: torch.nn.Module) -> str:
    """sha256 over names and values of all weights: the same wherever the model was loaded from."""
    digest = hashlib.sha256()
    for name, values in sorted(model.state_dict().items()):
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:16]}…"
