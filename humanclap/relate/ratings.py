"""RELATE's files, validated: one row per rating (scores/*.csv), one per listener (listener_attributes/*.csv)."""

from __future__ import annotations

import os
import re

import pandas as pd

from humanclap.files import expanded
from humanclap.tables import Table, read_table, stays_below

# The folder of a clip names its system and its split. The columns "audio type" and "in AudioCaps" are not used for
# this: the first writes "audioldm" for AudioLDM and AudioLDM 2 alike, the second is empty for anchors.
SYSTEM_OF_FOLDER = {
    "audiocaps": "natural",
    "audioldm": "audioldm",
    "audioldm2": "audioldm2",
    "tango": "tango",
    "tango2": "tango2",
}
SYSTEMS = tuple(SYSTEM_OF_FOLDER.values())
SPLITS = ("train", "test")
RELATE_SPLITS = ("excluded", "train", "validation", "test")

REQUIRED = ("wavname", "text", "score", "listener_id", "anchor label")
RELATE_SPLIT = "in RELATE dataset"  # one value per rating; IS.csv and OS.csv do not have it

# Column, name, options: option 1 comes first, as the README of RELATE lists them. Countries are written out there.
QUESTIONS = (
    ("question1", "age", ("0-20", "21-30", "31-40", "41-50", "51-60", "61-")),
    ("question2", "gender", ("male", "female", "non-binary")),
    ("question3", "nationality", None),
    ("question4", "birthplace", None),
    ("question5", "residence", None),
    ("question6", "times_rated_audio", ("0", "1", "2", "3", "4", "5-")),
    ("question7", "last_rated_audio",
        ("never", "0-1 month", "1-2 months", "2-6 months", "7-12 months", "1-5 years", "longer ago")),
    ("question8", "plays_per_clip", ("1", "2", "3", "4", "5-")),
    ("question9", "device", ("headphones", "earphones", "other")),
    ("question10", "quiet",
        ("the whole time", "most of the time", "sometimes", "noisy most of the time", "always noisy")),
    ("question11", "difficulty", ("easy", "not so difficult", "not so easy", "difficult")),
    ("question12", "works_with_audio", ("yes", "no")),
)  # fmt: skip

_PAIR = ["audio", "text"]
_RATING = re.compile(r"([0-9]|10)(\.0+)?")


class RatingsError(ValueError):
    """A ratings file that cannot be used as it is; the message names the file, the place and what is allowed."""


def load_ratings(csv_path: str | os.PathLike) -> pd.DataFrame:
    """Load a RELATE score file, one row per rating, anchors included.

    Args:
        csv_path: `scores/REL.csv`, `IS.csv` or `OS.csv`, or a file with the same columns.

    Returns:
        A DataFrame in the order of the file: `audio` (path below RELATE_wave, without the leading "/" of `wavname`),
        `text`, `rating` (int, 0-10), `listener` (str), `system` (natural, audioldm, audioldm2, tango, tango2) and
        `split` (train, test), both from the folder, `relate_split` (excluded, train, validation, test; empty where the
        file has no such column) and `is_anchor` (bool).

    Raises:
        FileNotFoundError: no such file.
        RatingsError: not a CSV of ratings, or a value that is not allowed; names file, line and column.
    """
    table = read_relate_table(csv_path, REQUIRED, "rating", "scores/REL.csv, IS.csv and OS.csv")
    folders = " or ".join([", ".join(SYSTEM_OF_FOLDER), "/".join(SPLITS)])
    below = "a path must stay below RELATE_wave (no '..', '//', backslash or line break)"
    for column, valid, allowed in (
        ("wavname", lambda name: name.strip(), "a file name must not be empty"),
        ("wavname", lambda name: stays_below(_relative(name)), below),
        ("wavname", _in_known_folder, f"a path is /<system>/<split>/<file>, with the folders {folders}"),
        ("text", lambda text: text.strip(), "a caption must not be empty"),
        ("score", lambda score: _RATING.fullmatch(score.strip()), "a rating is a whole number from 0 to 10"),
        ("listener_id", lambda name: name.strip(), "a listener id must not be empty"),
        ("anchor label", lambda label: label.strip().lower() in ("true", "false"), "it is True or False"),
    ):
        table.require(column, valid, allowed)
    has_splits = RELATE_SPLIT in table.header
    if has_splits:
        known = f"it is one of {', '.join(RELATE_SPLITS)}"
        table.require(RELATE_SPLIT, lambda split: split.strip() in RELATE_SPLITS, known)
    audio = [_relative(name) for name in table.columns["wavname"]]
    ratings = pd.DataFrame(
        {
            "audio": audio,
            "text": table.stripped("text"),
            "rating": [int(float(score)) for score in table.columns["score"]],
            "listener": table.stripped("listener_id"),
            "system": [SYSTEM_OF_FOLDER[name.split("/")[0]] for name in audio],
            "split": [name.split("/")[1] for name in audio],
            "relate_split": table.stripped(RELATE_SPLIT) if has_splits else "",
            "is_anchor": [label.strip().lower() == "true" for label in table.columns["anchor label"]],
        }
    )
    refuse_duplicates(ratings, table)
    _refuse_other_side(ratings, table)
    _refuse_pairs_in_two_splits(ratings, table)
    return ratings


def read_relate_table(path: str | os.PathLike, columns: tuple[str, ...], row: str, files: str) -> Table:
    """A file of RELATE's with these columns and at least one row; `files` says in the message what there is."""
    path = expanded(path)
    if not path.is_file():
        kind = "is a folder, not a file" if path.is_dir() else "is not there"
        raise FileNotFoundError(f"{row}s file {path} {kind}: RELATE's files are {files}")
    table = read_table(path, RatingsError)
    table.need(columns, row)
    return table


def refuse_duplicates(rows: pd.DataFrame, table: Table) -> None:
    """Raise the table's error where a listener rates a pair twice (without listeners: where a pair is there twice).

    The message names both lines, and how many there are.
    """
    key = [*_PAIR, *(["listener"] if "listener" in rows else [])]
    twice = rows.duplicated(key)
    if twice.any():
        row = int(twice.to_numpy().argmax())
        first = int((rows[key] == rows.loc[row, key]).all(axis=1).to_numpy().argmax())
        who = f"listener {rows['listener'][row]} has rated" if "listener" in rows else "there is a mean for"
        raise table.error(
            f"{table.path}, line {table.lines[row]}: {who} {rows['audio'][row]} with {rows['text'][row]!r} already on "
            f"line {table.lines[first]}; remove one of the lines ({int(twice.sum())} duplicated in all)"
        )


def _relative(wavname: str) -> str:
    return wavname.strip().removeprefix("/")


def _in_known_folder(name: str) -> bool:
    parts = _relative(name).split("/")
    return len(parts) == 3 and parts[0] in SYSTEM_OF_FOLDER and parts[1] in SPLITS and parts[2] not in ("", ".")


def _refuse_other_side(ratings: pd.DataFrame, table: Table) -> None:
    # RELATE's train comes from the train folders, its validation and test from the test folders.
    side = ratings["relate_split"].map({"train": "train", "validation": "test", "test": "test"})
    wrong = side.notna() & (side != ratings["split"]) & ~ratings["is_anchor"]
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        raise RatingsError(
            f"{table.path}, line {table.lines[row]}, column {RELATE_SPLIT!r}: {ratings['relate_split'][row]!r} for the "
            f"clip {ratings['audio'][row]}; clips in a train folder are train or excluded, those in a test folder "
            "validation, test or excluded"
        )


def _refuse_pairs_in_two_splits(ratings: pd.DataFrame, table: Table) -> None:
    # Anchors are left out: RELATE draws them from both splits. "excluded" beside another value is normal, because
    # RELATE excludes ratings (those of removed listeners), not pairs.
    placed = ratings[~ratings["is_anchor"] & ~ratings["relate_split"].isin(["", "excluded"])]
    several = placed.groupby(_PAIR)["relate_split"].transform("nunique") > 1
    if several.any():
        row = placed.index[several][-1]
        audio, text = placed.loc[row, _PAIR]
        found = sorted(placed.loc[(placed["audio"] == audio) & (placed["text"] == text), "relate_split"].unique())
        raise RatingsError(
            f"{table.path}, line {table.lines[row]}, column {RELATE_SPLIT!r}: {audio} with {text!r} is in "
            f"{' and '.join(found)}; a pair belongs to one of train, validation and test"
        )


def load_listeners(csv_path: str | os.PathLike) -> pd.DataFrame:
    """Load the listeners' answers, one row per listener, with the options in words.

    Returns:
        `listener` (str), then one column per question, named as in `QUESTIONS`; ordered categories where the
        questionnaire gave options, text (countries) elsewhere.

    Raises:
        FileNotFoundError: no such file.
        RatingsError: a missing column, or an answer that is none of the options.
    """
    table = read_relate_table(
        csv_path, ("listener_id", *(column for column, _, _ in QUESTIONS)), "listener", "listener_attributes/*.csv"
    )
    listeners = pd.DataFrame({"listener": table.columns["listener_id"]}, dtype=object)
    for column, name, options in QUESTIONS:
        if options is None:
            listeners[name] = table.columns[column]
            continue
        words = {str(number): option for number, option in enumerate(options, start=1)}
        table.require(column, words.__contains__, f"the answers to {name!r} are 1 to {len(options)}")
        answers = [words[value] for value in table.columns[column]]
        listeners[name] = pd.Categorical(answers, categories=options, ordered=True)
    return listeners
