"""What comes out of a fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch

from humanclap.finetune.config import FinetuneConfig
from humanclap.finetune.folder import RunFolder

FINISHED = "finished"
"""The status, in the manifest, of a run that came to its end."""


@dataclass(frozen=True, eq=False)
class FinetuneResult:
    """What came out of one fine-tuning.

    history: one row an epoch, 0 to `config.epochs`, epoch 0 being the base before any step. Columns: epoch;
        train_loss, train_contrastive (SCE or wSCE), train_regression (MSE or MAE), means over the pairs as
        the epoch went by, empty for epoch 0, and terms that the loss does not have are empty; negative_share,
        the share of training pairs whose cosine was below 0, which get no gradient from the regression term;
        validation_loss, validation_contrastive, validation_regression, validation_negative_share;
        validation_srcc (of CLAPScore, NaN where undefined); temperature (τ, after the epoch).
    best_epoch: the trained epoch (1 or later) with the lowest validation loss, the earliest of equal ones.
    checkpoint: the folder the model of that epoch lies in, for `load_clap` or `ClapModel.from_pretrained`; None
        without output_dir.
    n_train, n_validation: pairs.
    settings: the manifest: configuration, versions, device, precision, sha256 of the base's weights and of the
        data.
    times: one row an epoch: epoch, train_seconds, validation_seconds, and peak_memory_bytes, what torch had
        allocated at most on the GPU in that epoch (empty on a CPU). Apart from the history, which two runs share
        to the last byte.
    """

    config: FinetuneConfig
    history: pd.DataFrame
    best_epoch: int
    checkpoint: Path | None
    n_train: int
    n_validation: int
    settings: dict
    times: pd.DataFrame
    held: dict[str, torch.nn.Module] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, folder: RunFolder, config: FinetuneConfig) -> FinetuneResult:
        """What a finished run left in its folder. Raises ValueError for one that is not finished."""
        manifest = folder.read_manifest()
        if not manifest or manifest.get("status") != FINISHED:
            raise ValueError(f"{folder.path} holds no finished fine-tuning: resume=True goes on with it")
        history, times = folder.read_history()
        n_train, n_validation = (manifest["data"][name]["pairs"] for name in ("train", "validation"))
        return cls(config, history, manifest["best_epoch"], folder.model, n_train, n_validation, manifest, times)

    @property
    def model(self) -> torch.nn.Module:
        """The ClapModel of the best epoch, in eval mode; read from `checkpoint` at its first use, on the CPU, where
        the training did not leave it in memory."""
        if "model" not in self.held:
            from transformers import ClapModel

            self.held["model"] = ClapModel.from_pretrained(self.checkpoint, local_files_only=True).eval()
        return self.held["model"]

    def release(self) -> FinetuneResult:
        """Let go of the model in memory, if it lies in `checkpoint`; returns the result itself."""
        if self.checkpoint is not None:
            self.held.clear()
        return self

    @property
    def improved(self) -> bool:
        """Whether the best epoch has a lower validation loss than the base had."""
        loss = self.history.set_index("epoch")["validation_loss"]
        return bool(loss[self.best_epoch] < loss[0])
