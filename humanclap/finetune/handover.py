"""Base and prepared pairs on disk, for processes that train with them: mapped into memory, so held once."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from humanclap.files import locked
from humanclap.finetune.data import PairData

_TENSORS = ("clip", "caption", "target")
_WORK, _FRESH = ".work-", ".fresh-work-"


@contextmanager
def work_folder(parent: Path) -> Iterator[Path]:
    """A new folder in `parent` for what is handed over, removed afterwards; `parent` is made.

    Those that killed processes left are removed first. One that another process still holds is left alone, and so
    are all where folders can't be locked, as nothing tells there whether they are in use.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for remains in parent.glob(f"{_WORK}*"):
        try:
            with locked(remains) as mine:
                if mine:
                    shutil.rmtree(remains, ignore_errors=True)
        except OSError:  # gone by now, or of another user
            pass
    fresh = Path(tempfile.mkdtemp(prefix=_FRESH, dir=parent))
    work = parent / fresh.name.replace(_FRESH, _WORK)
    try:
        with locked(fresh):  # before it has the name that others look for
            fresh.rename(work)
            yield work
    finally:
        for folder in (fresh, work):
            shutil.rmtree(folder, ignore_errors=True)


def save_pairs(data: PairData, folder: Path) -> None:
    """Write prepared pairs into a new folder."""
    folder.mkdir(parents=True)
    arrays = {name: getattr(data, name) for name in _TENSORS}
    arrays |= {f"features.{name}": values for name, values in data.features.items()}
    arrays |= {f"tokens.{name}": values for name, values in data.tokens.items()}
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values.cpu().numpy(), allow_pickle=False)
    root = None if data.audio_root is None else str(data.audio_root.resolve())
    facts = {"sha256": data.sha256, "front_end": data.front_end, "audio_root": root}
    facts["pairs"] = data.pairs.to_dict("list")
    (folder / "pairs.json").write_text(json.dumps(facts), encoding="utf-8")


def load_pairs(folder: Path) -> PairData:
    """The same pairs again; their arrays are mapped, and what is written to them reaches no file."""
    facts = json.loads((folder / "pairs.json").read_text("utf-8"))
    arrays = {path.stem: _mapped(path) for path in sorted(folder.glob("*.npy"))}
    parts = {
        part: {name.partition(".")[2]: values for name, values in arrays.items() if name.startswith(f"{part}.")}
        for part in ("features", "tokens")
    }
    root = facts["audio_root"]
    return PairData(
        pairs=pd.DataFrame(facts["pairs"]),
        **parts,
        **{name: arrays[name] for name in _TENSORS},
        sha256=facts["sha256"],
        front_end=facts["front_end"],
        audio_root=None if root is None else Path(root),
    )


def save_base(clap, folder: Path) -> None:
    """Write a loaded base, as `save_pretrained` does, with what a run says of where it came from."""
    clap.model.save_pretrained(folder)
    clap.save_front_end(folder)
    facts = {"name": clap.name, "checkpoint_sha256": clap.checkpoint_sha256, "window": clap.window}
    (folder / "base.json").write_text(json.dumps(facts), encoding="utf-8")


def load_base(folder: Path):
    """The same base again, on the CPU."""
    from humanclap.clap import load_clap

    facts = json.loads((folder / "base.json").read_text("utf-8"))
    clap = load_clap(str(folder), device="cpu", window=facts["window"])
    clap.name, clap.checkpoint_sha256 = facts["name"], facts["checkpoint_sha256"]
    return clap


def _mapped(path: Path) -> torch.Tensor:
    array = np.load(path, mmap_mode=None if path.stat().st_size < 4096 else "c", allow_pickle=False)
    return torch.from_numpy(array)
