"""The epochs of one fine-tuning: history, the best model so far, and the files."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file

from humanclap.evaluate.correlation import correlations
from humanclap.finetune.board import Board
from humanclap.finetune.checkpoint import CheckpointError, Progress
from humanclap.finetune.folder import RunFolder
from humanclap.finetune.result import FINISHED, FinetuneResult
from humanclap.finetune.trainer import NonFiniteLoss, Trainer

RUNNING = "running"
_SHOWN_EVERY = 20  # steps: on a GPU, reading the loss waits for it


class Run:
    """One fine-tuning, from its first epoch or from where `go_on` takes it up, to its result."""

    def __init__(
        self, trainer: Trainer, clap, folder: RunFolder | None, settings: dict, tensorboard: bool = False
    ) -> None:
        """`settings` is what `describe` returned; it becomes the manifest. Other processes than the first write
        nothing. Raises ImportError for `tensorboard` without the package."""
        self.trainer, self.clap, self.settings = trainer, clap, settings
        self.folder = folder
        self.writes = folder is not None and trainer.engine.is_main
        self.rows: list[dict] = []
        self.times: list[dict] = []
        self.best_epoch: int | None = None
        self.best_loss = np.inf
        self.best_state: dict[str, torch.Tensor] = {}  # where no folder keeps it
        self.resumed: list[int] = []
        self.board = Board(folder.board) if tensorboard and self.writes else None

    def go_on(self, done: Progress) -> None:
        """Take the run up after the epoch of a checkpoint, read and found whole."""
        self.folder.checkpoints.restore(self.trainer, done.epoch)
        self.rows, self.times = list(done.rows), list(done.times)
        self.best_epoch, self.best_loss = done.best_epoch, done.best_loss
        self.resumed = [*done.resumed, done.epoch]
        if not self.writes:
            return
        if self.best_epoch == done.epoch:  # it may have been stopped between the checkpoint and the model
            with self._writing("the best model"):
                self.folder.write_model(self.trainer.model, self.clap)
        elif not self.folder.model.is_dir():
            raise CheckpointError(
                f"{self.folder.model} is not there, and epoch {self.best_epoch}, the best so far, is in no "
                "checkpoint any more; overwrite=True begins anew"
            )
        with self._writing(f"epoch {done.epoch}"):
            self.folder.write_history(self.history, self.time_table)

    def train(self, progress: bool) -> None:
        """All epochs that are left."""
        from tqdm.auto import tqdm

        config, started = self.trainer.config, time.perf_counter()
        self._write_status(RUNNING, started)  # what a killed run leaves behind
        steps = len(self.trainer.batches(1))
        done = len(self.rows)
        bar = tqdm(
            total=config.epochs * steps,
            initial=max(done - 1, 0) * steps,
            desc=config.kind,
            unit="step",
            disable=not progress,
        )
        try:
            with bar:
                for epoch in range(done, config.epochs + 1):
                    self._epoch(epoch, bar)
        except NonFiniteLoss as error:
            self._write_status(f"stopped: {error}", started)
            raise
        finally:
            if self.board:
                self.board.close()
        self._write_status(FINISHED, started)
        if self.writes:
            self.folder.checkpoints.remove()

    @property
    def history(self) -> pd.DataFrame:
        """One row an epoch."""
        return pd.DataFrame(self.rows)

    @property
    def time_table(self) -> pd.DataFrame:
        """How long each took."""
        return pd.DataFrame(self.times)

    def result(self) -> FinetuneResult:
        """What came out, with the best model."""
        self.trainer.engine.wait()
        model = self.trainer.finish()
        best = load_file(self.folder.model / "model.safetensors") if self.folder else self.best_state
        model.load_state_dict(best)
        return FinetuneResult(
            config=self.trainer.config,
            history=self.history,
            best_epoch=self.best_epoch,
            checkpoint=self.folder.model if self.folder else None,
            n_train=len(self.trainer.train_pairs),
            n_validation=len(self.trainer.validation_pairs),
            settings=self.settings,
            times=self.time_table,
            held={"model": model},
        )

    def stopped(self, error: NonFiniteLoss) -> NonFiniteLoss:
        """The same error, with the best model and word of where it is."""
        if self.best_epoch is None:
            return NonFiniteLoss(f"{error}. No epoch was finished, so there is no model to keep")
        where = self.folder.model if self.folder else "the error's .result"
        complete = NonFiniteLoss(
            f"{error}. The best model until then, of epoch {self.best_epoch}, is in {where}"
        )
        complete.result = self.result()
        return complete

    def _epoch(self, epoch: int, bar) -> None:
        device, started = self.trainer.device, time.perf_counter()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        trained = self.trainer.train_epoch(epoch, lambda step, loss: self._show(bar, step, loss)) if epoch else {}
        between = time.perf_counter()
        validated, score = self.trainer.validate(epoch)
        ended = time.perf_counter()
        self.rows.append(self._row(epoch, trained, validated, score))
        peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else math.nan
        self.times.append(
            {
                "epoch": epoch,
                "train_seconds": between - started if epoch else math.nan,
                "validation_seconds": ended - between,
                "peak_memory_bytes": peak,
            }
        )
        # Strictly lower: of two equal epochs the earlier one wins.
        better = epoch > 0 and validated["loss"] < self.best_loss
        if better:
            self.best_epoch, self.best_loss = epoch, validated["loss"]
        self._keep(epoch, better)
        if self.board:
            self.board.write(self.rows[-1])
        shown = {"loss": trained["loss"]} if epoch else {}
        shown |= {"validation_loss": validated["loss"], "validation_srcc": self.rows[-1]["validation_srcc"]}
        bar.set_postfix(epoch=epoch, **{name: f"{value:.4f}" for name, value in shown.items()})

    def _show(self, bar, step: int, loss: torch.Tensor) -> None:
        bar.update()
        if not bar.disable and (loss.device.type == "cpu" or step % _SHOWN_EVERY == 0):
            bar.set_postfix(epoch=len(self.rows), loss=f"{loss.item():.4f}", refresh=False)

    def _keep(self, epoch: int, better: bool) -> None:
        """The checkpoint first: a run stopped right after it still has the weights that model/ should get."""
        model = self.trainer.model
        if better and not self.folder:
            self.best_state = {name: values.detach().cpu().clone() for name, values in model.state_dict().items()}
        if not self.writes:
            return
        if epoch:
            with self._writing(f"the checkpoint of epoch {epoch}"):
                self.folder.checkpoints.save(self.trainer, self._progress(epoch))
        if better:
            with self._writing(f"the best model, of epoch {epoch}"):
                self.folder.write_model(model, self.clap)
        with self._writing(f"the history of epoch {epoch}"):
            self.folder.write_history(self.history, self.time_table)

    def _progress(self, epoch: int) -> Progress:
        return Progress(
            epoch, self.rows, self.times, self.best_epoch, float(self.best_loss), self.resumed, self.settings
        )

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """Say of a failed write what was to be written, and what is whole."""
        try:
            yield
        except OSError as error:
            epochs = self.folder.checkpoints.epochs()
            whole = f"the checkpoint of epoch {epochs[-1]} is whole" if epochs else "there is no checkpoint yet"
            if self.folder.model.is_dir():
                whole += ", and so is the best model before it, in model/"
            raise OSError(
                error.errno,
                f"{error.strerror or error}: {what} could not be written to {self.folder.path}; {whole}. Make room "
                "and call again with resume=True",
            ) from error

    def _write_status(self, status: str, started: float) -> None:
        seconds = round(time.perf_counter() - started, 3)
        self.settings.update(status=status, best_epoch=self.best_epoch, resumed=self.resumed, seconds=seconds)
        if self.writes:
            with self._writing("the manifest"):
                self.folder.write_manifest(self.settings)

    def _row(self, epoch: int, trained: dict, validated: dict, score: np.ndarray) -> dict:
        target = self.trainer.validation_pairs.pairs["target"].to_numpy()
        return {
            "epoch": epoch,
            **_named("train_", trained),
            "negative_share": trained.get("negative_share", np.nan),
            **_named("validation_", validated),
            "validation_negative_share": validated["negative_share"],
            "validation_srcc": correlations(score, target).srcc if len(score) > 1 else np.nan,
            "temperature": self.trainer.temperature,
        }


def _named(prefix: str, means: dict[str, float]) -> dict[str, float]:
    """The loss and its two kinds of term under fixed names, NaN for what this loss does not have."""
    contrastive = means.get("wsce", means.get("sce", np.nan))
    regression = means.get("mse", means.get("mae", np.nan))
    loss = means.get("loss", np.nan)
    return {f"{prefix}loss": loss, f"{prefix}contrastive": contrastive, f"{prefix}regression": regression}
