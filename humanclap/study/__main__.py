"""`python -m humanclap.study run|summary|figures [profile]`, for the Makefile and for a rerun with other parameters."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from humanclap.download import PROJECT

from .data import REAL
from .run import NOTEBOOKS, PROFILES, StudyError, profile_parameters, runs_folder

README_FIGURES = (
    "01_scatter",
    "02_floor_and_ceiling",
    "03_overview",
    "03_table_1",
    "03_scatter",
    "04_systems",
)


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


def run_notebooks(profile: str, wanted: Sequence[str] = (), overrides: Mapping | None = None) -> pd.DataFrame:
    """Execute notebooks with the profile's parameters into <runs>/<profile>/, and write log.csv there.

    Each notebook gets those of the profile's parameters that it has; `overrides` go over them.

    Returns:
        One row per notebook: notebook (its number), seconds.

    Raises:
        StudyError: an unknown notebook; an override that none of the notebooks has.
        papermill.PapermillExecutionError: a cell that failed; what was done before it stays, and so does its notebook.
    """
    import papermill

    paths, overrides = notebooks(wanted), dict(overrides or {})
    known = {path: set(papermill.inspect_notebook(str(path))) for path in notebooks()}
    everything = set().union(*known.values())
    if nowhere := sorted(set(overrides) - everything):
        raise StudyError(
            f"no notebook has the parameter {', '.join(nowhere)}. Available: {', '.join(sorted(everything))}"
        )
    values = {**profile_parameters(profile), **overrides, "profile": profile}
    folder, rows = runs_folder() / profile, []
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        print(f"== {path.name}", flush=True)
        start = time.time()
        used = {name: value for name, value in values.items() if name in known[path]}
        papermill.execute_notebook(str(path), str(folder / path.name), parameters=used, log_output=False)
        rows.append({"notebook": path.name[:2], "seconds": round(time.time() - start)})
        print(f"   {rows[-1]['seconds']} s", flush=True)
        pd.DataFrame(rows).to_csv(folder / "log.csv", index=False)  # after each: a later failure loses nothing
    return pd.DataFrame(rows)


def summary(profile: str) -> str:
    """What a run of the notebooks has left, in a few lines for the terminal."""
    folder = runs_folder() / profile
    headlines = sorted((folder / "tables").glob("*_headline.csv"))
    if not headlines:
        raise StudyError(f"{folder} has no results yet; run: make {profile}")
    lines = []
    for path in headlines:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        lines += ["", f"{path.name.removesuffix('_headline.csv')}", table.to_string(index=False)]
    figures = len(list((folder / "figures").glob("*.png")))
    place = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    return "\n".join([*lines, "", f"{figures} figures, tables and executed notebooks: {place}"])


def copy_figures(profile: str) -> list[Path]:
    """Copy the README's figures from a run into figures/ (`make figures`; nothing else writes there)."""
    folder, copied = runs_folder() / profile, []
    marks = folder / "tables" / "02_floor_and_ceiling.csv"
    if marks.is_file() and set(pd.read_csv(marks)["data"]) != {REAL}:
        raise StudyError(
            "the README shows notebook 02 on RELATE's real ratings; this run used others: see its first cells"
        )
    (PROJECT / "figures").mkdir(exist_ok=True)
    for name in README_FIGURES:
        source = folder / "figures" / f"{name}.png"
        if not source.is_file():
            raise StudyError(f"{source} is not there; run: make {profile}")
        copied.append(Path(shutil.copyfile(source, PROJECT / "figures" / source.name)))
    return copied


def _main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m humanclap.study", description=__doc__)
    parser.add_argument("action", choices=("run", "summary", "figures"))
    parser.add_argument("profile", choices=PROFILES, nargs="?", default="demo")
    parser.add_argument("--only", nargs="+", default=(), metavar="NN", help="run: the notebooks that begin with these")
    parser.add_argument(
        "-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="run: as papermill's"
    )
    options = parser.parse_args(arguments)
    try:
        if options.action == "run":
            _run(options)
        elif options.action == "summary":
            print(summary(options.profile))
        else:
            print("\n".join(map(str, copy_figures(options.profile))))
    except StudyError as error:
        print(f"{error}", file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    import yaml
    from papermill.exceptions import PapermillExecutionError

    overrides = {name: yaml.safe_load(value) for name, value in options.parameter}
    try:
        run_notebooks(options.profile, options.only, overrides)
    except PapermillExecutionError as error:
        # Our own errors say all in their message; of others the whole traceback is needed.
        whole = error.ename not in ("StudyError", "ParameterError", "OwnClipsError", "RatedSetError")
        raise StudyError(str(error) if whole else f"{error.ename}: {error.evalue}") from None
    print(summary(options.profile))


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
