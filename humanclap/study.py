"""What the notebooks share: parameters, where things lie, what data stands behind a number, and how results are kept."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from . import download
from .score import score_pairs

PACKAGE = Path(__file__).resolve().parent
PROJECT = PACKAGE.parent
PROFILES = ("demo", "paper")
REAL, SYNTHETIC = "RELATE ratings", "synthetic"
README_FIGURES = ("01_scatter", "02_floor_and_ceiling", "03_overview", "03_table_1", "03_scatter", "04_systems")
BASELINES = ("laion-standin", "msclap-standin")


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
    "seed": (int, 0, None),
    "n_train": (float, 0, None),
    "epochs": (int, 1, None),
    "learning_rate": (float, 0, 1),
    "batch_size": (int, 2, None),
}


@dataclass(frozen=True)
class RatingsSource:
    """Where ratings come from: `csv`, `listeners_csv` (None where there is no questionnaire) and the `label` that
    every figure and table of them carries."""

    csv: Path
    listeners_csv: Path | None
    label: str
    note: str


@dataclass(frozen=True)
class Corpus(RatingsSource):
    """Rated pairs with their audio: the files of a RatingsSource, and `audio_root`, below which the clips lie."""

    audio_root: Path

    def score_table(self, clap, pairs: pd.DataFrame, model: str, progress: bool = True) -> pd.DataFrame:
        """Score pairs and name the model: the columns of `pairs` followed by those of `score_pairs`.

        Raises:
            StudyError: a clip that could not be scored; names the first and says why.
        """
        paths = [self.audio_root / audio for audio in pairs["audio"]]
        scores = score_pairs(clap, paths, pairs["text"].tolist(), cache_dir=self.audio_root.parent.parent / "cache", progress=progress)
        failed = scores[scores["status"] != "ok"]
        if len(failed):
            raise StudyError(f"{len(failed)} of {len(scores)} pairs were not scored, first: {failed['status'].iloc[0]}")
        return pd.concat([pairs.reset_index(drop=True), scores.drop(columns=["audio", "text"]).assign(model=model)], axis=1)


@dataclass(frozen=True)
class Study:
    """One notebook's run: its name, its profile and the folder that keeps its results."""

    profile: str
    notebook: str
    folder: Path

    def save_table(self, table: pd.DataFrame, name: str, exact: bool = False) -> Path:
        """Write a table to `<folder>/tables/<name>.csv`, whole or not at all, and return the path.

        Args:
            exact: keep every digit (scores that another notebook reads), instead of six.
        """
        path = self.folder / "tables" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        table.to_csv(part, index=False, float_format=None if exact else "%.6g", lineterminator="\n")
        os.replace(part, path)
        return path

    def save_figure(self, figure, name: str, label: str) -> Path:
        """Write a figure to `<folder>/figures/<notebook number>_<name>.png`, stamped with the data behind it.

        Args:
            figure: a matplotlib Figure.
            name: of the figure; the number of the notebook comes before it.
            label: the data it shows: "RELATE ratings" or "synthetic".
        """
        path = self.folder / "figures" / f"{self.notebook[:2]}_{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.text(1, -0.035, f"data: {label}", ha="right", va="top", fontsize=7, color="0.4")
        figure.savefig(path, dpi=150, bbox_inches="tight", metadata={"Software": None})
        return path

    def path(self, name: str) -> Path:
        """Path of something below the run's folder, e.g. a table of another notebook."""
        return self.folder / name


def open_study(profile: str, notebook: str, **parameters) -> Study:
    """Check a notebook's parameters and open the folder of its results.

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
    return Study(profile, notebook, runs_folder() / profile)


def check_parameter(name: str, value) -> None:
    """Raise ParameterError unless `value` is allowed for the notebook parameter `name`."""
    kind, low, high = _RULES[name]
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and kind is int:
        number = float(value).is_integer()
    if not number or not (low is None or value >= low) or not (high is None or value <= high):
        limits = f"from {low:g} to {high:g}" if high is not None else f"of at least {low:g}"
        raise ParameterError(
            f"{name}={value!r}: allowed is a {'whole ' if kind is int else ''}number {limits} "
            f"(set it in the parameters cell, or with papermill -p {name} VALUE)"
        )


def runs_folder() -> Path:
    """Where results go: `$HUMANCLAP_RUNS`, or runs/ beside the notebooks."""
    return Path(os.environ.get("HUMANCLAP_RUNS") or PROJECT / "runs")


def data_folder() -> Path:
    """Where fetched files are kept: `$HUMANCLAP_DATA`, or data/ beside the notebooks."""
    return Path(os.environ.get("HUMANCLAP_DATA") or PROJECT / "data")


def prepare(profile: str, seed: int = 0) -> Corpus:
    """Make, or find, the rated pairs with audio that the profile's notebooks work on.

    In the demo that is the embedded synthetic corpus, written to runs/demo/corpus on first use; the same seed gives
    the same bytes, and a corpus that is there already is left alone.

    Raises:
        StudyError: the profile's data can't be had yet.
    """
    if profile != "demo":
        raise StudyError("the paper profile needs RELATE's audio, which comes with a later release; use profile='demo'")
    from .synthetic import make_corpus

    root = make_corpus(runs_folder() / profile / "corpus", seed=seed)
    note = f"made on the spot in RELATE's format (seed {seed}): it shows the method, and says nothing about real audio"
    ratings, listeners = root / "scores" / "REL.csv", root / "listener_attributes" / "REL.csv"
    return Corpus(ratings, listeners, SYNTHETIC, note, root / "RELATE_wave")


def baselines(profile: str, seed: int = 0, progress: bool = True) -> dict[str, Path]:
    """Make, or find, the profile's baselines: model name -> what `load_clap` takes.

    In the demo these are two tiny ClapModels, pretrained on the spot on captions that leave things out.
    """
    if profile != "demo":
        raise StudyError("the paper profile needs the LAION and MS CLAP weights, which come with a later release")
    from .tiny import make_standins

    return make_standins(runs_folder() / profile / "claps", seed=seed, progress=progress)


def find_ratings(profile: str = "demo", seed: int = 0) -> RatingsSource:
    """Find RELATE's real ratings: `$HUMANCLAP_RELATE`, or a checked copy in data/, fetched once.

    In the demo, where they are neither here nor within reach, the embedded corpus takes their place, and `label` and
    `note` say so.

    Raises:
        StudyError: HUMANCLAP_RELATE names a folder without scores/REL.csv.
        download.DownloadError: in another profile, the ratings are not here and cannot be fetched.
    """
    named = os.environ.get("HUMANCLAP_RELATE")
    if named:
        folder, note = Path(named), "real human ratings, from the folder that HUMANCLAP_RELATE names"
        if not (folder / "scores" / "REL.csv").is_file():
            raise StudyError(
                f"HUMANCLAP_RELATE is {named!r}, but scores/REL.csv is not in it. Point it to the folder that holds "
                "scores/REL.csv, or unset it to let the demo fetch that file"
            )
    else:
        folder, note = data_folder() / "relate", "real human ratings, fetched from the published commit and checked"
        try:
            download.fetch_ratings(folder)
        except download.DownloadError as error:
            if profile != "demo":
                raise
            corpus = prepare(profile, seed)
            note = f"{corpus.note}. The real ratings could not be fetched: {error}"
            return RatingsSource(corpus.csv, corpus.listeners_csv, corpus.label, note)
    listeners = folder / "listener_attributes" / "REL.csv"
    return RatingsSource(folder / "scores" / "REL.csv", listeners if listeners.is_file() else None, REAL, note)


def read_scores(run: Study, *notebooks: str) -> pd.DataFrame:
    """The long score tables that other notebooks have left, below each other.

    Raises:
        StudyError: a table is not there; names the notebook that makes it.
    """
    tables = []
    for notebook in notebooks:
        path = run.path(f"tables/{notebook[:2]}_scores.csv")
        if not path.is_file():
            raise StudyError(f"{path} is not there. It comes from notebooks/{notebook}.ipynb: run that first (or make {run.profile})")
        tables.append(pd.read_csv(path, float_precision="round_trip"))
    return pd.concat(tables, ignore_index=True)


def same_pairs(scores: pd.DataFrame, pairs: pd.DataFrame) -> None:
    """Raise StudyError unless every model in a long score table covers exactly these pairs with these ratings."""
    key = ["audio", "text", "n_ratings"]
    wanted = set(map(tuple, pairs[key].to_numpy().tolist()))
    for model, rows in scores.groupby("model", sort=False):
        found = set(map(tuple, rows[key].to_numpy().tolist()))
        if found != wanted:
            raise StudyError(
                f"the scores of {model} are of other pairs than this notebook's ({len(found - wanted)} more, "
                f"{len(wanted - found)} missing): run notebooks 01 and 03 with the same profile, seed and max_anchor_mean"
            )


def checkpoints(run: Study) -> dict[str, Path]:
    """The five checkpoints that notebook 03 has left: loss -> folder.

    Raises:
        StudyError: one is not there; names the notebook.
    """
    from .losses import KINDS

    folders = {kind: run.path(f"human-clap/{kind}/model") for kind in KINDS}
    missing = [kind for kind, folder in folders.items() if not folder.is_dir()]
    if missing:
        raise StudyError(
            f"no checkpoint of {', '.join(missing)} in {run.path('human-clap')}. "
            "They come from notebooks/03_human_clap_finetuning.ipynb: run that first"
        )
    return folders


def wide(table: pd.DataFrame, models: list[str], metric: str = "srcc") -> pd.DataFrame:
    """A table of the paper from tidy cells: a row a model, two columns a cell, ours with its interval and the paper's."""
    rows = table[table["metric"] == metric]
    cells = list(dict.fromkeys(rows["cell"]))
    ours = [f"{v:.3f} [{lo:.3f}, {hi:.3f}]" for v, lo, hi in zip(rows["value"], rows["low"], rows["high"])]
    both = {
        "here": rows.assign(shown=ours).pivot(index="model", columns="cell", values="shown"),
        "paper": rows.pivot(index="model", columns="cell", values="paper").map(lambda v: "" if pd.isna(v) else f"{v:.3f}"),
    }
    sizes = rows.drop_duplicates("cell").set_index("cell")["n"]
    frame = pd.concat(both, axis=1).swaplevel(axis=1).loc[models, [(cell, side) for cell in cells for side in both]]
    frame.columns = [f"{cell} (n = {sizes[cell]})" if side == "here" else f"{cell}: paper" for cell, side in frame.columns]
    return frame.loc[:, [name for name in frame if not (name.endswith(": paper") and (frame[name] == "").all())]]


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


def copy_figures(profile: str, names: tuple[str, ...] = README_FIGURES) -> list[Path]:
    """Copy the README's figures from a run into figures/ (`make figures`; nothing else writes there)."""
    copied = []
    for name in names:
        source = runs_folder() / profile / "figures" / f"{name}.png"
        if not source.is_file():
            raise StudyError(f"{source} is not there; run: make {profile}")
        copied.append(Path(shutil.copyfile(source, PROJECT / "figures" / source.name)))
    return copied


def _main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m humanclap.study", description=__doc__)
    parser.add_argument("action", choices=("summary", "figures"))
    parser.add_argument("profile", choices=PROFILES, nargs="?", default="demo")
    options = parser.parse_args(arguments)
    try:
        print(summary(options.profile) if options.action == "summary" else "\n".join(map(str, copy_figures(options.profile))))
    except StudyError as error:
        print(f"{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
