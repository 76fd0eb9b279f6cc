"""The folder of one fine-tuning: history, times, manifest and best model, each there whole or not at all."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from humanclap.files import flush_folder, locked, place_folder, remove_folder, write_text
from humanclap.finetune.checkpoint import Checkpoints, writing

HISTORY, TIMES, MANIFEST, MODEL, BOARD = "history.csv", "times.csv", "manifest.json", "model", "tensorboard"


@dataclass(frozen=True)
class RunFolder:
    """The files of one run.

    `history.csv`, one row an epoch; `times.csv`, seconds and, on a GPU, peak memory of each; `model/`, the best
    epoch so far, as `save_pretrained` writes it; `manifest.json`, what went in and how it ended; `tensorboard/`,
    where asked for; and, until the run is finished, `epoch-0007/`, checkpoints to go on from.
    """

    path: Path

    @property
    def model(self) -> Path:
        """Where the best model lies."""
        return self.path / MODEL

    @property
    def board(self) -> Path:
        """Where TensorBoard's files lie."""
        return self.path / BOARD

    @property
    def checkpoints(self) -> Checkpoints:
        """Those of this run."""
        return Checkpoints(self.path)

    def found(self) -> list[str]:
        """What of a run is there."""
        names = [name for name in (HISTORY, MANIFEST, MODEL) if (self.path / name).exists()]
        return names + [self.checkpoints.path(epoch).name for epoch in self.checkpoints.epochs()]

    def require_empty(self) -> None:
        """Raise FileExistsError if a run lies here."""
        found = self.found()
        if found:
            raise FileExistsError(
                f"{self.path} already holds a fine-tuning ({', '.join(found)}): give another output_dir, "
                "resume=True to go on with it, or overwrite=True to replace it"
            )

    def clear(self) -> None:
        """Remove a run that lies here, and what a killed one left; the folder itself stays, or is made."""
        self.path.mkdir(parents=True, exist_ok=True)
        # The manifest goes first: without it, and without checkpoints, no run is here to be taken up again.
        for name in (MANIFEST, HISTORY, TIMES):
            (self.path / name).unlink(missing_ok=True)
        self.checkpoints.remove()
        for name in (MODEL, BOARD):
            remove_folder(self.path / name)
        self.clear_remains()

    def clear_remains(self) -> None:
        """Remove what a killed process left under names with a dot."""
        self.checkpoints.clear()
        for name in (MODEL, BOARD):
            for remains in self.path.glob(f".{name}-*"):
                shutil.rmtree(remains, ignore_errors=True)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the folder for this process. Raises RuntimeError where another one trains in it now."""
        self.path.mkdir(parents=True, exist_ok=True)
        with locked(self.path) as mine:
            if mine is False:
                raise RuntimeError(f"another process trains in {self.path} right now: give another output_dir")
            yield

    def read_manifest(self) -> dict | None:
        """The manifest, or None where there is none. Raises ValueError for a spoilt one."""
        path = self.path / MANIFEST
        try:
            return json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ValueError(f"{path} can't be read ({error}); overwrite=True begins anew") from error

    def read_history(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """history.csv and times.csv, to the last digit."""
        tables = [pd.read_csv(self.path / name, float_precision="round_trip") for name in (HISTORY, TIMES)]
        return tables[0], tables[1]

    def write_history(self, history: pd.DataFrame, times: pd.DataFrame) -> None:
        """Replace history.csv and times.csv."""
        write_text(self.path / HISTORY, history.to_csv(index=False))
        write_text(self.path / TIMES, times.to_csv(index=False))

    def write_manifest(self, manifest: dict) -> None:
        """Replace manifest.json."""
        write_text(self.path / MANIFEST, json.dumps(manifest, indent=2, sort_keys=True) + "\n")

    def write_model(self, model, clap) -> None:
        """Replace model/ by `model`, with the tokenizer and the preprocessor of `clap`."""
        fresh = Path(tempfile.mkdtemp(prefix=f".{MODEL}-new-", dir=self.path))
        try:
            with writing():
                model.save_pretrained(fresh, max_shard_size="100GB")
            clap.save_front_end(fresh)
            fresh.chmod(0o755)  # mkdtemp makes it private
            flush_folder(fresh)
            place_folder(fresh, self.model)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
