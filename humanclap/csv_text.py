"""Moved to `humanclap.tables`; kept until its last users import from there."""

from .tables import Table as TextTable
from .tables import read_table, stays_below


def read_text_table(path, error, delimiters=","):
    return read_table(path, error)


__all__ = ["TextTable", "read_text_table", "stays_below"]
