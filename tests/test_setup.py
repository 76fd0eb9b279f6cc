"""What a fresh machine installs is declared, pinned and the same everywhere."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).resolve().parent.parent
MISSION = "jupyterlab torch laion-clap msclap torchaudio numpy pandas scipy seaborn papermill".split()
EXTRAS = ["laion", "msclap", "study", "dev"]
NAMES = {
    "yaml": "pyyaml",
    "huggingface-hub": "huggingface-hub",
    "ipython": "ipykernel",
    "sklearn": "scikit-learn",
}  # import -> distribution


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def distributions(requirements):
    return {re.split(r"[<>=!~;\[ ]", line)[0].lower().replace("_", "-") for line in requirements}


@pytest.fixture(scope="module")
def study(project):
    """All that `make` installs: the light dependencies and every extra."""
    extras = project["optional-dependencies"]
    return project["dependencies"] + [line for extra in extras.values() for line in extra]


def test_the_ten_packages_of_the_mission_are_declared(study):
    assert set(MISSION) <= distributions(study)


def test_a_light_installation_leaves_new_packages_and_pythons_alone(project):
    """Only transformers has an upper limit, and nothing of the study is in it."""
    light = [Requirement(line) for line in project["dependencies"]]
    assert {r.name: str(r.specifier) for r in light if r.specifier} == {"transformers": "<6,>=4.57"}
    assert not {"matplotlib", "seaborn", "jupyterlab", "laion-clap", "msclap"} & distributions(project["dependencies"])
    assert all(version in project["requires-python"] for version in ("3.11", "3.14"))
    for extra in ("laion", "msclap"):
        assert all("python_version < '3.13'" in line for line in project["optional-dependencies"][extra])


def sources(folder):
    """The code of every Python file and notebook of a folder."""
    for path in sorted((PROJECT / folder).rglob("*.py")):
        yield path.read_text(encoding="utf-8")
    for path in sorted((PROJECT / folder).glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code":
                yield cell.source


def imported(folder):
    """Top-level names of everything that a folder imports from elsewhere."""
    names = set()
    for source in sources(folder):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(node.module.split(".")[0])
    # benchmarks may measure against what the tests have as an oracle
    folders = (folder, "tests") if folder == "benchmarks" else (folder,)
    own = {path.stem for name in folders for path in (PROJECT / name).rglob("*.py")}
    return names - set(sys.stdlib_module_names) - {"humanclap"} - own


@pytest.mark.parametrize("folder", ["humanclap", "benchmarks", "notebooks", "tests"])
def test_every_package_that_is_imported_is_declared(project, folder):
    extras = ["laion", "msclap", "study"] + (["dev"] if folder in ("tests", "benchmarks") else [])
    optional = project["optional-dependencies"]
    declared = distributions(project["dependencies"] + [line for extra in extras for line in optional[extra]])
    found = {name.lower().replace("_", "-") for name in imported(folder)}
    assert {NAMES.get(name, name) for name in found} <= declared


def test_the_constraints_pin_every_declared_package(study):
    lines = (PROJECT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!]+", pin) for pin in pins)
    assert distributions(study) <= distributions(pins)


def test_the_constraints_pin_all_that_is_installed_for_us_in_just_this_version():
    pins = dict(
        line.split("==")
        for line in (PROJECT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    )
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    wanted, found = ["humanclap"], {}
    while wanted:
        name = wanted.pop()
        if name in found:
            continue
        installed = distribution(name)
        found[name] = installed.version
        for line in installed.requires or []:
            requirement = Requirement(line)
            extras = EXTRAS if name == "humanclap" else [""]
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
                wanted.append(canonicalize_name(requirement.name))
    del found["humanclap"]
    assert len(found) > 100
    wrong = {
        name: (version, pins.get(name)) for name, version in found.items() if pins.get(name) != version.split("+")[0]
    }
    assert not wrong, f"installed and pinned versions differ: {wrong}"


def test_the_conda_environment_leaves_every_version_to_the_constraints():
    environment = yaml.safe_load((PROJECT / "environment.yml").read_text(encoding="utf-8"))
    python, pip, packages = environment["dependencies"]
    assert re.fullmatch(r"python=3\.1[12]", python) and pip == "pip"
    assert packages == {"pip": ["-c constraints.txt", f"-e .[{','.join(EXTRAS)}]"]}
    assert f"-c constraints.txt -e '.[{','.join(EXTRAS)}]'" in (PROJECT / "Makefile").read_text(encoding="utf-8")


def test_importing_humanclap_loads_nothing_heavy():
    heavy = "torch transformers pandas scipy numpy matplotlib seaborn laion_clap msclap librosa".split()
    code = f"import sys, humanclap; print([name for name in {heavy!r} if name in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_every_public_name_loads_and_another_is_refused():
    import humanclap

    assert {"relate", "losses", "evaluate", "plots", "load_clap", "clap_score", "score_pairs"} <= set(humanclap.__all__)
    for name in humanclap.__all__:
        assert getattr(humanclap, name) is not None and name in dir(humanclap)
    with pytest.raises(AttributeError, match="no 'clapscore'. Available: relate"):
        _ = humanclap.clapscore


def test_what_needs_an_extra_says_which_and_for_which_python(monkeypatch):
    import humanclap
    from humanclap.checks import ExtraMissing, need_extra

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for package, extra in (("laion_clap", "laion"), ("msclap", "msclap")):
        with pytest.raises(
            ExtraMissing, match=rf"humanclap\[{extra}\].*pip install '.\[{extra}\]', with Python 3.11 or 3.12"
        ):
            need_extra(package, extra, "this")
    with pytest.raises(ImportError, match=r"pip install '.\[study\]'$"):
        humanclap.__getattr__("plots")


def test_an_unsupported_python_gets_one_line_that_says_what_to_do(tmp_path):
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.1 && exit 0\nexit 1\n')
    old.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((PROJECT / name).read_bytes())
    run = subprocess.run(["make", "-C", tmp_path, "demo", f"PYTHON={old}"], capture_output=True, text=True)
    assert run.returncode != 0
    said = [line for line in run.stdout.splitlines() if "humanclap needs" in line]
    assert said == [
        "humanclap needs Python 3.11 or 3.12 (found: Python 3.9.1); install one and run: make demo PYTHON=/path/to/python3.11"
    ]
