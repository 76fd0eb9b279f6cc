"""The store of arrays: whole or not at all, mended when damaged, shared by processes."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest

from humanclap.cache import ArrayCache, cache_key


def test_a_damaged_entry_is_made_again(tmp_path, caplog):
    cache = ArrayCache(tmp_path)
    key = cache_key(kind="audio", content="abc")
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert cache.get(key) is None
    cache.put(key, array)
    np.testing.assert_array_equal(cache.get(key), array)
    assert cache.get(key).dtype == np.float32
    file = next(tmp_path.rglob("*.npy"))
    assert file == tmp_path / key[:2] / f"{key}.npy"
    for damage in (b"", b"not an array", file.read_bytes()[:-4]):
        file.write_bytes(damage)
        assert cache.get(key) is None and "made again" in caplog.text
        cache.put(key, array)
        np.testing.assert_array_equal(cache.get(key), array)
    with pytest.raises(ValueError):
        cache.put(key, np.array([object()]))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [file.name]  # no remains


def test_keys_tell_everything_apart():
    keys = [cache_key(kind="audio", content="a"), cache_key(kind="text", content="a")]
    keys += [cache_key(kind="audio", content="b"), cache_key(kind="audio", content="a", window="first")]
    assert len(set(keys)) == 4
    assert cache_key(content="a", kind="audio") == keys[0]


def _write_often(root, value):
    cache = ArrayCache(root)
    for _ in range(50):
        cache.put("ab" * 32, np.full(20_000, value))


def test_two_processes_may_write_one_entry(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_often, args=(tmp_path, value)) for value in (1.0, 2.0)]
    cache, seen = ArrayCache(tmp_path), 0
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        array = cache.get("ab" * 32)
        if array is not None:
            seen += 1
            assert len(array) == 20_000 and array.min() == array.max()  # whole, and from one of them
    assert [writer.exitcode for writer in writers] == [0, 0] and seen
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1
