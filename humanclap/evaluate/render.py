"""A table of the paper as a pandas Styler, as Markdown and as LaTeX (booktabs), and written to disk as all of them."""

from __future__ import annotations

import html
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from .checks import listed
from .layout import Entry, Layout, lay_out

FORMATS = ("styler", "markdown", "latex")
_LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "≤": r"$\leq$", "†": r"\dag{}", "‡": r"\ddag{}", "±": r"$\pm$",
    "−": r"$-$", "–": "--", "“": "``", "”": "''",
})


def render_table(
    frame: pd.DataFrame, format: str, label: str, title: str | None = None, names: Mapping[str, str] | None = None,
    model: str = "model", digits: int = 3,
):
    """A frame of `paper_table` in the paper's wide form: a row a model, a column a cell, floor, ceiling and n below.

    format: "styler" gives a pandas Styler for a notebook; "markdown" and "latex" (a `table*` for booktabs, with
    each interval on a line of its own; no other package needed) give text. label: the data behind the numbers;
    it stands in the caption, with resamples, Holm's family, what the marks mean and what is missing. title: None
    is the family's name. names: what models and cells are called in print. Raises as `lay_out`, and ValueError
    for another format.
    """
    renderers = dict(zip(FORMATS, (_styler, _markdown, _latex)))
    if format not in renderers:
        raise ValueError(f"unknown format: {format!r}. Available: {listed(FORMATS)}")
    return renderers[format](lay_out(frame, label, title, names, model, digits))


def write_table(
    frame: pd.DataFrame, path_stem: str | Path, label: str, title: str | None = None,
    names: Mapping[str, str] | None = None, model: str = "model", digits: int = 3,
) -> list[Path]:
    """Write `<path_stem>.csv` (the tidy frame, with the column data = label), `.md` and `.tex`; return the paths.

    All three are written whole, or none is: they are made beside their place first, and what stood there before
    comes back where a file can't be put in its place. Raises as `render_table`, and OSError.
    """
    stem = Path(path_stem)
    texts = {
        ".csv": frame.assign(data=label).to_csv(index=False, float_format="%.6g", lineterminator="\n"),
        ".md": render_table(frame, "markdown", label, title, names, model, digits),
        ".tex": render_table(frame, "latex", label, title, names, model, digits),
    }
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = {ending: stem.with_name(stem.name + ending) for ending in texts}
    for path in paths.values():
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder: a table can't be written in its place")
    with tempfile.TemporaryDirectory(prefix=f".{stem.name}-", dir=stem.parent) as folder:
        for ending, text in texts.items():
            (Path(folder) / f"new{ending}").write_text(text, encoding="utf-8", newline="\n")
        moved = []
        try:
            for ending, path in paths.items():
                old = Path(folder) / f"old{ending}"
                if path.exists():
                    os.replace(path, old)
                moved.append((path, old))
                os.replace(Path(folder) / f"new{ending}", path)
        except OSError:
            for path, old in moved:
                path.unlink(missing_ok=True)
                if old.exists():
                    os.replace(old, path)
            raise
    return list(paths.values())


def _one_line(entry: Entry) -> str:
    """value ± SD mark [low, high] (paper …), without what is not there."""
    spread = f" ± {entry.spread}" if entry.spread else ""
    paper = f"(paper {entry.paper})" if entry.paper else ""
    return " ".join(part for part in (f"{entry.value}{spread}{entry.mark}", entry.interval, paper) if part)


def _styler(layout: Layout):
    body = pd.DataFrame(
        [[_one_line(entry) for entry in entries] for _, entries in layout.rows],
        index=pd.Index([head for head, _ in layout.rows]), columns=layout.columns,
    )
    below = body.index[layout.n_models:]
    title = f"<b>{html.escape(layout.title)}</b><br>" if layout.title else ""
    notes = "<br>".join(html.escape(note) for note in layout.notes)
    return (
        body.style.format(escape="html").format_index(escape="html").format_index(escape="html", axis=1)
        .set_properties(subset=(below, slice(None)), **{"font-style": "italic", "color": "#555"})
        .set_caption(title + notes)
        .set_table_styles([{"selector": "caption", "props": "caption-side: bottom; text-align: left; font-size: 85%"}])
    )


def _markdown(layout: Layout) -> str:
    def line(cells) -> str:
        return "| " + " | ".join(re.sub(r"([\\|*_<`])", r"\\\1", cell) for cell in cells) + " |"

    lines = [f"**{layout.title}**", ""] if layout.title else []
    lines += [line(["", *layout.columns]), "|" + "---|" * (len(layout.columns) + 1)]
    lines += [line([head, *map(_one_line, entries)]) for head, entries in layout.rows]
    notes = (re.sub(r"([\\*_<`])", r"\\\1", note) for note in layout.notes)
    return "\n".join([*lines, "", *(f"{note}  " for note in notes)]) + "\n"


def _latex(layout: Layout) -> str:
    lines = []
    for position, (head, entries) in enumerate(layout.rows):
        if position == layout.n_models:
            lines.append(r"\midrule")
        lines.append(_latex_line(head.translate(_LATEX), map(_latex_value, entries)))
        below = [_latex_below(entry) for entry in entries]
        if any(below):
            lines.append(_latex_line("", below))
    caption = " ".join(filter(None, [layout.title and f"{layout.title}.", *layout.notes])).translate(_LATEX)
    return "\n".join([
        r"\begin{table*}[t]",
        r"\centering",
        rf"\caption{{{caption}}}",
        rf"\label{{tab:{re.sub(r'[^a-z0-9]+', '-', layout.title.lower()).strip('-') or 'humanclap'}}}",
        rf"\begin{{tabular}}{{l{'c' * len(layout.columns)}}}",
        r"\toprule",
        _latex_line("", (column.translate(_LATEX) for column in layout.columns)),
        r"\midrule",
        *lines,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table*}",
    ]) + "\n"


def _latex_line(head: str, cells: Iterable[str]) -> str:
    return " & ".join([head, *cells]) + r" \\"


def _latex_value(entry: Entry) -> str:
    spread = f" ± {entry.spread}".translate(_LATEX) if entry.spread else ""
    mark = rf"\textsuperscript{{{entry.mark.translate(_LATEX)}}}" if entry.mark else ""
    return f"{entry.value.translate(_LATEX)}{spread}{mark}"


def _latex_below(entry: Entry) -> str:
    """The interval and the paper's number, small, under the value; "" where there is neither."""
    text = " ".join(part for part in (entry.interval, f"(paper {entry.paper})" if entry.paper else "") if part)
    # braced: a line that begins with [ would be read as the argument of the \\ before it
    return rf"{{\scriptsize {text.translate(_LATEX)}}}" if text else ""
