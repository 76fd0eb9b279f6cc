"""The cells of Tables I to III: which pairs stand in each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from humanclap.relate import SYSTEMS

from .further_cells import FURTHER, further_masks

MIN_PAIRS = 4  # below it a correlation says nothing: the cell is left empty and marked
BREAKDOWNS = ("overall", "system", "score_range", *FURTHER)
WITHIN = "within systems"


@dataclass(frozen=True)
class Cell:
    """A named set of pairs: `rows` is a mask [n]; `note` says why the cell must stay empty, or is ""."""

    name: str
    rows: np.ndarray
    note: str = ""


def system_order(systems: np.ndarray) -> list:
    """RELATE's systems in the paper's order where all are RELATE's, else natural first, the others sorted."""
    present = set(systems)
    if present <= set(SYSTEMS):
        return list(SYSTEMS)
    return sorted(present, key=lambda system: (system != "natural", str(system)))


def system_cells(systems: np.ndarray) -> list[Cell]:
    """One cell a system and, where natural is among them, "synthesized": all pairs of the others."""
    order = system_order(systems)
    cells = [_named(str(system), systems == system) for system in order]
    if "natural" in order:
        cells.append(_named("synthesized", systems != "natural"))
    return cells


def _named(name: str, rows: np.ndarray) -> Cell:
    return Cell(name, rows, "" if rows.any() else "no such pairs")


def make_cells(pairs: pd.DataFrame, by: str, cut: float = 5.0) -> list[Cell]:
    """Cells for one row a pair of `pairs`: by "overall" (Table I), "system" (II), "score_range" (III), or another.

    The others are "n_events", "caption_length", "temporal", "n_ratings", "rating_std": see `further_masks`.

    Systems come from the column `system`; where it is missing, cells that need it are empty and say so.
    Score ranges cut `mean_rating` (0 to 10) at `cut`: at most, and above. ValueError for another `by` or
    where score ranges are asked for and there is no finite mean_rating.
    """
    if by not in BREAKDOWNS:
        raise ValueError(f"unknown breakdown {by!r}. Available: {', '.join(BREAKDOWNS)}")
    everything = np.ones(len(pairs), dtype=bool)
    if by == "overall":
        return [Cell("all", everything)]
    if by in FURTHER:
        return [
            Cell(name, rows, note or ("" if rows.any() else "no such pairs"))
            for name, rows, note in further_masks(pairs, by)
        ]
    systems = known_systems(pairs)
    nobody = ~everything
    if by == "system":
        if systems is None:
            empty = [Cell(name, nobody, "no system known") for name in (*SYSTEMS, "synthesized")]
            return [*empty, Cell("all", everything)]
        return [*system_cells(systems), Cell("all", everything)]
    if "mean_rating" not in pairs or pairs["mean_rating"].isna().any():
        raise ValueError(
            "score ranges need the column mean_rating (0 to 10) for every pair: aggregate_pairs makes it, "
            f"or it is 10 × target. Columns: {', '.join(map(str, pairs.columns))}"
        )
    rating = pairs["mean_rating"].to_numpy(float)
    cells = []
    for sign, half in (("<=", rating <= cut), (">", rating > cut)):
        label = f"{sign}{cut:g}"
        cells.append(_named(f"{label} all", half))
        for name, wanted in (("natural", True), ("synthesized", False)):
            if systems is None:
                cells.append(Cell(f"{label} {name}", nobody, "no system known"))
            else:
                cells.append(_named(f"{label} {name}", half & ((systems == "natural") == wanted)))
    return cells


def known_systems(pairs: pd.DataFrame) -> np.ndarray | None:
    """The system of each pair, or None where none is named; ValueError where some are and some are not."""
    missing = int(pairs["system"].isna().sum()) if "system" in pairs else len(pairs)
    if 0 < missing < len(pairs):
        raise ValueError(f"{missing} of {len(pairs)} pairs have no system: name it for all or for none")
    return None if missing else pairs["system"].to_numpy(object)
