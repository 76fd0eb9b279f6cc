"""What came out of a fine-tuning: its files, read back, and the model card (README.md, as the hub shows it)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from humanclap.checks import listed, need_columns
from humanclap.files import write_text
from humanclap.finetune.config import FinetuneConfig
from humanclap.tables import read_table

if TYPE_CHECKING:
    import torch

    from humanclap.relate import Screening

CHECKPOINT, HISTORY, SCORES, SETTINGS = "checkpoint.pt", "history.csv", "validation.csv", "settings.json"
MODEL, CARD = "model", "README.md"
FINISHED = "finished"
TEMPLATE = Path(__file__).with_name("card.md")
HISTORY_COLUMNS = ("epoch", "train_loss", "validation_loss", "validation_srcc", "temperature")
TABLE_COLUMNS = ("model", "cell", "metric", "value", "low", "high", "n")
METRICS = {"srcc": "spearmanr", "lcc": "pearsonr", "mse": "mse"}
"""Our metrics that the hub has a name for."""
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
        history = _read_history(folder)
        scores = pd.DataFrame(read_table(folder / SCORES).columns)  # of text, as a DataFrame that was never written
        numbers = dict.fromkeys(("target", "base_clap_score", "clap_score"), float)
        return cls(config, history, settings["best_epoch"], scores.astype(numbers), folder / MODEL, settings)

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


def require_no_run(folder: Path) -> None:
    """Raise FileExistsError if a run lies in `folder`."""
    found = [name for name in (SETTINGS, HISTORY, MODEL, CHECKPOINT) if (folder / name).exists()]
    if found:
        raise FileExistsError(
            f"{folder} already holds a fine-tuning ({', '.join(found)}): give another output_dir, "
            "resume=True to go on with it, or overwrite=True to replace it"
        )


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
    from huggingface_hub import ModelCard

    folder = Path(folder)
    run = folder.resolve().parent
    needed = [folder / "config.json", folder / "preprocessor_config.json", run / SETTINGS, run / HISTORY]
    absent = [path for path in needed if not path.is_file()]
    if absent:
        raise FileNotFoundError(f"there is no {listed(absent)}: give the model folder of a run, <run>/{MODEL}")
    if not (isinstance(label, str) and label.strip()):
        raise ValueError(f"label is {label!r}; say where the ratings come from: 'RELATE ratings' or 'synthetic'")
    settings = read_settings(run)
    history = _read_history(run)
    config, base, best = settings["config"], settings["base"]["name"], settings["best_epoch"]
    model = model or config["kind"]
    results = None if table is None else _results(table, model)
    loss = history.set_index("epoch")["validation_loss"]
    card = ModelCard.from_template(
        _front_matter(config["kind"], base, label, results),
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        title=_plain(f"Human-CLAP, {model}, fine-tuned on {label}"),
        label=_plain(label),
        synthetic=_synthetic(label),
        kind=_plain(config["kind"]),
        base=_plain(base),
        data=_data_rows(settings, screening),
        counts=[] if screening is None else screening.counts().reset_index().to_dict("records"),
        best_epoch=best,
        epochs=int(history["epoch"].max()),
        better=f"whose loss is {'' if loss[best] < loss[0] else '**not** '}lower than the base's",
        # The base by its name, as its path is nobody else's business.
        config=[(_plain(name), _plain(value)) for name, value in {**config, "base": base}.items()],
        results=[] if results is None else [_result(row) for row in results.to_dict("records")],
        notes=[_plain(note) for note in notes],
        versions=_version_rows(settings),
        curve_names=[name.replace("_", " ") for name in HISTORY_COLUMNS],
        curve=_curve(history, best),
        **_front_end(folder),
    )
    write_text(folder / CARD, card.content + "\n")
    return folder / CARD


def _front_matter(kind: str, base: str, label: str, results: pd.DataFrame | None):
    """What the hub reads; results are left out of its leader boards' format where the data is synthetic."""
    from huggingface_hub import EvalResult, ModelCardData

    synthetic = _synthetic(label)
    data = {
        "language": "en",
        "license": "mit" if synthetic else "other",
        "library_name": "transformers",
        "pipeline_tag": "feature-extraction",
        "tags": ["clap", "human-clap", "clapscore", "audio-text-relevance", *(["synthetic-data"] if synthetic else [])],
        "metrics": list(METRICS.values()),
    }
    if not synthetic:
        data["license_name"] = "see-base-model-and-ratings"
    if re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w.-]+)?", base):  # the hub refuses what is no model of its own
        data["base_model"] = base.partition("@")[0]
    if results is not None and not synthetic:
        whole = results[(results["cell"] == "all") & results["metric"].isin(METRICS) & results["value"].notna()]
        task = {"task_type": "audio-text-relevance", "dataset_type": "relate", "dataset_name": label}
        values = {METRICS[row.metric]: round(float(row.value), 4) for row in whole.itertuples()}
        if values:
            data["model_name"] = kind
            data["eval_results"] = [EvalResult(**task, metric_type=m, metric_value=v) for m, v in values.items()]
    return ModelCardData(**data)


def _results(table: pd.DataFrame, model: str) -> pd.DataFrame:
    need_columns(table, "table", TABLE_COLUMNS)
    rows = table[table["model"] == model]
    if rows.empty:
        raise ValueError(f"the table has no rows of model {model!r}. Available: {listed(table['model'].unique())}")
    return rows


def _result(row: dict) -> dict:
    note = row.get("note")
    note = f" ({_plain(note)})" if isinstance(note, str) and note else ""
    interval = f"{_number(row['low'])} to {_number(row['high'])}" if pd.notna(row["low"]) else "–"
    return {
        "cell": _plain(row["cell"]),
        "metric": _plain(str(row["metric"]).upper()),
        "value": _number(row["value"]) + note,
        "interval": interval,
        "n": f"{int(row['n']):,}",
        "floor": _number(row.get("floor")),
        "ceiling": _number(row.get("ceiling")),
    }


def _data_rows(settings: dict, screening: Screening | None) -> list[tuple[str, str]]:
    config, data, rows = settings["config"], settings["data"], []
    if screening is not None:
        rule = (
            f"listeners whose mean rating of the mismatched anchors is above {screening.max_anchor_mean:g} (0-10) are "
            f"left out: {len(screening.removed):,} of {len(screening.kept) + len(screening.removed):,}"
        )
        rows.append(("screening", rule))
    rows.append(("training and validation", f"split by {config['split_by']}, seed {config['split_seed']}"))
    for part, name in (("train", "training"), ("validation", "validation")):
        rows.append((f"{name} pairs", f"{data[part]['pairs']:,} (sha256 {data[part]['sha256'][:16]}…)"))
    return [*rows, ("in both of these", listed(f"{name} {count}" for name, count in data["shared"].items()))]


def _version_rows(settings: dict) -> list[tuple[str, str]]:
    base = {f"base, {name}": value for name, value in settings["base"].items() if name.endswith("sha256")}
    rows = base | {name: settings[name] for name in ("device", "threads")} | settings["versions"]
    return [(_plain(name), _plain(value)) for name, value in rows.items()]


def _front_end(folder: Path) -> dict:
    extractor = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    model = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    rate = int(extractor["sampling_rate"])
    fused = bool(model.get("audio_config", {}).get("enable_fusion", False))
    return {"sample_rate": rate, "window_seconds": f"{extractor['nb_max_samples'] / rate:g}", "fused": fused}


def _curve(history: pd.DataFrame, best_epoch: int) -> list[list[str]]:
    """At most CURVE_ROWS epochs and the best one: first, last and some between them at equal distances."""
    last = len(history) - 1
    places = {round(last * i / (CURVE_ROWS - 1)) for i in range(CURVE_ROWS)}
    places |= set(history.reset_index(drop=True).index[history["epoch"] == best_epoch])
    rows = []
    for row in history.iloc[sorted(places)][list(HISTORY_COLUMNS)].to_dict("records"):
        epoch = int(row.pop("epoch"))
        rows.append([f"**{epoch}**" if epoch == best_epoch else str(epoch), *map(_number, row.values())])
    return rows


def _synthetic(label: str) -> bool:
    return "synthetic" in label.lower()


def _plain(value: object) -> str:
    """Any text as Markdown and HTML show it letter by letter, on one line and within a cell of a table."""
    line = " ".join(str(value).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]{}|#~$!])", r"\\\1", line)


def _number(value: object) -> str:
    return "–" if value is None or pd.isna(value) else f"{float(value):.3f}"
