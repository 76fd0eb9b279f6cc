"""CLAP models behind one interface: `load_clap` opens one, `Clap` says what each can do."""

from __future__ import annotations

from .base import Clap, load_clap

__all__ = ["Clap", "load_clap"]
