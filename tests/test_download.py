"""RELATE's files from a server on this machine: whole or not at all, checked; what is here; the command."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from download_server import Page, serving

from humanclap import cli, download
from humanclap.download import REL, WebFile, web_file
from humanclap.models import HubFiles

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAMES = [f"{system}/{split}/{i}.wav" for i, system in enumerate(("audiocaps", "tango2")) for split in ("train", "test")]
RATINGS = ("wavname,text\n" + "".join(f"/{name},A dog barks\n" for name in NAMES)).encode()


def _zip(path: Path, names=NAMES, below="RELATE_wave/") -> bytes:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name in names:
            file.writestr(f"{below}{name}", f"sound of {name}")
    return path.read_bytes()


@pytest.fixture
def relate(tmp_path, monkeypatch):
    """A server with a small RELATE, SOURCES that point to it, and an empty data folder."""
    monkeypatch.delenv("HUMANCLAP_RELATE", raising=False)
    monkeypatch.setenv("HUMANCLAP_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    attributes = Page(b"listener_id,question1\n0000,6\n")
    with serving(REL=Page(RATINGS), attributes=attributes, zip=Page(_zip(tmp_path / "made.zip"))) as served:
        rel = WebFile(f"{served.url}/REL", "scores/REL.csv", hashlib.sha256(RATINGS).hexdigest())
        answers = WebFile(f"{served.url}/attributes", "listener_attributes/REL.csv")
        audio = WebFile(f"{served.url}/zip", "RELATE_wave.zip", folder="RELATE_wave", unpacked_bytes=1000)
        monkeypatch.setattr(download, "SOURCES", {"relate": (rel, answers), "relate-audio": (rel, audio)})
        yield served


# --- one file -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [Page(CONTENT), Page(CONTENT, says_length=False)], ids=["length", "no length"])
def test_a_file_arrives_whole_readable_by_others_and_is_asked_for_once(tmp_path, page):
    before = os.umask(0o022)
    try:
        with serving(file=page) as served:
            for _ in range(2):
                path = web_file(WebFile(f"{served.url}/file", "file", SHA256), tmp_path / "file", progress=False)
    finally:
        os.umask(before)
    assert path.read_bytes() == CONTENT and served.requests == [("GET", "/file")]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [file.name for file in tmp_path.iterdir() if not file.name.endswith(".lock")] == ["file"]


def test_two_processes_fetch_it_once(tmp_path):
    code = (
        "import sys; from pathlib import Path; from humanclap.download import WebFile, web_file; "
        "web_file(WebFile(sys.argv[1], 'file'), Path(sys.argv[2]), progress=False)"
    )
    with serving(file=Page(CONTENT, pause=0.001)) as served:
        run = [sys.executable, "-c", code, f"{served.url}/file", str(tmp_path / "file")]
        both = [subprocess.Popen(run) for _ in range(2)]
        assert [one.wait(timeout=60) for one in both] == [0, 0]
    assert (tmp_path / "file").read_bytes() == CONTENT and len(served.requests) == 1


def test_room_is_made_sure_of_before_anything_is_asked_for(tmp_path, monkeypatch):
    """For the file, for what will be unpacked from it, and 50 MB to spare."""
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=60_000_000))
    spec = WebFile("http://127.0.0.1:9/file", "file", about_bytes=300_000, folder="x", unpacked_bytes=20_000_000)
    with pytest.raises(download.DownloadError, match=r"needs 20\.3MB \(and 50\.0MB to spare\).* has 60\.0MB free"):
        web_file(spec, tmp_path / "file", progress=False)


# --- RELATE ---------------------------------------------------------------------------------------------


def test_all_is_fetched_once_and_then_only_checked(tmp_path, relate):
    before = download.status()
    assert set(before["state"]) == {"missing"} and list((tmp_path / "data").iterdir()) == []
    assert before["command"].tolist() == ["humanclap fetch relate"] * 2 + ["humanclap fetch relate-audio"] * 2
    table = download.fetch("all", progress=False)
    assert table["state"].tolist() == ["here"] * 4 and not table["command"].any()
    assert table["note"].iloc[-1] == "all 4 clips that REL.csv names"
    folder = tmp_path / "data" / "relate"
    assert (folder / "RELATE_wave" / NAMES[0]).read_text() == f"sound of {NAMES[0]}"
    assert not (folder / "RELATE_wave.zip").exists() and download.relate_folder() == folder
    n_requests = len(relate.requests)
    download.fetch("all", progress=False)
    assert len(relate.requests) == n_requests


def test_a_home_folder_is_expanded_in_every_place(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("HUMANCLAP_DATA", "HUMANCLAP_RELATE"):
        monkeypatch.setenv(variable, "~/mine")
    assert download.relate_folder() == tmp_path / "mine" and download.relate_folder("~/x") == tmp_path / "x" / "relate"
    assert download.weights_folder("a/b") == tmp_path / "mine" / "weights" / "a/b"


def test_files_copied_by_hand_count(relate, tmp_path, monkeypatch):
    """In HUMANCLAP_RELATE, or in HUMANCLAP_DATA/relate; the archive, too; nothing is asked of the server."""
    for folder in (tmp_path / "data" / "relate", tmp_path / "mine"):
        for name, content in (("scores/REL.csv", RATINGS), ("listener_attributes/REL.csv", b"listener_id,")):
            (folder / name).parent.mkdir(parents=True)
            (folder / name).write_bytes(content)
        _zip(folder / "RELATE_wave.zip", below="")
        if folder.name == "mine":
            monkeypatch.setenv("HUMANCLAP_RELATE", str(folder))
        assert download.status()["state"].tolist() == ["here", "here", "here", "incomplete"]
        assert set(download.fetch("all", progress=False, keep_archive=True)["state"]) == {"here"}
        assert (folder / "RELATE_wave.zip").exists()
    assert relate.requests == []


def test_clips_that_are_missing_are_counted(relate, tmp_path):
    relate.pages["/zip"].content = _zip(tmp_path / "less.zip", NAMES[:-1])
    for _ in range(2):
        with pytest.raises(download.DownloadError, match="1 of 4 clips that REL.csv names are not there. Add them, or"):
            download.fetch("relate-audio", progress=False)
    assert download.status("relate-audio")["state"].tolist() == ["here", "incomplete"]


def test_one_piece_that_fails_does_not_prevent_the_others(relate):
    relate.pages.pop("/REL")
    with pytest.raises(download.DownloadError, match="^scores/REL.csv: .*404.*wget -c") as error:
        download.fetch("relate", progress=False)
    assert str(error.value).count("\n") == 0
    assert download.status("relate")["state"].tolist() == ["missing", "here"]


def test_the_pinned_checksums_are_those_of_the_real_files(whole_relate_root, monkeypatch):
    monkeypatch.setenv("HUMANCLAP_RELATE", str(whole_relate_root))
    assert set(download.status("relate")["state"]) == {"here"}


# --- the demo's one file --------------------------------------------------------------------------------


def test_the_ratings_are_fetched_once_checked_and_waited_for_no_longer_than_the_limit(tmp_path, monkeypatch):
    with serving(file=Page(CONTENT)) as served:
        monkeypatch.setattr(download, "REL", replace(REL, url=f"{served.url}/file", sha256=SHA256))
        for _ in range(2):
            path = download.fetch_ratings(tmp_path)
            assert path == tmp_path / "scores" / "REL.csv" and path.read_bytes() == CONTENT
        assert len(served.requests) == 1
        path.write_bytes(b"edited")
        with pytest.raises(download.DownloadError, match="is not the published file.*HUMANCLAP_RELATE"):
            download.fetch_ratings(tmp_path)
        served.pages["/file"].pause = 0.05
        monkeypatch.setattr(download, "TIMEOUT", 0.3)
        begun = time.monotonic()
        with pytest.raises(download.DownloadError, match="took too long.*HUMANCLAP_RELATE"):
            download.fetch_ratings(tmp_path / "slow")
    assert time.monotonic() - begun < 5


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
    assert "RELATE_wave.zip" in text and "licence: none stated" in text and "1.86GB" in text
    for mistake in (["fetch"], ["fetch", "music"]):
        assert cli.main(mistake) == 2
        assert "relate-audio" in capsys.readouterr().err


def test_ctrl_c_leaves_nothing_half_done(tmp_path):
    """Also where the tests run in the background: SIGINT is ignored there, and a child would inherit that."""
    code = (
        "import sys; from humanclap import cli, download\n"
        "download.SOURCES = {'relate': (download.WebFile(sys.argv[1], 'scores/REL.csv'),)}\n"
        "sys.exit(cli.main(['fetch', 'relate', '--quiet', '--to', sys.argv[2]]))"
    )
    page = Page(CONTENT, pause=0.02)
    folder = tmp_path / "relate" / "scores"
    with serving(file=page) as served:
        run = [sys.executable, "-c", code, f"{served.url}/file", str(tmp_path)]
        listen = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
        command = subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listen)
        until = time.monotonic() + 60
        while not any(file.stat().st_size > 1000 for file in folder.glob(".*")) and time.monotonic() < until:
            time.sleep(0.01)
        command.send_signal(signal.SIGINT)
        out, err = command.communicate(timeout=60)
        assert (command.returncode, out) == (130, "") and "stopped" in err.lower() and "Traceback" not in err
        assert [file for file in folder.iterdir() if not file.name.endswith(".lock")] == []
        page.pause = 0
        assert subprocess.run(run, capture_output=True, timeout=60).returncode == 0
    assert (folder / "REL.csv").read_bytes() == CONTENT


# --- the registry ---------------------------------------------------------------------------------------


def test_the_page_in_the_docs_names_every_file_with_its_checksum_revision_size_and_licence():
    page = (Path(__file__).resolve().parent.parent / "docs" / "data.md").read_text(encoding="utf-8")
    for source, specs in download.SOURCES.items():
        assert f"humanclap fetch {source}" in page
        for spec in specs:
            name = spec.name.partition(" ")[0] if isinstance(spec, HubFiles) else Path(spec.name).name
            assert f"{name}`" in page or f"`{name}" in page, name
            for pinned in (spec.revision, spec.sha256):
                assert pinned is None or pinned[:12] in page
            if getattr(spec, "n_bytes", None):
                assert f"{spec.n_bytes:,} B" in page
            assert spec.licence.replace("see the", "see its") in page
    assert REL in download.SOURCES["relate"]
