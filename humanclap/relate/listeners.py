"""RELATE's questionnaire: who the listeners are, in words (listener_attributes/*.csv)."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from .ratings import RatingsError

# Column, name, options: option 1 comes first, as the README of RELATE lists them. Countries are written out there.
QUESTIONS = (
    ("question1", "age", ("0-20", "21-30", "31-40", "41-50", "51-60", "61-")),
    ("question2", "gender", ("male", "female", "non-binary")),
    ("question3", "nationality", None),
    ("question4", "birthplace", None),
    ("question5", "residence", None),
    ("question6", "times_rated_audio", ("0", "1", "2", "3", "4", "5-")),
    (
        "question7",
        "last_rated_audio",
        ("never", "0-1 month", "1-2 months", "2-6 months", "7-12 months", "1-5 years", "longer ago"),
    ),
    ("question8", "plays_per_clip", ("1", "2", "3", "4", "5-")),
    ("question9", "device", ("headphones", "earphones", "other")),
    (
        "question10",
        "quiet",
        ("the whole time", "most of the time", "sometimes", "noisy most of the time", "always noisy"),
    ),
    ("question11", "difficulty", ("easy", "not so difficult", "not so easy", "difficult")),
    ("question12", "works_with_audio", ("yes", "no")),
)


def load_listeners(csv_path: str | os.PathLike) -> pd.DataFrame:
    """Load the listeners' answers, one row a listener, with the options in words.

    Returns:
        `listener` (str), then one column a question, named as in `QUESTIONS`; ordered categories where the
        questionnaire gave options, text (countries) elsewhere.

    Raises:
        FileNotFoundError: no such file.
        RatingsError: a missing column, or an answer that is none of the options.
    """
    path = Path(csv_path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not there: RELATE's files are listener_attributes/REL.csv and IS_and_OS.csv"
        )
    try:
        answers = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise RatingsError(f"{path} is not a CSV of listeners' answers: {error}") from error
    missing = [column for column in ("listener_id", *(q[0] for q in QUESTIONS)) if column not in answers]
    if missing:
        raise RatingsError(f"{path}: missing column {', '.join(map(repr, missing))}")
    listeners = pd.DataFrame({"listener": answers["listener_id"]})
    for column, name, options in QUESTIONS:
        if options is None:
            listeners[name] = answers[column]
            continue
        words = answers[column].map({str(number): option for number, option in enumerate(options, start=1)})
        if words.isna().any():
            row = int(words.isna().to_numpy().argmax())
            raise RatingsError(
                f"{path}, line {row + 2}, column {column!r}: {answers[column][row]!r} is not allowed; "
                f"the answers to {name!r} are 1 to {len(options)}"
            )
        listeners[name] = pd.Categorical(words, categories=options, ordered=True)
    return listeners
