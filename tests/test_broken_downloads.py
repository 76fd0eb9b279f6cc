"""Every kind of broken download and archive that is known of, and what the user is told of it.

CASES is the table: an id, what is broken, and a part of the message. Each case has a function of the same name below,
which breaks it for real; after each, nothing half may stand where something whole is looked for.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import socket
import ssl
import stat
import struct
import subprocess
import sys
import tarfile
import time
import urllib.error
import zipfile
from pathlib import Path
from threading import Thread

import pytest
from download_server import Page, serving

from humanclap import download
from humanclap.download import archive, sources, transfer, web
from humanclap.download.archive import Limits, unpack

CASES = [
    # downloads
    ("wrong_checksum", "the server's file is not the published one", "it is not the published file"),
    ("not_found", "the address is gone", "the server says 404"),
    ("forbidden", "the server wants a login", "the server says 403"),
    ("server_error", "the server fails, again and again", "was given up after 3 attempt(s): the server says 500"),
    ("cut_connection", "the connection breaks, again and again", "the same command goes on from there"),
    ("stalled", "the server stops sending", "was given up after 3 attempt(s): "),
    ("no_server", "nothing answers at the address", "Connection refused"),
    ("no_http", "what answers is no web server", "was given up after 3 attempt(s): what?"),
    ("untrusted", "the server's certificate is not valid", "the server's certificate is not trusted"),
    ("downgraded", "a redirection leads from https to http", "which is not https"),
    ("too_large", "the server's file is far too large", "is larger than 100.0 kB"),
    ("endless", "the server never stops sending", "is larger than 100.0 kB"),
    ("never_matching_part", "the server continues another file each time", "continues another file"),
    ("no_room", "the disk has too little room", "Make room, or choose another place"),
    ("full_disk", "the disk fills up on the way", "the disk is full"),
    ("edited_file", "a file in place was edited", "is not the file that was published"),
    ("changed_later", "a file without a checksum is not what it was at first", "not what it was at its first use"),
    ("login_page", "a network's login page comes in the file's place", "a page that a network or proxy put"),
    # archives
    ("no_zip", "the archive is a web page", "is damaged, or no zip at all"),
    ("truncated_zip", "the archive is cut short", "is damaged, or no zip at all"),
    ("damaged_zip", "a clip in the archive fails its checksum", "is damaged, or no zip at all (Bad CRC-32"),
    ("tar", "the archive is a tar", "is damaged, or no zip at all"),
    ("parent", "a name with .. in it", "would be written outside of the folder"),
    ("absolute", "a name that begins with /", "would be written outside of the folder"),
    ("drive", "a name with a drive letter", "has a name that is not allowed"),
    ("backslash", "a name with backslashes", "has a name that is not allowed"),
    ("control_character", "a name with a line break", "has a name that is not allowed"),
    ("symlink", "a symbolic link", "is a link"),
    ("device", "a device", "is a device or another special file"),
    ("fifo", "a named pipe", "is a device or another special file"),
    ("encrypted", "a file under a password", "is encrypted"),
    ("odd_method", "a file packed by another method", "is packed by a method that is not allowed"),
    ("duplicate", "one name twice", "is there twice"),
    ("same_but_for_case", "two names that differ in case only", "is there twice"),
    ("file_and_folder", "a file and a folder of one name", "is a file and a folder"),
    ("bomb", "a file that unpacks to a thousand times its size", "it is no clip"),
    ("bomb_of_many", "many small files that do", "times its size: it is no archive of clips"),
    ("too_many", "too many files", "entries; at most 100 were expected"),
    ("too_much", "too much in all", "bytes; at most"),
    ("lying_size", "a file larger than it says", "is damaged, or no zip at all"),
    ("other_folders", "another archive", "holds none of the folders audiocaps, tango2"),
    ("in_the_way", "the folder is there already", "is there already; move it away"),
    ("no_room_to_unpack", "too little room to unpack", "Make room, or choose another place"),
    ("full_while_unpacking", "the disk fills up while unpacking", "the disk is full"),
]
CONTENT = bytes(range(256)) * 200
TOP = ("audiocaps", "tango2")
LIMITS = Limits(n_files=100, n_bytes=100_000_000)
_BREAK = {}


def breaks(function):
    """A case: a function of (folder, monkeypatch) that does what the user did."""
    _BREAK[function.__name__] = function
    return function


@pytest.mark.parametrize(("case", "what", "message"), CASES, ids=[case for case, *_ in CASES])
def test_the_user_is_told(tmp_path, monkeypatch, case, what, message):
    (tmp_path / "beside").write_text("untouched")
    with pytest.raises(download.DownloadError) as error:
        _BREAK[case](tmp_path, monkeypatch)
    monkeypatch.undo()
    text = str(error.value)
    assert message in text
    assert "\n" not in text
    left = {path.name for path in tmp_path.iterdir()}
    assert not any("unpacking" in name for name in left)
    if case not in ("in_the_way", "edited_file", "changed_later"):
        assert not (tmp_path / "file").exists() and not (tmp_path / "RELATE_wave").exists()
    assert (tmp_path / "beside").read_text() == "untouched"
    assert not (tmp_path.parent / "evil.wav").exists() and not Path("/evil.wav").exists()


def test_each_case_is_there_once():
    assert sorted(_BREAK) == sorted(case for case, *_ in CASES)


# --- downloads ------------------------------------------------------------------------------------------


def _get(folder, url, sha256=None, limit_bytes=None, attempts=3):
    patience = download.Patience(attempts=attempts, timeout_seconds=0.3, sleep=lambda seconds: None)
    return transfer.transfer(url, folder / "file", sha256, patience, limit_bytes, progress=False)


def _serve(folder, sha256=None, limit_bytes=None, **settings):
    with serving(file=Page(settings.pop("content", CONTENT), **settings)) as served:
        _get(folder, f"{served.url}/file", sha256, limit_bytes)


@breaks
def wrong_checksum(folder, _):
    _serve(folder, sha256="0" * 64)


@breaks
def not_found(folder, _):
    with serving() as served:
        _get(folder, f"{served.url}/file")


@breaks
def forbidden(folder, _):
    _serve(folder, script=[("status", 403, {})])


@breaks
def server_error(folder, _):
    _serve(folder, script=[("status", 500, {})] * 3)


@breaks
def cut_connection(folder, _):
    _serve(folder, script=[1000, 0, 0])


@breaks
def stalled(folder, _):
    _serve(folder, script=[1.0] * 3)


@breaks
def no_server(folder, _):
    _get(folder, "http://127.0.0.1:9/file")


@breaks
def no_http(folder, _):
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer():
            for _ in range(3):
                connection, _ = listening.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"what?\r\n\r\n")

        Thread(target=answer, daemon=True).start()
        _get(folder, f"http://127.0.0.1:{listening.getsockname()[1]}/file")


@breaks
def untrusted(folder, monkeypatch):
    class Opener:
        def open(self, request, timeout):
            error = ssl.SSLCertVerificationError(1, "certificate verify failed")
            error.verify_message = "self-signed certificate"
            raise urllib.error.URLError(error)

    monkeypatch.setattr(transfer, "_opener", Opener)
    _get(folder, "https://127.0.0.1/file")


@breaks
def downgraded(folder, monkeypatch):
    """The redirection itself is followed by urllib; only what it is asked to follow is made up here."""

    class Opener:
        def open(self, request, timeout):
            transfer._SameSafety().redirect_request(request, None, 302, "Found", {}, "http://127.0.0.1/file")

    monkeypatch.setattr(transfer, "_opener", Opener)
    _get(folder, "https://127.0.0.1/file")


@breaks
def too_large(folder, _):
    _serve(folder, limit_bytes=100_000, content=CONTENT * 3)


@breaks
def endless(folder, _):
    _serve(folder, limit_bytes=100_000, content=CONTENT * 3, says_length=False)


@breaks
def never_matching_part(folder, monkeypatch):
    with serving(file=Page(CONTENT, script=[1000], heeds_if_range=False)) as served:
        counted = iter(range(1000))
        monkeypatch.setattr(Page, "etag", property(lambda page: f'"{next(counted)}"', lambda page, value: None))
        _get(folder, f"{served.url}/file", attempts=2)


@breaks
def no_room(folder, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: type("Usage", (), {"free": 1000})())
    _serve(folder)


@breaks
def full_disk(folder, _):
    (folder / "file.part").symlink_to("/dev/full")  # a device that is always full
    _serve(folder)


@breaks
def edited_file(folder, _):
    target = folder / "relate" / "scores" / "REL.csv"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"edited")
    web.fetch_web(sources.REL, folder, progress=False)


@breaks
def changed_later(folder, _):
    piece = sources.WebFile("http://127.0.0.1:9/file", "file")
    (folder / "relate").mkdir()
    for content in (b"first", b"then another"):
        (folder / "relate" / "file").write_bytes(content)
        web.fetch_web(piece, folder, progress=False)


@breaks
def login_page(folder, _):
    with serving(file=Page(b"<html>Please log in</html>")) as served:
        piece = sources.WebFile(f"{served.url}/file", "attributes.csv", begins=b"listener_id,")
        try:
            web.fetch_web(piece, folder, progress=False)
        finally:
            assert not (folder / "relate" / "humanclap-manifest").exists()  # not taken for the first use


# --- archives -------------------------------------------------------------------------------------------


def _unpack(folder, limits=LIMITS):
    unpack(folder / "made.zip", folder / "RELATE_wave", TOP, limits, progress=False)


def _make(folder, *entries, method=zipfile.ZIP_DEFLATED):
    """A zip with one good clip and `entries`, names or (ZipInfo, content)."""
    with zipfile.ZipFile(folder / "made.zip", "w", method) as file:
        file.writestr("audiocaps/train/1.wav", bytes(range(256)) * 4)
        for entry in entries:
            name, content = entry if isinstance(entry, tuple) else (entry, b"evil")
            file.writestr(name, content)


def _patched(folder, at: bytes, offset: int, new: bytes, last=True):
    """Overwrite bytes of the last (or first) record that begins with `at`."""
    data = bytearray((folder / "made.zip").read_bytes())
    place = (data.rindex(at) if last else data.index(at)) + offset
    data[place : place + len(new)] = new
    (folder / "made.zip").write_bytes(data)


def _special(folder, kind):
    info = zipfile.ZipInfo("audiocaps/train/evil.wav")
    info.create_system = 3  # Unix
    info.external_attr = (kind | 0o777) << 16
    _make(folder, (info, b"/etc/passwd"))
    _unpack(folder)


@breaks
def no_zip(folder, _):
    (folder / "made.zip").write_text("<html>Not what you asked for</html>" * 100)
    _unpack(folder)


@breaks
def truncated_zip(folder, _):
    _make(folder)
    (folder / "made.zip").write_bytes((folder / "made.zip").read_bytes()[:-40])
    _unpack(folder)


@breaks
def damaged_zip(folder, _):
    _make(folder, ("tango2/test/2.wav", bytes(1000)), method=zipfile.ZIP_STORED)
    _patched(folder, bytes(100), 50, b"\x01")
    _unpack(folder)


@breaks
def tar(folder, _):
    with tarfile.open(folder / "made.zip", "w:gz") as file:
        file.add(folder / "beside", "audiocaps/train/1.wav")
    _unpack(folder)


@breaks
def parent(folder, _):
    _make(folder, "audiocaps/../../evil.wav")
    _unpack(folder)


@breaks
def absolute(folder, _):
    _make(folder, "/evil.wav")
    _unpack(folder)


@breaks
def drive(folder, _):
    _make(folder, "C:/evil.wav")
    _unpack(folder)


@breaks
def backslash(folder, _):
    _make(folder, "audiocaps\\..\\..\\evil.wav")
    _unpack(folder)


@breaks
def control_character(folder, _):
    _make(folder, "audiocaps/evil\n.wav")
    _unpack(folder)


@breaks
def symlink(folder, _):
    _special(folder, stat.S_IFLNK)


@breaks
def device(folder, _):
    _special(folder, stat.S_IFBLK)


@breaks
def fifo(folder, _):
    _special(folder, stat.S_IFIFO)


@breaks
def encrypted(folder, _):
    _make(folder, "audiocaps/train/2.wav")
    _patched(folder, b"PK\x01\x02", 8, struct.pack("<H", 1))
    _unpack(folder)


@breaks
def odd_method(folder, _):
    _make(folder, "audiocaps/train/2.wav", method=zipfile.ZIP_LZMA)
    _unpack(folder)


@breaks
def duplicate(folder, _):
    with pytest.warns(UserWarning, match="Duplicate name"):
        _make(folder, "audiocaps/train/1.wav")
    _unpack(folder)


@breaks
def same_but_for_case(folder, _):
    _make(folder, "audiocaps/TRAIN/1.wav")
    _unpack(folder)


@breaks
def file_and_folder(folder, _):
    _make(folder, "audiocaps/train")
    _unpack(folder)


@breaks
def bomb(folder, _):
    _make(folder, ("audiocaps/train/2.wav", bytes(20_000_000)))
    _unpack(folder)


@breaks
def bomb_of_many(folder, _):
    _make(folder, *((f"audiocaps/train/{i + 2}.wav", bytes(1_000_000)) for i in range(40)))
    _unpack(folder)


@breaks
def too_many(folder, _):
    _make(folder, *(f"audiocaps/train/{i + 2}.wav" for i in range(100)))
    _unpack(folder)


@breaks
def too_much(folder, _):
    _make(folder, "audiocaps/train/2.wav")
    _unpack(folder, Limits(n_bytes=1000))


@breaks
def lying_size(folder, _):
    """The table of contents says 10 bytes; 1,000 are packed."""
    _make(folder, ("audiocaps/train/2.wav", bytes(1000)))
    _patched(folder, b"PK\x01\x02", 24, struct.pack("<L", 10))
    _unpack(folder)


@breaks
def other_folders(folder, _):
    with zipfile.ZipFile(folder / "made.zip", "w") as file:
        file.writestr("music/1.wav", b"la la la")
    _unpack(folder)


@breaks
def in_the_way(folder, _):
    _make(folder)
    (folder / "RELATE_wave").mkdir()
    _unpack(folder)


@breaks
def no_room_to_unpack(folder, monkeypatch):
    _make(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: type("Usage", (), {"free": 1000})())
    _unpack(folder)


@breaks
def full_while_unpacking(folder, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    _make(folder)
    monkeypatch.setattr(archive.shutil, "copyfileobj", full)
    _unpack(folder)


# --- and what is not broken -----------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "RELATE_wave/", "some other name/"])
def test_a_good_archive_is_unpacked_whole_with_silence_in_it(tmp_path, below):
    silence = {f"tango2/test/{i}.wav": bytes(320_000) for i in range(3)}
    clips = {"audiocaps/train/1.wav": bytes(range(256)) * 4000, "tango2/train/ä.wav": b"x", **silence}
    with zipfile.ZipFile(tmp_path / "made.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.mkdir(f"{below}audiocaps")
        for name, content in clips.items():
            file.writestr(f"{below}{name}", content)
        if below:
            file.writestr("__MACOSX/._x", b"")
    target = unpack(tmp_path / "made.zip", tmp_path / "RELATE_wave", TOP, progress=False)
    found = {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()}
    assert found == clips
    assert {path.name for path in tmp_path.iterdir()} == {"made.zip", "RELATE_wave"}
    modes = {stat.S_IMODE(path.stat().st_mode) & 0o111 for path in target.rglob("*") if path.is_file()}
    assert modes == {0}  # nothing is made executable


def test_killed_while_unpacking_leaves_nothing_that_looks_whole(tmp_path):
    clips = {f"audiocaps/train/{i}.wav": hashlib.sha256(bytes([i])).digest() * 100 for i in range(60)}
    with zipfile.ZipFile(tmp_path / "made.zip", "w") as file:
        for name, content in clips.items():
            file.writestr(name, content)
    code = (
        "import sys, time; from pathlib import Path; from humanclap.download import archive\n"
        "copy = archive.shutil.copyfileobj\n"
        "archive.shutil.copyfileobj = lambda *a: (copy(*a), time.sleep(0.05))\n"
        "archive.unpack(Path(sys.argv[1]), Path(sys.argv[2]), ('audiocaps',), progress=False)"
    )
    target, staging = tmp_path / "RELATE_wave", tmp_path / ".RELATE_wave.unpacking"
    run = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "made.zip"), str(target)])
    until = time.monotonic() + 60
    while not list(staging.rglob("*.wav"))[3:] and time.monotonic() < until:
        time.sleep(0.01)
    run.kill()
    run.wait(timeout=60)
    assert 3 < len(list(staging.rglob("*.wav"))) < len(clips) and not target.exists()
    unpack(tmp_path / "made.zip", target, TOP, progress=False)
    assert {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*.wav")} == clips
    assert not staging.exists()
