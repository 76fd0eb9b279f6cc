"""The notebooks: their form, and what they do when they are run headless with papermill."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml

PROJECT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))
SCREENING = PROJECT / "notebooks" / "02_relate_screening.ipynb"


def cells(path, kind="code"):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def parameters(path):
    (cell,) = [cell for cell in cells(path) if "parameters" in cell.metadata.get("tags", [])]
    values: dict = {}
    exec(cell.source, {"__builtins__": {}}, values)  # literals only: a call would fail here
    return values


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_form(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.cells[0].cell_type == "markdown"
    for part in ("# ", "**Question.**", "**Paper.**", "**Input.**", "**Output.**", "**Time.**"):
        assert part in notebook.cells[0].source
    (end,) = [i for i, cell in enumerate(notebook.cells) if "**Three things to take along**" in cell.source]
    assert end == len(notebook.cells) - 1 or notebook.cells[end + 1].source.startswith("## Appendix")
    for cell in cells(path):
        assert cell.outputs == [] and cell.execution_count is None, "committed with outputs"
        folded = cell.metadata.get("jupyter", {}).get("source_hidden", False)
        assert folded == cell.source.startswith("# Setup")
        assert len(cell.source.splitlines()) <= (36 if folded else 25), cell.source
        assert max(map(len, cell.source.splitlines())) <= 120, cell.source
        assert not any(word in cell.source for word in ("sys.path", "!pip", "%pip", str(PROJECT)))
    lines = [len(cell.source.splitlines()) for cell in cells(path)]
    assert sum(lines) / len(lines) <= 12


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_the_demo_profile_sets_is_the_notebooks_own_default(path):
    profile = yaml.safe_load((PROJECT / "notebooks" / "profiles" / "demo.yaml").read_text(encoding="utf-8"))
    own = parameters(path)
    assert {"profile", "n_resamples", "seed"} <= own.keys()
    assert {name: own[name] for name in profile if name in own} == {n: v for n, v in profile.items() if n in own}


def test_every_parameter_of_the_demo_profile_is_one_of_a_notebook():
    profile = yaml.safe_load((PROJECT / "notebooks" / "profiles" / "demo.yaml").read_text(encoding="utf-8"))
    assert profile.keys() <= set().union(*map(parameters, NOTEBOOKS))


def papermill(notebook, runs, *arguments, **environment):
    command = [
        sys.executable,
        "-m",
        "papermill",
        "--no-progress-bar",
        "--log-level",
        "ERROR",
        notebook,
        runs / "executed.ipynb",
    ]
    command += ["-f", PROJECT / "notebooks" / "profiles" / "demo.yaml", *arguments]
    runs.mkdir(parents=True, exist_ok=True)
    variables = {**os.environ, "HUMANCLAP_RUNS": str(runs), **environment}
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, env=variables, cwd=PROJECT)


@pytest.fixture(scope="module")
def screened(tmp_path_factory, relate_root, demo_runs):
    """Notebook 02 on the real ratings, by the paper's rule and by a stricter one: their folders of tables."""
    folders = {}
    for threshold in (2.0, 1.0):
        runs = tmp_path_factory.mktemp("runs")
        shutil.copytree(demo_runs, runs, dirs_exist_ok=True)  # corpus and stand-ins, made once
        arguments = ("-p", "max_anchor_mean", threshold, "-p", "n_resamples", 100)
        done = papermill(SCREENING, runs, *arguments, HUMANCLAP_RELATE=str(relate_root))
        assert done.returncode == 0, done.stderr[-3000:]
        folders[threshold] = runs / "demo" / "tables"
    return folders


@pytest.mark.slow
def test_notebook_02_gives_the_real_counts_and_a_stricter_rule_gives_others(screened):
    counts = {threshold: pd.read_csv(folder / "02_counts.csv") for threshold, folder in screened.items()}
    ours = counts[2.0][counts[2.0]["rule"].str.startswith("mean")].set_index("part")
    assert ours.loc[["train", "test"], "pairs"].tolist() == [2_892, 2_892]
    assert ours.loc[["train", "test"], "ratings"].tolist() == [10_203, 9_903]
    assert ours.loc[["train", "test"], "pairs in the paper"].tolist() == [2_383, 2_405]
    stricter = counts[1.0][counts[1.0]["rule"].str.startswith("mean")].set_index("part")
    assert (stricter["ratings"] < ours["ratings"]).all()
    floors = {threshold: pd.read_csv(folder / "02_floors.csv") for threshold, folder in screened.items()}
    assert not floors[1.0]["srcc"].equals(floors[2.0]["srcc"])


@pytest.mark.slow
def test_every_figure_is_seen_in_the_executed_notebook(screened):
    notebook = nbformat.read(screened[2.0].parents[1] / "executed.ipynb", as_version=4)
    shown = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.rstrip().endswith("\nfigure")]
    assert len(shown) >= 5
    for cell in shown:
        assert any("image/png" in output.get("data", {}) for output in cell.outputs), cell.source


@pytest.mark.slow
def test_notebook_02_says_the_documented_agreement_and_floor(screened):
    ceilings = pd.read_csv(screened[2.0] / "02_ceilings.csv").set_index("subset")
    assert ceilings.loc["all", "reliability"] == pytest.approx(0.64, abs=0.01)
    headline = pd.read_csv(screened[2.0] / "02_relate_screening_headline.csv").set_index("what")["here"]
    for part, value in {"all": "0.463", "synthesized": "0.462", "natural": "0.181"}.items():
        assert headline[f"blind SRCC, {part}"].startswith(f"{value} (")
    for path in screened[2.0].glob("02_*.csv"):
        label = "synthetic" if path.stem == "02_screening_effect" else "RELATE ratings"
        assert set(pd.read_csv(path)["data"]) == {label}, path.name


def test_a_wrong_parameter_ends_in_a_message(tmp_path, relate_root):
    done = papermill(SCREENING, tmp_path, "-p", "max_anchor_mean", "eleven", HUMANCLAP_RELATE=str(relate_root))
    assert done.returncode != 0
    assert "max_anchor_mean='eleven': allowed is a number from 0 to 10" in done.stderr
    assert "pandas" not in done.stderr.split("ParameterError")[-1]
