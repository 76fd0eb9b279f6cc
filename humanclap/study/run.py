"""One notebook's run: its parameters, checked, and the folder that keeps its results."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from numbers import Integral, Real
from pathlib import Path

import pandas as pd

from humanclap.download.places import PROJECT

PROFILES = ("demo", "paper")


class StudyError(RuntimeError):
    """A study cannot go on; the message says what is missing or wrong, and what mends it."""

    def _render_traceback_(self) -> list[str]:
        # IPython asks for this: in a notebook the message is all that helps, the frames above it are ours.
        return [f"{type(self).__name__}: {self}"]


class ParameterError(StudyError, ValueError):
    """A notebook parameter has a value that is not allowed."""


# Parameter of a notebook: type, lowest and highest value (inclusive; None: no limit).
_RULES: dict[str, tuple[type, float | None, float | None]] = {
    "max_anchor_mean": (float, 0, 10),
    "n_resamples": (int, 100, None),
    "n_splits": (int, 10, None),
    "seed": (int, 0, 2**32 - 1),
    "n_train": (float, 0, None),
    "epochs": (int, 1, None),
    "learning_rate": (float, 0, 1),
    "batch_size": (int, 2, None),
    "n_crops": (int, 2, None),
    "n_crop_pairs": (int, 0, None),
    "workers": (int, 1, None),
}
# Parameters that are text, each with what it names; "" leaves it out.
_TEXTS = {
    "rated_set": "a folder or a CSV of rated pairs",
    "audio_folder": "a folder of clips",
    "prompts": "a CSV of prompts",
    "clap": "what load_clap takes",
}
# Parameters that are a list of whole numbers of at least 0.
_LISTS = ("seeds",)


@dataclass(frozen=True)
class Study:
    """One notebook's run: its name, its profile and the folder that keeps its results."""

    profile: str
    notebook: str
    folder: Path

    def save_table(self, table: pd.DataFrame, name: str, label: str, exact: bool = False) -> Path:
        """Write a table to `<folder>/tables/<name>.csv`, whole or not at all, and return the path.

        Args:
            name: begins with the number of the notebook.
            label: the data behind it, "RELATE ratings" or "synthetic"; kept in the column `data`.
            exact: keep every digit (scores that another notebook reads), instead of six.
        """
        path = self.folder / "tables" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        float_format = None if exact else "%.6g"
        table.assign(data=label).to_csv(part, index=False, float_format=float_format, lineterminator="\n")
        os.replace(part, path)
        return path

    def save_paper_table(self, frame: pd.DataFrame, name: str, label: str):
        """Write a frame of `evaluate.paper_table` as .csv, .md and .tex, and return it styled for the notebook.

        name and label: as in `save_table`.
        """
        from humanclap.evaluate import render_table, write_table
        from humanclap.plots import MODEL_NAMES, SYSTEM_NAMES

        names = {**SYSTEM_NAMES, **MODEL_NAMES}
        write_table(frame, self.folder / "tables" / name, label, names=names)
        return render_table(frame, "styler", label, names=names)

    def save_figure(self, figure, name: str, label: str) -> Path:
        """Write a figure to `<folder>/figures/<notebook number>_<name>.png` and .pdf, stamped with the data behind it.

        Args:
            figure: a matplotlib Figure.
            name: of the figure; the number of the notebook comes before it.
            label: the data it shows: "RELATE ratings" or "synthetic".

        Returns:
            The path of the PNG.
        """
        from humanclap.plots import write_figure

        return write_figure(figure, self.folder / "figures" / f"{self.notebook[:2]}_{name}.png", label)[0]

    def path(self, name: str) -> Path:
        """Path of something below the run's folder, e.g. a table of another notebook."""
        return self.folder / name


def open_study(profile: str, notebook: str, **parameters) -> Study:
    """Check a notebook's parameters and open the folder of its results: runs/<profile>, and for a rated set of
    one's own (parameter rated_set) runs/<profile>/sets/<its name>.

    Args:
        profile: "demo" or "paper".
        notebook: file name without ending, e.g. "02_relate_screening".
        **parameters: the notebook's other parameters, by name.

    Raises:
        ParameterError: a value that is not allowed; names the parameter, the value and what is allowed.
    """
    if profile not in PROFILES:
        raise ParameterError(f"profile={profile!r} is not known. Available: {', '.join(PROFILES)}")
    for name, value in parameters.items():
        check_parameter(name, value)
    folder = runs_folder() / profile
    if rated_set := parameters.get("rated_set"):
        folder = folder / "sets" / Path(rated_set).stem
    return Study(profile, notebook, folder)


def check_parameter(name: str, value) -> None:
    """Raise ParameterError unless `value` is allowed for the notebook parameter `name`."""
    if name not in (*_RULES, *_TEXTS, *_LISTS):
        known = ", ".join((*_RULES, *_TEXTS, *_LISTS))
        raise ParameterError(f"there is no parameter {name!r}. Available: profile, {known}")
    if name in _TEXTS:
        allowed, right = f'text, {_TEXTS[name]}, or "" for none', isinstance(value, str)
    elif name in _LISTS:
        allowed, right = "a list of different whole numbers of at least 0, as [0, 1]", _are_seeds(value)
    else:
        kind, low, high = _RULES[name]
        limits = f"from {low:g} to {high:.10g}" if high is not None else f"of at least {low:g}"
        allowed = f"a {'whole ' if kind is int else ''}number {limits}"
        right = isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
        right = right and (low is None or value >= low) and (high is None or value <= high)
    if not right:
        option = f"-y '{name}: VALUE'" if name in _LISTS else f"-p {name} VALUE"
        raise ParameterError(
            f"{name}={value!r}: allowed is {allowed} (set it in the parameters cell, or with papermill {option})"
        )


def _are_seeds(value) -> bool:
    whole = isinstance(value, list) and all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in value)
    return whole and 0 < len(value) == len(set(value))


def cache_folder() -> Path:
    """Where embeddings and features are kept by content, for all profiles: <runs>/cache."""
    return runs_folder() / "cache"


def runs_folder() -> Path:
    """Where results go: `$HUMANCLAP_RUNS`, or runs/ beside the notebooks."""
    return Path(os.environ.get("HUMANCLAP_RUNS") or PROJECT / "runs")


def versions(*packages: str) -> str:
    """Versions for a notebook's first output: Python, humanclap and the packages named."""
    return ", ".join(
        [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in ("humanclap", *packages))]
    )
