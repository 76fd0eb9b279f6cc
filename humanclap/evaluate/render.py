"""A table of the paper in its wide form: as a pandas Styler, as Markdown, as LaTeX, and written to disk."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from humanclap.checks import choice, listed, need_columns
from humanclap.files import write_text
from humanclap.tables import write_table as write_rows

from .bootstrap import ALPHA
from .tables import ABOVE_FLOOR, BETTER, WORSE

FORMATS = ("styler", "markdown", "latex")
_TEXTS = {".md": "markdown", ".tex": "latex"}
EMPTY = "–"
METRIC_NAMES = {"srcc": "SRCC", "lcc": "LCC", "ktau": "KTAU", "mse": "MSE"}
FLOOR_ROW, CEILING_ROW, N_ROW = "floor (never listens)", "ceiling", "n"
NEEDED = ("value", "low", "high", "n", "n_constant", "n_seeds", "seed_sd", "floor", "ceiling", "p", "mark", "family")
_LATEX = str.maketrans(
    {char: rf"\{char}" for char in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", '"': r"\textquotedbl{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "≤": r"$\leq$", "±": r"$\pm$", "−": r"$-$"}
    | {"†": r"\dag{}", "‡": r"\ddag{}", "–": "--", "“": "``", "”": "''"}
)


def render_table(frame: pd.DataFrame, format: str, label: str, names: Mapping[str, str] | None = None):
    """A frame of `paper_table` in the paper's wide form: one row per model, one column per cell (a metric, where there
    is one cell; both, where there are several of each), floor, ceiling and n below.

    frame: of `paper_table` (or read back from its CSV), with or without the column `paper` of `paper.beside`. format:
    "styler" gives a pandas Styler for a notebook; "markdown" and "latex" (a `table*` for booktabs) give text. label:
    the data behind the numbers ("RELATE ratings", "synthetic"); it is in the notes, with resamples, Holm's family, what
    the marks mean and what is missing. The title is the family's name. names: what models and cells are called in
    print. ValueError for another format, a missing column, no rows, or rows that are there twice.
    """
    choice(format, "format", FORMATS)
    names, keys = names or {}, ["model", "cell", "metric"]
    need_columns(frame, "the table", (*keys, *NEEDED, "baseline", "n_resamples", "note"))
    if not len(frame) or frame.duplicated(keys).any():
        raise ValueError(f"a table needs rows, one for each {listed(keys)}; {frame.duplicated(keys).sum()} are twice")
    # empty text is read back from a CSV as NaN
    texts = {c: frame[c].astype(object).where(frame[c].notna(), "") for c in ("mark", "family", "note")}
    frame = frame.assign(**texts)
    entries = [_entry(row, format) for row in frame.to_dict("records")]
    body = _wide(frame, entries, names, format)
    title = next((family for family in frame["family"] if family), "")
    notes = _notes(frame, label, names)
    if format == "styler":
        return _styler(body, title, notes, frame["model"].nunique())
    if format == "markdown":
        escaped = [re.sub(r"([\\*_<`])", r"\\\1", note) for note in notes]
        head = f"**{title}**\n\n" if title else ""
        return f"{head}{body.to_markdown(disable_numparse=True)}\n\n" + "".join(f"{note}  \n" for note in escaped)
    caption = " ".join(filter(None, [title and f"{title}.", *notes])).translate(_LATEX)
    where = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "humanclap"
    return body.style.to_latex(
        hrules=True, environment="table*", position="t", position_float="centering", caption=caption,
        label=f"tab:{where}", column_format="l" + "c" * len(body.columns),
    )  # fmt: skip


def write_table(
    frame: pd.DataFrame, path_stem: str | Path, label: str, names: Mapping[str, str] | None = None
) -> list[Path]:
    """Write `<path_stem>.csv` (the tidy frame, with the column data = label), `.md` and `.tex`; return the paths.

    Each file is written whole or not at all. Raises as `render_table`, and OSError.
    """
    stem = Path(path_stem)
    texts = {ending: render_table(frame, kind, label, names) for ending, kind in _TEXTS.items()}
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(stem.name + ending) for ending in (".csv", *_TEXTS)]
    write_rows(frame.assign(data=label), paths[0], float_format="%.6g")
    for path, text in zip(paths[1:], texts.values(), strict=True):
        write_text(path, text)
    return paths


def _number(value: float) -> str:
    return EMPTY if pd.isna(value) else f"{value:.3f}".replace("-", "−")


def _escaped(text: str, format: str) -> str:
    if format == "latex":
        return str(text).translate(_LATEX)
    return re.sub(r"([\\|*_<`])", r"\\\1", str(text)) if format == "markdown" else html.escape(str(text))


def _entry(row: dict, format: str) -> str:
    """value ± SD mark [low, high] (paper …), without what is not there."""
    paper = f"(paper {_number(row['paper'])})" if pd.notna(row.get("paper")) else ""
    if pd.isna(row["value"]):
        return _escaped(" ".join(filter(None, (EMPTY, paper))), format)
    spread = "" if pd.isna(row["seed_sd"]) else f" ± {_number(row['seed_sd'])}"
    interval = "" if pd.isna(row["low"]) else f"[{_number(row['low'])}, {_number(row['high'])}]"
    value, below = f"{_number(row['value'])}{spread}", " ".join(filter(None, (interval, paper)))
    if format != "latex":
        return _escaped(" ".join(filter(None, (value + row["mark"], below))), format)
    mark = rf"\textsuperscript{{{_escaped(row['mark'], format)}}}" if row["mark"] else ""
    return rf"\shortstack{{{_escaped(value, format)}{mark} \\ {{\scriptsize {_escaped(below, format)}}}}}"


def _wide(frame: pd.DataFrame, entries: list[str], names: Mapping[str, str], format: str) -> pd.DataFrame:
    """The table as text, ready for its format: models, then floor and ceiling where any is known, and n."""
    spots = list(dict.fromkeys(zip(frame["cell"], frame["metric"], strict=True)))
    models = list(dict.fromkeys(frame["model"]))
    of = dict(zip(zip(frame["model"], frame["cell"], frame["metric"], strict=True), entries, strict=True))
    rows = {name: [of.get((name, *spot), EMPTY) for spot in spots] for name in models}
    first = frame.drop_duplicates(["cell", "metric"]).set_index(["cell", "metric"]).loc[spots]
    body = pd.DataFrame(list(rows.values()), index=[_escaped(names.get(m, m), format) for m in models])
    for column, head in (("floor", FLOOR_ROW), ("ceiling", CEILING_ROW)):
        if frame[column].notna().any():
            body.loc[head] = [_escaped(_number(value), format) for value in first[column]]
    body.loc[N_ROW] = [f"{n:,}" for n in first["n"]]
    cells, metrics = ({spot[i] for spot in spots} for i in (0, 1))
    heads = []
    for cell, metric in spots:
        cell_name, metric_name = names.get(cell, cell.replace("<=", "≤")), METRIC_NAMES.get(metric, metric)
        both = f"{cell_name}: {metric_name}"
        heads.append(metric_name if len(cells) == 1 else cell_name if len(metrics) == 1 else both)
    body.columns = [_escaped(head, format) for head in heads]
    return body


def _styler(body: pd.DataFrame, title: str, notes: list[str], n_models: int):
    below = pd.Series(body.index).index[n_models:]
    shown = f"<b>{html.escape(title)}</b><br>" if title else ""
    styles = [[""] * len(body.columns)] * n_models
    styles += [["font-style: italic; color: #555"] * len(body.columns)] * len(below)
    caption = [{"selector": "caption", "props": "caption-side: bottom; text-align: left; font-size: 85%"}]
    styler = body.style.apply(lambda _: pd.DataFrame(styles, body.index, body.columns), axis=None)
    return styler.set_caption(shown + "<br>".join(map(html.escape, notes))).set_table_styles(caption)


def _notes(frame: pd.DataFrame, label: str, names: Mapping[str, str]) -> list[str]:
    """Whatever a reader must know to use the numbers: data, intervals, seeds, marks, what is missing."""
    first = frame.iloc[0]
    baseline = names.get(first["baseline"], first["baseline"])
    drawn = f"{first['n_resamples']:,} resamples of captions, each with all its pairs"
    notes = [f"Data: {label}.", f"In brackets 95 % percentile bootstrap intervals over {drawn}."]
    seeds = sorted(set(frame.loc[frame["n_seeds"] > 1, "n_seeds"]))
    if seeds:
        many = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        notes.append(f"Values with ± are means over {many} training seeds, with the SD over the seeds.")
    family = next((family for family in frame["family"] if family), "")
    if family:
        notes.append(
            f"{BETTER} better, {WORSE} worse than {baseline}: p < {ALPHA} by paired bootstrap, two-sided, after Holm's "
            f"correction over the {frame['p'].notna().sum()} differences of this table (family: {family})."
        )
    else:
        notes.append(f"Differences from {baseline} are not marked: no correction for many comparisons was made.")
    if frame["floor"].notna().any():
        named = f" ({first['floor_name']})" if first.get("floor_name") else ""
        notes.append(
            f"{ABOVE_FLOOR} better than the floor{named}, a predictor that never listens: the paired 95 % interval of the "
            "difference excludes zero (uncorrected)."
        )
    if frame["ceiling"].notna().any():
        notes.append("Ceiling: what a perfect score could reach on these noisy ratings.")
    if "paper" in frame and frame["paper"].notna().any():
        notes.append("“paper”: the number printed there, on its own pairs.")
    undefined = frame[(frame["n_constant"] > 0) & frame["value"].notna()]
    if len(undefined):
        cells = listed(names.get(cell, cell) for cell in dict.fromkeys(undefined["cell"]))
        most = f"{undefined['n_constant'].max():,}"
        notes.append(f"Resamples in which a score was constant are left out: at most {most} ({cells}).")
    return notes + _cell_notes(frame, names)


def _cell_notes(frame: pd.DataFrame, names: Mapping[str, str]) -> list[str]:
    """The frame's own notes, each once, with the cells it is about (and the models, where not all)."""
    lines = []
    for (cell, note), rows in frame[frame["note"] != ""].groupby(["cell", "note"], sort=False):
        about = names.get(cell, cell)
        if rows["model"].nunique() < frame["model"].nunique():
            about += f" ({listed(names.get(name, name) for name in dict.fromkeys(rows['model']))})"
        lines.append(f"{about}: {note}")
    return [f"{EMPTY}: not computed. Notes: {'; '.join(lines)}."] if lines else []
