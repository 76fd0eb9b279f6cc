"""The one reader and the one writer of tables: CSV, TSV and JSON lines, also .gz; text comes back letter for letter."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
import re
import tempfile
import uuid
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

import numpy as np

from .checks import listed
from .files import expanded, is_stream, require_regular, require_writable, writing

if TYPE_CHECKING:
    import pandas as pd

SCORE_NUMBERS = (
    "rating", "n_ratings", "mean_rating", "rating_std", "target", "cosine", "clap_score", "training_seed", "blind",
)  # fmt: skip
"""The columns of a score table that hold numbers; every other one is text."""

_ENDINGS = (".csv", ".tsv", ".jsonl", ".json")
_OTHER_FORMATS = ".xls .xlsx .ods .parquet .feather .pkl .h5 .bz2 .xz .zip .zst".split()
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}
_NUMBER = re.compile(r"|nan|[+-]?(inf|(\d+\.?\d*|\.\d+)(e[+-]?\d+)?)", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f]")


class TableError(ValueError):
    """A table that can't be used as it is; the message names the file, the line, and what to do."""


class JsonNumber(str):
    """A number, true or false of a JSON table, as it is written there; `write_table` writes it so again."""


@dataclass(frozen=True)
class Table:
    """Columns of text by name, and for each row its line; what is wrong with a value is raised as `error`.

    Attributes:
        columns: name -> the values `[N]`, as they are in the file and in its order.
        lines: of each row the line on which it ends (of a JSON list, the number of the record).
        notes: what was left out in reading, in sentences.
    """

    path: Path
    error: type[ValueError]
    columns: dict[str, list[str]]
    lines: list[int]
    notes: list[str] = field(default_factory=list)

    @property
    def header(self) -> list[str]:
        """The names of the columns, in the order of the file."""
        return list(self.columns)

    def need(self, columns: Iterable[str], row: str = "row") -> None:
        """Raise `error` for an empty file, a missing column, or no rows (`row`: what a row is, such as "rating")."""
        columns = list(columns)
        if not self.header:
            raise self.error(f"{self.path} is empty; a header with {listed(columns)} and one line per {row} are needed")
        if missing := [column for column in columns if column not in self.header]:
            raise self.error(
                f"{self.path}, line 1: no column {listed(map(repr, missing))}; it has: {listed(map(repr, self.header))}"
            )
        if not self.lines:
            raise self.error(f"{self.path} has a header and no {row}s; one line per {row} is needed below it")

    def require(self, column: str, valid: Callable[[str], bool], allowed: str) -> None:
        """Raise `error` where `valid` refuses a value of `column`: the line, the value, what is `allowed`, how many."""
        values = self.columns[column]
        bad = [row for row, value in enumerate(values) if not valid(value)]
        if bad:
            raise self.error(
                f"{self.path}, line {self.lines[bad[0]]}, column {column!r}: {values[bad[0]]!r} is not allowed; "
                + allowed
                + (f" ({len(bad)} such lines)" if len(bad) > 1 else "")
            )

    def stripped(self, column: str) -> list[str]:
        """The values of `column` without spaces around them."""
        return [value.strip() for value in self.columns[column]]

    def frame(self) -> pd.DataFrame:
        """The columns as a DataFrame of Python strings, index 0 to N-1."""
        import pandas as pd

        return pd.DataFrame(self.columns, dtype=object)


def stays_below(name: str) -> bool:
    """Whether a path of a table is relative and stays below its root: no "..", no drive, no backslash or line break."""
    name = name.strip()
    elsewhere = name.startswith(("/", "~/")) or PureWindowsPath(name).drive or "\\" in name or _CONTROL.search(name)
    return not elsewhere and ".." not in name.split("/")


def clip_name(name: str) -> str:
    """One spelling of a clip's path: "./dog.wav", " dog.wav" and "dog.wav" are one clip ("~/" stays as it is)."""
    return str(PurePosixPath(name.strip())) if name.strip() else ""


def read_table(path: str | os.PathLike, error: type[ValueError] = TableError) -> Table:
    """Read a table of text in UTF-8: by its name JSON (lines, or one list), else CSV or TSV, each also .gz.

    Of a CSV the delimiter (comma, semicolon or tab) is the one that parts the header into most columns. A BOM, CRLF and
    quoted fields are fine; a line without text is no row. Names of columns are stripped of spaces, values are not. An
    unnamed column is left out where it is empty throughout, with a note.

    Raises:
        FileNotFoundError: no such file.
        error: no table of text; a column name that is there twice, or unnamed with values; a row with more or fewer
            fields than the header. It names the line.
    """
    path = expanded(path)
    require_regular(path, error)
    text = _decoded(path, error)
    return _from_json(path, error, text) if _kind(path) in (".jsonl", ".json") else _from_csv(path, error, text)


def read_scores(path: str | os.PathLike) -> pd.DataFrame:
    """Read a score table that `write_table` wrote: SCORE_NUMBERS as numbers to the last bit, all else as text.

    A caption "None" or "NA" stays that caption. An empty cell is a missing value, NaN or None.
    """
    import pandas as pd

    table = read_table(path)
    frame = table.frame()
    for column, values in table.columns.items():
        if column not in SCORE_NUMBERS:
            frame[column] = pd.Series([value or None for value in values], dtype=object)
        elif all(re.fullmatch(r"-?\d+", value) for value in values):
            frame[column] = pd.Series([int(value) for value in values], dtype="int64")
        else:
            table.require(column, _NUMBER.fullmatch, "it must be a number or empty")
            frame[column] = pd.Series([float(value) if value else math.nan for value in values], dtype=float)
    return frame


def _kind(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    return next((ending for ending in _ENDINGS if name.endswith(ending)), ".csv")


def _decoded(path: Path, error: type[ValueError]) -> str:
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as problem:
            raise error(f"{path} can't be unpacked ({problem}): it is damaged or cut short; copy it again") from problem
    at = 0 if content[:4] == b"PK\x03\x04" else content.find(b"\0")
    if at < 0:
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as problem:
            at = problem.start
    line = content.count(b"\n", 0, at) + 1
    what = (
        f"line {line} holds the byte 0x{content[at]:02x}. Save it again as UTF-8 (a spreadsheet calls it 'CSV UTF-8')"
    )
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        what = "it is UTF-16. Save it again as UTF-8 (a spreadsheet calls it 'CSV UTF-8')"
    if content[:4] == b"PK\x03\x04":
        what = "it is a spreadsheet or another zip; export it as CSV UTF-8"
    raise error(f"{path} is not a table of text in UTF-8: {what}")


def _from_csv(path: Path, error: type[ValueError], text: str) -> Table:
    delimiter = "\t" if _kind(path) == ".tsv" else max(_DELIMITERS, key=lambda given: _n_columns(text, given))
    rows, lines = [], []  # those that hold text, the header first; and the line on which each ends
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
        for row in reader:
            if any(value.strip() for value in row):
                rows.append(row)
                lines.append(reader.line_num)
    except csv.Error as problem:
        place = f" after line {lines[-1]}" if lines else ""
        what = "a quote is opened there and never closed" if "unexpected end" in str(problem) else problem
        raise error(f"{path} is not a table of {_DELIMITERS[delimiter]}-separated text{place}: {what}") from problem

    header, rows, lines = [name.strip() for name in (rows or [[]])[0]], rows[1:], lines[1:]
    for row, line in zip(rows, lines):
        if len(row) < len(header) or any(value.strip() for value in row[len(header) :]):
            raise error(
                f"{path}, line {line}: {len(row)} fields where the header has {len(header)} columns; write the line "
                "whole, a text with a comma in it between quotes, and no row names (in R: row.names = FALSE)"
            )
    width = max(map(len, rows), default=0)
    if width > len(header) and len({row[0] for row in rows if row[0].strip().isdecimal()}) == len(rows):
        raise error(
            f"{path}, line {lines[0]}: {width} fields where the header has {len(header)} columns, and the first "
            "one is a number in every line: if these are row names, leave them out (in R: row.names = FALSE); if not, "
            "take the delimiter at the end of the lines out"
        )
    columns, notes = {}, []
    for at, name in enumerate(header + [""] * (width - len(header))):
        values = [row[at] if at < len(row) else "" for row in rows]
        if name in columns:
            raise error(f"{path}, line 1: column {name!r} is there more than once")
        if name:
            columns[name] = values
            continue
        notes.append(f"{path}: column {at + 1}, an unnamed column that is empty throughout, is left out")
        if (filled := next((i for i, value in enumerate(values) if value.strip()), None)) is not None:
            raise error(
                f"{path}, line {lines[filled]}: column {at + 1} has no name in the header and holds {values[filled]!r}; "
                "give it a name, or leave it out (in pandas: to_csv(..., index=False))"
            )
    return Table(path, error, columns, lines, notes)


def _n_columns(text: str, delimiter: str) -> int:
    try:
        return len(next(csv.reader(io.StringIO(text.lstrip("\r\n"), newline=""), strict=True, delimiter=delimiter), []))
    except csv.Error:
        return 0


def _from_json(path: Path, error: type[ValueError], text: str) -> Table:
    """Objects of texts, numbers, true, false and null (an empty text); a name that an object lacks is empty there."""
    how = {"parse_int": JsonNumber, "parse_float": JsonNumber, "parse_constant": JsonNumber, "object_pairs_hook": _once}
    records, lines, header = [], [], {}
    inner = _inner_list(text, how) if text.lstrip().startswith("{") else None
    whole = inner is not None or text.lstrip().startswith("[")
    for line, part in enumerate([text] if whole else text.split("\n"), start=1):
        try:
            parsed = inner or (json.loads(part, **how) if part.strip() else [])
        except (ValueError, RecursionError) as problem:
            raise error(f"{path}, line {line} is not JSON, one object per line: {problem}") from problem
        for place, record in enumerate(parsed, start=1) if isinstance(parsed, list) else [(line, parsed)]:
            if not isinstance(record, dict):
                raise error(f'{path}, line {line}: {record!r:.60} is not an object such as {{"audio": …, "text": …}}')
            if nested := [name for name, value in record.items() if isinstance(value, (dict, list))]:
                allowed = "a list or an object; allowed are texts and numbers"
                raise error(f"{path}, line {place}, column {nested[0]!r}: {allowed}")
            records.append(record)
            lines.append(place)
            header |= dict.fromkeys(record)
    return Table(path, error, {name: [_cell(record.get(name)) for record in records] for name in header}, lines)


def _inner_list(text: str, how: dict) -> list | None:
    """The list of a JSON object that holds one list of objects and nothing else, such as {"data": [...]}."""
    try:
        parsed = json.loads(text, **how)
    except (ValueError, RecursionError):
        return None
    (value, *others) = parsed.values() if parsed else (None,)
    return value if not others and isinstance(value, list) and value else None


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    named = {name.strip(): value for name, value in pairs}
    if len(named) < len(pairs):
        raise ValueError(f"a name is there twice in {listed(name for name, _ in pairs)}")
    return named


def _cell(value) -> str:
    if value is None:
        return ""
    return JsonNumber(str(value).lower()) if isinstance(value, bool) else value


def require_table_place(path: str | os.PathLike, name: str = "") -> Path:
    """`path`, with "~/" expanded, where a table can be written; ValueError or OSError before the work, with `name`."""
    path = expanded(path)
    if path.suffix.lower() in _OTHER_FORMATS:
        raise ValueError(
            f"{name} {path}: a table is written as {listed(_ENDINGS)}, each also with .gz; choose one of them".strip()
        )
    require_writable(path, name)
    return path


def write_table(frame: pd.DataFrame, path: str | os.PathLike, float_format: str | None = None) -> Path:
    """Write a table as its name says (see `read_table`), whole or not at all; returns the path.

    Numbers are written to the last bit (or as `float_format`, such as "%.6g"), missing values as empty cells (null in
    JSON). A pipe or a device is written into. Where the write fails, for instance on a full disk, the table goes to a
    new file elsewhere, which the OSError names.
    """
    path = expanded(path)
    content = _encoded(frame, path, float_format)
    try:
        _put(content, path)
    except OSError as error:
        problem = f"{path} could not be written: {error.strerror or error}"
        for folder in (tempfile.gettempdir(), os.path.expanduser("~"), "."):
            rescue = Path(folder).absolute() / f"rescued-{uuid.uuid4().hex[:8]}-{path.name}"
            try:
                _put(content, rescue)
            except OSError:
                continue
            raise OSError(f"{problem}; the table is whole in {rescue}") from error
        raise OSError(f"{problem}; nor could it be kept anywhere else") from error
    return path


def _put(content: bytes, path: Path) -> None:
    if is_stream(path):
        with open(path, "ab") as stream:  # truncating would take away what a redirected stdout holds already
            stream.write(content)
        return
    with writing(path) as fresh:
        fresh.write_bytes(content)


def _encoded(frame: pd.DataFrame, path: Path, float_format: str | None) -> bytes:
    names = [str(name) for name in frame.columns]
    columns = [[_text(value, float_format) for value in frame.iloc[:, at].tolist()] for at in range(len(names))]
    kind = _kind(path)
    if kind in (".jsonl", ".json"):
        keys = [json.dumps(name, ensure_ascii=False) for name in names]
        rows = zip(*[map(_as_json, column) for column in columns])
        lines = ["{" + ", ".join(f"{key}: {value}" for key, value in zip(keys, row)) + "}" for row in rows]
        lines = ["[" + ",\n".join(lines) + "]"] if kind == ".json" else lines
    else:
        delimiter = "\t" if kind == ".tsv" else ","
        special = re.compile(f'["\r\n{delimiter}]')  # Python's csv leaves a lone carriage return without quotes
        quote = lambda value: '"' + value.replace('"', '""') + '"' if special.search(value) else value  # noqa: E731
        lines = [delimiter.join(quote(value or "") for value in row) for row in (names, *zip(*columns))]
    content = "".join(f"{line}\n" for line in lines)
    content = content.encode(
        "utf-8", "backslashreplace"
    )  # half an emoji has no UTF-8; written as \ud83d it can be read
    return gzip.compress(content, mtime=0) if path.name.lower().endswith(".gz") else content


def _text(value: object, float_format: str | None) -> str | None:
    """A cell as text, a JsonNumber where it is a number or a truth value, None where it is missing."""
    import pandas as pd

    if isinstance(value, str):
        return value
    if pd.isna(value):
        return None
    if isinstance(value, float):
        return JsonNumber(float_format % value if float_format else repr(float(value)))
    return JsonNumber(value) if isinstance(value, (int, np.integer, np.bool_)) else str(value)


def _as_json(value: str | None) -> str:
    if isinstance(value, JsonNumber):
        return value.lower() if value in ("True", "False") else value
    return json.dumps(value, ensure_ascii=False)
