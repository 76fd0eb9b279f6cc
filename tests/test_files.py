"""Files: hashed as they are read, written whole or not at all with the modes of the umask, and arrays kept by content."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from humanclap import files
from humanclap.files import ArrayCache, cache_key


def test_the_home_folder_is_put_in_for_a_tilde_and_nothing_else_changes(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.expanded("~/clips/a.wav") == tmp_path / "clips" / "a.wav" and files.expanded("~") == tmp_path
    for name in ("a~/b.wav", "~a.wav", "~root/b.wav", "clips/~/b.wav", "/x/y"):
        assert files.expanded(name) == Path(name)


def test_without_a_home_the_message_says_so(monkeypatch):
    def nobody(uid):
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)  # docker run -u 54321
    with pytest.raises(OSError, match=r"~/x: there is no home folder here \(HOME is not set\); write the path out"):
        files.expanded("~/x")
    assert files.expanded("x/~") == Path("x/~")


# --- hashes ---------------------------------------------------------------------------------------------


def test_a_hash_is_remembered_and_forgotten_when_anything_of_the_file_changes(tmp_path, monkeypatch):
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    n_read = []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *given: n_read.append(1) or digest(*given))
    for content in (b"one", b"two", b"six"):
        if content != b"one":
            before = path.stat()
            (tmp_path / "fresh").write_bytes(content)  # as many bytes, the old times: cp -p over the file in use
            os.utime(tmp_path / "fresh", ns=(before.st_atime_ns, before.st_mtime_ns))
            os.replace(tmp_path / "fresh", path)
        n_read.clear()
        for _ in range(3):
            assert files.sha256_of(path) == hashlib.sha256(content).hexdigest()
        assert len(n_read) == 1
    os.utime(path, ns=(1, 1))
    files.sha256_of(path)
    assert len(n_read) == 2


def test_the_bytes_that_are_hashed_are_the_bytes_that_are_given(tmp_path, monkeypatch):
    path = tmp_path / "weights"
    path.write_bytes(b"old" * 1000)
    once = iter([True])

    def read(file):
        half = file.read(1500)
        if next(once, False):  # a newer file is copied over it while it is read
            path.write_bytes(b"new" * 1000)
        return half + file.read()

    assert files.read_unchanged(path, read) == b"new" * 1000
    found = files.read_hashed(path)
    assert found.content == b"new" * 1000 and found.sha256 == hashlib.sha256(found.content).hexdigest()


@pytest.mark.parametrize(("make", "kind"), [(os.mkfifo, "a named pipe"), (os.mkdir, "a folder")])
def test_what_is_no_regular_file_is_refused_before_it_is_opened(tmp_path, make, kind):
    make(tmp_path / "clip.wav")
    os.symlink(tmp_path / "clip.wav", tmp_path / "link.wav")
    for name in ("clip.wav", "link.wav"):
        with pytest.raises(KeyError, match=f"is {kind}; it must be a file"):
            files.require_regular(tmp_path / name, KeyError)
        with pytest.raises(OSError, match=kind):
            files.sha256_of(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        files.require_regular(tmp_path / "none")


# --- writing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_modes_follow_the_umask_whatever_the_library_gave(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with files.writing(tmp_path / "model.safetensors") as fresh:
            fresh.unlink()
            os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT, 0o600))  # as safetensors 0.8 does
        with files.writing(tmp_path / "model", folder=True) as fresh:
            (fresh / "deep").mkdir()
            for name in ("config.json", "deep/weights"):
                os.close(os.open(fresh / name, os.O_WRONLY | os.O_CREAT, 0o600))
        files.write_text(tmp_path / "text", "é\r\n")
        ArrayCache(tmp_path / "cache").put("ab", np.zeros(3))
    finally:
        os.umask(before)
    paths = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(paths) == 5 and {path.stat().st_mode & 0o777 for path in paths} == {mode}
    folders = [path for path in tmp_path.rglob("*") if path.is_dir()]
    assert len(folders) == 4 and {path.stat().st_mode & 0o777 for path in folders} == {0o777 & ~umask}
    assert (tmp_path / "text").read_bytes() == "é\r\n".encode()


@pytest.mark.parametrize("folder", [False, True])
def test_a_failure_leaves_the_old_content_and_no_remains(tmp_path, folder):
    def write(text, fail=False):
        with files.writing(tmp_path / "it", folder=folder) as fresh:
            (fresh / "inside" if folder else fresh).write_text(text)
            if fail:
                raise KeyboardInterrupt

    write("old")
    with pytest.raises(KeyboardInterrupt):
        write("new", fail=True)
    read = tmp_path / "it" / "inside" if folder else tmp_path / "it"
    assert read.read_text() == "old"
    write("new")
    assert read.read_text() == "new" and os.listdir(tmp_path) == ["it"]


def test_the_target_of_a_link_is_written_and_the_link_stays(tmp_path):
    (tmp_path / "disk").mkdir()
    os.symlink(tmp_path / "disk" / "real.csv", tmp_path / "middle")
    os.symlink("middle", tmp_path / "scores.csv")
    for text in ("first", "second"):  # the target is not there yet, then it is
        files.write_text(tmp_path / "scores.csv", text)
        assert (tmp_path / "scores.csv").is_symlink() and (tmp_path / "disk" / "real.csv").read_text() == text
    files.require_writable(tmp_path / "scores.csv")


def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    with pytest.raises(OSError, match="--out .* is a folder; give the name of a file"):
        files.require_writable(tmp_path, "--out")
    with pytest.raises(OSError, match="there is no folder .*none$"):
        files.require_writable(tmp_path / "none" / "x.csv")
    with pytest.raises(OSError, match="can't be written: "):  # root may write into any folder but these
        files.require_writable("/proc/self/x.csv" if not os.getuid() else "/x.csv")
    files.require_writable("/dev/null")
    files.require_writable(tmp_path / "x.csv")
    assert not os.listdir(tmp_path)


def test_a_lock_that_is_taken_is_waited_for_or_refused(tmp_path):
    path, order = tmp_path / "lock", []

    def second():
        with files.lock(path):
            order.append("second")

    with files.lock(path):
        with pytest.raises(BlockingIOError, match="locked by another process"), files.lock(path, wait=False):
            pass
        waiting = threading.Thread(target=second)
        waiting.start()
        order.append("first")
    waiting.join(timeout=60)
    assert order == ["first", "second"]


# --- arrays by content ----------------------------------------------------------------------------------


def test_a_damaged_array_is_made_again(tmp_path, caplog):
    cache = ArrayCache(tmp_path)
    key = cache_key(kind="audio", content="abc")
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert cache.get(key) is None
    cache.put(key, array)
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
