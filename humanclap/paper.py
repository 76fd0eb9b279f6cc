"""The paper's own numbers (paper.csv), to stand beside ours and never in their place."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from .models import ROWS


def values(table: str) -> pd.DataFrame:
    """Table "I", "II" or "III" of the paper as columns model, cell, metric, value. ValueError for another."""
    everything = pd.read_csv(Path(__file__).with_name("paper.csv"))
    if table not in set(everything["table"]):
        raise ValueError(f"the paper has no table {table!r} here. Available: {', '.join(everything['table'].unique())}")
    return everything[everything["table"] == table].drop(columns="table").reset_index(drop=True)


def beside(cells: pd.DataFrame, table: str) -> pd.DataFrame:
    """Our cells with the paper's value of the same model, cell and metric in the column `paper` (NaN: it has none).

    Args:
        cells: tidy table of `evaluate.breakdown`: model, cell, metric, value, ...
        table: "I", "II" or "III".
    """
    theirs = values(table).rename(columns={"value": "paper", "model": "_row"})
    return (
        cells.assign(_row=cells["model"].replace({name: row.paper for name, row in ROWS.items() if row.paper}))
        .merge(theirs, how="left")
        .drop(columns="_row")
    )


def gain(table: str, cell: str, model: str = "wsce+mae", baseline: str = "laion", metric: str = "srcc") -> float:
    """How much better the paper's `model` is than its `baseline` in one cell."""
    cells = values(table).query("cell == @cell and metric == @metric").set_index("model")["value"]
    return float(cells[model] - cells[baseline])
