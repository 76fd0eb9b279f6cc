"""CLAPScores of files and captions: each embedded once, every file accounted for.

Each batch goes: key -> cache -> features (decoded ahead) -> model -> cache.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from .audio import AudioError, check_file, note_of
from .checks import need_same_length, whole_number
from .files import ArrayCache, cache_key, expanded, sha256_of

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
_CLIPS_PER_CORE, _CAPTIONS_PER_CORE = 4, 16
# Measured: with four clips a core works out of its own cache; with sixteen a clip costs 20 % more.
_MAX_DECODERS = 16
_READS = 3  # of a file that changes meanwhile
_PATIENCE = timedelta(hours=6)  # of a process that has done its part, for the others; the launcher ends dead ones
T, R = TypeVar("T"), TypeVar("R")


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
    "ok" or why the pair has no score (then both are NaN), and what made the numbers. `attrs["counts"]` holds
    the number of pairs of each status, `attrs["notes"]` what was odd about scored files that were read in this run;
    one line on stderr says both. Each file and each caption is embedded once, without the spaces around
    a caption. Digital silence is scored.

    A score depends neither on `batch_size` nor on the order, up to 1e-6. Equal settings, an equal number of
    threads and equal batches give equal bytes; batches are cut differently where a cache already holds some of
    the clips. On a CPU, as many batches run side by side as torch has threads; on a GPU, threads decode ahead of
    the model. At most `batch_size` clips go through the model together, and memory does not grow with the number
    of files. Under the window "upstream" each batch in the order given is one call of the upstream kind, and
    there, as upstream, scores do depend on it.

    With `cache_dir`, embeddings are kept there by the content of file or caption, the weights, the device and
    all settings of the model, one by one as they are made: a run that was killed goes on where it was, and
    several processes may share the folder. With everything in the cache nothing is computed,
    and the weights are not even loaded. `progress` shows bars.

    Raises ValueError for lists of unequal length, an empty caption (it names the row), a batch_size below 1,
    a cache folder that can't be written, and TypeError for a single path or caption in place of a list.
    """
    pairs = _Pairs.checked(audio_paths, texts)
    made_by = _made_by(clap)  # asked first: a clap that can't be opened says so before the bars
    embedding = _Embedding(clap, batch_size, cache_dir)
    captions = _shown(embedding.captions(pairs.captions), len(pairs.captions), "text", progress)
    clips = _shown(embedding.clips(pairs.clips), len(pairs.clips), "audio", progress)
    return _table(pairs, captions, clips, made_by)


def score_as_launched(
    open_clap: Callable[[], Clap],
    audio_paths: Sequence[str | os.PathLike],
    texts: Sequence[str],
    batch_size: int = 32,
    cache_dir: str | os.PathLike | None = None,
    progress: bool = True,
    device: str = "auto",
) -> pd.DataFrame | None:
    """`score_pairs`, shared by the processes that torchrun or `accelerate launch` started, if any did.

    Every process calls this with the same arguments; `open_clap` opens the model on `device`. Each embeds its part
    of the distinct clips and captions into the cache, which all must share, and hands its failures to the main
    process, which makes the table; the others get None. Where a process dies, the launcher ends the others, and what
    is in the cache is kept. Raises what `score_pairs` raises, and ValueError without a cache_dir or for the window
    "upstream", which is not cached.
    """
    if not launched():
        return score_pairs(open_clap(), audio_paths, texts, batch_size, cache_dir, progress)
    if cache_dir is None:
        raise ValueError(
            "several processes hand over their embeddings in a cache folder, and there is none: leave --no-cache out, "
            "or start one process"
        )
    import torch
    from accelerate import PartialState

    # It gives each process its GPU, which the model is then opened on.
    state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available(), timeout=_PATIENCE)
    pairs, clap = _Pairs.checked(audio_paths, texts), open_clap()
    if clap.window == "upstream":
        raise ValueError("the window 'upstream' draws for whole batches and is not cached: score it in one process")
    made_by, embedding = _made_by(clap), _Embedding(clap, batch_size, cache_dir)
    progress = progress and state.is_main_process
    captions = embedding.shared(embedding.captions, pairs.captions, "text", progress, state)
    clips = embedding.shared(embedding.clips, pairs.clips, "audio", progress, state)
    table = _table(pairs, captions, clips, made_by) if state.is_main_process else None
    state.destroy_process_group()
    return table


def launched() -> bool:
    """Whether this is one of several processes of torchrun or `accelerate launch`."""
    return int(os.environ.get("WORLD_SIZE") or 1) > 1


def summary(counts: dict[str, int], model: str, n_notes: int = 0) -> str:
    """One line, such as: scored 97 of 100 pairs with laion-standin; 3 not: 2 file not found, 1 too short."""
    total, scored = sum(counts.values()), counts.get(OK, 0)
    others = ", ".join(f"{n} {status}" for status, n in counts.items() if status != OK)
    line = f"scored {scored} of {total} pairs with {model}"
    line += f"; {total - scored} not: {others}" if others else ""
    return line + (f"; {n_notes} clip(s) scored with a warning, see above" if n_notes else "")


# --- pairs and the table --------------------------------------------------------------------------------


@dataclass(slots=True)
class _Item:
    """A file or a caption on its way: in the end it has a vector, or a reason why not."""

    content: str
    key: str | None = None
    vector: np.ndarray | None = None
    reason: str | None = None
    note: str | None = None
    features: dict | None = None

    def failure(self) -> str | None:
        if self.vector is None:
            return self.reason
        return None if np.isfinite(self.vector).all() and self.vector.any() else _NO_DIRECTION


@dataclass(frozen=True)
class _Pairs:
    """N pairs as given, and the rows of each distinct clip and caption."""

    paths: list[str]
    texts: list[str]
    clips: dict[str, list[int]]
    captions: dict[str, list[int]]

    @classmethod
    def checked(cls, audio_paths: Sequence[str | os.PathLike], texts: Sequence[str]) -> _Pairs:
        for name, values in (("audio_paths", audio_paths), ("texts", texts)):
            if isinstance(values, (str, bytes, os.PathLike)):
                raise TypeError(f"{name} is one {type(values).__name__}, {values!r}; give a list of them")
        paths, texts = list(audio_paths), list(texts)
        need_same_length(audio_paths=paths, texts=texts)
        clips: dict[str, list[int]] = {}
        captions: dict[str, list[int]] = {}
        for row, (path, text) in enumerate(zip(paths, texts, strict=True)):
            if not isinstance(path, (str, os.PathLike)):
                raise TypeError(f"row {row}: the audio path is {path!r}; it must be a path")
            if not os.fspath(path):
                raise ValueError(f"row {row}: the audio path is empty")
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"row {row}: the caption is {text!r}; it must be a text that is not empty")
            clips.setdefault(str(Path(path)), []).append(row)  # ./dog.wav is dog.wav
            captions.setdefault(text.strip(), []).append(row)
        return cls([os.fspath(path) for path in paths], texts, clips, captions)


def _table(pairs: _Pairs, captions: Iterable[_Item], clips: Iterable[_Item], made_by: dict[str, str]) -> pd.DataFrame:
    """The score table, filled by position. The captions' vectors are kept; a clip's is used and let go."""
    import pandas as pd

    from .losses import cosine

    n_pairs, status, notes = len(pairs.paths), [OK] * len(pairs.paths), {}
    vectors, caption_of = [], np.full(n_pairs, -1)
    for item in captions:
        failure = item.failure()
        for row in pairs.captions[item.content]:
            if failure is None:
                caption_of[row] = len(vectors)
            else:
                status[row] = failure
        if failure is None:
            vectors.append(item.vector)
    text_vectors = np.array(vectors)
    values = np.full(n_pairs, np.nan)
    for item in clips:
        failure, rows = item.failure(), np.array(pairs.clips[item.content])
        if failure is not None:
            for row in rows:
                status[row] = failure
            continue
        if item.note:
            notes[item.content] = item.note
        rows = rows[caption_of[rows] >= 0]
        if len(rows):
            against = text_vectors[caption_of[rows]]
            values[rows] = cosine(np.broadcast_to(item.vector, against.shape), against)

    table = pd.DataFrame({"audio": pairs.paths, "text": pairs.texts}, dtype=object)
    table["cosine"] = values
    table["clap_score"] = table["cosine"].clip(lower=0.0)
    table["status"] = pd.Series(status, dtype=object)
    for column, value in made_by.items():
        table[column] = value
    table.attrs = {"counts": dict(Counter(status).most_common()), "notes": notes}
    print(summary(table.attrs["counts"], made_by["model"], len(notes)), file=sys.stderr)
    return table[list(COLUMNS)]


def _made_by(clap: Clap) -> dict[str, str]:
    return {"model": str(clap.name)} | {column: str(getattr(clap, column)) for column in COLUMNS[6:]}


def _shown(items: Iterable[_Item], total: int, name: str, progress: bool) -> Iterator[_Item]:
    from tqdm.auto import tqdm

    yield from tqdm(items, total=total, desc=name, disable=not progress)


# --- embedding ------------------------------------------------------------------------------------------


class _Embedding:
    """One CLAP with its cache: files and captions to vectors, in bounded memory.

    On a CPU each core decodes and embeds small batches of its own, which needs no core to wait for another; for
    a GPU, threads decode ahead of the model, two batches at most.
    """

    def __init__(self, clap: Clap, batch_size: int, cache_dir: str | os.PathLike | None):
        self.clap, self.batch_size = clap, whole_number(batch_size, "batch_size", 1)
        self.cache = None if cache_dir is None else ArrayCache(cache_dir)
        self._on_cpu = clap.device == "cpu"
        settings = [clap.window, clap.precision, clap.device, clap.sample_rate]
        # front_end: a folder's preprocessor and tokenizer can differ with equal weights.
        self._made_by = {"weights": clap.checkpoint_sha256, "settings": settings, "front_end": clap.front_end}

    def clips(self, paths: Collection[str]) -> Iterator[_Item]:
        """An item for each path, as they get ready: with a vector, or with the reason why there is none."""
        if self.clap.window == "upstream":
            return self._upstream(paths)
        if self._on_cpu:
            return self._on_cores(_batches(paths, self._per_core(_CLIPS_PER_CORE, len(paths))), self._clips)
        return self._ahead(paths)

    def captions(self, texts: Iterable[str]) -> Iterator[_Item]:
        """An item for each caption, as they get ready.

        Captions of one number of tokens go together, so that none is padded: that would cost time and the
        last digits.
        """
        missing = []
        for text in texts:
            item = self._looked_up(_Item(text), "text", text)
            try:
                text.encode()
            except UnicodeEncodeError as error:
                half = text[error.start : error.end]
                item.reason = f"the caption holds half a character, {half!r}; write it again"
            if item.vector is not None or item.reason:
                yield item
            else:
                item.features = self.clap.text_tokens([text])
                missing.append(item)
        embed = partial(self._embedded, embed=self.clap.embed_tokens)
        if self._on_cpu:
            yield from self._on_cores(_alike(missing, self._per_core(_CAPTIONS_PER_CORE, len(missing))), embed)
        else:
            for items in _alike(missing, self.batch_size):
                yield from embed(items)

    def shared(
        self, embed: Callable, contents: Collection[str], name: str, progress: bool, state
    ) -> Iterator[_Item] | None:
        """`embed` this process' part of `contents`; all items, from the cache, for the main process."""
        from accelerate.utils import gather_object

        mine = list(contents)[state.process_index :: state.num_processes]
        done = [
            (item.content, item.key, item.reason, item.note) for item in _shown(embed(mine), len(mine), name, progress)
        ]
        everyone = gather_object(done)
        return self._from_cache(everyone) if state.is_main_process else None

    def _from_cache(self, done: Iterable[tuple]) -> Iterator[_Item]:
        for content, key, reason, note in done:
            vector = self.cache.get(key) if reason is None else None
            if reason is None and vector is None:
                raise OSError(
                    f"the cache folder {self.cache.root} lacks what another process put there: it must be one folder "
                    "that all processes (and machines) share"
                )
            yield _Item(content, key, vector, reason, note)

    def _per_core(self, most: int, n_items: int) -> int:
        """The size of a core's batches: no more than asked for, and with few items some for each core."""
        import torch

        return max(1, min(self.batch_size, most, -(-n_items // torch.get_num_threads())))

    def _on_cores(self, batches: Iterable[list[T]], embed: Callable[[list[T]], list[_Item]]) -> Iterator[_Item]:
        """Batches side by side, one per core, each on one thread of torch's."""
        import torch

        n_threads = torch.get_num_threads()
        # Each batch sets this flag and puts it back; held here, no thread can put back another one's value.
        flag = torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False)
        with flag, ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            try:
                for items in _in_flight(pool, embed, batches, 2 * n_threads):
                    yield from items
            finally:
                torch.set_num_threads(n_threads)  # of the threads that are to come; a worker's is its own

    def _ahead(self, paths: Iterable[str]) -> Iterator[_Item]:
        """Threads look up and decode, this one embeds full batches."""
        n_decoders = min(_MAX_DECODERS, os.cpu_count() or 1)
        waiting: list[_Item] = []
        with ThreadPoolExecutor(n_decoders) as pool:
            for item in _in_flight(pool, self._prepared, paths, 2 * self.batch_size + n_decoders):
                if item.features is None:
                    yield item
                    continue
                waiting.append(item)
                if len(waiting) == self.batch_size:
                    yield from self._embedded(waiting, self.clap.embed_features)
                    waiting = []
            yield from self._embedded(waiting, self.clap.embed_features)

    def _upstream(self, paths: Iterable[str]) -> Iterator[_Item]:
        """Each batch is one upstream call; what it draws depends on the batch, so nothing of it is kept."""
        for batch in _batches(paths, self.batch_size):
            items = {path: _Item(path) for path in batch}
            while waiting := [path for path, item in items.items() if item.reason is None]:
                try:
                    vectors = self.clap.embed_audio(waiting)
                except AudioError as error:  # a bad file stops the call: the others go again, without it
                    items[error.path].reason = error.reason
                    continue
                for path, vector in zip(waiting, vectors, strict=True):
                    items[path].vector, items[path].note = vector, note_of(path)
                break
            yield from items.values()

    def _clips(self, paths: list[str]) -> list[_Item]:
        items = [self._prepared(path) for path in paths]
        self._embedded([item for item in items if item.features is not None], self.clap.embed_features)
        return items

    def _prepared(self, path: str) -> _Item:
        """The file's vector from the cache, or its features, or why there are none.

        The bytes that are hashed are the bytes that are decoded: a file that changes in between is read again.
        """
        item = _Item(path)
        try:
            for _ in range(_READS):
                before = _identity(path)
                if self.cache is not None:
                    self._looked_up(item, "audio", sha256_of(expanded(path)))
                    if item.vector is not None:
                        return item
                item.features = self.clap.audio_features([path])
                if _identity(path) == before:
                    item.note = note_of(path)
                    return item
            item.reason = "the file changes while it is read; score it when it is written"
        except AudioError as error:
            item.reason = error.reason
        except OSError as error:
            item.reason = error.strerror or str(error)
        except Exception as error:  # noqa: BLE001 - of one file, whatever it is: the others are scored
            item.reason = f"no features of it ({type(error).__name__}: {' '.join(str(error).split())})"
        item.features = None
        return item

    def _embedded(self, items: list[_Item], embed: Callable[[dict], np.ndarray]) -> list[_Item]:
        """The items with their vectors, which the cache has from now on; their features are let go."""
        if not items:
            return items
        import torch

        from .clap.fast_cpu import OneDnnLinear

        features = {name: torch.cat([item.features[name] for item in items]) for name in items[0].features}
        with OneDnnLinear() if self._on_cpu else contextlib.nullcontext():
            vectors = embed(features)
        for item, vector in zip(items, vectors, strict=True):
            item.vector, item.features = vector, None
            if self.cache is not None:
                self.cache.put(item.key, vector)
        return items

    def _looked_up(self, item: _Item, kind: str, content: str) -> _Item:
        if self.cache is not None:
            item.key = cache_key(kind=kind, content=content, **self._made_by)
            item.vector = self.cache.get(item.key)
        return item


def _identity(path: str) -> tuple[int, ...]:
    status = check_file(path)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev


def _alike(items: list[_Item], size: int) -> Iterator[list[_Item]]:
    """Batches of captions with equally many tokens, the longest first."""
    by_width: dict[int, list[_Item]] = {}
    for item in items:
        by_width.setdefault(item.features["input_ids"].shape[1], []).append(item)
    for width in sorted(by_width, reverse=True):
        yield from _batches(by_width[width], size)


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _in_flight(pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], limit: int) -> Iterator[R]:
    """`map` in order with at most `limit` calls begun and not handed out, so that results do not pile up."""
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= limit:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
