"""What a fine-tuning leaves: its folder, every file whole or not at all, and the manifest of what went in."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch

from humanclap import __version__
from humanclap.finetune.data import repeated_captions
from humanclap.finetune.trainer import Trainer

PACKAGES = ("torch", "transformers", "numpy", "pandas", "safetensors")
HISTORY, MANIFEST, MODEL = "history.csv", "manifest.json", "model"


@dataclass(frozen=True)
class RunFolder:
    """The files of one run: `history.csv`, one row an epoch; `model/`, the best epoch so far, as
    `save_pretrained` writes it; `manifest.json`, what went in and how it ended.
    """

    path: Path

    @classmethod
    def create(cls, path: str | Path, overwrite: bool = False) -> RunFolder:
        """An empty run folder. Raises FileExistsError if it holds a run already and `overwrite` is False."""
        folder = cls(Path(path))
        found = [name for name in (HISTORY, MANIFEST, MODEL) if (folder.path / name).exists()]
        if found and not overwrite:
            raise FileExistsError(
                f"{folder.path} already holds a fine-tuning ({', '.join(found)}): give another output_dir, "
                "or overwrite=True to replace it"
            )
        folder.path.mkdir(parents=True, exist_ok=True)
        for name in (HISTORY, MANIFEST):
            (folder.path / name).unlink(missing_ok=True)
        for remains in (*folder.path.glob(MODEL), *folder.path.glob(f".{MODEL}-*")):
            shutil.rmtree(remains)
        return folder

    @property
    def model(self) -> Path:
        """Where the best model lies."""
        return self.path / MODEL

    def write_history(self, history: pd.DataFrame) -> None:
        """Replace history.csv."""
        _write_text(self.path / HISTORY, history.to_csv(index=False))

    def write_manifest(self, manifest: dict) -> None:
        """Replace manifest.json."""
        _write_text(self.path / MANIFEST, json.dumps(manifest, indent=2, sort_keys=True) + "\n")

    def write_model(self, model, clap) -> None:
        """Replace model/ by `model`, with the tokenizer and the preprocessor of `clap`.

        A folder cannot be exchanged in one step everywhere, so for an instant the old one lies beside the new
        one under a name with a dot, and the next write, or `create`, clears it away.
        """
        fresh = Path(tempfile.mkdtemp(prefix=f".{MODEL}-new-", dir=self.path))
        try:
            model.save_pretrained(fresh)
            clap.save_front_end(fresh)
            for file in fresh.iterdir():
                _flush(file)
            retired = self.path / f".{MODEL}-old"
            shutil.rmtree(retired, ignore_errors=True)
            if self.model.exists():
                self.model.rename(retired)
            fresh.chmod(0o755)  # mkdtemp makes it private
            fresh.rename(self.model)
            shutil.rmtree(retired, ignore_errors=True)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def describe(trainer: Trainer, clap, shared: dict[str, int]) -> dict:
    """What decides the outcome: configuration, base, data (with sha256), device, threads and versions.

    `shared` counts what stands in the training and in the validation set.
    """
    train, validation = trainer.train_pairs, trainer.validation_pairs
    return {
        "config": trainer.config.to_dict(),
        "base": {
            "name": clap.name,
            "checkpoint_sha256": clap.checkpoint_sha256,
            "weights_sha256": _weights_hash(clap.model),
        },
        "data": {
            "train": {"pairs": len(train), "sha256": train.sha256},
            "validation": {"pairs": len(validation), "sha256": validation.sha256},
            "shared": shared,
            "repeated_captions_in_epoch_1": repeated_captions(trainer.batches(1)),
            "front_end": train.front_end,
        },
        "device": str(trainer.device),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "humanclap": __version__,
            **{name: version(name) for name in PACKAGES},
        },
    }


def _weights_hash(model: torch.nn.Module) -> str:
    """sha256 over names and values of all weights: the same wherever the model was loaded from."""
    digest = hashlib.sha256()
    for name, values in sorted(model.state_dict().items()):
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _write_text(path: Path, text: str) -> None:
    """Write beside `path` and rename: a reader finds the old text or the new one, never half of it."""
    fresh = path.with_name(f".{path.name}-new")
    try:
        fresh.write_text(text, encoding="utf-8")
        _flush(fresh)
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
