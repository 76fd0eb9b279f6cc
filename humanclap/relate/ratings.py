"""One row a rating, as RELATE publishes them (scores/REL.csv, IS.csv, OS.csv), validated."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pandas as pd

from humanclap.csv_text import TextTable, read_text_table

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
RELATE_SPLIT = "in RELATE dataset"  # one value a rating; IS.csv and OS.csv do not have it

_RATING = re.compile(r"([0-9]{1,2})(\.0+)?")
_CONTROL = re.compile(r"[\x00-\x1f]")


class RatingsError(ValueError):
    """A ratings file that cannot be used as it is; the message names the file, the place and what is allowed."""


def load_ratings(csv_path: str | os.PathLike) -> pd.DataFrame:
    """Load a RELATE score file, one row a rating, anchors included.

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
    if not isinstance(csv_path, (str, os.PathLike)):
        raise TypeError(f"csv_path is {csv_path!r}; it must be a path, for example scores/REL.csv")
    path = Path(csv_path)
    columns = _read_table(path)
    table, lines, check = columns.columns, columns.lines, columns.require

    check("wavname", lambda name: bool(name.strip()), "a file name must not be empty")
    check("wavname", _inside, "a path must stay below RELATE_wave (no '..', '//', backslash or line break)")
    folders = " or ".join([", ".join(SYSTEM_OF_FOLDER), "/".join(SPLITS)])
    check("wavname", _in_known_folder, f"a path is /<system>/<split>/<file>, with the folders {folders}")
    check("text", lambda text: bool(text.strip()), "a caption must not be empty")
    check("score", _is_rating, "a rating is a whole number from 0 to 10")
    check("listener_id", lambda name: bool(name.strip()), "a listener id must not be empty")
    check("anchor label", lambda label: label.strip().lower() in ("true", "false"), "it is True or False")
    has_splits = RELATE_SPLIT in table
    if has_splits:
        table[RELATE_SPLIT] = [split.strip() for split in table[RELATE_SPLIT]]
        check(RELATE_SPLIT, lambda split: split in RELATE_SPLITS, f"it is one of {', '.join(RELATE_SPLITS)}")

    audio = [name.strip().removeprefix("/") for name in table["wavname"]]
    ratings = pd.DataFrame(
        {
            "audio": audio,
            "text": [text.strip() for text in table["text"]],
            "rating": [int(float(score)) for score in table["score"]],
            "listener": [listener.strip() for listener in table["listener_id"]],
            "system": [SYSTEM_OF_FOLDER[name.split("/")[0]] for name in audio],
            "split": [name.split("/")[1] for name in audio],
            "relate_split": table[RELATE_SPLIT] if has_splits else "",
            "is_anchor": [label.strip().lower() == "true" for label in table["anchor label"]],
        }
    )
    _refuse_duplicates(ratings, path, lines)
    _refuse_other_side(ratings, path, lines)
    _refuse_pairs_in_two_splits(ratings, path, lines)
    return ratings


def _read_table(path: Path) -> TextTable:
    """The file's columns, all that are needed among them, and at least one row."""
    if not path.is_file():
        kind = "is a folder, not a file" if path.is_dir() else "is not there"
        raise FileNotFoundError(f"ratings file {path} {kind}: RELATE's files are scores/REL.csv, IS.csv and OS.csv")
    table = read_text_table(path, RatingsError)
    if not table.header:
        raise RatingsError(f"{path} is empty; a header with {', '.join(REQUIRED)} and one line a rating are needed")
    missing = [column for column in REQUIRED if column not in table.header]
    if missing:
        raise RatingsError(
            f"{path}, line 1: missing column {', '.join(map(repr, missing))}; the file has {table.header}"
        )
    if not table.lines:
        raise RatingsError(f"{path} has a header and no ratings; one line a rating is needed below it")
    return table


def _inside(name: str) -> bool:
    relative = name.strip().removeprefix("/")
    strange = relative.startswith("/") or "\\" in relative or _CONTROL.search(relative)
    return not strange and ".." not in relative.split("/")


def _in_known_folder(name: str) -> bool:
    parts = name.strip().removeprefix("/").split("/")
    return len(parts) == 3 and parts[0] in SYSTEM_OF_FOLDER and parts[1] in SPLITS and parts[2] not in ("", ".")


def _is_rating(value: str) -> bool:
    match = _RATING.fullmatch(value.strip())
    return match is not None and int(match[1]) <= 10


def _refuse_duplicates(ratings: pd.DataFrame, path: Path, lines: list[int]) -> None:
    twice = ratings.duplicated(["audio", "text", "listener"])
    if twice.any():
        row = int(twice.to_numpy().argmax())
        audio, text, listener = ratings.loc[row, ["audio", "text", "listener"]]
        same = (ratings[["audio", "text", "listener"]] == [audio, text, listener]).all(axis=1)
        raise RatingsError(
            f"{path}, line {lines[row]}: listener {listener} has rated {audio} with {text!r} already on line "
            f"{lines[int(same.to_numpy().argmax())]}; one rating a listener and pair is allowed "
            f"({int(twice.sum())} duplicated in all)"
        )


def _refuse_other_side(ratings: pd.DataFrame, path: Path, lines: list[int]) -> None:
    # RELATE's train comes from the train folders, its validation and test from the test folders.
    side = ratings["relate_split"].map({"train": "train", "validation": "test", "test": "test"})
    wrong = side.notna() & (side != ratings["split"]) & ~ratings["is_anchor"]
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        raise RatingsError(
            f"{path}, line {lines[row]}, column {RELATE_SPLIT!r}: {ratings['relate_split'][row]!r} for the clip "
            f"{ratings['audio'][row]}; clips in a train folder are train or excluded, those in a test folder "
            "validation, test or excluded"
        )


def _refuse_pairs_in_two_splits(ratings: pd.DataFrame, path: Path, lines: list[int]) -> None:
    # Anchors are left out: RELATE draws them from both splits. "excluded" beside another value is normal, because
    # RELATE excludes ratings (those of removed listeners), not pairs.
    placed = ratings[~ratings["is_anchor"] & ~ratings["relate_split"].isin(["", "excluded"])]
    splits = placed.groupby(["audio", "text"])["relate_split"].transform("nunique")
    if (splits > 1).any():
        row = placed.index[splits > 1][-1]
        audio, text = placed.loc[row, ["audio", "text"]]
        found = sorted(placed.loc[(placed["audio"] == audio) & (placed["text"] == text), "relate_split"].unique())
        raise RatingsError(
            f"{path}, line {lines[row]}, column {RELATE_SPLIT!r}: {audio} with {text!r} is in {' and '.join(found)}; "
            "a pair belongs to one of train, validation and test"
        )
