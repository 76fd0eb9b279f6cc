"""What came out of a fine-tuning: its files, read back, and the model card (README.md, as the hub shows it)."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch

from humanclap import __version__
from humanclap.checks import listed, need_columns
from humanclap.files import expanded, lock, remove_folder, write_text
from humanclap.finetune.config import FinetuneConfig
from humanclap.tables import read_table

if TYPE_CHECKING:
    from humanclap.relate import Screening

PACKAGES = ("torch", "transformers", "numpy", "pandas", "safetensors")
_NOT_COMPARED = ("base", "n_train", "split_by", "split_seed", "precision")
"""Settings that say where base and pairs came from, or what the device makes of them: all are compared by content."""
CHECKPOINT, HISTORY, SCORES, SETTINGS = "checkpoint.pt", "history.csv", "validation.csv", "settings.json"
MODEL, CARD = "model", "README.md"
FINISHED = "finished"
TEMPLATE = Path(__file__).with_name("card.md")
HISTORY_COLUMNS = ("epoch", "train_loss", "validation_loss", "validation_srcc", "temperature")
TABLE_COLUMNS = ("model", "cell", "metric", "value", "low", "high", "n")
CURVE_ROWS = 15


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
    in_memory: torch.nn.Module | None = field(default=None, repr=False)

    @classmethod
    def read(cls, folder: Path, config: FinetuneConfig) -> FinetuneResult:
        """What a finished run left in its folder. Raises CheckpointError for one that is not finished."""
        settings = read_settings(folder)
        if settings is None or settings["status"] != FINISHED:
            raise CheckpointError(f"{folder} holds no finished fine-tuning: resume=True goes on with it")
        scores = pd.DataFrame(read_table(folder / SCORES).columns)  # of text, as a DataFrame that was never written
        scores = scores.astype(dict.fromkeys(("target", "base_clap_score", "clap_score"), float))
        return cls(config, _read_history(folder), settings["best_epoch"], scores, folder / MODEL, settings)

    @cached_property
    def model(self) -> torch.nn.Module:
        """The ClapModel of the best epoch, in eval mode; with a `checkpoint` it is read from there at its first use,
        on the CPU."""
        if self.in_memory is not None:
            return self.in_memory
        from transformers import ClapModel

        return ClapModel.from_pretrained(self.checkpoint, local_files_only=True).eval()

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


def _read_history(folder: Path) -> pd.DataFrame:
    """A run's history.csv, each number as it was."""
    columns = read_table(folder / HISTORY).columns
    numbers = {name: [float(value or "nan") for value in values] for name, values in columns.items()}
    return pd.DataFrame(numbers).astype({"epoch": int})


# --- a run's folder -------------------------------------------------------------------------------------


def open_folder(output_dir, overwrite: bool, resume: bool) -> Path | None:
    """The run's folder, None without one; ValueError, NotADirectoryError or FileExistsError where it can't be used."""
    if overwrite and resume:
        raise ValueError("resume=True goes on with a run and overwrite=True replaces it: give one of them")
    if output_dir is None and resume:
        raise ValueError("resume=True needs an output_dir")
    if output_dir is None:
        return None
    folder = expanded(output_dir)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; give the name of a folder for this run")
    found = [name for name in (SETTINGS, HISTORY, MODEL, CHECKPOINT) if (folder / name).exists()]
    if found and not (overwrite or resume):
        raise FileExistsError(
            f"{folder} already holds a fine-tuning ({listed(found)}): give another output_dir, "
            "resume=True to go on with it, or overwrite=True to replace it"
        )
    return folder


@contextmanager
def run_folder(folder: Path | None, settings: dict, resume: bool) -> Iterator[tuple[bool, dict | None]]:
    """Hold `folder` against other processes; gives whether a finished run lies there, and else the checkpoint, or None.

    Remains of a killed process are removed, and everything where no run goes on. Raises RuntimeError where another
    process trains there, and, changing nothing, CheckpointError for a run with other `settings` or a damaged checkpoint.
    """
    if folder is None:
        yield False, None
        return
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with lock(folder / ".lock", wait=False):
            finished, saved = _find(folder, settings) if resume else (False, None)
            _clear(folder, everything=not finished and saved is None)
            if finished:
                (folder / CHECKPOINT).unlink(missing_ok=True)  # it was stopped while it tidied up
            yield finished, saved
    except BlockingIOError as error:
        raise RuntimeError(f"another process trains in {folder} right now: give another output_dir") from error


def _find(folder: Path, settings: dict) -> tuple[bool, dict | None]:
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
    if differ := _differences(_identity(before), _identity(settings)):
        raise CheckpointError(
            f"{path if saved else folder} is of another fine-tuning: {'; '.join(differ)}. Nothing was changed there; "
            "give another output_dir, or overwrite=True to replace it"
        )
    old, new = ({"threads": one["threads"], "torch": one["versions"]["torch"]} for one in (before, settings))
    if saved and old != new:  # what rounding depends on
        warnings.warn(
            f"{path} was trained with {' and '.join(_differences(old, new))}: the run goes on, and may not end bit-equal "
            "to one that was never stopped",
            stacklevel=6,
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


def _differences(old: dict, new: dict) -> list[str]:
    """Such as "learning_rate 0.001, now 0.002"; hashes are cut off."""
    changed = [name for name in new if old.get(name) != new[name]]
    return [f"{name} {str(old.get(name)):.40}, now {str(new[name]):.40}" for name in changed]


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


def describe(
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


# --- the model card -------------------------------------------------------------------------------------


def write_card(
    folder: str | os.PathLike,
    label: str = "human ratings",
    table: pd.DataFrame | None = None,
    model: str | None = None,
    screening: Screening | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write README.md, the model card, into a run's model/ `folder`, whole or not at all, and return its path.

    Settings and curve are read from settings.json and history.csv of the run, the folder above.

    label: where the ratings come from, "RELATE ratings" or "synthetic"; shown with every number.
    table: test results as `evaluate.breakdown` gives them: model, cell, metric, value, low, high, n, and where they
        are known floor, ceiling and note. Only the rows of `model` are shown; a NaN value is shown as "–" with its
        note. None: the card says that the model was not tested.
    model: its name in the table; None takes the kind of loss.
    screening: of the listeners; its rule and its counts are shown.
    notes: paragraphs below the results, such as how this variant was chosen.

    Text from outside is escaped. Raises FileNotFoundError for a folder without a model or without the run's files,
    ValueError for a missing column, a table without `model` or an empty label.
    """
    from huggingface_hub import ModelCard, ModelCardData

    folder = Path(folder)
    run = folder.resolve().parent
    needed = [folder / "config.json", folder / "preprocessor_config.json", run / SETTINGS, run / HISTORY]
    if absent := [path for path in needed if not path.is_file()]:
        raise FileNotFoundError(f"there is no {listed(absent)}: give the model folder of a run, <run>/{MODEL}")
    if not (isinstance(label, str) and label.strip()):
        raise ValueError(f"label is {label!r}; say where the ratings come from: 'RELATE ratings' or 'synthetic'")
    settings, history, synthetic = read_settings(run), _read_history(run), "synthetic" in label.lower()
    base, best, loss = settings["base"]["name"], settings["best_epoch"], history["validation_loss"]
    model = model or settings["config"]["kind"]
    extractor, architecture = (json.loads(path.read_text(encoding="utf-8")) for path in (needed[1], needed[0]))
    front_matter = {
        "language": "en",
        "license": "mit" if synthetic else "other",
        "library_name": "transformers",
        "pipeline_tag": "feature-extraction",
        "tags": ["clap", "human-clap", "clapscore", "audio-text-relevance", *["synthetic-data"] * synthetic],
        "metrics": ["spearmanr", "pearsonr", "mse"],
    }
    if not synthetic:
        front_matter["license_name"] = "see-base-model-and-ratings"
    if re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w.-]+)?", base):  # the hub refuses what is no model of its own
        front_matter["base_model"] = base.partition("@")[0]
    # At most CURVE_ROWS epochs and the best one: first, last and some between them at equal distances.
    last = len(history) - 1
    curve = sorted({best, *(round(last * i / (CURVE_ROWS - 1)) for i in range(CURVE_ROWS))})
    hashes = {f"base, {name}": settings["base"][name] for name in ("checkpoint_sha256", "weights_sha256")}
    card = ModelCard.from_template(
        ModelCardData(**front_matter),
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        plain=_plain,
        number=_number,
        label=_plain(label),
        synthetic=synthetic,
        model=model,
        base=base,
        # The base by its name, as its path is nobody else's business.
        config=settings["config"] | {"base": base},
        data=settings["data"],
        screening=screening,
        counts=[] if screening is None else screening.counts().reset_index().to_dict("records"),
        best_epoch=best,
        improved=loss[best] < loss[0],
        curve=history.loc[curve, list(HISTORY_COLUMNS)].to_dict("split")["data"],
        curve_names=[name.replace("_", " ") for name in HISTORY_COLUMNS],
        results=[] if table is None else _results(table, model),
        notes=notes,
        versions=hashes | {name: settings[name] for name in ("device", "threads")} | settings["versions"],
        sample_rate=extractor["sampling_rate"],
        window_seconds=f"{extractor['nb_max_samples'] / extractor['sampling_rate']:g}",
        fused=architecture.get("audio_config", {}).get("enable_fusion", False),
    )
    write_text(folder / CARD, card.content + "\n")
    return folder / CARD


def _results(table: pd.DataFrame, model: str) -> list[dict]:
    need_columns(table, "table", TABLE_COLUMNS)
    rows = table[table["model"] == model]
    if rows.empty:
        raise ValueError(f"the table has no rows of model {model!r}. Available: {listed(table['model'].unique())}")
    rows = rows.reindex(columns=[*TABLE_COLUMNS, "floor", "ceiling", "note"])
    return rows.assign(note=rows["note"].fillna("")).to_dict("records")


def _plain(value: object) -> str:
    """Any text as Markdown and HTML show it letter by letter, on one line and within a cell of a table."""
    line = " ".join(str(value).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]{}|#~$!])", r"\\\1", line)


def _number(value: object) -> str:
    return "–" if pd.isna(value) else f"{float(value):.3f}"
