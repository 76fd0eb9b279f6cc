"""What every test shares: no network, the real ratings and recordings, and the two tiers."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
GUARD = Path(__file__).resolve().parent / "no_network"


def pytest_configure(config):
    """Refuse every connection that leaves the machine, here and in each Python started from a test."""
    runpy.run_path(str(GUARD / "sitecustomize.py"))["refuse"]()
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(GUARD), os.environ.get("PYTHONPATH")]))
    os.environ["HUMANCLAP_NO_NETWORK"] = "1"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _beside_the_project(variable: str, needed: str, default: str) -> Path:
    """The folder that `variable` names, else the one beside the project; absent: skip here, fail in CI."""
    folder = Path(os.environ.get(variable) or PROJECT.parent / "shared" / default)
    if (folder / needed).is_file():
        return folder.resolve()
    message = f"{folder / needed} is not there: set {variable} to the folder that holds {needed}"
    if os.environ.get("CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


@pytest.fixture(scope="session")
def relate_root() -> Path:
    """The folder with RELATE's scores/REL.csv."""
    return _beside_the_project("HUMANCLAP_RELATE", "scores/REL.csv", "relate")


@pytest.fixture(scope="session")
def real_ratings(relate_root):
    """All 28,770 ratings of REL.csv. Shared by all tests: do not change in place."""
    from humanclap import relate

    return relate.load_ratings(relate_root / "scores" / "REL.csv")


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder with two real recordings, dog.wav and train.wav (48 kHz mono)."""
    return _beside_the_project("HUMANCLAP_RECORDINGS", "dog.wav", "audio")
