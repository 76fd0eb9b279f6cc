"""Has a checkpoint collapsed? Eight captions, or eight sounds, that have nothing in common must not get one vector."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..files import expanded, write_text

LIMIT = 0.98
"""Mean pairwise cosine above which a tower counts as collapsed (`laion/larger_clap_music` on the hub: 0.999)."""
CAPTIONS = (
    "A dog barks",
    "Rain falls on a tin roof",
    "A woman talks, people clap",
    "An electric guitar plays",
    "A car engine starts and idles",
    "Birds sing in a forest",
    "Glass breaks",
    "A church bell rings twice",
)
_log = logging.getLogger(__name__)
_warned: set[tuple[str, str]] = set()  # in this process, by checksum and tower


def sounds(sample_rate: int) -> list[np.ndarray]:
    """Eight sounds of 2 s, float32 `[T]`: tones, noises, clicks and chirps; the same at every call."""
    rng = np.random.default_rng(0)
    time = np.arange(2 * sample_rate) / sample_rate
    noise = rng.standard_normal((2, len(time)))
    clicks = np.zeros(len(time))
    clicks[:: sample_rate // 5] = 1.0
    waves = (
        np.sin(2 * np.pi * 440 * time),
        sum(np.sin(2 * np.pi * 110 * k * time) / k for k in range(1, 9)),
        noise[0],
        noise[1] * (np.sin(2 * np.pi * 3 * time) > 0),
        clicks,
        np.sin(2 * np.pi * (200 + 1_000 * time) * time),
        np.sin(2 * np.pi * (3_500 - 700 * time) * time) * np.exp(-3 * (time % 0.5)),
        np.cumsum(noise[0]) - np.linspace(0, noise[0].sum(), len(time)),
    )
    return [(0.5 * wave / np.abs(wave).max()).astype(np.float32) for wave in waves]


def check(name: str, sha256: str, tower: str, embed: Callable[[], np.ndarray]) -> float:
    """The mean pairwise cosine of a tower ("audio" or "text") on the built-in inputs; warns where it has collapsed.

    `embed` gives their unit vectors `[8, D]`, and is called only where no result for weights with this checksum is
    written down in `memory_file`. The warning is logged once per process, weights and tower. NaN counts as collapsed.
    """
    try:
        known = json.loads(memory_file(sha256).read_text(encoding="utf-8"))
        known = {key: float(known[key]) for key in ("audio", "text") if key in known}
    except (OSError, ValueError, TypeError):  # not there, or spoilt: it is found anew
        known = {}
    if tower not in known:
        vectors = embed().astype(np.float64)
        known[tower] = float((vectors @ vectors.T)[np.triu_indices(len(vectors), 1)].mean())
        with contextlib.suppress(OSError):  # a home that is not there or can't be written: the next run checks again
            if np.isfinite(known[tower]):
                memory_file(sha256).parent.mkdir(parents=True, exist_ok=True)
                write_text(memory_file(sha256), json.dumps(known))
    mean = known[tower]
    if not mean <= LIMIT and (sha256, tower) not in _warned:
        _warned.add((sha256, tower))
        inputs = "captions" if tower == "text" else "sounds"
        _log.warning(
            "%s: the %s tower has collapsed: eight very different %s have a mean pairwise cosine of %.4f (healthy: below "
            "%.2f), so scores hardly depend on the %s. Use another checkpoint (sha256 of this one: %s)",
            name, tower, inputs, mean, LIMIT, tower, sha256,
        )  # fmt: skip
    return mean


def memory_file(sha256: str) -> Path:
    """Where the result for weights with this checksum is kept: below ~/.cache/humanclap, or XDG_CACHE_HOME."""
    return expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "humanclap" / "health" / f"{sha256}.json"
