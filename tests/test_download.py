"""Downloads from a server on this machine: resumed to the right bytes, checked, bounded; what is here; the command."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from download_server import Page, serving

from humanclap import cli, download
from humanclap.download import pieces, sources
from humanclap.download.disk import human_size
from humanclap.download.sources import Source, WebArchive, WebFile
from humanclap.download.transfer import transfer

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def waits():
    """Seconds waited between attempts; none of them really."""
    return []


@pytest.fixture
def patience(waits):
    return download.Patience(attempts=3, timeout_seconds=5, sleep=waits.append)


@pytest.fixture
def get(tmp_path, patience):
    """Transfer a page to a file, and return the path."""

    def run(served, path="/file", **settings):
        settings = {"patience": patience, "progress": False} | settings
        return transfer(served.url + path, tmp_path / "there" / "file", **settings)

    return run


def _left(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


# --- one file -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sha256", [SHA256, None], ids=["checked", "unchecked"])
def test_cut_anywhere_and_resumed_to_the_right_bytes(tmp_path, get, seed, sha256):
    cuts = np.random.default_rng(seed).integers(1, len(CONTENT) // 8, size=6).tolist()
    with serving(file=Page(CONTENT, script=list(cuts))) as served:
        assert get(served, sha256=sha256).read_bytes() == CONTENT
    starts = np.cumsum([0, *cuts])
    assert served.ranges("/file") == [None, *(f"bytes={start}-" for start in starts[1:])]
    assert _left(tmp_path / "there") == ["file"]
    conditions = [headers.get("If-Range") for _, _, headers in served.requests]
    assert conditions == [None] + ['"v1"'] * 6


def test_a_part_is_continued_by_the_next_call(tmp_path, get, waits):
    page = Page(CONTENT, script=[1000, 0, 0, 0])
    with serving(file=page) as served:
        with pytest.raises(download.DownloadError, match=r"given up after 3 attempt.*1\.0 kB are kept in .*file\.part"):
            get(served)
        assert waits == [1, 2]
        assert _left(tmp_path / "there") == ["file.part", "file.part.json"]
        page.script.clear()
        assert get(served).read_bytes() == CONTENT
    assert served.ranges("/file")[-1] == "bytes=1000-"


def test_a_server_without_ranges_sends_all_of_it_again(get):
    with serving(file=Page(CONTENT, knows_ranges=False, script=[70_000])) as served:
        assert get(served).read_bytes() == CONTENT
    assert served.ranges("/file") == [None, "bytes=70000-"]


def test_a_server_that_vouches_for_nothing_is_asked_for_all_unless_a_checksum_tells(tmp_path, get):
    for sha256, second in ((None, None), (SHA256, "bytes=70000-")):
        with serving(file=Page(CONTENT, etag=None, script=[70_000])) as served:
            assert get(served, sha256=sha256).read_bytes() == CONTENT
        assert served.ranges("/file") == [None, second]
        shutil.rmtree(tmp_path / "there")


@pytest.mark.parametrize("weak", ['W/"v1"', None])
def test_without_a_strong_etag_the_date_of_change_vouches(get, weak):
    date = "Tue, 01 Jul 2025 00:00:00 GMT"
    with serving(file=Page(CONTENT, etag=weak, last_modified=date, heeds_if_range=False, script=[70_000])) as served:
        assert get(served).read_bytes() == CONTENT
    assert [headers.get("If-Range") for _, _, headers in served.requests] == [None, date]


@pytest.mark.parametrize("heeds", [True, False])
def test_a_file_that_changed_between_two_parts_is_fetched_anew(get, heeds):
    page = Page(CONTENT, script=[70_000, 0, 0])
    changed = CONTENT[::-1]
    with serving(file=page) as served:
        with pytest.raises(download.DownloadError):
            get(served)
        page.content, page.etag, page.heeds_if_range, page.script = changed, '"v2"', heeds, []
        assert get(served).read_bytes() == changed


def test_a_part_of_another_address_is_not_continued(get):
    with serving(file=Page(CONTENT, script=[70_000, 0, 0]), other=Page(CONTENT[::-1])) as served:
        with pytest.raises(download.DownloadError):
            get(served)
        assert get(served, "/other").read_bytes() == CONTENT[::-1]
    assert served.ranges("/other") == [None]


def test_a_part_with_a_wrong_beginning_is_begun_again_once(tmp_path, get):
    with serving(file=Page(CONTENT, script=[70_000, 0, 0])) as served:
        with pytest.raises(download.DownloadError):
            get(served, sha256=SHA256)
        (tmp_path / "there" / "file.part").write_bytes(b"x" * 70_000)
        assert get(served, sha256=SHA256).read_bytes() == CONTENT
    assert served.ranges("/file")[-2:] == ["bytes=70000-", None]


def test_a_part_that_is_whole_is_asked_for_no_more(tmp_path, get):
    with serving(file=Page(CONTENT, script=[70_000, 0, 0])) as served:
        with pytest.raises(download.DownloadError):
            get(served)
        (tmp_path / "there" / "file.part").write_bytes(CONTENT)
        assert get(served).read_bytes() == CONTENT
    assert served.ranges("/file")[-1] == f"bytes={len(CONTENT)}-"


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b'{"url": 1}'])
def test_a_part_whose_note_is_damaged_is_begun_again(tmp_path, get, note):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file.part").write_bytes(b"x" * 1000)
    (tmp_path / "there" / "file.part.json").write_bytes(note)
    with serving(file=Page(CONTENT)) as served:
        assert get(served).read_bytes() == CONTENT
    assert served.ranges("/file") == [None]


def test_no_length_and_no_bytes_at_all(tmp_path, get):
    with serving(file=Page(CONTENT, says_length=False)) as served:
        assert get(served, sha256=SHA256).read_bytes() == CONTENT
    with serving(file=Page(b"")) as served:
        assert transfer(f"{served.url}/file", tmp_path / "empty", progress=False).read_bytes() == b""


def test_a_part_of_unknown_length_is_continued_once_the_length_is_said(tmp_path, get):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file.part").write_bytes(CONTENT[:70_000])
    with serving(file=Page(CONTENT)) as served:
        note = {"url": f"{served.url}/file", "validator": '"v1"', "total": None}
        (tmp_path / "there" / "file.part.json").write_text(json.dumps(note))
        assert get(served).read_bytes() == CONTENT
    assert served.ranges("/file") == ["bytes=70000-"]


def test_an_error_that_passes_is_waited_out_as_long_as_the_server_asks(get, waits):
    errors = [("status", 500, {}), ("status", 503, {"Retry-After": "7"})]
    with serving(file=Page(CONTENT, script=errors)) as served:
        assert get(served).read_bytes() == CONTENT
    assert waits == [1, 7]


def test_attempts_are_bounded_even_if_every_one_brings_a_little(get, waits):
    with serving(file=Page(CONTENT, script=[1] * 1000)) as served:
        with pytest.raises(download.DownloadError, match="given up after 60 attempt"):
            get(served)
    assert len(served.requests) == 60 and set(waits) == {1.0}


def test_a_slow_server_is_left_and_asked_again(get):
    patience = download.Patience(attempts=2, timeout_seconds=0.2, sleep=lambda seconds: None)
    with serving(file=Page(CONTENT, script=[1.0])) as served:
        assert get(served, patience=patience).read_bytes() == CONTENT
    assert len(served.requests) == 2


def test_a_deadline_is_for_all_of_it(get):
    patience = download.Patience(deadline_seconds=0.2)
    with serving(file=Page(CONTENT, pause=0.05)) as served:
        with pytest.raises(download.DownloadError, match="not there after 0.2 s"):
            get(served, patience=patience)


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY"])
def test_the_proxy_of_the_environment_is_asked(tmp_path, get, monkeypatch, name):
    with serving(file=Page(CONTENT)) as proxy, serving(direct=Page(b"direct")) as direct:
        monkeypatch.setenv(name, proxy.url)
        assert get(replace(proxy, url="http://data.example.invalid")).read_bytes() == CONTENT
        assert proxy.requests[0][1] == "http://data.example.invalid/file"
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert transfer(f"{direct.url}/direct", tmp_path / "direct", progress=False).read_bytes() == b"direct"
    assert len(proxy.requests) == 1


def test_too_little_room_is_said_before_a_byte_is_fetched(tmp_path, get, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: _Usage(60_000_000))
    with serving(file=Page(CONTENT)) as served:
        assert get(served).read_bytes() == CONTENT  # 300 kB, and 50 MB to spare
        (tmp_path / "there" / "file").unlink()
        message = r"needs 20\.3 MB \(and 50\.0 MB to spare\).* has 60\.0 MB free"
        with pytest.raises(download.DownloadError, match=message):
            get(served, room=lambda total: total + 20_000_000)
    assert "file.part" not in _left(tmp_path / "there")


class _Usage:
    def __init__(self, free):
        self.free = free


class _FullAfter:
    """A file on a disk that fills up after so many bytes."""

    def __init__(self, file, n_bytes):
        self._file, self._left = file, n_bytes

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def __getattr__(self, name):
        return getattr(self._file, name)

    def write(self, block):
        self._left -= len(block)
        if self._left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._file.write(block)


def test_a_disk_that_fills_up_leaves_a_part_to_go_on_with(tmp_path, get, monkeypatch, waits):
    opened = Path.open

    def full(path, mode="r", *args, **kwargs):
        file = opened(path, mode, *args, **kwargs)
        return _FullAfter(file, 100_000) if path.name == "file.part" and "b" in mode else file

    with serving(file=Page(CONTENT, pause=0.0001)) as served:
        with monkeypatch.context() as patched:
            patched.setattr(Path, "open", full)
            with pytest.raises(download.DownloadError, match="the disk is full at .*there; .* kept in .*file.part"):
                get(served)
        assert waits == []  # waiting makes no room
        assert 0 < (tmp_path / "there" / "file.part").stat().st_size <= 100_000
        assert get(served, sha256=SHA256).read_bytes() == CONTENT


def test_two_processes_do_not_write_one_part(tmp_path):
    """Both get the whole file; the second waits for the first and asks for nothing."""
    code = (
        "import sys; from pathlib import Path; from humanclap.download.transfer import transfer; "
        "transfer(sys.argv[1], Path(sys.argv[2]), progress=False)"
    )
    with serving(file=Page(CONTENT, pause=0.001)) as served:
        run = [sys.executable, "-c", code, f"{served.url}/file", str(tmp_path / "file")]
        both = [subprocess.Popen(run) for _ in range(2)]
        assert [one.wait(timeout=60) for one in both] == [0, 0]
    assert (tmp_path / "file").read_bytes() == CONTENT and len(served.requests) == 1
    assert _left(tmp_path) == ["file"]


def test_sizes_are_for_people():
    assert [human_size(n) for n in (None, 12, 3400, 3_400_000, 1_863_587_645)] == [
        "unknown", "12 B", "3.4 kB", "3.4 MB", "1.86 GB",
    ]  # fmt: skip


# --- RELATE ---------------------------------------------------------------------------------------------

NAMES = [f"{system}/{split}/{i}.wav" for i, system in enumerate(("audiocaps", "tango2")) for split in ("train", "test")]
REL = ("wavname,text\n" + "".join(f"/{name},A dog barks\n" for name in NAMES)).encode()
ATTRIBUTES = b"listener_id,question1\n0000,6\n"


def _zip(path: Path, names=NAMES, below="RELATE_wave/") -> bytes:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name in names:
            file.writestr(f"{below}{name}", f"sound of {name}")
    return path.read_bytes()


@pytest.fixture
def relate(tmp_path, monkeypatch, patience):
    """A server with a small RELATE, SOURCES that point to it, and an empty data folder."""
    monkeypatch.delenv("HUMANCLAP_RELATE", raising=False)
    monkeypatch.setenv("HUMANCLAP_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    pages = {"REL": Page(REL), "attributes": Page(ATTRIBUTES), "zip": Page(_zip(tmp_path / "made.zip"))}
    with serving(**pages) as served:
        rel = WebFile(f"{served.url}/REL", "scores/REL.csv", "r1", hashlib.sha256(REL).hexdigest())
        attributes = WebFile(f"{served.url}/attributes", "listener_attributes/REL.csv", "r1")
        audio = WebArchive(f"{served.url}/zip", "RELATE_wave.zip", folder="RELATE_wave", about_unpacked_bytes=1000)
        small = {
            "relate": Source("relate", "", {"": sources.NONE_STATED}, (rel, attributes)),
            "relate-audio": Source("relate-audio", "", {"": sources.NONE_STATED}, (rel, audio)),
        }
        monkeypatch.setattr(pieces, "SOURCES", small)
        monkeypatch.setattr(download, "SOURCES", small)
        yield served


@pytest.fixture
def fetch(patience):
    def run(name, folder=None, **settings):
        return download.fetch(name, folder, patience=patience, progress=False, **settings)

    return run


def test_all_is_fetched_once_and_then_only_checked(tmp_path, relate, fetch):
    assert set(download.status()["state"]) == {"missing"} and _left(tmp_path / "data") == []
    table = fetch("all")
    assert list(table.columns) == pieces.COLUMNS
    assert table["state"].tolist() == ["here"] * 4 and not table["command"].any()
    assert table["note"].iloc[-1] == "all 4 clips that REL.csv names"
    folder = tmp_path / "data" / "relate"
    assert (folder / "RELATE_wave" / NAMES[0]).read_text() == f"sound of {NAMES[0]}"
    assert not (folder / "RELATE_wave.zip").exists()
    n_requests = len(relate.requests)
    fetch("all")
    assert len(relate.requests) == n_requests
    assert download.relate_folder() == folder


def test_status_names_the_command_for_each_missing_piece(relate, tmp_path):
    table = download.status()
    assert table["command"].tolist() == ["humanclap fetch relate"] * 2 + ["humanclap fetch relate-audio"] * 2
    table = download.status("relate", tmp_path / "elsewhere")
    assert set(table["command"]) == {f"humanclap fetch relate --to {tmp_path / 'elsewhere'}"}
    assert not (tmp_path / "elsewhere").exists()


def test_to_another_folder(relate, fetch, tmp_path, monkeypatch):
    fetch("relate", tmp_path / "disk")
    assert (tmp_path / "disk" / "relate" / "scores" / "REL.csv").read_bytes() == REL
    monkeypatch.setenv("HUMANCLAP_DATA", str(tmp_path / "disk"))
    assert download.status("relate")["state"].tolist() == ["here", "here"]


def test_the_first_use_of_a_file_without_a_checksum_is_held_to(relate, fetch, tmp_path):
    fetch("relate")
    path = tmp_path / "data" / "relate" / "listener_attributes" / "REL.csv"
    path.write_bytes(b"edited")
    assert download.status("relate")["state"].tolist() == ["here", "other"]
    with pytest.raises(download.DownloadError, match="not what it was at its first use.*remove"):
        fetch("relate")


def test_files_brought_by_hand_count(relate, fetch, tmp_path, monkeypatch):
    """In HUMANCLAP_RELATE, or in HUMANCLAP_DATA/relate; the archive, too; nothing is asked of the server."""
    for folder in (tmp_path / "data" / "relate", tmp_path / "mine"):
        (folder / "scores").mkdir(parents=True)
        (folder / "scores" / "REL.csv").write_bytes(REL)
        (folder / "listener_attributes").mkdir()
        (folder / "listener_attributes" / "REL.csv").write_bytes(ATTRIBUTES)
        _zip(folder / "RELATE_wave.zip", below="")
        if folder.name == "mine":
            monkeypatch.setenv("HUMANCLAP_RELATE", str(folder))
        assert download.relate_folder() == folder
        assert download.status()["state"].tolist() == ["here", "here", "here", "incomplete"]
        assert set(fetch("all", keep_archive=True)["state"]) == {"here"}
        assert (folder / "RELATE_wave.zip").exists()
    assert relate.requests == []


def test_clips_that_are_not_there_are_counted(relate, fetch, tmp_path, caplog):
    relate.pages["/zip"].content = _zip(tmp_path / "less.zip", NAMES[:-1])
    table = fetch("relate-audio")
    assert table["state"].tolist() == ["here", "incomplete"]
    assert table["note"].iloc[-1] == "1 of 4 clips that REL.csv names are not there"
    assert "1 of the 4 clips that REL.csv names are not in it" in caplog.text
    with pytest.raises(download.DownloadError, match="1 of the 4 clips .* are not. Add them, or move the folder away"):
        fetch("relate-audio")


def test_an_archive_that_cannot_be_unpacked_is_not_held_to(relate, fetch, tmp_path):
    good = relate.pages["/zip"].content
    relate.pages["/zip"].content = good[:-30]
    with pytest.raises(download.DownloadError, match="damaged"):
        fetch("relate-audio")
    folder = tmp_path / "data" / "relate"
    assert not (folder / "RELATE_wave").exists() and not (folder / "humanclap-manifest").exists()
    (folder / "RELATE_wave.zip").unlink()
    relate.pages["/zip"].content = good
    assert set(fetch("relate-audio")["state"]) == {"here"}


def test_one_piece_that_fails_does_not_keep_the_others(relate, fetch, tmp_path):
    relate.pages.pop("/REL")
    with pytest.raises(download.DownloadError, match="^scores/REL.csv: .*404") as error:
        fetch("relate")
    assert str(error.value).count("\n") == 0
    assert download.status("relate")["state"].tolist() == ["missing", "here"]


def test_where_no_server_answers_it_is_tried_patiently_once(relate, fetch, waits, monkeypatch):
    dead = {
        name: replace(source, pieces=tuple(replace(p, url="http://127.0.0.1:9/x") for p in source.pieces))
        for name, source in pieces.SOURCES.items()
    }
    monkeypatch.setattr(pieces, "SOURCES", dead)
    with pytest.raises(download.DownloadError, match="refused"):
        fetch("all")
    assert waits == [1, 2]


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="no 'music' to fetch. Available: relate, relate-audio, laion, msclap, human-"):
        download.fetch("music")


def test_every_file_is_pinned_or_recorded_and_has_a_licence_or_none_stated():
    table = download.listing()
    assert len(table) == len(download.status()) and table.notna().all(axis=None)
    assert (table["sha256"].str.fullmatch("[0-9a-f]{64}|recorded on first use")).all()
    assert (table["revision"].str.fullmatch("[0-9a-f]{40}|recorded on first use|none")).all()
    assert set(table.loc[table["source"].str.startswith("relate"), "licence"]) == {"none stated"}


def test_the_pinned_checksums_are_those_of_the_real_files(whole_relate_root, monkeypatch):
    monkeypatch.setenv("HUMANCLAP_RELATE", str(whole_relate_root))
    assert set(download.status("relate")["state"]) == {"here"}


# --- the command ----------------------------------------------------------------------------------------


def test_the_command_prints_what_is_where_and_only_that(relate, tmp_path, capsys):
    assert cli.main(["fetch", "relate"]) == 0
    captured = capsys.readouterr()
    place = tmp_path / "data" / "relate"
    assert captured.out == (
        f"scores/REL.csv: {place}/scores/REL.csv\nlistener_attributes/REL.csv: {place}/listener_attributes/REL.csv\n"
    )
    assert "100%" in captured.err  # the bars
    assert cli.main(["fetch", "relate", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_the_command_says_what_failed_and_returns_1(relate, capsys):
    relate.pages.clear()
    assert cli.main(["fetch", "relate", "--quiet"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("humanclap fetch: error: ") == 2 and "404" in captured.err


def test_the_command_lists_and_refuses(capsys):
    assert cli.main(["fetch", "--list"]) == 0
    text = capsys.readouterr().out
    assert "RELATE_wave.zip" in text and "licence: none stated" in text and "1.86 GB" in text
    assert cli.main(["fetch", "xacle"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and "ask dataset@xacle.org" in captured.err
    for mistake in (["fetch"], ["fetch", "music"]):
        assert cli.main(mistake) == 2
        assert "relate-audio" in capsys.readouterr().err


def test_ctrl_c_leaves_a_part_and_the_same_command_goes_on(tmp_path):
    code = (
        "import sys; from humanclap import cli, download; from humanclap.download import pieces, sources\n"
        "file = sources.WebFile(sys.argv[1], 'scores/REL.csv')\n"
        "pieces.SOURCES = {'relate': sources.Source('relate', '', {'': ''}, (file,))}\n"
        "sys.exit(cli.main(['fetch', 'relate', '--quiet', '--to', sys.argv[2]]))"
    )
    page = Page(CONTENT, pause=0.02)
    with serving(file=page) as served:
        run = [sys.executable, "-c", code, f"{served.url}/file", str(tmp_path)]
        command = subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        part = tmp_path / "relate" / "scores" / "REL.csv.part"
        until = time.monotonic() + 60
        while not (part.is_file() and part.stat().st_size) and time.monotonic() < until:
            time.sleep(0.01)
        command.send_signal(signal.SIGINT)
        out, err = command.communicate(timeout=60)
        assert (command.returncode, out, err) == (130, "", "humanclap fetch: stopped\n")
        size = part.stat().st_size
        assert 0 < size < len(CONTENT)
        page.pause = 0
        assert subprocess.run(run, capture_output=True, timeout=60).returncode == 0
    assert part.with_suffix("").read_bytes() == CONTENT
    assert served.ranges("/file") == [None, f"bytes={size}-"]


def test_the_page_in_the_docs_names_every_file_with_its_checksum_revision_size_and_licence():
    page = (Path(__file__).resolve().parent.parent / "docs" / "data.md").read_text(encoding="utf-8")
    for source in sources.SOURCES.values():
        assert f"humanclap fetch {source.name}" in page
        for piece in source.pieces:
            name = Path(piece.place).name if isinstance(piece, WebFile) else piece.place.partition(" ")[0]
            assert f"{name}`" in page or f"`{name}" in page, name
            for pinned in (piece.revision, piece.sha256):
                assert pinned is None or pinned[:12] in page
            if getattr(piece, "n_bytes", None):
                assert f"{piece.n_bytes:,} B" in page
            assert source.licence(piece).replace("see the", "see its") in page
