"""Rated pairs and their audio: where they come from, the label of everything made from them, and their scores."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from humanclap import download, evaluate, relate, tables
from humanclap.files import expanded
from humanclap.judge import relate_label
from humanclap.losses import clap_score
from humanclap.rated_sets import RatedSet, load_rated_set
from humanclap.score import score_pairs

from .models import Lineup, ModelSource, checkpoints, with_shared_features
from .run import Study, StudyError, cache_folder, runs_folder

REAL, SYNTHETIC = "RELATE ratings", "synthetic"


@dataclass(frozen=True)
class RatingsSource:
    """Where ratings come from: `csv`, `listeners_csv` (None where there is no questionnaire) and the `label` that
    every figure and table carries."""

    csv: Path | None
    listeners_csv: Path | None
    label: str
    note: str


@dataclass(frozen=True)
class RatedPairs:
    """The rated pairs of a corpus as its notebooks use them, screened where there is something to screen by.

    train, test: one row per pair (columns of `relate.aggregate_pairs`). ratings: one row per rating, without anchors;
    None where only means are known. anchors: mismatched pairs with human ratings, one row per rating; empty where
    there are none. screening: what `relate.screen_listeners` returned; None without anchors. limits: one sentence for
    each analysis that these data cannot support.
    """

    train: pd.DataFrame
    test: pd.DataFrame
    ratings: pd.DataFrame | None
    anchors: pd.DataFrame
    screening: relate.Screening | None
    limits: tuple[str, ...] = ()

    @property
    def test_ratings(self) -> pd.DataFrame | None:
        """The ratings of the test pairs."""
        return None if self.ratings is None else self.ratings[self.ratings["split"] == "test"]

    def blind(self) -> pd.Series | None:
        """What the strongest predictor that never listens (`evaluate.strongest_blind`) says of each test pair.

        The Series has the predictor's name; None without training pairs.
        """
        return None if self.train.empty else evaluate.strongest_blind(self.train, self.test).predictions

    def __str__(self) -> str:
        lines = [str(self.screening)] if self.screening is not None else []
        lines.append(f"{len(self.train):,} training pairs, {len(self.test):,} test pairs")
        return "\n".join([*lines, *(f"- {sentence}" for sentence in self.limits)])


@dataclass(frozen=True)
class Corpus(RatingsSource):
    """Rated pairs with their audio: the files of a RatingsSource, and `audio_root`, the folder of the clips.

    `rated_set` holds the pairs where they are not RELATE's; there is no `csv` in its format then.
    """

    audio_root: Path
    rated_set: RatedSet | None = None

    def rated(self, max_anchor_mean: float) -> RatedPairs:
        """The pairs, after screening by the paper's rule where the set has anchors.

        Raises:
            StudyError: no test pairs.
        """
        if self.rated_set is not None:
            pairs, ratings = self.rated_set.pairs, self.rated_set.ratings
            anchors = pd.DataFrame(columns=["audio", "text", "rating", "split"])
            screening, limits = None, self.rated_set.what_cannot_be_broken_down
        else:
            everything = relate.load_ratings(self.csv)
            screening, limits = relate.screen_listeners(everything, max_anchor_mean), ()
            ratings, anchors = screening.ratings, everything[everything["is_anchor"]]
            pairs = relate.aggregate_pairs(ratings)
        train, test = (pairs[pairs["split"] == split].reset_index(drop=True) for split in ("train", "test"))
        if test.empty:
            raise StudyError(
                f"{self.label}: no test pairs. Call some of them test in the column split, or leave it out"
            )
        return RatedPairs(train, test, ratings, anchors, screening, tuple(limits))

    @property
    def faults(self) -> pd.DataFrame | None:
        """What is wrong with each clip (audio, fault); known for the synthetic corpus only."""
        path = None if self.csv is None else self.csv.parents[1] / "synthetic_clips.csv"
        if path is None or not path.is_file():
            return None
        clips = pd.read_csv(path)
        wrong = {
            "event missing": clips["n_missing"] > 0,
            "another in its place": clips["n_replaced"] > 0,
            "wrong order": clips["swapped"],
            "event added": clips["added"],
            "faint second event": clips["faint_db"] > 0,
            "noisy": clips["snr_db"] < 30,
        }
        several = sum(wrong.values()) > 1
        clips["fault"] = np.select([several, *wrong.values()], ["several", *wrong], "none")
        return clips[["audio", "fault"]]

    def score_table(self, clap, pairs: pd.DataFrame, model: str) -> pd.DataFrame:
        """Score pairs and name the model: the columns of `pairs` followed by those of `score_pairs`.

        Raises:
            StudyError: a clip that could not be scored; names the first and says why.
        """
        paths = [self.audio_root / audio for audio in pairs["audio"]]
        with not_red():
            scores = score_pairs(clap, paths, pairs["text"].tolist(), cache_dir=cache_folder(), progress=False)
        failed = scores[scores["status"] != "ok"]
        if len(failed):
            raise StudyError(f"{len(failed)} of {len(scores)} pairs were not scored, first: {failed['status'].iloc[0]}")
        scores = scores.drop(columns=["audio", "text"]).assign(model=model)
        return pd.concat([pairs.reset_index(drop=True), scores], axis=1)


def prepare(
    profile: str, seed: int = 0, rated_set: str = "", scale: Sequence = (0, 10), audio_root: str = ""
) -> Corpus:
    """Make, or find, the rated pairs with audio that the profile's notebooks work on.

    In the demo: the embedded synthetic corpus, written to <runs>/demo/corpus-seed<seed> at the first use; the same
    seed gives the same bytes. In the paper profile: RELATE's ratings (see `find_ratings`) with the clips in
    RELATE_wave/ beside scores/. In either, `rated_set` names another set, XACLE's folder or a plain table, with its
    `scale` and the `audio_root` of its clips (see `rated_sets.load_rated_set`; "": its default).

    Raises:
        StudyError: ratings or clips are not here; says how many are missing and the command that fetches them.
        RatedSetError, FileNotFoundError: a rated set that cannot be used as it is.
    """
    if rated_set:
        root = expanded(audio_root) if audio_root else None
        found = load_rated_set(expanded(rated_set), scale=tuple(scale), audio_root=root)
        note = "; ".join((f"rated pairs of {rated_set}", *found.notes))
        return Corpus(None, None, found.label, note, found.audio_root, found)
    if audio_root or tuple(scale) != (0, 10):
        raise StudyError("audio_root and scale belong to a rated_set; name one, or leave them as they are")
    if profile == "demo":
        from humanclap.demo import make_corpus

        root = make_corpus(runs_folder() / profile / f"corpus-seed{seed}", seed=seed)
        note = f"synthetic, made here in RELATE's format (seed {seed}): it shows the method and says nothing about real audio"
        ratings, listeners = root / "scores" / "REL.csv", root / "listener_attributes" / "REL.csv"
        return Corpus(ratings, listeners, SYNTHETIC, note, root / "RELATE_wave")
    source = find_ratings(profile, seed)
    folder = source.csv.parents[1] / "RELATE_wave"
    named = relate.load_ratings(source.csv)["audio"].unique()
    missing = [audio for audio in named if not (folder / audio).is_file()]
    if missing:
        raise StudyError(
            f"{len(missing):,} of {len(named):,} clips are not in {folder}, the first is {missing[0]}. Fetch them "
            "with: humanclap fetch relate-audio (or copy RELATE_wave/ there)"
        )
    return Corpus(source.csv, source.listeners_csv, source.label, source.note, folder)


def find_ratings(profile: str = "demo", seed: int = 0) -> RatingsSource:
    """Find RELATE's real ratings: `$HUMANCLAP_RELATE`, or a checked copy in data/, fetched once.

    Where the demo can neither find nor fetch them it uses the embedded corpus, and `label` and `note` say so.

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
    note = "real human ratings, fetched from the published commit, checksum verified"
    return RatingsSource(csv, _listeners(folder), REAL, note)


def _named_ratings(folder: Path) -> RatingsSource:
    """The ratings in the folder of HUMANCLAP_RELATE, labelled by what they are and not by what they are called."""
    csv = folder / "scores" / "REL.csv"
    if not csv.is_file():
        raise StudyError(
            f"HUMANCLAP_RELATE is {str(folder)!r}, but scores/REL.csv is not in it. Set it to the folder that "
            "holds scores/REL.csv, or unset it to let the demo fetch that file"
        )
    label = relate_label(csv)
    notes = {
        REAL: "real human ratings, the published file (checksum verified), from HUMANCLAP_RELATE",
        SYNTHETIC: "a synthetic corpus, from the folder that HUMANCLAP_RELATE names",
    }
    note = notes.get(label, "not the published RELATE file: its own ratings, unchecked")
    return RatingsSource(csv, _listeners(folder), label, note)


def _listeners(folder: Path) -> Path | None:
    listeners = folder / "listener_attributes" / "REL.csv"
    return listeners if listeners.is_file() else None


# --- scores ---------------------------------------------------------------------------------------------


def score_lineup(
    lineup: Lineup, corpus: Corpus, pairs: pd.DataFrame, names: Sequence[str] | None = None
) -> pd.DataFrame:
    """The long score table of `pairs` under the models of a study before fine-tuning (`names`: some of them)."""
    chosen = lineup.names if names is None else names
    return pd.concat([corpus.score_table(lineup[name].load(), pairs, name) for name in chosen], ignore_index=True)


def score_variants(run: Study, corpus: Corpus, pairs: pd.DataFrame) -> pd.DataFrame:
    """The long score table of `pairs` under every checkpoint of notebook 03, with its `training_seed`."""
    from humanclap.clap import load_clap

    found, shared = [], {}
    for (kind, seed), folder in checkpoints(run).items():
        clap = with_shared_features(load_clap(folder), shared)
        found.append(corpus.score_table(clap, pairs, kind).assign(training_seed=seed))
    return pd.concat(found, ignore_index=True)


def study_scores(run: Study, lineup: Lineup, corpus: Corpus, data: RatedPairs) -> pd.DataFrame:
    """Scores of the test pairs under every checkpoint and the line-up, with the column `blind` where there is a floor.

    RELATE's are read from the tables of notebooks 01 and 03; a rated set of one's own is scored here.

    Raises:
        StudyError: scores or checkpoints are not there, or are of other pairs; names the notebook.
    """
    if corpus.rated_set is not None:
        both = [score_variants(run, corpus, data.test), score_lineup(lineup, corpus, data.test)]
        scores = pd.concat(both, ignore_index=True)
    else:
        scores = read_scores(run, "03_human_clap_finetuning", "01_baseline_clapscore")
        same_pairs(scores, data.test)
    return add_blind(scores, data)


def validation_scores(run: Study, corpus: Corpus) -> pd.DataFrame:
    """The scores of notebook 03's validation pairs; none, with a note, for a rated set of one's own."""
    if corpus.rated_set is None:
        return read_scores(run, "03_human_clap_finetuning", kind="validation_scores")
    nothing = pd.DataFrame()
    nothing.attrs["note"] = "no calibration: a map from score to rating is fitted on validation pairs of the same set"
    return nothing


def add_blind(scores: pd.DataFrame, data: RatedPairs) -> pd.DataFrame:
    """Scores of the test pairs with the columns `blind` and `blind_name`: the prediction and the name of the floor."""
    blind = data.blind()
    if blind is None:
        return scores
    beside = data.test[["audio", "text"]].assign(blind=blind, blind_name=blind.name)
    return scores.drop(columns=["blind", "blind_name"], errors="ignore").merge(beside, on=["audio", "text"])


def with_blind(scores: pd.DataFrame) -> pd.DataFrame:
    """A long score table with its column `blind`, if it has one, as a further model: the guess that never listens."""
    if "blind" not in scores:
        return scores
    one_each = scores.drop_duplicates(["audio", "text"])
    guess = one_each.assign(
        model="blind", clap_score=one_each["blind"], cosine=float("nan"), training_seed=float("nan")
    )
    return pd.concat([scores, guess], ignore_index=True)


def not_red() -> contextlib.AbstractContextManager:
    """Lines on stderr (counts of `status`, warnings) go to stdout: a browser shows stderr in red, like an error."""
    return contextlib.redirect_stderr(sys.stdout)


def read_scores(run: Study, *notebooks: str, kind: str = "scores") -> pd.DataFrame:
    """The long score tables of other notebooks, one below the other; `kind` "validation_scores": notebook 03's others.

    Raises:
        StudyError: a table is not there; names the notebook that makes it.
    """
    found = []
    for notebook in notebooks:
        path = run.find(f"tables/{notebook[:2]}_{kind}.csv")
        if not path.is_file():
            raise StudyError(
                f"{path} is not there. It comes from notebooks/{notebook}.ipynb: run that first (or make {run.profile})"
            )
        found.append(tables.read_scores(path))
    return pd.concat(found, ignore_index=True)


def same_pairs(scores: pd.DataFrame, pairs: pd.DataFrame) -> None:
    """Raise StudyError unless every model in a long score table covers exactly these pairs with these ratings."""
    key = ["audio", "text", "n_ratings"]
    scores, pairs = (
        table.assign(n_ratings=table["n_ratings"].fillna(0)) for table in (scores, pairs)
    )  # NaN: means only
    wanted = set(map(tuple, pairs[key].to_numpy().tolist()))
    for model, rows in scores.groupby("model", sort=False):
        found = set(map(tuple, rows[key].to_numpy().tolist()))
        if found != wanted:
            raise StudyError(
                f"the scores of {model} are of other pairs than this notebook's ({len(found - wanted)} more, "
                f"{len(wanted - found)} missing): run notebooks 01 and 03 with the same profile, seed and max_anchor_mean"
            )


# --- the crop of a long clip: fixed windows against the random crops of the upstream packages ---------------

FIXED = ("first", "center", "mean")


@dataclass(frozen=True)
class LongClips:
    """Clips longer than a model's window: `paths` and `texts` [N], `target` [N] (0 to 1), None where nobody rated them."""

    paths: list
    texts: list[str]
    target: np.ndarray | None
    note: str


def long_clips(run: Study, corpus: Corpus, pairs: pd.DataFrame, n_pairs: int = 0, seed: int = 0) -> LongClips:
    """Pairs to measure the effect of a window on.

    RELATE's clips of some 10 s are longer than MS CLAP's windows of 5 and 7 s, so all `pairs` are given, or `n_pairs`
    of them, drawn with `seed` (0: all). The synthetic corpus has no long clips: there, three natural clips in a row
    make one long clip (eight in all, with the caption of the first, not rated), kept in <runs>/<profile>/long-clips.
    """
    if corpus.faults is None:
        if 0 < n_pairs < len(pairs):
            pairs = pairs.sample(n_pairs, random_state=seed)
        paths = [corpus.audio_root / audio for audio in pairs["audio"]]
        return LongClips(paths, pairs["text"].tolist(), pairs["target"].to_numpy(), f"{len(paths)} rated clips")
    import soundfile

    natural = pairs[pairs["system"] == "natural"].head(3 * 8)
    read = [soundfile.read(corpus.audio_root / audio) for audio in natural["audio"]]
    folder, paths = runs_folder() / run.profile / "long-clips", []
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(0, len(read) - 2, 3):
        paths.append(folder / f"{i // 3}.wav")
        soundfile.write(paths[-1], np.concatenate([wave for wave, _ in read[i : i + 3]]), read[i][1])
    texts = natural["text"].iloc[::3].tolist()[: len(paths)]
    return LongClips(paths, texts, None, f"{len(paths)} clips of three natural ones in a row, not rated")


def window_scores(source: ModelSource, clips: LongClips, n_crops: int = 10) -> pd.DataFrame:
    """CLAPScore of each clip under each fixed window, and under `n_crops` draws of the package's random crop.

    One row per clip, in the order of `clips`; columns: first, center, mean, then "crop 1" ... (window="upstream" with
    seeds 0, 1, ...).
    """
    settings = {name: {"window": name} for name in FIXED}
    settings |= {f"crop {draw + 1}": {"window": "upstream", "seed": draw} for draw in range(n_crops)}
    columns, text_emb = {}, None
    for name, setting in settings.items():
        clap = source.load(**setting)
        text_emb = clap.embed_text(clips.texts) if text_emb is None else text_emb  # a window changes no caption
        columns[name] = clap_score(clap.embed_audio(clips.paths), text_emb)
    return pd.DataFrame(columns)


def window_effect(scores: pd.DataFrame, clips: LongClips) -> pd.DataFrame:
    """How far a window moves a score, and the SRCC: one row per policy, the random crop's with a range over its draws.

    Columns: policy, srcc, srcc_low, srcc_high (lowest and highest of the draws; NaN where the clips are not rated),
    moved (mean distance of a clip's score from that under "first"; for the crop, mean of highest - lowest), draws, n.
    """
    crops = [name for name in scores if name.startswith("crop ")]
    rows = []
    for name in FIXED:
        value = _srcc(scores[name], clips)
        moved = (scores[name] - scores["first"]).abs().mean()
        rows.append((name, value, np.nan, np.nan, moved, 1, len(scores)))
    each = np.array([_srcc(scores[name], clips) for name in crops])
    spread = (scores[crops].max(axis=1) - scores[crops].min(axis=1)).mean()
    rows.append(("random crop", each.mean(), each.min(), each.max(), spread, len(crops), len(scores)))
    return pd.DataFrame(rows, columns=["policy", "srcc", "srcc_low", "srcc_high", "moved", "draws", "n"])


def _srcc(score: pd.Series, clips: LongClips) -> float:
    return np.nan if clips.target is None else evaluate.correlations(score, clips.target).srcc
