"""The model card of a fine-tuned model: README.md, as the hub shows it, from the run's own files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from humanclap.checks import listed, need_columns
from humanclap.files import write_text

if TYPE_CHECKING:
    from humanclap.relate import Screening

CARD = "README.md"
TEMPLATE = Path(__file__).with_name("card.md")
HISTORY_COLUMNS = ("epoch", "train_loss", "validation_loss", "validation_srcc", "temperature")
TABLE_COLUMNS = ("model", "cell", "metric", "value", "low", "high", "n")
METRICS = {"srcc": "spearmanr", "lcc": "pearsonr", "mse": "mse"}
"""Our metrics that the hub has a name for."""
CURVE_ROWS = 15
_OF_RUN = "give settings and history (FinetuneResult.settings and .history), or the model/ folder of a run"


def write_card(
    folder: str | os.PathLike,
    label: str = "human ratings",
    settings: dict | None = None,
    history: pd.DataFrame | None = None,
    table: pd.DataFrame | None = None,
    model: str | None = None,
    screening: Screening | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write README.md, the model card, into the model's `folder`, whole or not at all, and return its path.

    label: where the ratings come from, "RELATE ratings" or "synthetic"; shown with every number.
    settings, history: `FinetuneResult.settings` and `.history`; None reads settings.json and history.csv of the run
        that `folder` (…/model) belongs to.
    table: test results as `evaluate.breakdown` gives them: model, cell, metric, value, low, high, n, and where they
        are known floor, ceiling and note. Only the rows of `model` are shown; a NaN value is shown as "–" with its
        note. None: the card says that the model was not tested.
    model: its name in the table; None takes the kind of loss.
    screening: of the listeners; its rule and its counts are shown.
    notes: paragraphs below the results, such as how this variant was chosen.

    Text from outside is escaped. Raises FileNotFoundError for a folder without a model or without the run's files,
    ValueError for a missing column, a table without `model`, an empty label or settings that lack something.
    """
    from huggingface_hub import ModelCard

    folder = Path(folder)
    absent = [name for name in ("config.json", "preprocessor_config.json") if not (folder / name).is_file()]
    if absent:
        raise FileNotFoundError(f"{folder} has no {listed(absent)}: give a model folder, such as <run>/model")
    if not (isinstance(label, str) and label.strip()):
        raise ValueError(f"label is {label!r}; say where the ratings come from: 'RELATE ratings' or 'synthetic'")
    if settings is None:
        settings = json.loads(_of_run(folder, "settings.json").read_text(encoding="utf-8"))
    if history is None:
        history = pd.read_csv(_of_run(folder, "history.csv"))
    need_columns(history, "history", HISTORY_COLUMNS)
    kind, base = _setting(settings, "config", "kind"), _setting(settings, "base", "name")
    best, model = _setting(settings, "best_epoch"), model or kind
    rows = _results(table, model)
    loss = history.set_index("epoch")["validation_loss"]
    card = ModelCard.from_template(
        _front_matter(str(kind), str(base), label, rows),
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        title=_plain(f"Human-CLAP, {model}, fine-tuned on {label}"),
        label=_plain(label),
        synthetic=_synthetic(label),
        kind=_plain(kind),
        base=_plain(base),
        data=_data_rows(settings, screening),
        counts=[] if screening is None else screening.counts().reset_index().to_dict("records"),
        best_epoch=best,
        epochs=int(history["epoch"].max()),
        better=f"whose loss is {'' if loss[best] < loss[0] else '**not** '}lower than the base's",
        # The base by its name, as its path is nobody else's business.
        config=[(_plain(name), _plain(value)) for name, value in {**settings["config"], "base": base}.items()],
        results=[] if rows is None else [_result(row) for row in rows.to_dict("records")],
        notes=[_plain(note) for note in notes],
        versions=_version_rows(settings),
        curve_names=[name.replace("_", " ") for name in HISTORY_COLUMNS],
        curve=_curve(history, best),
        **_front_end(folder),
    )
    write_text(folder / CARD, card.content + "\n")
    return folder / CARD


def _front_matter(kind: str, base: str, label: str, rows: pd.DataFrame | None):
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
    if rows is not None and not synthetic:
        whole = rows[(rows["cell"] == "all") & rows["metric"].isin(METRICS) & rows["value"].notna()]
        task = {"task_type": "audio-text-relevance", "dataset_type": "relate", "dataset_name": label}
        values = {METRICS[row.metric]: round(float(row.value), 4) for row in whole.itertuples()}
        if values:
            data["model_name"] = kind
            data["eval_results"] = [EvalResult(**task, metric_type=m, metric_value=v) for m, v in values.items()]
    return ModelCardData(**data)


def _results(table: pd.DataFrame | None, model: str) -> pd.DataFrame | None:
    if table is None:
        return None
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
    config, rows = settings["config"], []
    if screening is not None:
        rule = (
            f"listeners whose mean rating of the mismatched anchors is above {screening.max_anchor_mean:g} (0-10) are "
            f"left out: {len(screening.removed):,} of {len(screening.kept) + len(screening.removed):,}"
        )
        rows.append(("screening", rule))
    split = f"split by {_setting(config, 'split_by')}, seed {_setting(config, 'split_seed')}"
    rows.append(("training and validation", _plain(split)))
    for part, name in (("train", "training"), ("validation", "validation")):
        found = _setting(settings, "data", part)
        rows.append(
            (f"{name} pairs", f"{_setting(found, 'pairs'):,} (sha256 {_plain(_setting(found, 'sha256'))[:16]}…)")
        )
    shared = settings["data"].get("shared", {})
    rows.append(("in both of these", listed(f"{_plain(name)} {count}" for name, count in shared.items())))
    return rows


def _version_rows(settings: dict) -> list[tuple[str, str]]:
    base = {f"base, {name}": value for name, value in settings["base"].items() if name.endswith("sha256")}
    where = {name: settings[name] for name in ("device", "threads") if name in settings}
    rows = {**base, **where, **_setting(settings, "versions")}
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


def _setting(settings: dict, *path: str):
    found = settings
    for name in path:
        if not isinstance(found, dict) or found.get(name) is None:
            raise ValueError(f"the settings have no {'.'.join(path)}: {_OF_RUN}")
        found = found[name]
    return found


def _of_run(folder: Path, name: str) -> Path:
    path = folder.resolve().parent / name
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: {_OF_RUN}")
    return path
