"""What notebooks leave for each other and for the reader."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from humanclap.losses import KINDS

from .data import REAL, Corpus
from .lineup import Lineup
from .run import PROJECT, Study, StudyError, cache_folder, runs_folder
from .shared_features import SharedFeatures

README_FIGURES = (
    "01_scatter",
    "02_floor_and_ceiling",
    "03_overview",
    "03_table_1",
    "03_scatter",
    "04_systems",
)


def read_scores(run: Study, *notebooks: str) -> pd.DataFrame:
    """The long score tables that other notebooks have left, below each other.

    Raises:
        StudyError: a table is not there; names the notebook that makes it.
    """
    tables = []
    for notebook in notebooks:
        path = run.path(f"tables/{notebook[:2]}_scores.csv")
        if not path.is_file():
            raise StudyError(
                f"{path} is not there. It comes from notebooks/{notebook}.ipynb: run that first (or make {run.profile})"
            )
        tables.append(pd.read_csv(path, float_precision="round_trip"))
    return pd.concat(tables, ignore_index=True)


def same_pairs(scores: pd.DataFrame, pairs: pd.DataFrame) -> None:
    """Raise StudyError unless every model in a long score table covers exactly these pairs with these ratings."""
    key = ["audio", "text", "n_ratings"]
    scores, pairs = (table.assign(n_ratings=table["n_ratings"].fillna(0)) for table in (scores, pairs))  # NaN: means only
    wanted = set(map(tuple, pairs[key].to_numpy().tolist()))
    for model, rows in scores.groupby("model", sort=False):
        found = set(map(tuple, rows[key].to_numpy().tolist()))
        if found != wanted:
            raise StudyError(
                f"the scores of {model} are of other pairs than this notebook's ({len(found - wanted)} more, "
                f"{len(wanted - found)} missing): run notebooks 01 and 03 with the same profile, seed and max_anchor_mean"
            )


def checkpoints(run: Study) -> dict[tuple[str, int], Path]:
    """The checkpoints that notebook 03 has left: (loss, training seed) -> folder, losses in the order of Table I.

    Raises:
        StudyError: a loss has none; names the notebook.
    """
    root = runs_folder() / run.profile / "human-clap"
    found = {kind: sorted(root.glob(f"{kind}/seed*/model"), key=_seed_of) for kind in KINDS}
    missing = [kind for kind, folders in found.items() if not folders]
    if missing:
        raise StudyError(
            f"no checkpoint of {', '.join(missing)} in {root}. "
            "They come from notebooks/03_human_clap_finetuning.ipynb: run that first"
        )
    return {(kind, _seed_of(folder)): folder for kind, folders in found.items() for folder in folders}


def _seed_of(model_folder: Path) -> int:
    return int(model_folder.parent.name.removeprefix("seed"))


def score_variants(run: Study, corpus: Corpus, pairs: pd.DataFrame, progress: bool = False) -> pd.DataFrame:
    """The long score table of `pairs` under every checkpoint of notebook 03, with its `training_seed`.

    A clip is read once, embedded once for each checkpoint, and then found in the cache.
    """
    from humanclap.clap.lazy import LazyClap

    tables, shared = [], SharedFeatures()
    for (kind, seed), folder in checkpoints(run).items():
        clap = shared.through(LazyClap(folder, memory=cache_folder()))
        tables.append(corpus.score_table(clap, pairs, kind, progress).assign(training_seed=seed))
    return pd.concat(tables, ignore_index=True)


def study_scores(run: Study, lineup: Lineup, corpus: Corpus, pairs: pd.DataFrame) -> pd.DataFrame:
    """Scores of the test `pairs` under the line-up and every checkpoint: those that notebooks 01 and 03 have left, or,
    for a rated set of one's own, made here.

    Raises:
        StudyError: scores or checkpoints are not there, or are of other pairs; names the notebook.
    """
    if corpus.rated_set is not None:
        return pd.concat([score_variants(run, corpus, pairs), score_lineup(lineup, corpus, pairs)], ignore_index=True)
    scores = read_scores(run, "03_human_clap_finetuning", "01_baseline_clapscore")
    same_pairs(scores, pairs)
    return scores


def with_blind(scores: pd.DataFrame) -> pd.DataFrame:
    """A long score table with its column `blind`, if it has one, as a further model: the guess that never listens."""
    if "blind" not in scores:
        return scores
    one_each = scores.drop_duplicates(["audio", "text"])
    guess = one_each.assign(model="blind", clap_score=one_each["blind"], cosine=float("nan"), training_seed=float("nan"))
    return pd.concat([scores, guess], ignore_index=True)


def score_lineup(
    lineup: Lineup, corpus: Corpus, pairs: pd.DataFrame, names: Sequence[str] | None = None, progress: bool = False
) -> pd.DataFrame:
    """The long score table of `pairs` under the models of a study before fine-tuning (`names`: some of them)."""
    chosen = lineup.names if names is None else names
    return pd.concat([corpus.score_table(lineup[name].lazy(), pairs, name, progress) for name in chosen], ignore_index=True)


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
    (PROJECT / "figures").mkdir(exist_ok=True)
    marks = runs_folder() / profile / "tables" / "02_floor_and_ceiling.csv"
    if marks.is_file() and set(pd.read_csv(marks)["data"]) != {REAL}:
        raise StudyError(
            "the README shows notebook 02 on RELATE's real ratings; this run had others: see its first cells"
        )
    for name in names:
        source = runs_folder() / profile / "figures" / f"{name}.png"
        if not source.is_file():
            raise StudyError(f"{source} is not there; run: make {profile}")
        copied.append(Path(shutil.copyfile(source, PROJECT / "figures" / source.name)))
    return copied
