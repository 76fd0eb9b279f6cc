"""The README and docs/demo.md keep their word: the block of code runs, its tables name what is there, its links lead somewhere."""

from __future__ import annotations

import re

import pytest
from test_notebooks import NOTEBOOKS, PROJECT, parameters

README = (PROJECT / "README.md").read_text(encoding="utf-8")
DEMO = (PROJECT / "docs" / "demo.md").read_text(encoding="utf-8")


def test_the_block_for_your_own_notebook_is_short():
    (block,) = re.findall(r"```python\n(.*?)```", DEMO, flags=re.DOTALL)
    assert len([line for line in block.splitlines() if line.strip()]) <= 12


@pytest.mark.slow
def test_the_block_for_your_own_notebook_runs(demo_runs, capsys):
    (block,) = re.findall(r"```python\n(.*?)```", DEMO, flags=re.DOTALL)
    names: dict = {}
    exec(compile(block, "docs/demo.md", "exec"), names)
    printed = capsys.readouterr().out
    assert all(metric in printed for metric in ("srcc", "lcc", "ktau", "mse"))
    assert (names["scores"]["status"] == "ok").all()
    estimate = names["result"].estimate
    assert estimate.n == len(names["pairs"]) and 0 < estimate.srcc < 1


def test_every_notebook_has_its_row_and_every_parameter_its_own():
    for path in NOTEBOOKS:
        assert f"(notebooks/{path.name})" in README
        for name in parameters(path):
            assert f"`{name}`" in DEMO, f"{name} of {path.name} is not in docs/demo.md"


def test_every_local_link_and_picture_is_there():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (PROJECT / target).exists(), f"README links to {target}"


def test_the_demo_values_in_the_table_are_those_of_the_notebook():
    (fine_tuning,) = [path for path in NOTEBOOKS if path.name.startswith("03")]
    found = parameters(fine_tuning)
    (row,) = [line for line in DEMO.splitlines() if line.startswith("| `epochs`")]
    values = [float(value) for value in row.split("|")[3].split(",")]
    assert values == [found["epochs"], found["learning_rate"], found["batch_size"]]
