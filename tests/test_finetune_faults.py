"""Killed, resumed, killed again: a training ends as if nothing had happened, and nobody ever finds half a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("finetune_drill.py")


def drill(mode: str, folder: Path) -> dict:
    path = os.pathsep.join([str(SCRIPT.parent.parent), str(SCRIPT.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", str(SCRIPT), mode, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_write_that_finds_no_room_leaves_the_last_good_checkpoint_and_model(tmp_path):
    """The system itself refuses to let a file grow, in the middle of the second checkpoint."""
    seen = drill("full", tmp_path)
    assert "epoch 2 could not be saved" in seen["said"] and "File too large" in seen["said"]
    assert "checkpoint and the best model that were saved are whole" in seen["said"] and "resume=True" in seen["said"]
    assert seen["left"] == ["checkpoint.pt", "history.csv", "model", "settings.json"]
    assert seen["equal"]  # resumed with room, it ends as the run that always had it


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_nothing(tmp_path):
    seen = drill("random", tmp_path)
    assert seen["kills"] == 10
    assert seen["resumed"] and seen["reached"][-1] < 30  # it was taken up midway; how often, depends on the machine
    assert seen["equal"]


@pytest.mark.slow
def test_a_kill_at_any_change_to_the_file_system_changes_nothing(tmp_path):
    seen = drill("everywhere", tmp_path)
    assert seen["changes"] > 40
    assert seen["unequal"] == []
