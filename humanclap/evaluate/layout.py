"""The wide form of a paper's table: what stands in which row and column, and what must be said under it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .checks import listed, need_columns
from .paper_tables import ABOVE_FLOOR, BETTER, WORSE

EMPTY = "–"
METRIC_NAMES = {"srcc": "SRCC", "lcc": "LCC", "ktau": "KTAU", "mse": "MSE"}
NEEDED = (
    "value", "low", "high", "n", "n_constant", "n_seeds", "seed_sd", "floor", "ceiling", "p", "mark", "family",
    "baseline", "groups", "n_resamples", "level", "interval", "note",
)
FLOOR_ROW, CEILING_ROW, N_ROW = "floor (never listens)", "ceiling", "n"


@dataclass(frozen=True)
class Entry:
    """One number of the table as text: value, its mark, SD over seeds, interval, the paper's own; "" where none."""

    value: str
    mark: str = ""
    spread: str = ""
    interval: str = ""
    paper: str = ""


@dataclass(frozen=True)
class Layout:
    """A table to be shown: title, column heads, rows (head, an Entry a column), and the notes under it.

    n_models: how many rows are models; floor, ceiling and n come after them.
    """

    title: str
    columns: list[str]
    rows: list[tuple[str, list[Entry]]]
    n_models: int
    notes: list[str]


def lay_out(
    frame: pd.DataFrame, label: str, title: str | None = None, names: Mapping[str, str] | None = None,
    model: str = "model", digits: int = 3,
) -> Layout:
    """A row a model and a column a cell (a metric, where there is one cell; both, where there are several of each).

    frame: of `paper_table` (or read back from its CSV), with or without the column `paper` of `paper.beside`. label:
    the data behind it, "RELATE ratings" or "synthetic". names: what models and cells are called in print. Rows for
    floor and ceiling stand below the models where any is known, and one with n. ValueError for a missing column, no
    rows, or rows that stand twice.
    """
    keys = [model, "cell", "metric"]
    need_columns(frame, "the table", (*keys, *NEEDED))
    if not len(frame) or frame.duplicated(keys).any():
        raise ValueError(f"a table needs rows, one for each {listed(keys)}; {frame.duplicated(keys).sum()} stand twice")
    # empty text comes back from a CSV as NaN
    texts = {c: frame[c].astype(object).where(frame[c].notna(), "") for c in ("mark", "family", "note")}
    frame, names = frame.assign(**texts), names or {}
    spots = list(dict.fromkeys(zip(frame["cell"], frame["metric"])))
    models = list(dict.fromkeys(frame[model]))
    of = {key: row for key, row in zip(zip(*(frame[key] for key in keys)), frame.to_dict("records"))}
    rows = [
        (str(names.get(name, name)), [_entry(of.get((name, *spot)), digits) for spot in spots]) for name in models
    ]
    first = [next(of[name, *spot] for name in models if (name, *spot) in of) for spot in spots]
    for column, head in (("floor", FLOOR_ROW), ("ceiling", CEILING_ROW)):
        if frame[column].notna().any():
            rows.append((head, [Entry(_number(row[column], digits)) for row in first]))
    rows.append((N_ROW, [Entry(f"{row['n']:,}") for row in first]))
    title = title or next((family for family in frame["family"] if family), "")
    columns = _heads(spots, names)
    return Layout(title, columns, rows, len(models), _notes(frame, label, names, model))


def _heads(spots: list[tuple[str, str]], names: Mapping[str, str]) -> list[str]:
    cells, metrics = ({spot[i] for spot in spots} for i in (0, 1))
    heads = []
    for cell, metric in spots:
        cell_name, metric_name = names.get(cell, cell.replace("<=", "≤")), METRIC_NAMES.get(metric, metric)
        both = f"{cell_name}: {metric_name}"
        heads.append(metric_name if len(cells) == 1 else cell_name if len(metrics) == 1 else both)
    return heads


def _number(value: float, digits: int) -> str:
    return EMPTY if pd.isna(value) else f"{value:.{digits}f}".replace("-", "−")


def _entry(row: dict | None, digits: int) -> Entry:
    if row is None or pd.isna(row["value"]):
        return Entry(EMPTY, paper=_number(row["paper"], digits) if row and pd.notna(row.get("paper")) else "")
    spread, paper = row["seed_sd"], row.get("paper", np.nan)
    return Entry(
        _number(row["value"], digits),
        row["mark"],
        "" if pd.isna(spread) else _number(spread, digits),
        "" if pd.isna(row["low"]) else f"[{_number(row['low'], digits)}, {_number(row['high'], digits)}]",
        "" if pd.isna(paper) else _number(paper, digits),
    )


def _notes(frame: pd.DataFrame, label: str, names: Mapping[str, str], model: str) -> list[str]:
    """Whatever a reader must know to use the numbers: data, intervals, seeds, marks, what is missing."""
    first = frame.iloc[0]
    percent = f"{100 * first['level']:g} %"
    kind = {"bca": "BCa"}.get(first["interval"], first["interval"])
    known = {"pairs": "pairs", "text": "captions, each with all its pairs"}
    what = known.get(first["groups"], f"the groups of the column {first['groups']}, each with all its pairs")
    notes = [
        f"Data: {label}.",
        f"In brackets {percent} {kind} bootstrap intervals over {first['n_resamples']:,} resamples of {what}.",
    ]
    seeds = sorted(set(frame.loc[frame["n_seeds"] > 1, "n_seeds"]))
    if seeds:
        many = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        notes.append(f"Values with ± are means over {many} training seeds, with the SD over the seeds.")
    notes += _mark_notes(frame, names)
    if "paper" in frame and frame["paper"].notna().any():
        notes.append("“paper”: the number printed there, on its own pairs.")
    undefined = frame[(frame["n_constant"] > 0) & frame["value"].notna()]
    if len(undefined):
        cells = listed(names.get(cell, cell) for cell in dict.fromkeys(undefined["cell"]))
        most = f"{undefined['n_constant'].max():,}"
        notes.append(f"Resamples in which a score was constant are left out: at most {most} ({cells}).")
    return notes + _cell_notes(frame, names, model)


def _mark_notes(frame: pd.DataFrame, names: Mapping[str, str]) -> list[str]:
    first = frame.iloc[0]
    baseline, alpha = names.get(first["baseline"], first["baseline"]), f"{1 - first['level']:.2g}"
    notes = []
    family = next((family for family in frame["family"] if family), "")
    if family:
        notes.append(
            f"{BETTER} better, {WORSE} worse than {baseline}: p < {alpha} by paired bootstrap, two-sided, after Holm's "
            f"correction over the {frame['p'].notna().sum()} differences of this table (family: {family})."
        )
    else:
        notes.append(f"Differences from {baseline} are not marked: no correction for many comparisons was made.")
    if frame["floor"].notna().any():
        notes.append(
            f"{ABOVE_FLOOR} better than the floor, a predictor that never listens: the paired "
            f"{100 * first['level']:g} % interval of the difference excludes zero (uncorrected)."
        )
    if frame["ceiling"].notna().any():
        notes.append("Ceiling: what a perfect score could reach on these noisy ratings.")
    return notes


def _cell_notes(frame: pd.DataFrame, names: Mapping[str, str], model: str) -> list[str]:
    """The frame's own notes, each once, with the cells it is about (and the models, where not all)."""
    noted = frame[frame["note"] != ""]
    lines = []
    for (cell, note), rows in noted.groupby(["cell", "note"], sort=False):
        about = names.get(cell, cell)
        if rows[model].nunique() < frame[model].nunique():
            about += f" ({listed(names.get(name, name) for name in dict.fromkeys(rows[model]))})"
        lines.append(f"{about}: {note}")
    return [f"{EMPTY}: not computed. Notes: {'; '.join(lines)}."] if lines else []
