"""RELATE's questionnaire: who the listeners are, in words (listener_attributes/*.csv)."""

from __future__ import annotations

import os

import pandas as pd

from .ratings import read_relate_table

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
