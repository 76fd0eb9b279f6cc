"""The history of a fine-tuning for TensorBoard."""

from __future__ import annotations

import math
from pathlib import Path


class Board:
    """A TensorBoard log of epochs: each column of the history is a scalar, such as validation/srcc."""

    def __init__(self, folder: Path) -> None:
        """Write below `folder`. Raises ImportError, saying what to install, without the package."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "tensorboard=True needs the package tensorboard, which is not installed: pip install tensorboard"
            ) from error
        self._folder, self._open = folder, SummaryWriter
        self._writer = None

    def write(self, row: dict) -> None:
        """One row of the history."""
        if self._writer is None:
            # What an earlier process wrote of this epoch and later ones is not shown any more.
            self._writer = self._open(str(self._folder), purge_step=row["epoch"])
        for name, value in row.items():
            if name != "epoch" and not math.isnan(value):
                self._writer.add_scalar(name.replace("_", "/", 1), value, row["epoch"])

    def close(self) -> None:
        """Flush and close."""
        if self._writer is not None:
            self._writer.close()
