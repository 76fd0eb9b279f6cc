"""Writes docs/broken-input.md, what is broken and what the user is told: `python tests/broken_input_doc.py`."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

DOC = Path(__file__).resolve().parent.parent / "docs" / "broken-input.md"
_INTRODUCTION = """\
# Broken input, and what you are told

Every line below is a test: the input is broken for real, and the message must name what is wrong, where, and what mends
it (`tests/test_broken_input.py`, `tests/test_broken_downloads.py`). "…" stands for the folder. Nothing is skipped in
silence: a clip that cannot be scored keeps its row in the score table, with the message as its `status`.

This file is written by `python tests/broken_input_doc.py`; a test fails where it is out of date.
"""


def current() -> str:
    """The text as the code is now: every case is run, except those of downloads, of which it shows what must be said."""
    import test_broken_downloads
    import test_broken_input

    cases, downloads = test_broken_input.CASES, test_broken_downloads.CASES
    parts = [_INTRODUCTION, f"{len(cases) + len(downloads)} kinds in all.\n"]
    for about in dict.fromkeys(case.about for case in cases):
        own = [case for case in cases if case.about == about]
        parts.append(f"## {about} ({len(own)})\n")
        parts.append("| what is broken | what the user does | what they are told |\n|---|---|---|")
        for case in own:
            with tempfile.TemporaryDirectory() as folder:
                said = test_broken_input.told(case, Path(folder).resolve())
            # These two depend on the version of a library, and of Python.
            said = re.sub(r" at [\d,]+ bytes", " at … bytes", said).replace("_io.open", "io.open")
            parts.append(f"| {_cell(case.broken)} | `{_cell(case.does, code=True)}` | {_cell(said)} |")
        parts.append("")
    parts.append(f"## Downloads and archives ({len(downloads)})\n")
    parts.append("The user runs `humanclap fetch …`; the message holds:\n")
    parts.append("| what is broken | what they are told |\n|---|---|")
    parts += [f"| {_cell(broken)} | … {_cell(fragment)} … |" for _, broken, fragment in downloads]
    return "\n".join(parts) + "\n"


def _cell(text: str, code: bool = False) -> str:
    """Text as a Markdown table shows it unchanged."""
    text = " ".join(text.split()).replace("|", "\\|")
    return text if code else re.sub(r"([*_`\[\]])", r"\\\1", text).replace("<", "&lt;")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    DOC.write_text(current(), encoding="utf-8")
    print(DOC)
