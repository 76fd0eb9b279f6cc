"""Run a profile's notebooks headless, one after another, and keep a log: what each took and what it left."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from .run import PROJECT, StudyError, runs_folder

NOTEBOOKS = PROJECT / "notebooks"


def notebooks(wanted: Sequence[str] = ()) -> list[Path]:
    """The notebooks in order, or those whose names begin with one of `wanted` ("03"). StudyError for an unknown one."""
    found = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
    unknown = [start for start in wanted if not any(path.name.startswith(start) for path in found)]
    if unknown or not found:
        raise StudyError(
            f"no notebook begins with {', '.join(unknown) or 'a number'} in {NOTEBOOKS}. "
            f"Available: {', '.join(path.stem for path in found)}"
        )
    return [path for path in found if not wanted or path.name.startswith(tuple(wanted))]


def profile_parameters(profile: str) -> dict:
    """The parameters of notebooks/profiles/<profile>.yaml."""
    import yaml

    path = NOTEBOOKS / "profiles" / f"{profile}.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def run_notebooks(profile: str, wanted: Sequence[str] = (), overrides: Mapping | None = None) -> pd.DataFrame:
    """Execute notebooks with the profile's parameters into runs/<profile>/, and write runs/<profile>/log.csv.

    Each notebook gets those of the profile's parameters that it has. `overrides` go over them.

    Returns:
        One row a table: notebook (its number), seconds (of the whole notebook), table, rows, empty_values.

    Raises:
        StudyError: an unknown notebook; an override that none of the notebooks has.
        papermill.PapermillExecutionError: a cell that failed; what was done before it stays, and so does its notebook.
    """
    import papermill

    paths, overrides = notebooks(wanted), dict(overrides or {})
    known = {path: set(papermill.inspect_notebook(str(path))) for path in notebooks()}
    nowhere = sorted(set(overrides) - set().union(*known.values()))
    if nowhere:
        raise StudyError(
            f"no notebook has the parameter {', '.join(nowhere)}. "
            f"Available: {', '.join(sorted(set().union(*known.values())))}"
        )
    values = {**profile_parameters(profile), **overrides, "profile": profile}
    folder = runs_folder() / profile
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for path in paths:
        print(f"== {path.name}", flush=True)
        start = time.time()
        papermill.execute_notebook(
            str(path),
            str(folder / path.name),
            parameters={name: value for name, value in values.items() if name in known[path]},
            log_output=False,
        )
        seconds = time.time() - start
        rows += _tables_since(folder, path.name[:2], start, seconds)
        print(f"   {seconds:.0f} s, {len([r for r in rows if r['notebook'] == path.name[:2]])} tables", flush=True)
        log = pd.DataFrame(rows)
        log.to_csv(folder / "log.csv", index=False)  # after each notebook: a later failure loses nothing
    return log


def _tables_since(folder: Path, number: str, start: float, seconds: float) -> list[dict]:
    """One row a table that a notebook has written since `start`: notebook, seconds, table, rows, empty cells."""
    rows = []
    for path in sorted((folder / "tables").glob(f"{number}_*.csv")):
        if path.stat().st_mtime < start - 1:
            continue
        table = pd.read_csv(path)
        empty = int(table["value"].isna().sum()) if "value" in table else 0
        row = {"notebook": number, "seconds": round(seconds), "table": path.stem, "rows": len(table)}
        rows.append(row | {"empty_values": empty})
    return rows
