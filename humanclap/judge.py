"""Judge any score against human ratings: how well it agrees, how well one could, and whether it listens.

scores (any tool's) + ratings -> one pair each, with an account of what does not join -> tables, verdicts, files
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from . import evaluate, relate, tables
from .checks import choice, listed, number
from .download import RELATE_SHA256
from .files import expanded, sha256_of, write_text
from .rated_sets import load_rated_set
from .tables import Table, TableError, clip_name, read_table

AUDIO = tuple(
    "audio file_name filename file wav wavname wav_name wav_file_name wave_file_name path audio_path clip name id".split()
)
TEXT = ("text", "caption", "prompt", "captions", "description")
SCORE = ("clap_score", "clapscore", "score", "similarity", "prediction_score", "prediction", "cosine")
MEANS = ("mean_rating", "target")  # of a table of mean ratings: 0-10 (or on `scale`), 0-1
NEVER_LISTENS = "has not shown that it listens"
KEY, RUN = ["audio", "text"], ["model", "training_seed"]


@dataclass(frozen=True)
class Rated:
    """Rated pairs to judge by: test pairs, train pairs for the floor, and what is known beside them.

    train, test: columns of `relate.aggregate_pairs`; train may be empty. ratings: one row per rating; None where only
    means are known. anchors: mismatched pairs (audio, text), empty where there are none. notes: how they were read.
    """

    train: pd.DataFrame
    test: pd.DataFrame
    ratings: pd.DataFrame | None
    anchors: pd.DataFrame
    label: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Judgement:
    """What `judge` found.

    overall, by_system: as `evaluate.paper_table` returns them, by_system None where no system is known; listening: as
    `evaluate.listening_table`. scores: the long table of the judged pairs (model, audio, text, target, clap_score, and
    where there is a floor blind, blind_name). notes: what was read, joined and left out, and what can't be known.
    unscored: rows of the score tables without a score. label: the ratings' name.
    """

    overall: pd.DataFrame
    by_system: pd.DataFrame | None
    listening: pd.DataFrame
    scores: pd.DataFrame = field(repr=False)
    notes: tuple[str, ...]
    unscored: int
    label: str

    def verdicts(self) -> list[str]:
        """One sentence per score: its SRCC between floor and ceiling, and whether it is above the floor."""
        said, controls = [], self.listening.set_index("model")
        partial = controls.loc[controls["control"] == "partial SRCC", "value"]
        for row in self.overall[self.overall["metric"] == "srcc"].to_dict("records"):
            if np.isnan(row["value"]):
                said.append(f"{row['model']}: no SRCC ({row['note']})")
                continue
            interval = "" if np.isnan(row["low"]) else f" [{row['low']:.3f}, {row['high']:.3f}]"
            line = f"{row['model']}: SRCC {row['value']:.3f}{interval}"
            if not np.isnan(row["floor"]):
                line += f", floor {row['floor']:.3f} ({row['floor_name']}, which never hears the audio)"
            if not np.isnan(row["ceiling"]):
                line += f", ceiling {row['ceiling']:.3f}"
            if row["model"] in partial.index and not np.isnan(partial[row["model"]]):
                line += f"; with system and caption length taken out {partial[row['model']]:.3f}"
            if np.isnan(row["floor"]):
                said.append(f"{line}. Without a floor, nothing shows whether it listens")
            elif row["floor_diff_low"] > 0:
                said.append(f"{line}. It is above the floor: it tells more than a guess without the audio")
            else:
                end = "is below the floor" if row["floor_diff_high"] < 0 else "can't be told from the floor"
                said.append(f"{line}. It {end}: it {NEVER_LISTENS}")
        return said

    def as_markdown(self) -> str:
        """The overall table, with its notes."""
        return evaluate.render_table(self.overall, "markdown", self.label)

    def summary(self) -> dict:
        """All numbers as plain JSON: by score and metric value, low, high, floor, ceiling, difference, p_holm."""
        columns = "value low high n floor ceiling difference diff_low diff_high p_holm note".split()
        scores: dict[str, dict] = {}
        for row in self.overall.astype(object).where(self.overall.notna(), None).to_dict("records"):
            scores.setdefault(row["model"], {})[row["metric"]] = {name: row[name] for name in columns}
        return {"ratings": self.label, "scores": scores, "verdicts": self.verdicts(), "notes": list(self.notes)}

    def write(self, folder: str | os.PathLike) -> list[Path]:
        """Write overall and by_system (.csv, .md, .tex), listening.csv, summary.json and, where seaborn is installed,
        overall.png into `folder`; the paths."""
        folder = expanded(folder)
        folder.mkdir(parents=True, exist_ok=True)
        paths = evaluate.write_table(self.overall, folder / "overall", self.label)
        if self.by_system is not None:
            paths += evaluate.write_table(self.by_system, folder / "by_system", self.label)
        tables.write_table(self.listening.assign(data=self.label), folder / "listening.csv", float_format="%.6g")
        write_text(folder / "summary.json", json.dumps(self.summary(), indent=2, ensure_ascii=False) + "\n")
        paths += [folder / "listening.csv", folder / "summary.json"]
        try:
            from . import plots
        except ImportError:  # without the extra "study"
            return paths
        return [*paths, *plots.write_figure(plots.overall_forest(self.overall), folder / "overall.png", self.label)]


def judge(
    scores: Mapping[str, str | os.PathLike] | Iterable[str | os.PathLike],
    ratings: str | os.PathLike,
    baseline: str | None = None,
    score_column: str | None = None,
    swapped: str | os.PathLike | None = None,
    scale: tuple[float, float] = (0, 10),
    max_anchor_mean: float = 2.0,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> Judgement:
    """How well scores agree with people, each between the floor of never listening and the ceiling of human agreement.

    scores: score tables (any that `tables.read_table` reads), by the name that each is to have, or a list, then named
        after their files; a column `model` with several names tells scores of one table apart. Columns: the clip (AUDIO),
        where it is there the caption (TEXT), the score (`score_column`, else the first of SCORE), and where they are
        known status (rows that are not "ok" have no score) and training_seed.
    ratings: RELATE's REL.csv or folder (screened by the paper's rule, `max_anchor_mean`), XACLE's folder, a plain CSV of
        ratings on `scale`, or one of mean ratings (mean_rating, or target in 0-1). The test pairs are judged; the train
        pairs fit the floor; where there are none it is fitted by cross-fitting over captions.
    baseline: the score that the others are compared with; None takes the first of several.
    swapped: a table of the same scores for the same clips with other captions: the listening control.

    A clip of a score table is found in the ratings by its path, else by its end, its file name or that without its
    ending, where exactly one fits. Pairs that not every score has are left out and counted.

    Raises TableError for a table that can't be read or joined, naming what and where; ValueError for an unknown
    baseline; FileNotFoundError.
    """
    rated = read_rated(ratings, scale, max_anchor_mean)
    known = pd.concat(
        [rated.test.assign(part="test"), rated.train.assign(part="train"), rated.anchors.assign(part="anchor")]
    )
    named = dict(scores) if isinstance(scores, Mapping) else by_name(("", path) for path in scores)
    found, notes, unscored = [], list(rated.notes), 0
    for name, path in named.items():
        part, said, missing = _joined(read_table(path), name, score_column, known)
        found.append(part)
        notes += said
        unscored += missing
    joined = pd.concat(found, ignore_index=True)
    models = list(dict.fromkeys(joined["model"]))
    if len({name for part in found for name in set(part["model"])}) < sum(part["model"].nunique() for part in found):
        raise TableError(f"two score tables hold a score of one name ({listed(models)}): name them, name=scores.csv")
    test, left_out = _of_all(joined[joined["part"] == "test"])
    notes += left_out
    if test["audio"].nunique() < 4:
        raise TableError(f"{test['audio'].nunique()} clips have both scores and ratings; at least 4 are needed")
    baseline = choice(baseline, "baseline", models) if baseline else models[0] if len(models) > 1 else None
    pairs = rated.test.merge(test[KEY].drop_duplicates(), on=KEY)
    blind, said = _floor(rated, pairs)
    long = pairs.merge(test[[*KEY, "model", "training_seed", "clap_score"]], on=KEY)
    if blind is not None:
        long = long.merge(pairs[KEY].assign(blind=blind.to_numpy(), blind_name=blind.name), on=KEY)
    settings = {"baseline": baseline, "floor": "blind" if blind is not None else None, "seed": seed}
    settings |= {"n_resamples": n_resamples, "correct": n_resamples >= 10_000 and baseline is not None}
    in_range = long["clap_score"].between(0, 1).all()
    notes += said if in_range else [*said, "no MSE: not all scores are within 0 and 1, the scale of the targets"]
    metrics = ("srcc", "lcc", "ktau", "mse") if in_range else ("srcc", "lcc", "ktau")
    of_pairs = None if rated.ratings is None else rated.ratings.merge(pairs[KEY], on=KEY)
    notes += ["no ceiling: single ratings are not known"] if of_pairs is None else []

    def table(by: str, metrics: tuple[str, ...]) -> pd.DataFrame:
        ceilings = None if of_pairs is None else evaluate.cell_ceilings(of_pairs, by, metrics, seed=seed)
        family = f"agreement with {rated.label}"
        return evaluate.paper_table(long, by, ceilings=ceilings, metrics=metrics, family=family, **settings)

    has_systems = long["system"].notna().all() and long["system"].nunique() > 1
    notes += [] if has_systems else ["nothing within systems: the ratings name no systems, or one"]
    anchors, _ = _of_all(joined[joined["part"] == "anchor"], models)
    wrong = None if swapped is None else _swapped(read_table(swapped), score_column, models, pairs)
    notes += [] if wrong is not None else ["no control with swapped captions: no such scores were given"]
    listening = evaluate.listening_table(
        long, wrong, anchors if len(anchors) else None, matched="natural", n_resamples=min(2000, n_resamples), seed=seed
    )
    by_system = table("system", ("srcc",)) if has_systems else None
    return Judgement(table("overall", metrics), by_system, listening, long, tuple(notes), unscored, rated.label)


# --- the ratings ----------------------------------------------------------------------------------------


def read_rated(path: str | os.PathLike, scale: tuple[float, float] = (0, 10), max_anchor_mean: float = 2.0) -> Rated:
    """Rated pairs from RELATE's REL.csv or folder, XACLE's folder, or a plain CSV of ratings or means (see `judge`)."""
    path = expanded(path)
    if (path / "scores" / "REL.csv").is_file():
        path = path / "scores" / "REL.csv"
    table = read_table(path) if path.is_file() else None
    if table is not None and "wavname" in table.header:
        ratings = relate.load_ratings(path)
        screening = relate.screen_listeners(ratings, max_anchor_mean)
        anchors = ratings[ratings["is_anchor"] & (ratings["split"] == "test")].drop_duplicates(KEY)
        pairs = relate.aggregate_pairs(screening.ratings)
        return _rated(pairs, screening.ratings, anchors, relate_label(path), [str(screening)])
    if table is not None and "rating" not in table.header and any(name in table.header for name in MEANS):
        pairs, data = _means(table, scale), sorted(set(table.columns.get("data", ())))
        label = f"mean ratings of {_stem(path)}" + (f" ({', '.join(data)})" if data else "")  # "synthetic" stays said
        return _rated(pairs, None, pairs[:0], label, [f"{len(pairs):,} mean ratings", *table.notes])
    found = load_rated_set(path, scale=scale, need_audio=False)
    return _rated(found.pairs, found.ratings, found.pairs[:0], found.label, list(found.notes))


def relate_label(csv: Path) -> str:
    """What a REL.csv holds, by its content and not by its name: "RELATE ratings", "synthetic", or whose ratings."""
    if sha256_of(csv) == RELATE_SHA256:
        return "RELATE ratings"
    folder = csv.resolve().parent.parent
    return "synthetic" if (folder / "synthetic.json").is_file() else f"ratings of {folder.name}"


def _rated(
    pairs: pd.DataFrame, ratings: pd.DataFrame | None, anchors: pd.DataFrame, label: str, notes: list[str]
) -> Rated:
    train, test = (pairs[pairs["split"] == name].reset_index(drop=True) for name in ("train", "test"))
    if test.empty:
        raise TableError(
            f"{label}: no pair has the split 'test', and only those are judged; name some so, or leave split out"
        )
    columns = [*KEY, "system", "split"]
    return Rated(train, test, ratings, anchors[columns].reset_index(drop=True), label, tuple(notes))


def _means(table: Table, scale: tuple[float, float]) -> pd.DataFrame:
    """A table with a mean rating for each pair, as pairs; rows that repeat a pair must repeat its mean."""
    column = next(name for name in MEANS if name in table.header)
    low, high = (0.0, 1.0) if column == "target" else (number(end, "scale") for end in scale)
    table.need((*KEY, column), row="pair")
    table.require(
        column, lambda value: _is_within(value, low, high), f"{column} runs from {low:g} to {high:g} (--scale)"
    )
    frame = pd.DataFrame({"audio": map(clip_name, table.columns["audio"]), "text": table.stripped("text")})
    frame["target"] = (np.array(table.columns[column], dtype=float) - low) / (high - low)
    for name, default in (("system", None), ("split", "test"), ("n_ratings", np.nan)):
        frame[name] = [value or default for value in table.stripped(name)] if name in table.header else default
    frame["n_ratings"] = pd.to_numeric(frame["n_ratings"], errors="coerce")
    first = frame.groupby(KEY)["target"].transform("first")
    if (frame["target"] != first).any():
        row = int((frame["target"] != first).to_numpy().argmax())
        raise TableError(
            f"{table.path}, line {table.lines[row]}: {frame['audio'][row]} has another {column} in a line above"
        )
    pairs = frame.drop_duplicates(KEY, ignore_index=True)
    return pairs.assign(mean_rating=10 * pairs["target"], rating_std=np.nan)


def _is_within(value: str, low: float, high: float) -> bool:
    try:
        return low <= float(value) <= high
    except ValueError:
        return False


# --- the scores, joined ---------------------------------------------------------------------------------


def _read(table: Table, name: str, score_column: str | None) -> tuple[pd.DataFrame, str]:
    """A score table's rows: audio, text (None without captions), clap_score (NaN without a score), model, training_seed,
    line; and the name of its score column."""
    score_names = (score_column,) if score_column else SCORE
    audio, text, score = (_column(table, names) for names in (AUDIO, TEXT, score_names))
    for found, what, names in ((audio, "clips", AUDIO), (score, "scores", score_names)):
        if found is None:
            hint = "" if what == "clips" or score_column else "; --score names another"
            raise TableError(
                f"{table.path}, line 1: no column of {what}. It has {listed(table.header)}; known: {listed(names)}{hint}"
            )
    table.need((), row="score")
    status = table.stripped("status") if "status" in table.header else ["ok"] * len(table.lines)
    values = [value.strip() if state == "ok" else "" for state, value in zip(status, table.columns[score])]
    checked = replace(table, columns={score: values})
    checked.require(score, lambda value: not value or _is_number(value), "a score is a number")
    several = "model" in table.header and len(set(table.columns["model"])) > 1
    frame = pd.DataFrame({"audio": table.columns[audio], "text": table.stripped(text) if text else None})
    frame["clap_score"] = [float(value or "nan") for value in values]
    frame["model"] = table.columns["model"] if several else name
    seeds = pd.Series(table.columns.get("training_seed", [""] * len(frame)))
    return frame.assign(training_seed=pd.to_numeric(seeds, errors="coerce"), line=table.lines), score


def _joined(
    table: Table, name: str, score_column: str | None, known: pd.DataFrame
) -> tuple[pd.DataFrame, list[str], int]:
    """The rows of a score table that are of a rated pair: audio, text, part, model, training_seed, clap_score; what is
    to be said of the others; how many have no score."""
    frame, score = _read(table, name, score_column)
    places, problems = _places(frame, known, table)
    keys = known[[*KEY, "part"]].iloc[np.maximum(places, 0)].reset_index(drop=True)
    frame = pd.concat([keys, frame.drop(columns=KEY)], axis=1)
    has_score = frame["clap_score"].notna()
    found = frame[(places >= 0) & has_score]
    first = found.groupby([*RUN, *KEY], dropna=False)["clap_score"].transform("first")
    if (found["clap_score"] != first).any():
        row = found[found["clap_score"] != first].iloc[0]
        raise TableError(
            f"{table.path}, line {row['line']}: {row['audio']} with {row['text']!r} has another score in a line above"
        )
    kept = found.drop_duplicates([*RUN, *KEY])
    by_part, unscored = Counter(kept["part"]), int((~has_score).sum())
    counts = {"rows": len(frame), "of test pairs": by_part["test"], "of train pairs, not judged": by_part["train"]}
    counts |= {"of anchors": by_part["anchor"], "without a score": unscored}
    counts |= {**problems, "that repeat a pair and its score": len(found) - len(kept)}
    said = "; ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    return kept.drop(columns="line"), [f"{table.path.name}, column {score!r}: {said}"], unscored


def _places(frame: pd.DataFrame, known: pd.DataFrame, table: Table) -> tuple[np.ndarray, dict[str, int]]:
    """For each row of `frame` the row of `known` that it is of, -1 for none; and why, counted."""
    ends: dict[str, set[str]] = {}
    for audio in known["audio"].unique():
        path = PurePosixPath(audio)
        for end in {audio, path.name, path.stem}:
            ends.setdefault(end, set()).add(audio)
    by_pair = {key: row for row, key in reversed(list(enumerate(zip(known["audio"], known["text"], strict=True))))}
    by_clip: dict[str, list[int]] = {}
    for row, (audio, part) in enumerate(zip(known["audio"], known["part"], strict=True)):
        if part != "anchor":
            by_clip.setdefault(audio, []).append(row)
    places, why, judged = np.full(len(frame), -1), Counter(), set(known.loc[known["part"] == "test", "audio"])
    for row, (name, text) in enumerate(zip(frame["audio"], frame["text"], strict=True)):
        clips = _rated_clips(clip_name(name), ends)
        if len(clips) > 1 and len(clips & judged) == 1:  # XACLE's splits number their clips alike
            clips = clips & judged
            why["of a name that clips of other splits have as well"] += 1
        if len(clips) > 1:
            raise TableError(
                f"{table.path}, line {table.lines[row]}: {name} fits {len(clips)} rated clips, such as {listed(sorted(clips)[:2])}; "
                "name the clips by the paths that the ratings have"
            )
        if not clips:
            why["of clips that nobody rated"] += 1
            continue
        (clip,) = clips
        if text is not None:
            places[row] = by_pair.get((clip, text), -1)
            why["with a caption that nobody rated for its clip"] += places[row] < 0
        elif len(by_clip.get(clip, ())) == 1:
            places[row] = by_clip[clip][0]
        else:
            raise TableError(
                f"{table.path}, line {table.lines[row]}: {name} was rated with several captions; add a column text"
            )
    return places, {what: count for what, count in why.items() if count}


def _rated_clips(name: str, ends: dict[str, set[str]]) -> set[str]:
    """The rated clips that `name` may be: by its whole path or the longest end of it, else without the file's ending."""
    parts = PurePosixPath(name).parts
    for start in range(len(parts)):
        if found := ends.get("/".join(parts[start:])):
            return found
    return ends.get(PurePosixPath(name).stem, set())


def _of_all(rows: pd.DataFrame, models: list | None = None) -> tuple[pd.DataFrame, list[str]]:
    """The rows of the pairs that every score has, and how many pairs were left out."""
    runs = rows.groupby(RUN, dropna=False).ngroups
    if models is not None and rows["model"].nunique() < len(models):
        return rows[:0], []
    kept = rows[rows.groupby(KEY)["model"].transform("size") == runs]
    lost = rows.drop_duplicates(KEY).shape[0] - kept.drop_duplicates(KEY).shape[0]
    return kept, [f"{lost:,} pairs left out, which not every score has"] if lost else []


def _swapped(table: Table, score_column: str | None, models: list[str], pairs: pd.DataFrame) -> pd.DataFrame:
    """The scores of the judged clips with other captions, as `evaluate.listening_table` takes them."""
    frame, _ = _read(table, models[0], score_column)
    if frame["text"].isna().any():
        raise TableError(
            f"{table.path}, line 1: no column of captions: which caption did each clip get? ({listed(TEXT)})"
        )
    known = pairs.drop_duplicates("audio", keep=False).assign(part="test").reset_index(drop=True)
    places, _ = _places(frame.assign(text=None), known, table)
    own = known[[*KEY, "target", "system"]].iloc[np.maximum(places, 0)].reset_index(drop=True)
    found = frame.assign(audio=own["audio"], original_text=own["text"], target=own["target"], system=own["system"])
    found = found[(places >= 0) & frame["clap_score"].notna()].drop_duplicates([*RUN, "audio"])
    if len(found) < len(pairs) * found.groupby(RUN, dropna=False).ngroups or set(found["model"]) != set(models):
        raise TableError(
            f"{table.path} must hold one score of each of the {len(pairs):,} judged clips, of {listed(models)}; it has "
            f"{len(found):,}"
        )
    return found


def _floor(rated: Rated, pairs: pd.DataFrame) -> tuple[pd.Series | None, list[str]]:
    """What the strongest predictor that never listens says of `pairs`, named; or why there is none."""
    try:
        if len(rated.train):
            found = evaluate.strongest_blind(rated.train, pairs)
            return found.predictions.rename(found.name), [
                f"floor: {found.name}, fitted on {len(rated.train):,} train pairs"
            ]
        found = evaluate.cross_fitted_blind(pairs)
        return found.predictions.rename(found.name), [
            f"floor: {found.name}, each fifth of the captions from the other four"
        ]
    except ValueError as error:
        return None, [f"no floor: {error}"]


def _column(table: Table, names: Iterable[str]) -> str | None:
    """The column that has the first of `names` that one has; case does not matter."""
    lower = {name.lower(): name for name in reversed(table.header)}
    return next((lower[name.lower()] for name in names if name.lower() in lower), None)


def _is_number(value: str) -> bool:
    try:
        return value == "nan" or bool(np.isfinite(float(value)))
    except ValueError:
        return False


def by_name(tables: Iterable[tuple[str, str | os.PathLike]]) -> dict[str, str | os.PathLike]:
    """Score tables by name, "" standing for the file's; TableError where two have one name."""
    named: dict[str, str | os.PathLike] = {}
    for name, path in tables:
        name = name or _stem(path)
        if name in named:
            raise TableError(
                f"two score tables are called {name!r}: {named[name]} and {path}; name them, name=scores.csv"
            )
        named[name] = path
    return named


def _stem(path: str | os.PathLike) -> str:
    return Path(path).name.split(".")[0]
