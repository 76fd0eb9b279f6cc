"""What every test shares: no network, the real ratings and recordings, and what needs an extra."""

from __future__ import annotations

import ast
import os
import runpy
import signal
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
RELATE_PLACES = (PROJECT.parent / "shared" / "relate", PROJECT / "data" / "relate")
GUARD = Path(__file__).resolve().parent / "no_network"


# Where the extras are missing on purpose (`make test-light`), what needs one is left out: a file that imports one of these
# at its top, itself or through a helper beside it, and a test marked extra(name). Everywhere else a missing package fails.
WITHOUT_EXTRAS = os.environ.get("HUMANCLAP_TEST_EXTRAS") == "none"
EXTRAS = {
    "laion": ["laion_clap", "laion_small", "torchaudio", "torchvision"],
    "msclap": ["msclap"],
    "study": ["humanclap.plots", "IPython", "matplotlib", "nbformat", "papermill", "seaborn", "yaml"],
    "dev": ["librosa", "nbclient", "pingouin"],
}
LEFT_OUT: dict[str, str] = {}


@cache
def _extras_of(path: Path) -> frozenset[str]:
    """The extras that a test file, and the helpers that it imports, need when they are imported."""
    needed: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            needed |= {extra for extra, modules in EXTRAS.items() if {name, name.split(".")[0]} & set(modules)}
            if (helper := path.with_name(f"{name}.py")).is_file():
                needed |= _extras_of(helper)
    return frozenset(needed)


def pytest_ignore_collect(collection_path, config):
    if WITHOUT_EXTRAS and collection_path.name.startswith("test_") and (needed := _extras_of(collection_path)):
        LEFT_OUT[collection_path.name] = ", ".join(sorted(needed))
        return True
    return None


def pytest_terminal_summary(terminalreporter):
    for name, needed in sorted(LEFT_OUT.items()):
        terminalreporter.write_line(f"left out: {name} (needs {needed})")


def pytest_runtest_setup(item):
    if WITHOUT_EXTRAS and (names := [name for marker in item.iter_markers("extra") for name in marker.args]):
        pytest.skip(f"needs {', '.join(names)}")


def pytest_configure(config):
    """Refuse every connection that leaves the machine, here and in each Python started from a test."""
    runpy.run_path(str(GUARD / "sitecustomize.py"))["refuse"]()
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(GUARD), os.environ.get("PYTHONPATH")]))
    os.environ["HUMANCLAP_NO_NETWORK"] = "1"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a background job's children would ignore Ctrl-C as well
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _beside_the_project(variable: str, needed: str, *places: Path) -> Path:
    """The folder that `variable` names, else the first of `places` that has the file; none: skip here, fail in CI."""
    named = os.environ.get(variable)
    folders = [Path(named).expanduser()] if named else places
    for folder in folders:
        if (folder / needed).is_file():
            return folder.resolve()
    message = f"{needed} is not in {folders[0]}: set {variable} to the folder that holds it"
    if os.environ.get("CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


@pytest.fixture(scope="session", autouse=True)
def health_checks_stay_out_of_home(tmp_path_factory):
    """The results of checkpoint health checks go to a folder of this session, not to ~/.cache."""
    from humanclap.clap import health

    own, place = health.memory_file, tmp_path_factory.mktemp("health")

    def memory_file(sha256: str) -> Path:
        return own(sha256) if os.environ.get("XDG_CACHE_HOME") else place / f"{sha256}.json"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(health, "memory_file", memory_file)
        yield


@pytest.fixture(scope="session")
def relate_root() -> Path:
    """The folder with RELATE's scores/REL.csv: named, beside the project, or what the demo has fetched."""
    return _beside_the_project("HUMANCLAP_RELATE", "scores/REL.csv", *RELATE_PLACES)


@pytest.fixture(scope="session")
def whole_relate_root() -> Path:
    """The folder with all of RELATE's files: IS.csv, OS.csv and the questionnaires, too (the demo fetches REL.csv only)."""
    return _beside_the_project("HUMANCLAP_RELATE", "listener_attributes/IS_and_OS.csv", *RELATE_PLACES)


@pytest.fixture(scope="session")
def real_ratings(relate_root):
    """All 28,770 ratings of REL.csv. Shared by all tests: do not change in place."""
    from humanclap import relate

    return relate.load_ratings(relate_root / "scores" / "REL.csv")


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder with two real recordings, dog.wav and train.wav (48 kHz mono)."""
    return _beside_the_project("HUMANCLAP_RECORDINGS", "dog.wav", PROJECT.parent / "shared" / "audio")


@pytest.fixture(scope="session")
def demo_runs(tmp_path_factory) -> Iterator[Path]:
    """A folder for runs with the demo's own corpus and stand-ins in it, made once for all processes of the tests;
    HUMANCLAP_RUNS points there."""
    from filelock import FileLock

    from humanclap import study

    base = tmp_path_factory.getbasetemp()
    runs = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "demo-runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HUMANCLAP_RUNS", str(runs))
        with FileLock(f"{runs}.lock"):
            study.prepare("demo")
            study.lineup("demo")
        yield runs


@pytest.fixture(scope="module")
def one_thread():
    """One thread of torch's: several only get into each other's way in a model as small as the tests'."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
