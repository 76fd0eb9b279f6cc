"""The model card of a fine-tuned checkpoint: README.md, as the hub shows it, from the run's own files."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from humanclap.files import write_bytes, write_text
from humanclap.finetune import card_text as fill

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from humanclap.relate import Screening

CARD, CURVE = "README.md", "training.png"
TEMPLATE = "card.md"
TABLE_COLUMNS = ("model", "cell", "metric", "value", "low", "high", "n")
METRICS = {"srcc": "spearmanr", "lcc": "pearsonr", "mse": "mse"}
"""Our metrics that the hub has a name for."""

LICENCES = {
    "other": "The weights derive from those of the base model and from the ratings named above: the terms of both "
    "apply, see their own pages. RELATE states no licence, and none of its audio or ratings are in this folder.",
    "mit": "MIT. The corpus and the base model were made by humanclap, which has this licence.",
}


def write_card(
    folder: str | os.PathLike,
    label: str,
    settings: dict | None = None,
    history: pd.DataFrame | None = None,
    table: pd.DataFrame | None = None,
    model: str | None = None,
    screening: Screening | None = None,
    figure: Figure | None = None,
    licence: str = "other",
    level: float = 0.95,
    notes: Sequence[str] = (),
) -> Path:
    """Write README.md, the model card, into the checkpoint `folder`, and return its path.

    label: where the ratings come from, "RELATE ratings" or "synthetic"; stands with every number.
    settings, history: `FinetuneResult.settings` and `.history`; None reads manifest.json and history.csv of the run
        that `folder` (…/model) belongs to.
    table: test results as `evaluate.breakdown` gives them: model, cell, metric, value, low, high, n, and where they
        are known floor, ceiling and note. Only the rows of `model` are shown; a NaN value is shown as "–" with its
        note. None: the card says that the model was not tested.
    model: its name in the table; None takes the kind of loss.
    screening: of the listeners; its rule and its counts are told.
    figure: the learning curve (`plots.learning_curves`), put beside the card as training.png.
    licence: an identifier of the hub's; "other" and "mit" come with a sentence of their own.
    level: of the table's intervals, 0-1.
    notes: paragraphs to stand below the results, such as how this variant was chosen.

    The card is replaced whole or not at all, and nothing else in the folder is touched; text from outside is escaped.
    Raises FileNotFoundError for a folder without a model or without the run's files, ValueError for a missing
    column, a table without `model`, an empty label or settings that lack something, TypeError for a wrong type.
    """
    folder = Path(folder)
    needed = ("config.json", "preprocessor_config.json")
    absent = [name for name in needed if not (folder / name).is_file()]
    if absent:
        raise FileNotFoundError(f"{folder} has no {', '.join(absent)}: give a checkpoint folder, such as <run>/model")
    if not (isinstance(label, str) and label.strip()):
        raise ValueError(f"label is {label!r}; say where the ratings come from: 'RELATE ratings' or 'synthetic'")
    if not 0 < level < 1:
        raise ValueError(f"level is {level!r}; it must lie between 0 and 1, such as 0.95")
    if settings is None:
        settings = json.loads(_of_run(folder, "manifest.json").read_text(encoding="utf-8"))
    if history is None:
        history = pd.read_csv(_of_run(folder, "history.csv"))
    _need_columns(history, fill.HISTORY_COLUMNS, "history", "give FinetuneResult.history, or history.csv of the run")
    model = model or fill.setting(settings, "config", "kind")
    rows = _results(table, model)
    values = {
        "title": fill.plain_text(f"Human-CLAP, {model}, fine-tuned on {label}"),
        "label": fill.plain_text(label),
        "synthetic": "synthetic" in label.lower(),
        "kind": fill.plain_text(fill.setting(settings, "config", "kind")),
        "base": fill.plain_text(fill.setting(settings, "base", "name")),
        "data": fill.data_rows(settings, screening),
        "counts": [] if screening is None else screening.counts().reset_index().to_dict("records"),
        "best_epoch": fill.setting(settings, "best_epoch"),
        "epochs": int(history["epoch"].max()),
        "better": fill.better_than_base(history, fill.setting(settings, "best_epoch")),
        "figure": CURVE if figure is not None else "",
        "config": fill.config_rows(settings),
        "results": [] if rows is None else [fill.shown_result(row) for row in rows.to_dict("records")],
        "level": f"{level:.0%}",
        "notes": [fill.plain_text(note) for note in notes],
        "versions": fill.version_rows(settings),
        "licence_text": LICENCES.get(licence, f"{fill.plain_text(licence)}."),
        **fill.front_end(folder),
        **fill.curve(history, fill.setting(settings, "best_epoch")),
    }
    text = f"---\n{_front_matter(settings, label, licence, rows)}\n---\n\n{_render(values)}"
    if figure is not None:
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=150, metadata={"Software": None})
        write_bytes(folder / CURVE, picture.getvalue())
    write_text(folder / CARD, text)
    return folder / CARD


def _front_matter(settings: dict, label: str, licence: str, rows: pd.DataFrame | None) -> str:
    """YAML as the hub reads it; results are left out of its leader boards' format where the data is synthetic."""
    from huggingface_hub import EvalResult, ModelCardData

    base = str(fill.setting(settings, "base", "name"))
    real = "synthetic" not in label.lower()
    data = {
        "language": "en",
        "license": licence,
        "library_name": "transformers",
        "pipeline_tag": "feature-extraction",
        "tags": ["clap", "human-clap", "clapscore", "audio-text-relevance", *([] if real else ["synthetic-data"])],
        "metrics": list(METRICS.values()),
    }
    if licence == "other":
        data["license_name"] = "see-base-model-and-ratings"
    if re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w.-]+)?", base):  # the hub refuses what is no model of its own
        data["base_model"] = base.partition("@")[0]
    if rows is not None and real:
        whole = rows[(rows["cell"] == "all") & rows["metric"].isin(METRICS) & rows["value"].notna()]
        task = {"task_type": "audio-text-relevance", "dataset_type": "relate", "dataset_name": label}
        data["model_name"] = str(fill.setting(settings, "config", "kind"))
        data["eval_results"] = [
            EvalResult(**task, metric_type=METRICS[row.metric], metric_value=round(float(row.value), 4))
            for row in whole.itertuples()
        ]
        if not data["eval_results"]:
            del data["eval_results"], data["model_name"]
    return ModelCardData(**data).to_yaml()


def _results(table: pd.DataFrame | None, model: str) -> pd.DataFrame | None:
    if table is None:
        return None
    _need_columns(table, TABLE_COLUMNS, "table", "give what evaluate.breakdown returns")
    rows = table[table["model"] == model]
    if rows.empty:
        held = ", ".join(map(str, dict.fromkeys(table["model"])))
        raise ValueError(f"the table has no rows of model {model!r}. Available: {held}")
    return rows


def _render(values: dict) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    source = files("humanclap.finetune").joinpath(TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(source).render(values)


def _need_columns(table: pd.DataFrame, columns: Sequence[str], name: str, mend: str) -> None:
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"{name} is a {type(table).__name__}; {mend}")
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ValueError(f"{name} has no column {', '.join(missing)}; {mend}")


def _of_run(folder: Path, name: str) -> Path:
    path = folder.resolve().parent / name
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: give settings and history, or the model/ folder of a run")
    return path
