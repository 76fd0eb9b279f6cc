"""From a long score table (a row a model and pair) to one row a pair, with every check on the way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from .checks import PAIR, as_vector, need_columns


@dataclass(frozen=True)
class Wide:
    """One row a pair: scores [M, n] of `models`, target [n], and `pairs`, the first model's other columns."""

    models: list
    scores: np.ndarray
    target: np.ndarray
    pairs: pd.DataFrame


def widen(table: pd.DataFrame, score: str, model: str, also: list[str]) -> Wide:
    """One row a pair, in the order of the first model.

    `also`: further columns that must be there. ValueError for a missing column, no rows, NaN scores (how
    many, for each model), a pair that one model has twice, models that do not cover the same pairs (names
    what is missing), a target, rating or system that differs between models for one pair.
    """
    need_columns(table, "the score table", [model, *PAIR, "target", score, *also])
    if not len(table):
        raise ValueError("the score table has no rows")
    unnamed = {c: int(table[c].isna().sum()) for c in (model, *PAIR) if table[c].isna().any()}
    if unnamed:
        raise ValueError(f"missing values in {unnamed}: every row of a score table needs its model and pair")
    values = pd.to_numeric(table[score], errors="coerce").to_numpy(float, na_value=np.nan)
    unscored = ~np.isfinite(values)
    if unscored.any():
        counts = table.loc[unscored, model].value_counts().to_dict()
        raise ValueError(
            f"{unscored.sum()} of {len(table)} values of {score} are not finite ({counts}): drop these pairs "
            "from every model, and say how many; the column status of score_pairs names the reason"
        )
    by_model = {name: rows.set_index(PAIR) for name, rows in table.groupby(model, sort=False)}
    first_name, first = next(iter(by_model.items()))
    for name, rows in by_model.items():
        if rows.index.has_duplicates:
            twice = rows.index[rows.index.duplicated()]
            raise ValueError(f"model {name!r} has {len(twice)} pairs twice, for instance {tuple(twice[0])}")
    for name, rows in by_model.items():
        lacks, has_more = first.index.difference(rows.index), rows.index.difference(first.index)
        if len(lacks) or len(has_more):
            example = tuple((lacks if len(lacks) else has_more)[0])
            raise ValueError(
                f"models must cover the same pairs: {name!r} lacks {len(lacks)} pairs of {first_name!r} and "
                f"has {len(has_more)} that it lacks, for instance {example}"
            )
    aligned = {name: rows.loc[first.index] for name, rows in by_model.items()}
    for column in [c for c in ("target", "mean_rating", "system") if c in table]:
        for name, rows in aligned.items():
            differs = ~((rows[column] == first[column]) | (rows[column].isna() & first[column].isna()))
            if differs.any():
                raise ValueError(
                    f"{column} differs between {first_name!r} and {name!r} for {differs.sum()} pairs, for "
                    f"instance {tuple(differs.index[differs.argmax()])}: give all models the same pairs"
                )
    pairs = first.reset_index()
    return Wide(
        models=list(by_model),
        scores=np.stack([rows[score].to_numpy(float) for rows in aligned.values()]),
        target=as_vector(pairs["target"], "target"),
        pairs=pairs,
    )
