"""CLAPScores of files and captions: each embedded once, every file accounted for."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .cache import ArrayCache
from .pipeline import Item, Pipeline

if TYPE_CHECKING:
    import pandas as pd

    from .clap import Clap

COLUMNS = (
    "audio", "text", "cosine", "clap_score", "status",
    "model", "checkpoint_sha256", "window", "precision", "device",
)  # fmt: skip
"""The columns of a score table."""

OK = "ok"
"""The status of a pair that has a score."""

_NO_DIRECTION = "the embedding is zero or not finite"


def score_pairs(
    clap: Clap,
    audio_paths: Sequence[str | os.PathLike],
    texts: Sequence[str],
    batch_size: int = 32,
    cache_dir: str | os.PathLike | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Score N files against N captions, row by row: cosine and CLAPScore = max(cosine, 0) (equation 1).

    Returns a DataFrame in the order given, with COLUMNS: `cosine` in -1..1, `clap_score` in 0..1, `status`
    "ok" or why the file has no score (then both are NaN), and what made the numbers. `attrs["counts"]` holds
    the number of pairs of each status, which one line on stderr says too. Each file and each caption is
    embedded once; a score depends neither on `batch_size` nor on the order. Digital silence is scored.

    On a CPU, as many batches run side by side as torch has threads; on a GPU, threads decode ahead of the
    model. At most `batch_size` clips go through the model together, and memory does not grow with the number
    of files. Under the window "upstream" each batch in the order given is one call of the upstream kind, and
    there, as upstream, scores do depend on it.

    With `cache_dir`, embeddings are kept there by the content of file or caption, the weights, the device and
    all settings of the model, one by one as they are made: a run that was killed goes on where it was, and
    several processes may share the folder. With everything in the cache nothing is computed, and
    the weights are not even loaded. `progress` shows bars.

    Raises ValueError for lists of unequal length, an empty caption (it names the row), a batch_size below 1,
    and TypeError for a single path or caption in place of a list.
    """
    import pandas as pd

    paths, texts = _checked_pairs(audio_paths, texts)
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise ValueError(f"batch_size is {batch_size!r}; it must be a whole number of at least 1")
    cache = None if cache_dir is None else ArrayCache(cache_dir)
    made_by = {"model": str(clap.name)}  # asked first: a clap that can't be opened says so before the bars
    made_by |= {column: str(getattr(clap, column)) for column in COLUMNS[6:]}
    pipeline = Pipeline(clap, int(batch_size), cache)

    table = pd.DataFrame({"audio": paths, "text": texts}, dtype=object)
    table["cosine"], reasons = _cosines(pipeline, paths, texts, progress)
    table["clap_score"] = table["cosine"].clip(lower=0.0)
    table["status"] = pd.Series([reasons.get(path, OK) for path in paths], dtype=object)
    for column, value in made_by.items():
        table[column] = value
    table.attrs["counts"] = {str(status): int(n) for status, n in table["status"].value_counts().items()}
    print(summary(table.attrs["counts"], made_by["model"]), file=sys.stderr)
    return table[list(COLUMNS)]


def summary(counts: dict[str, int], model: str) -> str:
    """One line, such as: scored 97 of 100 pairs with laion-standin; 3 not: 2 file not found, 1 too short."""
    total, scored = sum(counts.values()), counts.get(OK, 0)
    others = ", ".join(f"{n} {status}" for status, n in counts.items() if status != OK)
    line = f"scored {scored} of {total} pairs with {model}"
    return f"{line}; {total - scored} not: {others}" if others else line


def _cosines(
    pipeline: Pipeline, paths: list[str], texts: list[str], progress: bool
) -> tuple[np.ndarray, dict[str, str]]:
    """The cosine of each pair, float64 `[N]`, NaN where its file has none; and the reasons by path.

    The captions' vectors are kept, each once; a clip's is compared with its captions and let go.
    """
    from .losses import cosine

    captions = {text: at for at, text in enumerate(dict.fromkeys(texts))}
    text_vectors = None
    for item in _shown(pipeline.captions(captions), len(captions), "text", progress):
        if not _has_direction(item):
            raise ValueError(f"caption {item.content!r}: {_NO_DIRECTION}; check the weights")
        if text_vectors is None:
            text_vectors = np.empty((len(captions), len(item.vector)), dtype=item.vector.dtype)
        text_vectors[captions[item.content]] = item.vector

    rows: dict[str, list[int]] = {}
    for row, path in enumerate(paths):
        rows.setdefault(path, []).append(row)
    values, reasons = np.full(len(paths), np.nan), {}
    for item in _shown(pipeline.files(rows), len(rows), "audio", progress):
        if not _has_direction(item):
            reasons[item.content] = item.reason or _NO_DIRECTION
            continue
        own = rows[item.content]
        against = text_vectors[[captions[texts[row]] for row in own]]
        values[own] = cosine(np.broadcast_to(item.vector, against.shape), against)
    return values, reasons


def _has_direction(item: Item) -> bool:
    return item.vector is not None and bool(np.isfinite(item.vector).all() and item.vector.any())


def _shown(items: Iterable[Item], total: int, name: str, progress: bool) -> Iterable[Item]:
    from tqdm.auto import tqdm

    return tqdm(items, total=total, desc=name, disable=not progress)


def _checked_pairs(audio_paths, texts) -> tuple[list[str], list[str]]:
    for name, values in (("audio_paths", audio_paths), ("texts", texts)):
        if isinstance(values, (str, bytes, os.PathLike)):
            raise TypeError(f"{name} is one {type(values).__name__}, {values!r}; give a list of them")
    paths, texts = list(audio_paths), list(texts)
    for row, path in enumerate(paths):
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"row {row}: the audio path is {path!r}; it must be a path")
    if len(paths) != len(texts):
        raise ValueError(
            f"{len(paths)} audio_paths and {len(texts)} texts were given; there must be as many of each, row "
            "i of one going with row i of the other"
        )
    for row, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"row {row}: the caption is {text!r}; it must be a text that is not empty")
    return [os.fspath(path) for path in paths], texts
