"""Notebook 05 run headless: on the demo's own clips, on two real recordings, and on what users get wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import soundfile

PROJECT = Path(__file__).resolve().parent.parent
NOTEBOOK = PROJECT / "notebooks" / "05_score_your_own_audio.ipynb"
TABLES = (
    "scores",
    "durations",
    "systems",
    "comparisons",
    "side_by_side",
    "references",
    "listening",
    "extremes",
    "facts",
)

pytestmark = pytest.mark.slow


@pytest.fixture
def score(demo_runs, tmp_path):
    """Run the notebook with parameters in a folder of runs that has the stand-ins; the run's tables by name."""
    runs = tmp_path / "runs"
    (runs / "demo").mkdir(parents=True)
    (runs / "demo" / "claps-seed0").symlink_to(demo_runs / "demo" / "claps-seed0")

    def run(succeeds=True, **parameters):
        named = [part for name, value in parameters.items() for part in ("-p", name, value)]
        command = [sys.executable, "-m", "papermill", "--no-progress-bar", "--log-level", "ERROR", NOTEBOOK]
        command += [runs / "executed.ipynb", *named]
        environment = {**os.environ, "HUMANCLAP_RUNS": str(runs)}
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, cwd=PROJECT)
        assert (done.returncode == 0) == succeeds, done.stderr[-3000:]
        if not succeeds:
            return done.stderr
        tables = {name: pd.read_csv(runs / "demo" / "tables" / f"05_{name}.csv") for name in TABLES}
        tables["page"] = (runs / "demo" / "tables" / "05_report.html").read_text(encoding="utf-8")
        tables["notebook"] = nbformat.read(runs / "executed.ipynb", as_version=4)
        return tables

    return run


def printed(notebook):
    return "".join(
        output.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    )


def test_on_its_own_clips_the_faithful_generator_leads_and_everything_is_labelled(score, tmp_path):
    found = score()
    assert all(set(found[name]["data"]) == {"synthetic"} for name in TABLES)
    assert len(found["scores"]) == 96 and (found["scores"]["status"] == "ok").all()
    assert found["systems"]["system"][0] == "faithful" and (found["systems"]["failed"] == 0).all()
    floor = found["references"]["mean"][0]
    assert floor < found["systems"].set_index("system").loc["faithful", "low"]
    against = found["comparisons"].set_index(["system", "other"]).loc["faithful"]
    assert (against["p_holm"] < 0.05).all() and found["comparisons"]["paired"].all()
    assert "NOT a Human-CLAP" in printed(found["notebook"])  # there is no notebook 03 in this run
    assert found["page"].count("<audio") == 8 and 'class="finding">faithful scores above' in found["page"]
    assert found["references"]["reference"].tolist()[1:3] == ["noise, these prompts", "silence, these prompts"]
    assert not re.search(r"https?://|/tmp/", found["page"])
    for cell in found["notebook"].cells:
        if cell.cell_type == "code" and "run.figure(" in cell.source:
            assert any("image/png" in output.get("data", {}) for output in cell.outputs), cell.source
    figures = {path.name for path in (tmp_path / "runs" / "demo" / "figures").glob("*.png")}
    assert figures == {"05_systems.png", "05_extremes.png"}


def test_on_two_recordings_with_prompts_that_match_and_that_do_not(score, recordings, tmp_path):
    prompts = tmp_path / "prompts.csv"
    rows = [
        ("dog.wav", "A dog barks", "matching"),
        ("train.wav", "A train passes", "matching"),
        ("dog.wav", "A train passes", "not matching"),
        ("train.wav", "A dog barks", "not matching"),
    ]
    pd.DataFrame(rows, columns=["audio", "text", "system"]).to_csv(prompts, index=False)
    found = score(audio_folder=recordings, prompts=prompts)
    assert found["scores"]["status"].tolist() == ["ok"] * 4 and set(found["scores"]["data"]) == {"clips of audio"}
    assert set(found["systems"]["system"]) == {"matching", "not matching"}
    assert found["systems"]["low"].isna().all() and set(found["systems"]["note"]) == {"2 prompts, an interval needs 4"}
    assert found["comparisons"]["p"].isna().all() and found["references"]["note"].notna().all()
    assert "no two systems can be told apart" in found["page"]
    assert len(found["extremes"]) == 4 and found["page"].count("<audio") == 4
    assert str(recordings) not in found["page"]


def test_failures_keep_their_rows_and_are_counted(score, tmp_path):
    root, rng = tmp_path / "mine", np.random.default_rng(0)
    for name in ("a", "b"):
        for number in range(5):
            path = root / name / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, 0.1 * rng.standard_normal(16_000), 16_000)
            path.with_suffix(".txt").write_text(f"A dog barking, number {number}")
    (root / "a" / "0.wav").write_text("this is no sound")
    (root / "b" / "1.wav").write_bytes(b"")
    found = score(audio_folder=root)
    status = found["scores"].set_index("audio")["status"]
    assert len(status) == 10 and (status == "ok").sum() == 8
    assert "empty" in status["b/1.wav"] and status["a/0.wav"].startswith("not readable as audio")
    assert found["systems"].set_index("system")["failed"].to_dict() == {"a": 1, "b": 1}
    facts = found["facts"].set_index("fact")["value"]
    assert facts["clips scored"] == "8 of 10" and "1 the file is empty" in facts["clips without a score"]
    assert found["comparisons"][["prompts", "left_out"]].iloc[0].tolist() == [3, 2]


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"clap": "nothing-of-the-kind"}, "unknown CLAP 'nothing-of-the-kind'. Known: laion"),
    ],
)
def test_wrong_parameters_end_in_a_message(score, parameters, message):
    assert message in score(succeeds=False, **parameters)
