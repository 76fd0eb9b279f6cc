"""A table of pairs cut into shards, and scored shards put together again, no row lost and none twice."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .files import sha256_of
from .score import COLUMNS

if TYPE_CHECKING:
    import pandas as pd

BOOKKEEPING = ("shard", "row", "n_rows", "pairs_sha256")
"""What a scored shard has beyond a score table: which one it is, and of what table each row is which."""

_SAME_IN_ALL = ("n_rows", "pairs_sha256", "model", "checkpoint_sha256", "window", "precision")


@dataclass(frozen=True)
class Shard:
    """Shard `number` of `count`, counted from 1: a block of consecutive rows."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """ "2/8" -> Shard(2, 8). Raises ValueError for anything but i/n with 1 <= i <= n."""
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise ValueError(f"shard {text!r}: it must be i/n with 1 <= i <= n, such as 1/4")
        return cls(int(found[1]), int(found[2]))

    def rows(self, n_rows: int) -> range:
        """The rows of this shard of a table of `n_rows`; all shards together hold each row once."""
        return range((self.number - 1) * n_rows // self.count, self.number * n_rows // self.count)

    def bookkeeping(self, n_rows: int, pairs: str | os.PathLike) -> dict[str, object]:
        """The columns BOOKKEEPING of this shard of the CSV `pairs`."""
        own = (str(self), list(self.rows(n_rows)), n_rows, sha256_of(pairs))
        return dict(zip(BOOKKEEPING, own, strict=True))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def read_pairs(path: str | os.PathLike, scored: bool = False) -> pd.DataFrame:
    """A CSV with columns audio and text; further columns are kept, save for the names of scores.

    `scored` reads a score table instead. Raises FileNotFoundError, and ValueError for a table that is empty,
    lacks a column, holds the scores already, or has an empty path or caption (it names the line).
    """
    import pandas as pd

    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}; give a CSV with the columns audio and text")
    try:
        # As they stand: a caption "NA" or "null" is a caption.
        names = dict.fromkeys(("checkpoint_sha256", "pairs_sha256", "shard"), str)
        texts = {"audio": str, "text": str}
        table = pd.read_csv(path, converters=texts, dtype=names, float_precision="round_trip")
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no CSV: {error}") from error
    wanted = (*COLUMNS,) if scored else ("audio", "text")
    lacking = [column for column in wanted if column not in table]
    if lacking:
        present = ", ".join(map(str, table.columns))
        raise ValueError(f"{path} has no column {', '.join(lacking)}; it has: {present}")
    taken = [column for column in (*COLUMNS[2:], *BOOKKEEPING) if column in table]
    if taken and not scored:
        raise ValueError(f"{path} holds scores already ({', '.join(taken)}): give it without these columns")
    if table.empty:
        raise ValueError(f"{path} holds no pairs")
    for column in ("audio", "text"):
        empty = table.index[table[column].str.strip() == ""]
        if len(empty):
            raise ValueError(f"{path}, data row {empty[0] + 1}: {column} is empty; fill it in, or take the row out")
    return table


def merge(tables: Sequence[pd.DataFrame], names: Sequence[str]) -> pd.DataFrame:
    """Scored shards, in any order, as one table in the order of the pairs, without BOOKKEEPING.

    Raises ValueError, with the names, where a shard is missing, given twice or not whole, or where the shards
    are those of different tables or were not scored by the same model in the same way.
    """
    import pandas as pd

    by_number: dict[int, str] = {}
    first: dict[str, str] = {}
    for table, name in zip(tables, names, strict=True):
        lacking = [column for column in BOOKKEEPING if column not in table]
        if lacking:
            raise ValueError(f"{name} is no shard, it has no {', '.join(lacking)}: score with --shard i/n")
        facts = {column: sorted(set(table[column].astype(str))) for column in ("shard", *_SAME_IN_ALL)}
        several = [f"{column} {', '.join(values)}" for column, values in facts.items() if len(values) > 1]
        if several:
            raise ValueError(f"{name} is not one shard: {'; '.join(several)}")
        same = {column: facts[column][0] for column in _SAME_IN_ALL}
        shard, n_rows = Shard.parse(facts["shard"][0]), int(same["n_rows"])
        same["shards"] = str(shard.count)
        first = first or same
        differing = [fact for fact in same if same[fact] != first[fact]]
        other = [f"{fact} {same[fact]}, there {first[fact]}" for fact in differing]
        if other:
            raise ValueError(f"{name} does not go with {names[0]}: {'; '.join(other)}")
        if shard.number in by_number:
            raise ValueError(f"shard {shard} is given twice: {by_number[shard.number]} and {name}")
        by_number[shard.number] = name
        n_expected = len(shard.rows(n_rows))
        if table["row"].tolist() != list(shard.rows(n_rows)):
            raise ValueError(f"{name} is not whole: {len(table)} rows of {n_expected}; score {shard} again")
    count = int(first["shards"])
    missing = [f"{number}/{count}" for number in range(1, count + 1) if number not in by_number]
    if missing:
        raise ValueError(f"{len(missing)} of {count} shards are missing: {', '.join(missing)}")
    whole = pd.concat(tables, ignore_index=True).sort_values("row", ignore_index=True)
    return whole.drop(columns=list(BOOKKEEPING))


def write_csv(table: pd.DataFrame, path: str | os.PathLike) -> None:
    """Write a table; the file is there whole or not at all."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        table.to_csv(part, index=False)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
