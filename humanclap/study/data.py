"""Where ratings, audio and baselines come from, and the label that everything made of them carries."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from humanclap import download, evaluate, relate
from humanclap.rated_sets import RatedSet, load_rated_set
from humanclap.score import score_pairs

from .run import StudyError, cache_folder, runs_folder

REAL, SYNTHETIC = "RELATE ratings", "synthetic"


@dataclass(frozen=True)
class RatingsSource:
    """Where ratings come from: `csv`, `listeners_csv` (None where there is no questionnaire) and the `label` that
    every figure and table of them carries."""

    csv: Path | None
    listeners_csv: Path | None
    label: str
    note: str


@dataclass(frozen=True)
class RatedPairs:
    """The rated pairs of a corpus as its notebooks use them, screened where there is something to screen by.

    train, test: one row a pair (columns of `relate.aggregate_pairs`). ratings: one row a rating behind them, without
    anchors; None where only means are known. anchors: mismatched pairs with human ratings, one row a rating; empty
    where there are none. screening: what `relate.screen_listeners` returned; None without anchors. limits: plain
    sentences on what cannot be broken down.
    """

    train: pd.DataFrame
    test: pd.DataFrame
    ratings: pd.DataFrame | None
    anchors: pd.DataFrame
    screening: relate.Screening | None
    limits: tuple[str, ...] = ()

    @property
    def test_ratings(self) -> pd.DataFrame | None:
        """The ratings behind the test pairs."""
        return None if self.ratings is None else self.ratings[self.ratings["split"] == "test"]

    def blind(self) -> pd.Series | None:
        """What the best predictor that never listens says of each test pair; None without training pairs."""
        if self.train.empty:
            return None
        return evaluate.blind_predictions(self.train, self.test).iloc[:, -1].rename("blind")

    def __str__(self) -> str:
        lines = [str(self.screening)] if self.screening is not None else []
        lines.append(f"{len(self.train):,} training pairs, {len(self.test):,} test pairs")
        return "\n".join([*lines, *(f"- {sentence}" for sentence in self.limits)])


@dataclass(frozen=True)
class Corpus(RatingsSource):
    """Rated pairs with their audio: the files of a RatingsSource, and `audio_root`, below which the clips lie.

    `rated_set` holds the pairs where they are another set's than RELATE's; there is no `csv` in its format then.
    """

    audio_root: Path
    rated_set: RatedSet | None = None

    def rated(self, max_anchor_mean: float) -> RatedPairs:
        """Ratings, screened by the paper's rule where the set has anchors, and their pairs."""
        if self.rated_set is not None:
            pairs, ratings = self.rated_set.pairs, self.rated_set.ratings
            anchors = pd.DataFrame(columns=["audio", "text", "rating", "split"])
            screening, limits = None, self.rated_set.what_cannot_be_broken_down
        else:
            everything = relate.load_ratings(self.csv)
            screening, limits = relate.screen_listeners(everything, max_anchor_mean), ()
            ratings, anchors = screening.ratings, everything[everything["is_anchor"]]
            pairs = relate.aggregate_pairs(ratings)
        parts = (pairs[pairs["split"] == split].reset_index(drop=True) for split in ("train", "test"))
        return RatedPairs(*parts, ratings, anchors, screening, tuple(limits))

    @property
    def faults(self) -> pd.DataFrame | None:
        """What is wrong with each clip (audio, n_missing, snr_db, ...); known of the synthetic corpus alone."""
        table = None if self.csv is None else self.csv.parents[1] / "synthetic_clips.csv"
        return pd.read_csv(table) if table is not None and table.is_file() else None

    def score_table(self, clap, pairs: pd.DataFrame, model: str, progress: bool = True) -> pd.DataFrame:
        """Score pairs and name the model: the columns of `pairs` followed by those of `score_pairs`.

        Raises:
            StudyError: a clip that could not be scored; names the first and says why.
        """
        paths = [self.audio_root / audio for audio in pairs["audio"]]
        scores = score_pairs(
            clap,
            paths,
            pairs["text"].tolist(),
            cache_dir=cache_folder(),
            progress=progress,
        )
        failed = scores[scores["status"] != "ok"]
        if len(failed):
            raise StudyError(f"{len(failed)} of {len(scores)} pairs were not scored, first: {failed['status'].iloc[0]}")
        return pd.concat(
            [pairs.reset_index(drop=True), scores.drop(columns=["audio", "text"]).assign(model=model)], axis=1
        )


def prepare(profile: str, seed: int = 0, rated_set: str = "") -> Corpus:
    """Make, or find, the rated pairs with audio that the profile's notebooks work on.

    In the demo that is the embedded synthetic corpus, written to runs/demo/corpus-seed<seed> on first use; the same
    seed gives the same bytes, and a corpus that is there already is left alone. In the paper profile it is RELATE:
    its ratings (see `find_ratings`) with the clips in RELATE_wave/ beside scores/. In either, `rated_set` names
    another set, XACLE's folder or a plain CSV (see `rated_sets.load_rated_set`), that takes its place.

    Raises:
        StudyError: ratings or clips are not here; says how many are missing and which command brings them.
        RatedSetError, FileNotFoundError: a rated set that cannot be used as it is.
    """
    if rated_set:
        found = load_rated_set(Path(rated_set).expanduser())
        note = "; ".join((f"rated pairs of {rated_set}", *found.notes))
        return Corpus(None, None, found.label, note, found.audio_root, found)
    if profile == "demo":
        from humanclap.synthetic import make_corpus

        root = make_corpus(runs_folder() / profile / f"corpus-seed{seed}", seed=seed)
        note = f"made on the spot in RELATE's format (seed {seed}): it shows the method, and says nothing about real audio"
        ratings, listeners = root / "scores" / "REL.csv", root / "listener_attributes" / "REL.csv"
        return Corpus(ratings, listeners, SYNTHETIC, note, root / "RELATE_wave")
    source = find_ratings(profile, seed)
    audio_root = source.csv.parents[1] / "RELATE_wave"
    named = relate.load_ratings(source.csv)["audio"].unique()
    missing = [audio for audio in named if not (audio_root / audio).is_file()]
    if missing:
        raise StudyError(
            f"{len(missing):,} of {len(named):,} clips are not in {audio_root}, the first is {missing[0]}. Bring them "
            "with: humanclap fetch relate-audio (or copy RELATE_wave/ there by hand)"
        )
    return Corpus(source.csv, source.listeners_csv, source.label, source.note, audio_root)


def find_ratings(profile: str = "demo", seed: int = 0) -> RatingsSource:
    """Find RELATE's real ratings: `$HUMANCLAP_RELATE`, or a checked copy in data/, fetched once.

    In the demo, where they are neither here nor within reach, the embedded corpus takes their place, and `label` and
    `note` say so.

    Raises:
        StudyError: HUMANCLAP_RELATE names a folder without scores/REL.csv; or, in another profile, the ratings are
            not here and cannot be fetched.
    """
    folder = download.relate_folder()
    if os.environ.get("HUMANCLAP_RELATE"):
        return _named_ratings(folder)
    try:
        csv = download.fetch_ratings(folder)
    except download.DownloadError as error:
        if profile != "demo":
            raise StudyError(str(error)) from error
        corpus = prepare(profile, seed)
        note = f"{corpus.note}. The real ratings could not be fetched: {error}"
        return RatingsSource(corpus.csv, corpus.listeners_csv, corpus.label, note)
    return RatingsSource(
        csv, _listeners(folder), REAL, "real human ratings, fetched from the published commit, checked"
    )


def _named_ratings(folder: Path) -> RatingsSource:
    """The ratings in the folder of HUMANCLAP_RELATE, labelled by what they are and not by what they are called."""
    csv = folder / "scores" / "REL.csv"
    if not csv.is_file():
        raise StudyError(
            f"HUMANCLAP_RELATE is {str(folder)!r}, but scores/REL.csv is not in it. Point it to the folder that "
            "holds scores/REL.csv, or unset it to let the demo fetch that file"
        )
    if download.sha256_of(csv) == download.RELATE_SHA256:
        label, note = REAL, "real human ratings, the published file (checked), from the folder HUMANCLAP_RELATE names"
    elif (folder / "synthetic.json").is_file():
        label, note = SYNTHETIC, "a synthetic corpus, from the folder that HUMANCLAP_RELATE names"
    else:
        label, note = f"ratings of {folder.name}", "not the published RELATE file: its own ratings, unchecked"
    return RatingsSource(csv, _listeners(folder), label, note)


def _listeners(folder: Path) -> Path | None:
    listeners = folder / "listener_attributes" / "REL.csv"
    return listeners if listeners.is_file() else None
