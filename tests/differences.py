"""Differences from a baseline, as a table of their own: what tests compare with `evaluate.compare`."""

from __future__ import annotations

import pandas as pd

from humanclap.evaluate import paper_table


def differences(table: pd.DataFrame, baseline: str, by: str = "overall", **settings) -> pd.DataFrame:
    """The rows of `paper_table` that have a difference: its interval as low and high, baseline_value beside value."""
    found = paper_table(table, by, baseline, **{"correct": False, **settings})
    base = found[found["model"] == baseline].set_index(["cell", "metric"])["value"]
    found = found[found["model"] != baseline].reset_index(drop=True)
    keys = pd.MultiIndex.from_frame(found[["cell", "metric"]])
    found = found.assign(baseline_value=base.loc[keys].to_numpy(), low=found["diff_low"], high=found["diff_high"])
    return found.drop(columns=["diff_low", "diff_high"])
