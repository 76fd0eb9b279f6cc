"""CLAPScores of files and captions: each embedded once, every file accounted for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .audio import AudioError
from .cache import ArrayCache, cache_key
from .download import sha256_of

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

    With `cache_dir`, embeddings are kept there by the content of file or caption, the weights, the device and
    all settings of the model, so a second call computes nothing; several processes may share the folder.
    `progress` shows bars.

    Raises ValueError for lists of unequal length, an empty caption (it names the row), a batch_size below 1,
    and TypeError for a single path or caption in place of a list.
    """
    import pandas as pd

    paths, texts = _checked_pairs(audio_paths, texts)
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise ValueError(f"batch_size is {batch_size!r}; it must be a whole number of at least 1")
    cache = None if cache_dir is None else ArrayCache(cache_dir)
    embedder = _Embedder(clap, int(batch_size), cache, progress)
    audio_vectors, reasons = embedder.audio(dict.fromkeys(paths))
    text_vectors = embedder.texts(dict.fromkeys(texts))

    table = pd.DataFrame({"audio": paths, "text": texts}, dtype=object)
    vectors = [(audio_vectors.get(path), text_vectors[text]) for path, text in zip(paths, texts, strict=True)]
    table["cosine"] = _cosines(vectors)
    table["clap_score"] = table["cosine"].clip(lower=0.0)
    table["status"] = pd.Series([reasons.get(path, OK) for path in paths], dtype=object)
    for column in ("model", "checkpoint_sha256", "window", "precision", "device"):
        table[column] = str(clap.name if column == "model" else getattr(clap, column))
    table.attrs["counts"] = {str(status): int(n) for status, n in table["status"].value_counts().items()}
    print(_summary(table.attrs["counts"], str(clap.name)), file=sys.stderr)
    return table[list(COLUMNS)]


class _Embedder:
    """Files and captions to vectors: from the cache if they are there, else in batches through the model."""

    def __init__(self, clap: Clap, batch_size: int, cache: ArrayCache | None, progress: bool):
        self.clap, self.batch_size, self.cache, self.progress = clap, batch_size, cache, progress

    def audio(self, paths: Iterable[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """The vector of each file that has one, and the reason of each that has none."""
        vectors: dict[str, np.ndarray] = {}
        reasons: dict[str, str] = {}

        def embed(batch: list[str]) -> dict[str, np.ndarray]:
            try:
                return dict(zip(batch, self.clap.embed_audio(batch), strict=True))
            except AudioError as error:
                if len(batch) == 1:
                    reasons[batch[0]] = error.reason
                    return {}
            # One bad file stops its batch. Taken one by one, the good ones get the same vectors.
            return {path: vector for one in batch for path, vector in embed([one]).items()}

        found = self._embed_all(list(paths), "audio", embed, sha256_of)
        for path, vector in found.items():
            if np.isfinite(vector).all() and vector.any():
                vectors[path] = vector
            else:
                reasons[path] = _NO_DIRECTION
        return vectors, reasons

    def texts(self, texts: Iterable[str]) -> dict[str, np.ndarray]:
        """The vector of each caption. Raises ValueError for one that the model gives no direction."""

        def embed(batch: list[str]) -> dict[str, np.ndarray]:
            return dict(zip(batch, self.clap.embed_text(batch), strict=True))

        vectors = self._embed_all(list(texts), "text", embed, lambda text: text)
        for text, vector in vectors.items():
            if not (np.isfinite(vector).all() and vector.any()):
                raise ValueError(f"caption {text!r}: {_NO_DIRECTION}; check the weights")
        return vectors

    def _embed_all(
        self,
        items: list[str],
        kind: str,
        embed: Callable[[list[str]], dict[str, np.ndarray]],
        content_of: Callable[[str], str],
    ) -> dict[str, np.ndarray]:
        from tqdm.auto import tqdm

        keys = {item: self._key(kind, item, content_of) for item in items} if self.cache else {}
        stored = {item: self.cache.get(key) for item, key in keys.items() if key} if self.cache else {}
        vectors = {item: vector for item, vector in stored.items() if vector is not None}
        missing = [item for item in items if item not in vectors]
        with tqdm(total=len(items), initial=len(vectors), desc=kind, disable=not self.progress) as bar:
            for start in range(0, len(missing), self.batch_size):
                batch = missing[start : start + self.batch_size]
                fresh = embed(batch)
                for item, vector in fresh.items():
                    if keys.get(item):
                        self.cache.put(keys[item], vector)
                vectors |= fresh
                bar.update(len(batch))
        return vectors

    def _key(self, kind: str, item: str, content_of: Callable[[str], str]) -> str | None:
        """The cache key of a file or caption; None for a file that can't be opened."""
        try:
            content = content_of(item)
        except OSError:
            return None
        clap = self.clap
        return cache_key(
            kind=kind,
            content=content,
            weights=clap.checkpoint_sha256,
            settings=[clap.window, clap.precision, clap.device, clap.sample_rate],
            # Beyond the protocol: a folder's preprocessor and tokenizer can differ with equal weights.
            front_end=getattr(clap, "front_end", clap.name),
        )


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


def _cosines(pairs: list[tuple[np.ndarray | None, np.ndarray]]) -> np.ndarray:
    """The cosine of each pair, float64 `[N]`; NaN where the file has no vector."""
    from .losses import cosine

    values = np.full(len(pairs), np.nan)
    scored = [row for row, (audio_vector, _) in enumerate(pairs) if audio_vector is not None]
    if scored:
        values[scored] = cosine(*(np.stack([pairs[row][side] for row in scored]) for side in (0, 1)))
    return values


def _summary(counts: dict[str, int], model: str) -> str:
    """One line, such as: scored 97 of 100 pairs with laion-standin; 3 not: 2 file not found, 1 too short."""
    total, scored = sum(counts.values()), counts.get(OK, 0)
    others = ", ".join(f"{n} {status}" for status, n in counts.items() if status != OK)
    line = f"scored {scored} of {total} pairs with {model}"
    return f"{line}; {total - scored} not: {others}" if others else line
