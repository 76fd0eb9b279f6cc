"""A CSV as columns of text, each row with its line, so that a message can say where a value stands."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

_CONTROL = re.compile(r"[\x00-\x1f]")


@dataclass(frozen=True)
class TextTable:
    """`header`, the `columns` by name as they stand in the file, and for each row the line on which it ends.

    What is wrong with a value is raised as `error`.
    """

    path: Path
    error: type[ValueError]
    header: list[str]
    columns: dict[str, list[str]]
    lines: list[int]

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


def read_text_table(path: Path, error: type[ValueError], delimiters: str = ",") -> TextTable:
    """Read a CSV in UTF-8 (a BOM, CRLF and quoted fields are fine); blank lines count as lines and are no rows.

    Of several `delimiters` the one that the header has most of is taken. An empty file gives an empty header. Raises
    `error` for what is no such file, a column name that stands twice and a row with more or fewer fields than columns.
    """
    text = _decoded(path, error)
    first_line = text.lstrip("\r\n").partition("\n")[0]
    delimiter = max(delimiters, key=first_line.count)  # the first one, where none is there
    named = {",": "comma", ";": "semicolon", "\t": "tab"}[delimiter]
    rows, lines = [], []
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
        for row in reader:
            if any("\0" in field for field in row):
                raise csv.Error("it holds NUL bytes, so it is no text")
            if any(field.strip() for field in row):
                rows.append(row)
                lines.append(reader.line_num)
    except csv.Error as problem:
        place = f" after line {lines[-1]}" if lines else ""
        what = "a quote is opened there and never closed" if "unexpected end" in str(problem) else problem
        raise error(f"{path} is not a CSV text file in UTF-8 ({named}-separated){place}: {what}") from problem
    header, rows, lines = [name.strip() for name in (rows or [[]])[0]], rows[1:], lines[1:]
    twice = sorted({column for column in header if header.count(column) > 1})
    if twice:
        raise error(f"{path}, line 1: column {', '.join(map(repr, twice))} stands there more than once")
    for row, line in zip(rows, lines):
        if len(row) != len(header):
            raise error(
                f"{path}, line {line}: {len(row)} fields where the header has {len(header)} columns; write the line "
                "whole, a text with a comma in it between quotes"
            )
    columns = [list(column) for column in zip(*rows)] or [[] for _ in header]
    return TextTable(path, error, header, dict(zip(header, columns)), lines)


def _decoded(path: Path, error: type[ValueError]) -> str:
    content = path.read_bytes()
    if content[:4] == b"PK\x03\x04":
        raise error(
            f"{path} is not a CSV text file in UTF-8: it is a spreadsheet or another zip; export it as CSV UTF-8"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        raise error(
            f"{path} is not a CSV text file in UTF-8: line {line} holds the byte 0x{content[problem.start]:02x}. Save "
            "it again as UTF-8 (a spreadsheet calls it 'CSV UTF-8')"
        ) from problem


def stays_below(name: str) -> bool:
    """Whether a path of a table is relative and stays below its root: no "..", no drive, no backslash or line break."""
    name = name.strip()
    elsewhere = name.startswith("/") or PureWindowsPath(name).drive or "\\" in name or _CONTROL.search(name)
    return not elsewhere and ".." not in name.split("/")
