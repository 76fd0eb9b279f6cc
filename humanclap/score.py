"""CLAPScores of files and captions: each is embedded once, and every file keeps its row.

Each batch goes: key -> cache -> features (decoded ahead) -> model -> cache.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from itertools import chain, groupby, islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from .audio import AudioError, check_file, note_of
from .checks import need_same_length, whole_number
from .clap import Clap
from .clap.fast_cpu import OneDnnLinear
from .files import ArrayCache, cache_key, expanded, sha256_of
from .losses import cosine

COLUMNS = (
    "audio", "text", "cosine", "clap_score", "status",
    "model", "checkpoint_sha256", "window", "precision", "device",
)  # fmt: skip
"""The columns of a score table."""

OK = "ok"
"""The status of a pair that has a score."""

_CLIPS_PER_CORE, _CAPTIONS_PER_CORE = 4, 16  # measured: with 16 clips a core leaves its own cache, 20 % slower
_MAX_DECODERS = 16
_PATIENCE = timedelta(hours=6)  # of a process that has done its part, for the others; the launcher ends dead ones
_HALF_CHARACTER = re.compile("[\\ud800-\\udfff]+")


def score_pairs(
    clap: Clap,
    audio_paths: Sequence[str | os.PathLike],
    texts: Sequence[str],
    batch_size: int = 32,
    cache_dir: str | os.PathLike | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Score N files against N captions, row by row: cosine and CLAPScore = max(cosine, 0) (equation 1).

    Returns a DataFrame in the order given, with COLUMNS: `cosine` in -1..1, `clap_score` in 0..1, `status` "ok" or why
    the pair has no score (then both are NaN), and what made the numbers. `attrs["counts"]` holds the number of pairs of
    each status, `attrs["notes"]` what was odd about scored files; one line on stderr says both. Each file and caption is
    embedded once, without the spaces around a caption. Digital silence is scored.

    A score depends neither on `batch_size` nor on the order, up to 1e-6; equal settings, threads and batches give equal
    bytes (batches are cut differently where a cache holds some of the clips). Memory does not grow with the number of
    files. Under the window "upstream" each batch is one call of the upstream kind, and scores do depend on it.

    With `cache_dir`, embeddings are kept there by the content of file or caption, the weights, the device and all
    settings of the model, one by one as they are made: a run that was killed goes on where it was, and processes may
    share the folder. With everything in the cache not even the weights are loaded. `progress` shows bars.

    Raises ValueError for lists of unequal length, an empty caption (it names the row), a batch_size below 1,
    a cache folder that can't be written, and TypeError for a single path or caption in place of a list.
    """
    pairs = _Pairs(audio_paths, texts)
    embedding = _Embedding(clap, batch_size, cache_dir)
    captions = _with_bar(embedding.captions, pairs.captions, "text", progress)
    clips = _with_bar(embedding.clips, pairs.clips, "audio", progress)
    return _table(pairs, captions, clips, embedding.made_by)


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

    Every process calls this; `open_clap` opens the model on `device`. Each embeds its part of the distinct clips and
    captions into the cache, which all share, and hands its failures to the main process, which returns the table; the
    others return None. Raises as `score_pairs`, and ValueError without a cache_dir or for the window "upstream".
    """
    if int(os.environ.get("WORLD_SIZE") or 1) == 1:
        return score_pairs(open_clap(), audio_paths, texts, batch_size, cache_dir, progress)
    if cache_dir is None:
        raise ValueError("processes hand over embeddings in a cache folder: leave --no-cache out, or start one process")
    from accelerate import PartialState

    # It gives each process its GPU, which the model is then opened on.
    state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available(), timeout=_PATIENCE)
    pairs, clap = _Pairs(audio_paths, texts), open_clap()
    if clap.window == "upstream":
        raise ValueError("the window 'upstream' draws for whole batches and is not cached: score it in one process")
    embedding = _Embedding(clap, batch_size, cache_dir)
    captions = embedding.gathered(embedding.captions, pairs.captions, "text", progress, state)
    clips = embedding.gathered(embedding.clips, pairs.clips, "audio", progress, state)
    table = _table(pairs, captions, clips, embedding.made_by) if state.is_main_process else None
    state.destroy_process_group()
    return table


# --- pairs and the table --------------------------------------------------------------------------------


class _Pairs:
    """N pairs as given, and the rows of each distinct clip and caption."""

    def __init__(self, audio_paths: Sequence[str | os.PathLike], texts: Sequence[str]):
        for name, values in (("audio_paths", audio_paths), ("texts", texts)):
            if isinstance(values, (str, bytes, os.PathLike)):
                raise TypeError(f"{name} is one {type(values).__name__}, {values!r}; give a list of them")
        self.paths, self.texts = list(audio_paths), list(texts)
        self.clips: dict[str, list[int]] = {}
        self.captions: dict[str, list[int]] = {}
        need_same_length(audio_paths=self.paths, texts=self.texts)
        for row, (path, text) in enumerate(zip(self.paths, self.texts, strict=True)):
            if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
                raise ValueError(f"row {row}: the audio path is {path!r}; it must be a path that is not empty")
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"row {row}: the caption is {text!r}; it must be a text that is not empty")
            self.clips.setdefault(str(Path(path)), []).append(row)  # ./dog.wav is dog.wav
            self.captions.setdefault(text.strip(), []).append(row)


@dataclass(slots=True)
class _Item:
    """A file or a caption on its way: in the end it has a vector, or a reason why not."""

    content: str
    key: str | None = None
    vector: np.ndarray | None = None
    reason: str | None = None
    note: str | None = None
    features: dict | None = None

    @property
    def failure(self) -> str | None:
        if self.vector is None or (np.isfinite(self.vector).all() and self.vector.any()):
            return self.reason
        return "the embedding is zero or not finite"


def _table(pairs: _Pairs, captions: Iterable[_Item], clips: Iterable[_Item], made_by: dict[str, str]) -> pd.DataFrame:
    """The score table, filled by position. The captions' vectors are kept; a clip's is used and let go."""
    values, status = np.full(len(pairs.texts), np.nan), np.full(len(pairs.texts), OK, dtype=object)
    vectors, notes = {}, {}
    for item in captions:
        status[pairs.captions[item.content]] = item.failure or OK
        if not item.failure:
            vectors[item.content] = item.vector
    for item in clips:
        rows = pairs.clips[item.content]
        if item.failure:
            status[rows] = item.failure
            continue
        if item.note:
            notes[item.content] = item.note
        if rows := [row for row in rows if pairs.texts[row].strip() in vectors]:
            against = np.stack([vectors[pairs.texts[row].strip()] for row in rows])
            values[rows] = cosine(np.broadcast_to(item.vector, against.shape), against)

    columns = [list(map(os.fspath, pairs.paths)), pairs.texts, values, values.clip(min=0.0), status]
    table = pd.DataFrame(dict(zip(COLUMNS, columns)), dtype=object).assign(**made_by)
    table = table.astype({"cosine": float, "clap_score": float})
    counts = dict(Counter(status.tolist()).most_common())
    table.attrs = {"counts": counts, "notes": notes}
    n_scored, others = counts.get(OK, 0), ", ".join(f"{n} {why}" for why, n in counts.items() if why != OK)
    line = f"scored {n_scored} of {len(table)} pairs with {made_by['model']}"
    line += f"; {len(table) - n_scored} not: {others}" * bool(others)
    print(line + f"; {len(notes)} clip(s) scored with a warning, see above" * bool(notes), file=sys.stderr)
    return table


# --- embedding ------------------------------------------------------------------------------------------


def _with_bar(embed: Callable, contents: Collection[str], name: str, progress: bool) -> Iterator[_Item]:
    yield from tqdm(embed(contents), total=len(contents), desc=name, disable=not progress)


class _Embedding:
    """One CLAP with its cache: files and captions to vectors, in bounded memory, each as an item when it is ready.

    On a CPU each core decodes and embeds small batches of its own; for a GPU, threads decode two batches ahead.
    """

    def __init__(self, clap: Clap, batch_size: int, cache_dir: str | os.PathLike | None):
        self.made_by = {"model": str(clap.name)} | {column: str(getattr(clap, column)) for column in COLUMNS[6:]}
        self._clap, self._batch_size = clap, whole_number(batch_size, "batch_size", 1)
        self._cache = None if cache_dir is None else ArrayCache(cache_dir)
        self._on_cpu = clap.device == "cpu"
        settings = [clap.window, clap.precision, clap.device, clap.sample_rate]
        # front_end: a folder's preprocessor and tokenizer can differ with equal weights.
        self._key = {"weights": clap.checkpoint_sha256, "settings": settings, "front_end": clap.front_end}

    def clips(self, paths: Collection[str]) -> Iterator[_Item]:
        embed = partial(self._embedded, self._clap.embed_features)
        if self._clap.window == "upstream":
            yield from self._upstream(paths)
        elif self._on_cpu:
            batches = _batches(paths, self._per_core(_CLIPS_PER_CORE, len(paths)))
            yield from self._on_cores(lambda batch: embed(list(map(self._prepared, batch))), batches)
        else:
            n_decoders = min(_MAX_DECODERS, os.cpu_count() or 1)
            with ThreadPoolExecutor(n_decoders) as pool:
                ready = _in_flight(pool, self._prepared, paths, 2 * self._batch_size + n_decoders)
                yield from chain.from_iterable(map(embed, _batches(ready, self._batch_size)))

    def captions(self, texts: Iterable[str]) -> Iterator[_Item]:
        """Captions of one number of tokens go together: padding would cost time and the last digits."""
        missing = []
        for text in texts:
            item = self._looked_up(_Item(text), "text", text)
            if half := _HALF_CHARACTER.search(text):
                item.reason = f"the caption holds half a character, {half[0]!r}; write it again"
            elif item.vector is None:
                item.features = self._clap.text_tokens([text])
                missing.append(item)
                continue
            yield item

        embed = partial(self._embedded, self._clap.embed_tokens)
        size = self._per_core(_CAPTIONS_PER_CORE, len(missing)) if self._on_cpu else self._batch_size
        alike = groupby(sorted(missing, key=_n_tokens, reverse=True), _n_tokens)
        batches = (batch for _, items in alike for batch in _batches(items, size))
        yield from self._on_cores(embed, batches) if self._on_cpu else chain.from_iterable(map(embed, batches))

    def gathered(self, embed: Callable, contents: Collection[str], name: str, progress: bool, state) -> Iterator[_Item]:
        """`embed` this process' part of `contents`; all items, from the cache, for the main process."""
        from accelerate.utils import gather_object

        mine = list(contents)[state.process_index :: state.num_processes]
        done = _with_bar(embed, mine, name, progress and state.is_main_process)
        return map(self._from_cache, gather_object([replace(item, vector=None) for item in done]))

    def _from_cache(self, item: _Item) -> _Item:
        vector = None if item.reason else self._cache.get(item.key)
        if vector is None and not item.reason:
            raise OSError(f"{self._cache.root} lacks what another process put there: all must share one folder")
        return replace(item, vector=vector)

    def _per_core(self, most: int, n_items: int) -> int:
        """The size of a core's batches: no more than asked for, and with few items some for each core."""
        return max(1, min(self._batch_size, most, -(-n_items // torch.get_num_threads())))

    def _on_cores(self, embed: Callable[[list], list[_Item]], batches: Iterable[list]) -> Iterator[_Item]:
        """Batches side by side, one per core, each on one thread of torch's."""
        n_threads = torch.get_num_threads()
        # Each batch sets this flag and puts it back; held here, no thread can put back another one's value.
        flag = torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False)
        with flag, ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            try:
                yield from chain.from_iterable(_in_flight(pool, embed, batches, 2 * n_threads))
            finally:
                torch.set_num_threads(n_threads)  # of the threads that are to come; a worker's is its own

    def _upstream(self, paths: Iterable[str]) -> Iterator[_Item]:
        """Each batch is one upstream call; what it draws depends on the batch, so nothing of it is kept."""
        for batch in _batches(paths, self._batch_size):
            failed, vectors = {}, []
            while good := [path for path in batch if path not in failed]:
                try:
                    vectors = self._clap.embed_audio(good)
                    break
                except AudioError as error:  # a bad file stops the call: the others go again, without it
                    failed[error.path] = error.reason
            yield from (_Item(path, reason=reason) for path, reason in failed.items())
            for path, vector in zip(good, vectors, strict=True):
                yield _Item(path, vector=vector, note=note_of(path))

    def _prepared(self, path: str) -> _Item:
        """The file's vector from the cache, or its features, or why there are none.

        The bytes that are hashed are the bytes that are decoded: a file that changes in between is read again.
        """
        item = _Item(path)
        try:
            for _ in range(3):
                before = _identity(path)
                if self._cache is not None:
                    self._looked_up(item, "audio", sha256_of(expanded(path)))
                    if item.vector is not None:
                        return item
                features = self._clap.audio_features([path])
                if _identity(path) == before:
                    item.features, item.note = features, note_of(path)
                    return item
            item.reason = "the file changes while it is read; score it when it is written"
        except AudioError as error:
            item.reason = error.reason
        except OSError as error:
            item.reason = error.strerror or str(error)
        except Exception as error:  # noqa: BLE001 - of one file, whatever it is: the others are scored
            item.reason = f"no features of it ({type(error).__name__}: {' '.join(str(error).split())})"
        return item

    def _embedded(self, embed: Callable[[dict], np.ndarray], items: list[_Item]) -> list[_Item]:
        """The items, those with features now with vectors, which the cache has as well; the features are let go."""
        fresh = [item for item in items if item.features is not None]
        if not fresh:
            return items
        features = {name: torch.cat([item.features[name] for item in fresh]) for name in fresh[0].features}
        with OneDnnLinear() if self._on_cpu else contextlib.nullcontext():
            vectors = embed(features)
        for item, vector in zip(fresh, vectors, strict=True):
            item.vector, item.features = vector, None
            if self._cache is not None:
                self._cache.put(item.key, vector)
        return items

    def _looked_up(self, item: _Item, kind: str, content: str) -> _Item:
        if self._cache is not None:
            item.key = cache_key(kind=kind, content=content, **self._key)
            item.vector = self._cache.get(item.key)
        return item


def _identity(path: str) -> tuple[int, ...]:
    status = check_file(path)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev


def _n_tokens(caption: _Item) -> int:
    return caption.features["input_ids"].shape[1]


def _batches(items: Iterable, size: int) -> Iterator[list]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _in_flight(pool: ThreadPoolExecutor, function: Callable, items: Iterable, limit: int) -> Iterator:
    """`map` in order with at most `limit` calls begun and not handed out, so that results do not pile up."""
    rest = iter(items)
    pending = deque(pool.submit(function, item) for item in islice(rest, limit))
    try:
        while pending:
            yield pending.popleft().result()
            pending.extend(pool.submit(function, item) for item in islice(rest, 1))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
