"""Every kind of broken download and archive that is known of, and what the message says.

CASES is the table: an id, what is broken, and a part of the message; BREAK breaks it for real. After each, nothing half
done may remain where something whole is looked for.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import socket
import stat
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest
from download_server import Page, serving

from humanclap import download
from humanclap.download import WebFile, unpack, web_file

CASES = [
    # downloads
    ("wrong_checksum", "the server's file is not the published one", "is not the published file"),
    ("not_found", "the address is gone", "404"),
    ("cut_connection", "the connection breaks", "Run the same command again"),
    ("stalled", "the server stops sending", "timed out"),
    ("no_server", "nothing answers at the address", "Connection refused"),
    ("no_http", "what answers is no web server", "could not be fetched"),
    ("full_disk", "the disk fills up on the way", "the disk is full"),
    ("file_for_folder", "a file is where the data folder should be", "could not be fetched"),
    ("edited_file", "a file in place was edited", "is not the published file"),
    # archives
    ("no_zip", "the archive is a web page", "is damaged, cut short, or no zip"),
    ("truncated_zip", "the archive is cut short", "is damaged, cut short, or no zip"),
    ("damaged_zip", "a clip in the archive fails its checksum", "is damaged, cut short, or no zip (Bad CRC-32"),
    ("parent", "a name with .. in it", "would be written outside of the folder"),
    ("absolute", "a name that begins with /", "would be written outside of the folder"),
    ("backslash", "a name with backslashes", "would be written outside of the folder"),
    ("symlink", "a symbolic link", "is no plain file"),
    ("encrypted", "a file under a password", "is damaged, cut short, or no zip (File"),
    ("lying_size", "a file larger than it says", "is damaged, cut short, or no zip"),
    ("other_folders", "another archive", "holds none of the folders audiocaps, tango2"),
    ("no_room_to_unpack", "too little room to unpack", "Make room, or choose another place"),
    ("full_while_unpacking", "the disk fills up while unpacking", "the disk is full"),
]
CONTENT = bytes(range(256)) * 200
TOP = ("audiocaps", "tango2")
GOOD = ("audiocaps/train/1.wav", bytes(range(256)) * 4)


def _get(folder, url, seconds=None, **settings):
    return web_file(WebFile(url, "file", **settings), folder / "file", seconds, progress=False)


def _serve(folder, page, seconds=None, **settings):
    with serving(file=page) as served:
        _get(folder, f"{served.url}/file", seconds, **settings)


def _no_http(folder, _):
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer():
            connection, _ = listening.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"what?\r\n\r\n")

        Thread(target=answer, daemon=True).start()
        _get(folder, f"http://127.0.0.1:{listening.getsockname()[1]}/file")


def _full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def _full_disk(folder, monkeypatch):
    monkeypatch.setattr("pooch.HTTPDownloader.__call__", _full)
    _serve(folder, Page(CONTENT))


def _file_for_folder(folder, _):
    (folder / "blocked").write_text("a file")
    _get(folder / "blocked", "http://127.0.0.1:9/file")


def _edited_file(folder, monkeypatch):
    monkeypatch.delenv("HUMANCLAP_RELATE", raising=False)
    spec = WebFile("http://127.0.0.1:9/file", "scores/REL.csv", sha256="0" * 64)
    monkeypatch.setattr(download, "SOURCES", {"relate": (spec,)})
    (folder / "relate" / "scores").mkdir(parents=True)
    (folder / "relate" / "scores" / "REL.csv").write_bytes(b"edited")
    download.fetch("relate", folder, progress=False)


def _unpack(folder, content=None):
    if content is not None:
        (folder / "made.zip").write_bytes(content)
    unpack(folder / "made.zip", folder / "RELATE_wave", TOP)


def _zip(folder, *entries, method=zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of (ZipInfo or name, content)."""
    with zipfile.ZipFile(folder / "made.zip", "w", method) as file:
        for name, content in entries:
            file.writestr(name, content)
    return (folder / "made.zip").read_bytes()


def _named(name):
    return lambda folder, _: _unpack(folder, _zip(folder, GOOD, (name, b"evil")))


def _patched(content: bytes, at: bytes, offset: int, new: bytes) -> bytes:
    """Bytes of the last record that begins with `at`, overwritten."""
    place = content.rindex(at) + offset
    return content[:place] + new + content[place + len(new) :]


def _symlink(folder, _):
    info = zipfile.ZipInfo("audiocaps/train/evil.wav")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16  # Unix
    _unpack(folder, _zip(folder, GOOD, (info, b"/etc/passwd")))


def _damaged(folder, _):
    content = _zip(folder, GOOD, ("tango2/test/2.wav", bytes(1000)), method=zipfile.ZIP_STORED)
    _unpack(folder, _patched(content, bytes(100), 50, b"\x01"))


def _lying_size(folder, _):
    """The table of contents says 10 bytes; 1,000 are packed."""
    content = _zip(folder, GOOD, ("audiocaps/train/2.wav", bytes(1000)))
    _unpack(folder, _patched(content, b"PK\x01\x02", 24, struct.pack("<L", 10)))


def _encrypted(folder, _):
    _unpack(folder, _patched(_zip(folder, GOOD), b"PK\x01\x02", 8, struct.pack("<H", 1)))


def _no_room(folder, monkeypatch):
    content = _zip(folder, GOOD)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=1000))
    _unpack(folder, content)


def _full_while_unpacking(folder, monkeypatch):
    content = _zip(folder, GOOD)
    monkeypatch.setattr(zipfile.ZipFile, "extractall", _full)
    _unpack(folder, content)


BREAK = {
    "wrong_checksum": lambda folder, _: _serve(folder, Page(CONTENT), sha256="0" * 64),
    "not_found": lambda folder, _: _serve(folder, Page(status=404)),
    "cut_connection": lambda folder, _: _serve(folder, Page(CONTENT, cut_at=1000)),
    "stalled": lambda folder, _: _serve(folder, Page(CONTENT, pause=2), seconds=0.3),
    "no_server": lambda folder, _: _get(folder, "http://127.0.0.1:9/file"),
    "no_http": _no_http,
    "full_disk": _full_disk,
    "file_for_folder": _file_for_folder,
    "edited_file": _edited_file,
    "no_zip": lambda folder, _: _unpack(folder, b"<html>Not what you asked for</html>" * 100),
    "truncated_zip": lambda folder, _: _unpack(folder, _zip(folder, GOOD)[:-40]),
    "damaged_zip": _damaged,
    "parent": _named("audiocaps/../../evil.wav"),
    "absolute": _named("/evil.wav"),
    "backslash": _named("audiocaps\\..\\..\\evil.wav"),
    "symlink": _symlink,
    "encrypted": _encrypted,
    "lying_size": _lying_size,
    "other_folders": lambda folder, _: _unpack(folder, _zip(folder, ("music/1.wav", b"la la la"))),
    "no_room_to_unpack": _no_room,
    "full_while_unpacking": _full_while_unpacking,
}
"""What the user did, by case: a function of (folder, monkeypatch)."""


@pytest.mark.parametrize(("case", "what", "message"), CASES, ids=[case for case, *_ in CASES])
def test_the_message_says_it_and_nothing_half_done_remains(tmp_path, monkeypatch, case, what, message):
    (tmp_path / "beside").write_text("untouched")
    with pytest.raises(download.DownloadError) as error:
        BREAK[case](tmp_path, monkeypatch)
    monkeypatch.undo()
    text = str(error.value)
    assert message in text and "\n" not in text
    assert {path.name for path in tmp_path.iterdir()} <= {"beside", "made.zip", "relate", ".file.lock", "blocked"}
    assert (tmp_path / "beside").read_text() == "untouched"
    assert not (tmp_path.parent / "evil.wav").exists() and not Path("/evil.wav").exists()


# --- and what is not broken -----------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "RELATE_wave/", "another name/"])
def test_a_good_archive_is_unpacked_whole_with_silence_in_it(tmp_path, below):
    silence = {f"tango2/test/{i}.wav": bytes(320_000) for i in range(3)}
    clips = {"audiocaps/train/1.wav": bytes(range(256)) * 4000, "tango2/train/ä.wav": b"x", **silence}
    with zipfile.ZipFile(tmp_path / "made.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in clips.items():
            file.writestr(f"{below}{name}", content)
    target = unpack(tmp_path / "made.zip", tmp_path / "RELATE_wave", TOP)
    found = {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()}
    assert found == clips
    assert {path.name for path in tmp_path.iterdir()} == {"made.zip", "RELATE_wave"}
    assert {path.stat().st_mode & 0o111 for path in target.rglob("*") if path.is_file()} == {0}  # nothing executable


def test_killed_while_unpacking_leaves_nothing_that_looks_whole(tmp_path):
    clips = {f"audiocaps/train/{i}.wav": hashlib.sha256(bytes([i])).digest() * 100 for i in range(60)}
    with zipfile.ZipFile(tmp_path / "made.zip", "w") as file:
        for name, content in clips.items():
            file.writestr(name, content)
    code = (
        "import shutil, sys, time; from pathlib import Path; from humanclap import download\n"
        "copy = shutil.copyfileobj\n"
        "shutil.copyfileobj = lambda *a: (copy(*a), time.sleep(0.05))\n"
        "download.unpack(Path(sys.argv[1]), Path(sys.argv[2]), ('audiocaps',))"
    )
    target = tmp_path / "RELATE_wave"
    run = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "made.zip"), str(target)])
    until = time.monotonic() + 60
    while not list(tmp_path.rglob("*.wav"))[3:] and time.monotonic() < until:
        time.sleep(0.01)
    run.kill()
    run.wait(timeout=60)
    assert 3 < len(list(tmp_path.rglob("*.wav"))) < len(clips) and not target.exists()
    unpack(tmp_path / "made.zip", target, TOP)
    assert {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*.wav")} == clips
