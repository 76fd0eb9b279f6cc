"""One fine-tuning: its epochs, the checkpoint it can be resumed from, and the files it leaves."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from humanclap import __version__
from humanclap.clap.huggingface import save_clapmodel
from humanclap.evaluate import correlations
from humanclap.files import expanded, lock, remove_folder, write_text, writing
from humanclap.finetune.config import FinetuneConfig
from humanclap.finetune.data import PairData, check_pairs, prepare, repeated_captions
from humanclap.finetune.loop import NonFiniteLoss, Trainer, choose_precision, named_terms, reproducible, small_on_cpu
from humanclap.finetune.result import (
    CHECKPOINT,
    FINISHED,
    HISTORY,
    MODEL,
    SCORES,
    SETTINGS,
    CheckpointError,
    FinetuneResult,
    read_settings,
    require_no_run,
    write_card,
)

RUNNING = "running"
PACKAGES = ("torch", "transformers", "numpy", "pandas", "safetensors")
_NOT_COMPARED = ("base", "n_train", "split_by", "split_seed", "precision")
"""Settings that say where base and pairs came from, or what the device makes of them: all are compared by content."""


def finetune(
    config: FinetuneConfig,
    train_pairs: pd.DataFrame | PairData,
    validation_pairs: pd.DataFrame | PairData,
    audio_root: str | os.PathLike | None = None,
    output_dir: str | os.PathLike | None = None,
    base=None,
    device: str = "auto",
    progress: bool = True,
    overwrite: bool = False,
    resume: bool = False,
    cache_dir: str | os.PathLike | None = None,
) -> FinetuneResult:
    """Fine-tune a CLAP on rated pairs (equation 6) and keep the epoch with the lowest validation loss.

    Epoch 0, the base, is measured and recorded but cannot win, as the paper chooses among trained models;
    `FinetuneResult.improved` says whether training beat it.

    `train_pairs`, `validation_pairs`: DataFrames with audio (relative to `audio_root`), text and target (0-1), as
        `relate.aggregate_pairs` makes them; or what `prepare` made of them, to read the audio once for several runs.
    `output_dir`: gets, after every epoch, history.csv and checkpoint.pt, and after every better one model/, each whole
        or not at all; at the end validation.csv and a model card, and the checkpoint is removed.
    `base`: a name, folder or loaded CLAP that is a ClapModel; None takes `config.base`. It is not changed.
    `device`: a torch device; "auto" is where a loaded base is, else a GPU where there is one.
    `overwrite`: replace a run that lies in `output_dir`.
    `resume`: go on with the run in `output_dir` after its last whole epoch. It ends as if it had never been
        stopped: bit-equal on a CPU with the same torch and number of threads. Where there is no run, it begins; a
        finished one is read and returned.
    `cache_dir`: where `prepare` keeps features.

    Warns (UserWarning) when pairs or captions are in both sets, as the validation loss then rewards memory, when all
    ratings of a set are equal, when the validation SRCC does not exist, when a batch can't avoid a repeated caption,
    and when a run goes on with another number of threads or another torch. Raises what `prepare` raises, TypeError
    for a base that is no ClapModel, ValueError for prepared pairs from another front end, FileExistsError for an
    `output_dir` that holds a run (neither `resume` nor `overwrite`), CheckpointError (a ValueError) for a run to
    resume that had another configuration, base or data, or whose checkpoint is damaged, RuntimeError where another
    process trains in the folder, OSError where an epoch can't be saved, saying what is whole; and NonFiniteLoss
    when the loss becomes NaN or infinite: the best model until then stays in `output_dir` and in the error's `result`.
    """
    folder = _folder_of(output_dir, overwrite, resume)
    clap = open_base(base or config.base, device)
    place = next(clap.model.parameters()).device if device == "auto" else torch.device(device)
    precision = choose_precision(config.precision, place)
    given = {"train": train_pairs, "validation": validation_pairs}
    checked = {name: _checked(clap, pairs, audio_root, name) for name, pairs in given.items()}
    with ExitStack() as stack:
        if folder is not None:
            stack.enter_context(_locked(folder))
        stack.enter_context(reproducible(place))
        stack.enter_context(small_on_cpu(clap.model, place))
        settings = _describe(config, clap, checked, place, precision)
        finished, saved = _found(folder, settings) if resume else (False, None)
        if folder is not None:
            _clear(folder, everything=not finished and saved is None)
        if finished:
            (folder / CHECKPOINT).unlink(missing_ok=True)  # it was stopped while it tidied up
            return FinetuneResult.read(folder, config)
        _warn_of_ratings(settings["data"]["shared"], {name: pairs["target"] for name, (pairs, _) in checked.items()})
        data = [
            pairs if isinstance(pairs, PairData) else prepare(clap, pairs, audio_root, progress, cache_dir)
            for pairs in given.values()
        ]
        trainer = Trainer(config, clap.model, *data, place)
        repeated = repeated_captions(trainer.batches(1))
        if config.distinct_captions and repeated:
            warnings.warn(
                f"{repeated} of {len(data[0])} training pairs have to share a batch of {config.batch_size} with a pair of "
                "the same caption: there are too few captions, or one has more clips than there are batches",
                stacklevel=2,
            )
        run = _Run(trainer, clap, folder, settings)
        if saved is not None:
            run.go_on(saved)
        return run.train(progress)


def open_base(base, device: str):
    """`base`, opened if it is a name or folder. Raises TypeError for what is no ClapModel."""
    if isinstance(base, (str, Path)):
        from humanclap.clap import load_clap

        base = load_clap(str(expanded(base)), device=device)
    if not all(hasattr(base, name) for name in ("model", "front_end", "front_end_parts")):
        raise TypeError(
            f"base is a {type(base).__name__}, and only a transformers ClapModel can be fine-tuned: give a "
            "save_pretrained folder, or convert a LAION .pt to one first (humanclap convert)"
        )
    return base


# --- before the first epoch -----------------------------------------------------------------------------


def _folder_of(output_dir, overwrite: bool, resume: bool) -> Path | None:
    if overwrite and resume:
        raise ValueError("resume=True goes on with a run and overwrite=True replaces it: give one of them")
    if output_dir is None:
        if resume:
            raise ValueError("resume=True needs an output_dir")
        return None
    folder = expanded(output_dir)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; give the name of a folder for this run")
    if not (overwrite or resume):
        require_no_run(folder)
    return folder


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with lock(folder / ".lock", wait=False):
            yield
    except BlockingIOError as error:
        raise RuntimeError(f"another process trains in {folder} right now: give another output_dir") from error


def _checked(clap, pairs: pd.DataFrame | PairData, audio_root, name: str) -> tuple[pd.DataFrame, str]:
    """The pairs and their sha256; no clip is decoded, as a finished run needs none."""
    if not isinstance(pairs, PairData):
        if audio_root is None:
            raise ValueError(f"audio_root is None: it is needed to read the audio of {name}_pairs")
        return check_pairs(pairs, audio_root)
    if pairs.front_end != clap.front_end:
        raise ValueError(
            f"{name}_pairs were prepared with another front end than the base has: {pairs.front_end} against "
            f"{clap.front_end}; prepare them with this base"
        )
    return pairs.pairs, pairs.sha256


def _describe(
    config: FinetuneConfig, clap, checked: dict[str, tuple[pd.DataFrame, str]], device: torch.device, precision: str
) -> dict:
    """What decides the outcome: configuration, base, data (with sha256), device, threads and versions.

    data.shared counts the pairs, captions and clips that are in both sets.
    """
    weights = hashlib.sha256()
    for name, values in sorted(clap.model.state_dict().items()):
        weights.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        weights.update(values.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    one, other = (pairs for pairs, _ in checked.values())
    keys = {"pairs": ["audio", "text"], "captions": ["text"], "clips": ["audio"]}
    shared = {
        name: len(one[columns].drop_duplicates().merge(other[columns].drop_duplicates()))
        for name, columns in keys.items()
    }
    data = {name: {"pairs": len(pairs), "sha256": sha256} for name, (pairs, sha256) in checked.items()}
    base = {"name": clap.name, "checkpoint_sha256": clap.checkpoint_sha256, "weights_sha256": weights.hexdigest()}
    packages = {name: version(name) for name in PACKAGES}
    return {
        "config": asdict(config),
        "base": base,
        "data": data | {"shared": shared, "front_end": clap.front_end},
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "precision": precision,
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "humanclap": __version__, **packages},
    }


def _found(folder: Path, settings: dict) -> tuple[bool, dict | None]:
    """Whether a finished run lies in `folder`, and else the checkpoint to go on from, or None.

    Raises CheckpointError for a run with other `settings` and for a damaged checkpoint; nothing is changed.
    """
    path, before, saved = folder / CHECKPOINT, read_settings(folder), None
    finished = before is not None and before["status"] == FINISHED
    if path.exists() and not finished:
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
            before = saved["settings"]
        except OSError:
            raise
        except Exception as error:  # torch raises anything for a file that is no whole checkpoint
            why = " ".join(str(error).split())[:100] or type(error).__name__
            kept = f"the best model until then is in {folder / MODEL}: " if (folder / MODEL).is_dir() else ""
            raise CheckpointError(
                f"{path} is damaged ({why}) and can't be resumed from; {kept}give another "
                "output_dir, or begin anew with overwrite=True (--overwrite)"
            ) from error
    if before is None:
        return False, None
    if other := _changed(_identity(before), _identity(settings)):
        raise CheckpointError(
            f"{path if saved else folder} is of another fine-tuning: {'; '.join(other)}. Nothing was changed there; "
            "give another output_dir, or overwrite=True to replace it"
        )
    if saved and (changed := _changed(_conditions(before), _conditions(settings))):
        warnings.warn(
            f"{path} was trained with {' and '.join(changed)}: the run goes on, and may not end bit-equal to one that "
            "was never stopped",
            stacklevel=3,
        )
    return finished, saved


def _identity(settings: dict) -> dict[str, object]:
    """What must be equal, for a run to go on as if it had not been stopped."""
    config = {name: value for name, value in settings["config"].items() if name not in _NOT_COMPARED}
    return config | {
        "the base's weights": settings["base"]["weights_sha256"],
        "the training pairs": settings["data"]["train"]["sha256"],
        "the validation pairs": settings["data"]["validation"]["sha256"],
        "the front end": settings["data"]["front_end"],
        "kind of device": settings["device"].partition(":")[0],
        "precision": settings["precision"],
    }


def _conditions(settings: dict) -> dict[str, object]:
    """What rounding depends on, and may change in between."""
    return {"threads": settings["threads"], "torch": settings["versions"]["torch"]}


def _changed(old: dict, new: dict) -> list[str]:
    """Such as "learning_rate 0.001, now 0.002"."""

    def short(value: object) -> str:
        text = str(value)
        return text if len(text) <= 40 else f"{text[:16]}…"

    return [f"{name} {short(old.get(name))}, now {short(new[name])}" for name in new if old.get(name) != new[name]]


def _clear(folder: Path, everything: bool) -> None:
    """Remove what a killed process left half written, and `everything` of a run."""
    names = (SETTINGS, CHECKPOINT, HISTORY, SCORES)
    for remains in folder.glob(".*"):
        if any(name in remains.name for name in (*names, MODEL)):
            shutil.rmtree(remains) if remains.is_dir() else remains.unlink()
    if everything:
        # The settings go first: without them, and without a checkpoint, no run is here to be resumed.
        for name in names:
            (folder / name).unlink(missing_ok=True)
        remove_folder(folder / MODEL)


def _warn_of_ratings(shared: dict[str, int], targets: dict[str, pd.Series]) -> None:
    if shared["pairs"] or shared["captions"]:
        warnings.warn(
            f"{shared['pairs']} pairs and {shared['captions']} captions are in both the training and the validation set: "
            "the validation loss then rewards memory. relate.split_train_validation(by='caption') keeps them apart",
            stacklevel=3,
        )
    for name, what in (("train", "no order can be learnt from them"), ("validation", "there is no validation SRCC")):
        if targets[name].nunique() == 1:
            equal = f"all {len(targets[name])} ratings of the {name} pairs are {targets[name].iloc[0]:g}"
            warnings.warn(f"{equal}: {what}", stacklevel=3)


# --- the epochs -----------------------------------------------------------------------------------------


class _Run:
    """One fine-tuning, from its first epoch or from where `go_on` takes it up, to its result."""

    def __init__(self, trainer: Trainer, clap, folder: Path | None, settings: dict) -> None:
        self.trainer, self.clap, self.folder, self.settings = trainer, clap, folder, settings
        self.rows: list[dict] = []
        self.best_epoch: int | None = None
        self.scores: dict[str, list[float]] = {}  # of the validation pairs: base_clap_score, clap_score
        self.best_weights: dict[str, torch.Tensor] = {}  # where no folder keeps them
        self.resumed: list[int] = []

    def go_on(self, saved: dict) -> None:
        """Take the run up after the epoch of a checkpoint."""
        self.trainer.restore(saved)
        self.rows, self.best_epoch, self.scores = saved["rows"], saved["best_epoch"], saved["scores"]
        epoch = len(self.rows) - 1
        self.resumed = [*saved["resumed"], epoch]
        if self.best_epoch != epoch and not (self.folder / MODEL).is_dir():
            raise CheckpointError(
                f"{self.folder / MODEL} is not there, and epoch {self.best_epoch}, the best so far, is in no "
                "checkpoint any more; overwrite=True begins anew"
            )
        self._write_results(better=self.best_epoch == epoch)  # it may have been stopped between checkpoint and model

    def train(self, progress: bool) -> FinetuneResult:
        """All epochs that are left, and the result."""
        from tqdm.auto import tqdm

        config, steps = self.trainer.config, len(self.trainer.batches(1))
        done, started = len(self.rows), time.perf_counter()
        self._write_settings(RUNNING)  # what a killed run leaves behind
        first = max(done - 1, 0) * steps
        try:
            with tqdm(
                total=config.epochs * steps, initial=first, desc=config.kind, unit="step", disable=not progress
            ) as bar:
                for epoch in range(done, config.epochs + 1):
                    self._epoch(epoch, bar)
        except NonFiniteLoss as error:
            self._write_settings(f"stopped: {error}")
            if self.best_epoch is None:
                raise NonFiniteLoss(f"{error}. No epoch was finished, so there is no model to keep") from None
            where = self.folder / MODEL if self.folder else "the error's .result"
            stopped = NonFiniteLoss(f"{error}. The best model until then, of epoch {self.best_epoch}, is in {where}")
            stopped.result = self._result()
            raise stopped from None
        return self._finished(round(time.perf_counter() - started, 3))

    def _epoch(self, epoch: int, bar) -> None:
        def show(step: int, loss: float) -> None:
            bar.update()
            bar.set_postfix(epoch=epoch, loss=f"{loss:.4f}", refresh=False)

        trained = self.trainer.train_epoch(epoch, show) if epoch else {}
        validated, score = self.trainer.validate(epoch)
        # Strictly lower: of two equal epochs the earlier one wins.
        better = epoch > 0 and all(validated["loss"] < row["validation_loss"] for row in self.rows[1:])
        self.rows.append(self._row(epoch, trained, validated, score))
        if epoch == 0 or better:
            self.scores["clap_score" if epoch else "base_clap_score"] = score.tolist()
        if better:
            self.best_epoch = epoch
        self._save(epoch, better)
        shown = (
            ("train_loss", "validation_loss", "validation_srcc") if epoch else ("validation_loss", "validation_srcc")
        )
        bar.set_postfix(
            {"epoch": epoch} | {name.removeprefix("train_"): f"{self.rows[-1][name]:.4f}" for name in shown}
        )

    def _row(self, epoch: int, trained: dict, validated: dict, score: np.ndarray) -> dict:
        target = self.trainer.validation_pairs.pairs["target"].to_numpy()
        srcc = float(correlations(score, target).srcc) if len(score) > 1 else math.nan
        if math.isnan(srcc) and (len(score) < 2 or np.ptp(target) > 0):  # equal ratings were warned of before
            why = "there is one validation pair" if len(score) < 2 else "all validation pairs have the same score"
            warnings.warn(f"the validation SRCC does not exist in epoch {epoch}: {why}", stacklevel=5)
        return {
            "epoch": epoch,
            **named_terms("train_", trained),
            "negative_share": trained.get("negative_share", math.nan),
            **named_terms("validation_", validated),
            "validation_negative_share": validated["negative_share"],
            "validation_srcc": srcc,
            "temperature": self.trainer.temperature,
        }

    def _save(self, epoch: int, better: bool) -> None:
        if self.folder is None:
            if better:
                weights = self.trainer.model.state_dict()
                self.best_weights = {name: values.detach().cpu().clone() for name, values in weights.items()}
            return
        saved = {"rows": self.rows, "best_epoch": self.best_epoch, "scores": self.scores, "resumed": self.resumed}
        try:
            # The checkpoint first: a run stopped right after it still has the weights that model/ should get.
            if epoch:
                with writing(self.folder / CHECKPOINT) as fresh, fresh.open("wb") as file:
                    torch.save({**self.trainer.state(), **saved, "settings": self.settings}, file)
            self._write_results(better)
        except Exception as error:  # torch and safetensors raise errors of their own
            cause = error.__context__ if isinstance(error.__context__, OSError) else error
            reason = getattr(cause, "strerror", None) or " ".join(str(cause).split())[:200]
            raise OSError(
                f"epoch {epoch} could not be saved in {self.folder} ({reason}); the last checkpoint and the best model "
                "that were saved are whole. Make room and call again with resume=True (--resume)"
            ) from error

    def _write_results(self, better: bool) -> None:
        if better:
            save_clapmodel(self.folder / MODEL, self.trainer.model, self.clap.front_end_parts)
        write_text(self.folder / HISTORY, pd.DataFrame(self.rows).to_csv(index=False))

    def _write_settings(self, status: str, **more) -> None:
        self.settings |= {"status": status, "best_epoch": self.best_epoch, "resumed": self.resumed, **more}
        if self.folder is not None:
            write_text(self.folder / SETTINGS, json.dumps(self.settings, indent=2) + "\n")

    def _finished(self, seconds: float) -> FinetuneResult:
        result = self._result()
        if self.folder is not None:
            write_text(self.folder / SCORES, result.validation.to_csv(index=False))
            self._write_settings(RUNNING)  # with the best epoch, which the card shows
            write_card(self.folder / MODEL)
            self._write_settings(FINISHED, seconds=seconds)
            (self.folder / CHECKPOINT).unlink(missing_ok=True)
        return result

    def _result(self) -> FinetuneResult:
        model = None
        if self.folder is None:
            model = self.trainer.model.eval().requires_grad_(True)
            model.load_state_dict(self.best_weights)
        return FinetuneResult(
            config=self.trainer.config,
            history=pd.DataFrame(self.rows),
            best_epoch=self.best_epoch,
            validation=self.trainer.validation_pairs.pairs[["audio", "text", "target"]].assign(**self.scores),
            checkpoint=self.folder / MODEL if self.folder else None,
            settings=self.settings,
            in_memory=model,
        )
