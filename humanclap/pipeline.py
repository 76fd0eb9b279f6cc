"""Files and captions to vectors: from the cache, else through the model, decoded ahead, in bounded memory."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from .audio import AudioError
from .cache import ArrayCache, cache_key
from .files import sha256_of

if TYPE_CHECKING:
    from .clap import Clap

_CLIPS_A_CORE, _CAPTIONS_A_CORE = 4, 16
# Measured: with four clips a core works out of its own cache; with sixteen a clip costs 20 % more.
_MAX_DECODERS = 16
T, R = TypeVar("T"), TypeVar("R")


@dataclass(slots=True)
class Item:
    """A file or a caption on its way: at the end it has a vector, or a reason why not."""

    content: str
    key: str | None = None
    vector: np.ndarray | None = None
    reason: str | None = None
    features: dict | None = None


class Pipeline:
    """One CLAP with its cache, embedding any number of files and captions.

    A CLAP whose class has `audio_features` and `embed_features` is fed in parallel. On a CPU each core then
    decodes and embeds small batches of its own, which needs no core to wait for another; for a GPU, threads
    decode ahead of the model, two batches at most. Any other CLAP gets batches through `embed_audio`.
    """

    def __init__(self, clap: Clap, batch_size: int, cache: ArrayCache | None):
        self.clap, self.batch_size, self.cache = clap, batch_size, cache
        # By the class, so that a wrapper that overrides embed_audio alone is not gone around.
        self._halves = all(hasattr(type(clap), name) for name in ("audio_features", "embed_features"))

    def files(self, paths: Collection[str]) -> Iterator[Item]:
        """An Item for each path, as they get ready: with a vector, or with the reason of its AudioError."""
        if self.clap.window == "upstream":
            return self._upstream(paths)
        if not self._halves:
            return self._in_turn(paths)
        if not _is_cpu(self.clap):
            return self._ahead(paths)
        return self._on_cores(_batches(paths, self._a_core(_CLIPS_A_CORE, len(paths))), self._clips)

    def captions(self, texts: Iterable[str]) -> Iterator[Item]:
        """An Item with a vector for each caption, as they get ready.

        Captions of one number of tokens go together, so that none is padded: that would cost time and the
        last digits.
        """
        missing = []
        for text in texts:
            item = self._looked_up(text, _content_of_caption)
            if item.vector is None:
                missing.append(item)
            else:
                yield item
        if not self._halves:
            for items in _batches(missing, self.batch_size):
                vectors = self.clap.embed_text([item.content for item in items])
                yield from self._kept(items, vectors)
            return
        for item in missing:
            item.features = self.clap.text_tokens([item.content])
        if _is_cpu(self.clap):
            batches = _alike(missing, self._a_core(_CAPTIONS_A_CORE, len(missing)))
            yield from self._on_cores(batches, self._embed_tokens)
        else:
            for items in _alike(missing, self.batch_size):
                yield from self._embed_tokens(items)

    def _a_core(self, most: int, n_items: int) -> int:
        """The size of a core's batches: no more than asked for, and with few items some for each core."""
        import torch

        return max(1, min(self.batch_size, most, -(-n_items // torch.get_num_threads())))

    # --- the ways through -------------------------------------------------------------------------------

    def _on_cores(self, batches: Iterable[list[T]], embed: Callable[[list[T]], list[Item]]) -> Iterator[Item]:
        """Batches side by side, one a core, each on one thread of torch's."""
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

    def _ahead(self, paths: Iterable[str]) -> Iterator[Item]:
        """Threads look up and decode, this one embeds full batches."""
        n_decoders = min(_MAX_DECODERS, os.cpu_count() or 1)
        waiting: list[Item] = []
        with ThreadPoolExecutor(n_decoders) as pool:
            for item in _in_flight(pool, self._prepare, paths, 2 * self.batch_size + n_decoders):
                if item.features is None:
                    yield item
                    continue
                waiting.append(item)
                if len(waiting) == self.batch_size:
                    yield from self._embed(waiting)
                    waiting = []
            yield from self._embed(waiting)

    def _in_turn(self, paths: Iterable[str]) -> Iterator[Item]:
        """Batch after batch through `embed_audio`; files that it refuses are taken out of theirs."""
        for batch in _batches(paths, self.batch_size):
            items = [self._looked_up(path, _content_of_file) for path in batch]
            self._embed_whole([item for item in items if item.vector is None])
            yield from items

    def _upstream(self, paths: Iterable[str]) -> Iterator[Item]:
        """Each batch is one upstream call; what it draws depends on the batch, so nothing of it is kept."""
        for batch in _batches(paths, self.batch_size):
            items = [Item(path) for path in batch]
            self._embed_whole(items)
            yield from items

    # --- the steps --------------------------------------------------------------------------------------

    def _clips(self, paths: list[str]) -> list[Item]:
        items = [self._prepare(path) for path in paths]
        self._embed([item for item in items if item.features is not None])
        return items

    def _prepare(self, path: str) -> Item:
        """The file's vector from the cache, or its features, or why there are none."""
        item = self._looked_up(path, _content_of_file)
        if item.vector is None:
            try:
                item.features = self.clap.audio_features([path])
            except AudioError as error:
                item.reason = error.reason
        return item

    def _embed(self, items: list[Item]) -> list[Item]:
        if not items:
            return items
        features = _joined(items)
        with self._fast():
            vectors = self.clap.embed_features(features)
        return self._kept(items, vectors)

    def _embed_whole(self, items: list[Item]) -> None:
        """`embed_audio` on all; a bad file stops the call, so it is set aside and the others go again."""
        while items:
            try:
                vectors = self.clap.embed_audio([item.content for item in items])
            except AudioError as error:
                bad = [item for item in items if item.content == error.path] or items[:1]
                if len(items) > 1 and bad[0].content != error.path:  # it names none of them: one by one
                    for item in items:
                        self._embed_whole([item])
                    return
                bad[0].reason = error.reason
                items = [item for item in items if item is not bad[0]]
                continue
            self._kept(items, vectors)
            return

    def _embed_tokens(self, items: list[Item]) -> list[Item]:
        tokens = _joined(items)
        with self._fast():  # the second half of embed_text; the first was done one by one
            vectors = self.clap.embed_tokens(tokens)
        return self._kept(items, vectors)

    def _fast(self) -> contextlib.AbstractContextManager:
        if not (self._halves and _is_cpu(self.clap)):
            return contextlib.nullcontext()
        from .clap.fast_cpu import OneDnnLinear

        return OneDnnLinear()

    # --- the cache --------------------------------------------------------------------------------------

    def _looked_up(self, content: str, identity_of: Callable[[str], str | None]) -> Item:
        item = Item(content)
        if self.cache is not None:
            item.key = self._key(identity_of, content)
            item.vector = None if item.key is None else self.cache.get(item.key)
        return item

    def _key(self, identity_of: Callable[[str], str | None], content: str) -> str | None:
        """What the vector depends on; None where the content can't be read, which the model will report."""
        identity = identity_of(content)
        if identity is None:
            return None
        kind = "audio" if identity_of is _content_of_file else "text"
        return cache_key(kind=kind, content=identity, **self._made_by)

    @cached_property
    def _made_by(self) -> dict[str, object]:
        clap = self.clap
        return {
            "weights": clap.checkpoint_sha256,
            "settings": [clap.window, clap.precision, clap.device, clap.sample_rate],
            # Beyond the protocol: a folder's preprocessor and tokenizer can differ with equal weights.
            "front_end": getattr(clap, "front_end", clap.name),
        }

    def _kept(self, items: list[Item], vectors: np.ndarray) -> list[Item]:
        for item, vector in zip(items, vectors, strict=True):
            item.vector, item.features = vector, None
            if item.key is not None:
                self.cache.put(item.key, vector)
        return items


def _content_of_file(path: str) -> str | None:
    try:
        return sha256_of(path)
    except OSError:
        return None


def _content_of_caption(text: str) -> str:
    return text


def _joined(items: list[Item]) -> dict:
    """The features or tokens of several items as those of one batch."""
    import torch

    return {name: torch.cat([item.features[name] for item in items]) for name in items[0].features}


def _alike(items: list[Item], size: int) -> Iterator[list[Item]]:
    """Batches of captions with equally many tokens, the longest first."""
    by_width: dict[int, list[Item]] = {}
    for item in items:
        by_width.setdefault(item.features["input_ids"].shape[1], []).append(item)
    for width in sorted(by_width, reverse=True):
        yield from _batches(by_width[width], size)


def _is_cpu(clap: Clap) -> bool:
    return clap.device == "cpu"


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _in_flight(
    pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], limit: int
) -> Iterator[R]:
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
