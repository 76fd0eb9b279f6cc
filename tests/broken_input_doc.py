"""Writes docs/broken-input.md, what is broken and what the user is told: `python tests/broken_input_doc.py`."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

DOC = Path(__file__).resolve().parent.parent / "docs" / "broken-input.md"
_INTRODUCTION = """\
# Broken input, and what you are told

Every line below is a test: the input is broken for real, and the message must name what is wrong, where, and what mends
it (`tests/test_broken_input.py`, `tests/test_broken_downloads.py`). "…" stands for the folder. Nothing is skipped in
silence: a clip that cannot be scored keeps its row in the score table, with the message as its `status`.

This file is written by `python tests/broken_input_doc.py`; a test fails where it is out of date.
"""


def document(cases: list, messages: Mapping[tuple[str, str], str], downloads: list[tuple[str, str, str]]) -> str:
    """The whole text: a table for each subject of `cases`, with the full messages, and one of `downloads`."""
    parts = [_INTRODUCTION, f"{len(cases) + len(downloads)} kinds in all.\n"]
    for about in dict.fromkeys(case.about for case in cases):
        own = [case for case in cases if case.about == about]
        parts.append(f"## {about} ({len(own)})\n")
        parts.append("| what is broken | what the user does | what they are told |\n|---|---|---|")
        parts += [
            f"| {_cell(c.broken)} | `{_cell(c.does, code=True)}` | {_cell(messages[c.about, c.broken])} |" for c in own
        ]
        parts.append("")
    if downloads:
        parts.append(f"## Downloads and archives ({len(downloads)})\n")
        parts.append("The user runs `humanclap fetch …`; the message holds:\n")
        parts.append("| what is broken | what they are told |\n|---|---|")
        parts += [f"| {_cell(broken)} | … {_cell(fragment)} … |" for _, broken, fragment in downloads]
        parts.append("")
    return "\n".join(parts).rstrip("\n") + "\n"


def current() -> str:
    """The text as the code is now: every case of this project's own is run."""
    import test_broken_input as own

    downloads = []
    if importlib.util.find_spec("test_broken_downloads"):
        downloads = importlib.import_module("test_broken_downloads").CASES
    messages = {}
    for case in own.CASES:
        with tempfile.TemporaryDirectory() as folder:
            said = own.told(case, Path(folder).resolve())
            said = re.sub(r" at [\d,]+ bytes", " at … bytes", said)  # depends on the library's version
            messages[case.about, case.broken] = said.replace("_io.open", "io.open")  # and this on Python's
    return document(own.CASES, messages, downloads)


def _cell(text: str, code: bool = False) -> str:
    """Text as a Markdown table shows it unchanged."""
    text = " ".join(text.split()).replace("|", "\\|")
    return text if code else re.sub(r"([*_`\[\]])", r"\\\1", text).replace("<", "&lt;")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    DOC.parent.mkdir(exist_ok=True)
    DOC.write_text(current(), encoding="utf-8")
    print(DOC)
