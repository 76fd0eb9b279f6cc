"""One notebook's run: its parameters, checked, and the folder that keeps its results."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from humanclap.download import PROJECT
from humanclap.evaluate.bootstrap import CORRECTION_RESAMPLES
from humanclap.files import expanded, write_text
from humanclap.tables import write_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOTEBOOKS = PROJECT / "notebooks"
PROFILES = ("demo", "paper")


class StudyError(RuntimeError):
    """A study cannot go on; the message says what is missing or wrong, and what to do."""

    def _render_traceback_(self) -> list[str]:
        # IPython asks for this: in a notebook the message is all that helps, the frames above it are ours.
        return [f"{type(self).__name__}: {self}"]


class ParameterError(StudyError, ValueError):
    """A notebook parameter has a value that is not allowed."""


# --- parameters -----------------------------------------------------------------------------------------


def _is(value, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _number(low: float, high: float = float("inf"), kind: type = Real) -> tuple[Callable, str]:
    limits = f"of at least {low:g}" if high == float("inf") else f"from {low:g} to {high:.10g}"
    allowed = f"a {'whole ' if kind is Integral else ''}number {limits}"
    return lambda value: _is(value, kind) and low <= value <= high, allowed


def _text(what: str) -> tuple[Callable, str]:
    return lambda value: isinstance(value, str), f'text, {what}, or "" for none'


def _are_seeds(value) -> bool:
    whole = isinstance(value, list) and all(_is(seed, Integral) and seed >= 0 for seed in value)
    return whole and 0 < len(value) == len(set(value))


def _is_scale(value) -> bool:
    two = isinstance(value, (list, tuple)) and len(value) == 2 and all(_is(end, Real) for end in value)
    return two and -float("inf") < value[0] < value[1] < float("inf")


def _is_train_size(value) -> bool:
    return _is(value, Real) and (0 < value < 1 or (value >= 1 and value == int(value)))


_RULES: dict[str, tuple[Callable, str]] = {
    "max_anchor_mean": _number(0, 10),
    "n_resamples": _number(100, kind=Integral),
    "seed": _number(0, 2**32 - 1, Integral),
    "n_train": (_is_train_size, "a whole number of pairs, or a share between 0 and 1"),
    "epochs": _number(1, kind=Integral),
    "learning_rate": (lambda value: _is(value, Real) and 0 < value <= 1, "a number above 0, at most 1"),
    "batch_size": _number(2, kind=Integral),
    "n_crops": _number(2, kind=Integral),
    "n_crop_pairs": _number(0, kind=Integral),
    "workers": _number(1, kind=Integral),
    "resume": (lambda value: isinstance(value, bool), "True or False"),
    "seeds": (_are_seeds, "a list of different whole numbers of at least 0, as [0, 1]"),
    "scale": (_is_scale, "the lowest and the highest rating, two numbers, as [1, 5]"),
    "rated_set": _text("a folder or a table of rated pairs"),
    "audio_root": _text("the folder that the clips of rated_set are relative to"),
    "audio_folder": _text("a folder of clips"),
    "prompts": _text("a table of prompts"),
    "clap": _text("what load_clap takes"),
}


def _check_parameter(name: str, value, notebook: str) -> None:
    if name not in _RULES:
        raise ParameterError(f"there is no parameter {name!r}. Available: profile, {', '.join(_RULES)}")
    right, allowed = _RULES[name]
    if name == "n_resamples" and notebook[:2] in ("01", "03", "04"):
        right, allowed = _number(CORRECTION_RESAMPLES, kind=Integral)
        allowed += " (Holm's correction needs that many)"
    if not right(value):
        option = f"-y '{name}: VALUE'" if name in ("seeds", "scale") else f"-p {name} VALUE"
        raise ParameterError(
            f"{name}={value!r}: allowed is {allowed} (set it in the parameters cell, or with papermill {option})"
        )


def profile_parameters(profile: str) -> dict:
    """The parameters of a profile: those of notebooks/profiles/demo.yaml, with those of its own file over them."""
    import yaml

    paths = [NOTEBOOKS / "profiles" / f"{name}.yaml" for name in ("demo", profile)]
    found = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]
    return {name: value for values in found for name, value in values.items()}


# --- results --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Study:
    """One notebook's run: its name, its profile, the folder for its results, and what differs from the profile."""

    profile: str
    notebook: str
    folder: Path
    changed: dict = field(default_factory=dict)

    def path(self, name: str) -> Path:
        """Path of something in this run's folder, there or not."""
        return self.folder / name

    def find(self, name: str) -> Path:
        """Path of something that another notebook made: in this run's folder, else in the profile's."""
        own = self.folder / name
        return own if own.exists() else runs_folder() / self.profile / name

    def save_table(self, table: pd.DataFrame, name: str, label: str, exact: bool = False) -> Path:
        """Write a table to `<folder>/tables/<name>.csv`, atomically, and return the path.

        Args:
            name: begins with the number of the notebook.
            label: the data it is about, "RELATE ratings" or "synthetic"; kept in the column `data`.
            exact: keep every digit (scores that another notebook reads), instead of six.
        """
        path = self.folder / "tables" / f"{name}.csv"
        if note_of(table):  # what could not be done leaves no table
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(_record(self.folder, self.notebook), json.dumps(self.changed, indent=1) + "\n")
        return write_table(table.assign(data=label), path, None if exact else "%.6g")

    def save_paper_table(self, frame: pd.DataFrame, name: str, label: str):
        """Write a frame of `evaluate.paper_table` as .csv, .md and .tex, and return it styled for the notebook."""
        from humanclap.evaluate import render_table, write_table
        from humanclap.plots import MODEL_NAMES, SYSTEM_NAMES

        names = {**SYSTEM_NAMES, **MODEL_NAMES}
        write_table(frame, self.folder / "tables" / name, label, names=names)
        return render_table(frame, "styler", label, names=names)

    def save_figure(self, figure: Figure, name: str, label: str) -> Path:
        """Write a figure to `<folder>/figures/<notebook number>_<name>.png` and .pdf, with the data's label on it."""
        from humanclap.plots import write_figure

        return write_figure(figure, self.folder / "figures" / f"{self.notebook[:2]}_{name}.png", label)[0]

    def figure(self, name: str, label: str, draw: Callable[..., Figure], table, *more) -> Figure | None:
        """Draw `draw(table, *more)`, save it as `save_figure` does, and return it for the notebook to show.

        A table without rows holds an analysis that the data cannot support: its `attrs["note"]` is printed instead.
        """
        if note := note_of(table):
            print(note)
            return None
        figure = draw(table, *more)
        self.save_figure(figure, name, label)
        return figure


def note_of(table) -> str:
    """Why a table without rows holds an analysis that was not possible; "" for any other."""
    return table.attrs.get("note", "") if isinstance(table, pd.DataFrame) and table.empty else ""


def if_possible(analysis: Callable[..., pd.DataFrame], *arguments, **settings) -> pd.DataFrame:
    """`analysis(*arguments, **settings)`; where the data cannot support it, no rows and the reason in `attrs["note"]`.

    That is so where the analysis refuses the data (a ValueError says why), where an argument is itself such an empty
    table, or None for single ratings that nobody has. `Study.figure` shows the note.
    """
    nothing = pd.DataFrame()
    for table in arguments:
        if note_of(table):
            return table
    try:
        if any(argument is None for argument in arguments):
            raise ValueError("only mean ratings are known, no single ones")
        return analysis(*arguments, **settings)
    except ValueError as error:
        nothing.attrs["note"] = f"not possible with these data: {error}"
        return nothing


def open_study(profile: str, notebook: str, **parameters) -> Study:
    """Check a notebook's parameters and find the folder for its results.

    That is `<runs>/<profile>`, and for a rated set of one's own `<runs>/<profile>/sets/<its name>-<key>`, where the key
    follows from path, scale and audio_root. Where that folder keeps results of this notebook under other parameters,
    nothing is overwritten: results go to by-hand/<what differs from the profile>-<key>/ in it. A run with the
    profile's own parameters always takes the folder itself; what a run by hand left there is moved to by-hand/.

    Args:
        notebook: file name without ending, e.g. "02_relate_screening".
        **parameters: the notebook's other parameters, by name.

    Raises:
        ParameterError: a value that is not allowed; names the parameter, the value and what is allowed.
    """
    if profile not in PROFILES:
        raise ParameterError(f"profile={profile!r} is not known. Available: {', '.join(PROFILES)}")
    for name, value in parameters.items():
        _check_parameter(name, value, notebook)
    folder, usual = runs_folder() / profile, profile_parameters(profile)
    changed = {name: _resolved(value) for name, value in parameters.items() if value != usual.get(name)}
    if parameters.get("rated_set"):
        of_the_set = {name: changed.pop(name) for name in ("rated_set", "audio_root", "scale") if name in changed}
        folder = folder / "sets" / _folder_name({"": of_the_set.pop("rated_set"), **of_the_set})
    return Study(profile, notebook, _unused(folder, notebook, changed), changed)


def _record(folder: Path, notebook: str) -> Path:
    return folder / "tables" / f"{notebook[:2]}_parameters.json"


def _unused(folder: Path, notebook: str, changed: dict) -> Path:
    """`folder`, or one below it if results of this notebook under other parameters are kept there."""
    record, number = _record(folder, notebook), notebook[:2]
    before = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    if before == changed or not any((folder / "tables").glob(f"{number}_*.csv")):
        return folder
    by_hand = folder / "by-hand" / _folder_name(changed or before)
    if changed:
        return by_hand
    for path in [*folder.glob(f"tables/{number}_*"), *folder.glob(f"figures/{number}_*")]:
        (by_hand / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.move(path, by_hand / path.parent.name / path.name)
    return folder


def _folder_name(parameters: dict) -> str:
    """A readable name for some parameters, with six digits that differ for different values."""
    parts = [f"{name}={Path(value).stem if isinstance(value, str) else value}" for name, value in parameters.items()]
    readable = re.sub(r"[^\w=.-]+", "_", "-".join(parts).lstrip("=")).strip("_")[:60]
    return f"{readable}-{hashlib.sha256(json.dumps(parameters).encode()).hexdigest()[:6]}"


def _resolved(value):
    if isinstance(value, str) and value and (path := expanded(value)).exists():
        return str(path.resolve())
    return value


def cache_folder() -> Path:
    """Where embeddings and features are cached by content, for all profiles: <runs>/cache."""
    return runs_folder() / "cache"


def runs_folder() -> Path:
    """Where results go: `$HUMANCLAP_RUNS`, or runs/ beside the notebooks."""
    named = os.environ.get("HUMANCLAP_RUNS")
    return expanded(named) if named else PROJECT / "runs"


def versions(*packages: str) -> str:
    """Versions for a notebook's first output: Python, humanclap and the packages named."""
    return ", ".join([f"Python {platform.python_version()}", *(f"{p} {version(p)}" for p in ("humanclap", *packages))])
