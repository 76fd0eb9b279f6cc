"""Weights and tokenizers from a stand-in for the hub on this machine, into its cache or a folder to carry."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from clap_folders import CAPTIONS, save_clap
from download_server import hub_page, serving
from huggingface_hub import constants, file_download
from huggingface_hub.utils import reset_sessions

from humanclap import cli, download, load_clap
from humanclap.clap.published import fetch_checkpoint, fetch_tokenizer, find_checkpoint, held_in_manifest
from humanclap.download import hub, pieces, sources
from humanclap.download.sources import HUMAN_CLAP_FRONT_END, HUMAN_CLAP_ID, HUMAN_CLAP_REVISION, HubFiles, Source

WEIGHTS = np.random.default_rng(0).bytes(200_000)
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
COMMIT = "c" * 40
PINNED = HubFiles("owner/name", (("weights.pt",),), (), "a" * 40, SHA256, len(WEIGHTS), len(WEIGHTS))
LOOSE = HubFiles("owner/name", (("weights.pt",),))


def _path(piece, name, revision=None):
    return f"/{piece.repository}/resolve/{revision or piece.revision or 'main'}/{name}"


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A stand-in for the hub, an empty hub cache and an empty data folder."""
    monkeypatch.delenv("HUMANCLAP_DATA", raising=False)
    monkeypatch.setattr(download.places, "PROJECT", tmp_path / "project")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with serving() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        template = running.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # its own waits
        reset_sessions()
        yield running
    monkeypatch.undo()
    reset_sessions()


@pytest.fixture
def patience():
    return download.Patience(attempts=3, sleep=lambda seconds: None)


@pytest.fixture
def bring(patience):
    def run(piece, data=None):
        return hub.fetch_piece(piece, data, patience, progress=False)

    return run


def test_a_pinned_file_comes_to_the_cache_and_is_found_there(tmp_path, served, bring):
    served.pages[_path(PINNED, "weights.pt")] = hub_page(WEIGHTS, "a" * 40, large=True)
    path = bring(PINNED)
    assert path.read_bytes() == WEIGHTS and path.is_relative_to(tmp_path / "hub")
    n_requests = len(served.requests)
    assert bring(PINNED) == path and len(served.requests) == n_requests


def test_a_cut_download_is_continued_by_the_hubs_own_client(served, bring, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # what it writes at a time; 10 MB otherwise
    page = served.pages[_path(PINNED, "weights.pt")] = hub_page(WEIGHTS, "a" * 40, large=True, script=[70_000])
    assert bring(PINNED).read_bytes() == WEIGHTS
    assert "bytes=70000-" in served.ranges(_path(PINNED, "weights.pt")) and not page.script


def test_files_beside_one_brought_by_hand_come_to_its_folder(served, bring):
    piece = HubFiles("owner/name", (("model.safetensors",), ("config.json",)), (), "b" * 40)
    place = download.weights_folder("owner/name") / "model.safetensors"
    place.parent.mkdir(parents=True)
    place.write_bytes(WEIGHTS)
    served.pages[_path(piece, "config.json")] = hub_page(b"{}", "b" * 40)
    assert bring(piece) == place and (place.parent / "config.json").read_bytes() == b"{}"


def test_a_file_to_carry_lies_below_the_folder_and_is_used_from_there(tmp_path, served, bring, monkeypatch):
    served.pages[_path(PINNED, "weights.pt")] = hub_page(WEIGHTS, "a" * 40, large=True)
    path = bring(PINNED, tmp_path / "disk")
    assert path == tmp_path / "disk" / "weights" / "owner" / "name" / "weights.pt"
    assert not list((tmp_path / "hub").glob("models--*"))
    monkeypatch.setenv("HUMANCLAP_DATA", str(tmp_path / "disk"))
    assert hub.find_file("owner", "name", None) is None
    assert hub.find_file("owner/name", "weights.pt", "a" * 40).path == path
    n_requests = len(served.requests)
    assert bring(PINNED) == path and len(served.requests) == n_requests


def test_other_weights_than_the_published_are_an_error(served, bring):
    other = WEIGHTS[::-1]
    served.pages[_path(PINNED, "weights.pt")] = hub_page(other, "a" * 40, large=True)
    with pytest.raises(download.DownloadError, match=f"expected {SHA256}. Remove it and fetch it again"):
        bring(PINNED)


def test_a_file_damaged_on_its_way_is_told_by_the_hubs_own_checksum(served, bring):
    page = hub_page(WEIGHTS, COMMIT, large=True)
    page.content = b"x" + WEIGHTS[1:]
    served.pages[_path(LOOSE, "weights.pt")] = served.pages[_path(LOOSE, "weights.pt", COMMIT)] = page
    with pytest.raises(download.DownloadError, match="damaged on its way.* it was removed"):
        bring(LOOSE)
    assert hub.find_file(LOOSE.repository, "weights.pt", COMMIT) is None


@pytest.mark.parametrize("carried", [False, True])
def test_the_first_use_without_a_revision_is_held_to(tmp_path, served, bring, carried):
    data = tmp_path / "disk" if carried else None
    for revision in ("main", COMMIT):
        served.pages[_path(LOOSE, "weights.pt", revision)] = hub_page(WEIGHTS, COMMIT, large=True)
    path = bring(LOOSE, data)
    held = held_in_manifest("owner/name", "weights.pt")
    assert (held.revision, held.sha256) == (COMMIT, SHA256)
    # The hub moves on: what is asked for is the first.
    path.unlink()
    served.pages[_path(LOOSE, "weights.pt")] = hub_page(WEIGHTS[::-1], "d" * 40, large=True)
    assert bring(LOOSE, data).read_bytes() == WEIGHTS
    os.chmod(path, 0o644)
    path.write_bytes(b"edited")
    with pytest.raises(download.DownloadError, match="not what it was at its first use"):
        bring(LOOSE, data)


def test_the_first_of_several_names_is_taken_and_wishes_may_stay_open(served, bring):
    needed = (("model.safetensors", "pytorch_model.bin"), ("config.json",))
    piece = HubFiles("owner/name", needed, ("extra.json",), "b" * 40)
    for name in ("pytorch_model.bin", "config.json"):
        served.pages[_path(piece, name)] = hub_page(name.encode(), "b" * 40)
    assert bring(piece).name == "pytorch_model.bin"
    n_requests = len(served.requests)
    bring(piece)
    assert len(served.requests) == n_requests  # a wish that the hub does not have is not asked for again and again
    del served.pages[_path(piece, "config.json")]
    missing = replace(piece, repository="owner/other")
    served.pages[_path(missing, "pytorch_model.bin")] = hub_page(b"x", "b" * 40)
    with pytest.raises(download.DownloadError, match="owner/other.*config.json|config.json of owner/other"):
        bring(missing)


@pytest.mark.parametrize(
    ("status", "headers", "message", "n_asked"),
    [
        (404, {"X-Error-Code": "EntryNotFound"}, "has no weights.pt", 1),
        (404, {"X-Error-Code": "RevisionNotFound"}, "can't be had", 1),
        (401, {"X-Error-Code": "RepoNotFound"}, "can't be had", 1),
        (403, {"X-Error-Code": "GatedRepo"}, "can't be had", 1),
        (503, {}, "was given up: 503", 6),  # the hub's client asks again by itself
    ],
)
def test_what_the_hub_refuses_is_said_with_the_way_by_hand(served, bring, status, headers, message, n_asked):
    refusal = ("status", status, headers)
    served.pages[_path(PINNED, "weights.pt")] = hub_page(WEIGHTS, "a" * 40, large=True, refuses=refusal)
    with pytest.raises(download.DownloadError, match=message) as error:
        bring(PINNED)
    assert len(served.requests) == n_asked
    if "has no" not in message:
        assert "hf download owner/name weights.pt --revision aaaa" in str(error.value)


def test_no_hub_offline_mode_and_a_page_that_is_no_hub(served, bring, monkeypatch):
    page = hub_page(WEIGHTS, "a" * 40)
    page.headers = {}
    served.pages[_path(PINNED, "weights.pt")] = page
    with pytest.raises(download.DownloadError, match="does not answer as the hub does"):
        bring(PINNED)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    reset_sessions()
    with pytest.raises(download.DownloadError, match="HF_HUB_OFFLINE is set"):
        bring(PINNED)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    nowhere = "http://127.0.0.1:9/{repo_id}/{revision}/{filename}"
    monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", nowhere)
    reset_sessions()
    with pytest.raises(download.DownloadError, match="was given up.*By hand: hf download"):
        bring(PINNED)


def test_too_little_room_is_said_before_a_byte_is_fetched(served, bring, monkeypatch):
    served.pages[_path(PINNED, "weights.pt")] = hub_page(WEIGHTS, "a" * 40, large=True)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: type("Usage", (), {"free": 1000})())
    with pytest.raises(download.DownloadError, match="weights.pt of owner/name needs 200.0 kB"):
        bring(PINNED)
    assert [method for method, *_ in served.requests] == ["HEAD"]


# --- with load_clap -------------------------------------------------------------------------------------


def _serve_folder(served, folder, repository, revision, names=None):
    for file in folder.iterdir():
        if names is None or file.name in names:
            path = f"/{repository}/resolve/{revision}/{file.name}"
            served.pages[path] = hub_page(file.read_bytes(), revision, large=file.suffix == ".safetensors")


@pytest.mark.parametrize("carried", [False, True])
def test_what_was_fetched_opens_without_a_network(tmp_path, served, patience, monkeypatch, carried):
    """human-clap, its weights of a tiny model, through `fetch` and then `load_clap`, from the cache or a folder."""
    model = save_clap(tmp_path / "model", fused=True)
    _serve_folder(served, model, HUMAN_CLAP_ID, HUMAN_CLAP_REVISION, ("config.json", "model.safetensors"))
    _serve_folder(served, model, *HUMAN_CLAP_FRONT_END)
    folder = tmp_path / "disk" if carried else None
    with pytest.raises(download.DownloadError, match="not the published model.safetensors"):
        download.fetch("human-clap", folder, patience=patience, progress=False)
    sha256 = download.sha256_of(model / "model.safetensors")
    known = sources.SOURCES["human-clap"]
    tiny = replace(known, pieces=(replace(known.pieces[0], sha256=sha256), known.pieces[1]))
    monkeypatch.setattr(pieces, "SOURCES", {"human-clap": tiny})
    table = download.fetch("human-clap", folder, patience=patience, progress=False)
    assert table["state"].tolist() == ["here", "here"]
    assert download.status("human-clap", folder, check=True)["state"].tolist() == ["here", "here"]
    served.pages.clear()
    if carried:
        monkeypatch.setenv("HUMANCLAP_DATA", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    reset_sessions()
    clap = load_clap("human-clap", device="cpu")
    assert clap.checkpoint_sha256 == sha256
    np.testing.assert_array_equal(clap.embed_text(CAPTIONS), load_clap(model, device="cpu").embed_text(CAPTIONS))


def test_checkpoints_and_tokenizers_brought_by_hand_are_found(tmp_path, served, monkeypatch):
    monkeypatch.setenv("HUMANCLAP_DATA", str(tmp_path / "disk"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find_checkpoint("laion-fusion") is None
    place = download.weights_folder("lukewys/laion_clap") / "630k-audioset-fusion-best.pt"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"first")
    assert find_checkpoint("laion-fusion") == fetch_checkpoint("laion-fusion") == place
    assert held_in_manifest("lukewys/laion_clap", place.name).revision is None
    (place.parent / "630k-audioset-best.pt").write_bytes(b"another")
    with pytest.raises(ValueError, match="not the published 630k-audioset-best.pt"):
        fetch_checkpoint("laion")
    tokenizer = download.weights_folder("gpt2")
    tokenizer.mkdir()
    for name in ("vocab.json", "merges.txt"):
        (tokenizer / name).write_text(json.dumps({}))
    assert fetch_tokenizer("gpt2") == tokenizer
    table = download.status().set_index("piece")
    assert table.loc["630k-audioset-fusion-best.pt", ["state", "path"]].tolist() == ["here", str(place)]
    assert table.loc["630k-audioset-best.pt", "state"] == "other"
    assert table.loc["gpt2 (tokenizer)", "state"] == "here"
    place.write_bytes(b"edited")
    with pytest.raises(ValueError, match="not what it was at its first use"):
        fetch_checkpoint("laion-fusion")


def test_a_bare_id_means_the_revision_that_was_written_down(tmp_path, served, monkeypatch):
    model = save_clap(tmp_path / "model")
    _serve_folder(served, model, "laion/clap-htsat-unfused", sources.MODELS["laion/clap-htsat-unfused"])
    known = sources.SOURCES["laion"]
    (piece,) = [piece for piece in known.pieces if piece.repository == "laion/clap-htsat-unfused"]
    hub.fetch_piece(piece, None, download.Patience(attempts=1), progress=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    reset_sessions()
    clap = load_clap("laion/clap-htsat-unfused", device="cpu")
    assert clap.checkpoint_sha256 == download.sha256_of(model / "model.safetensors")


def test_every_loaders_files_are_among_the_sources():
    files = {piece.place: piece for source in sources.SOURCES.values() for piece in source.pieces}
    fetched = {piece.repository for piece in files.values() if isinstance(piece, HubFiles)}
    repositories = {what.repository for what in sources.CHECKPOINTS.values()}
    assert fetched == repositories | set(sources.MODELS) | set(sources.TOKENIZERS)
    for what in sources.CHECKPOINTS.values():
        assert (files[what.file].revision, files[what.file].sha256) == (what.revision, what.sha256)


def test_the_command_in_a_process_of_its_own(tmp_path, served):
    """HF_ENDPOINT and HF_HOME as a user sets them; nothing on stdout but the result."""
    for revision, name in (("main", "vocab.json"), (COMMIT, "vocab.json"), (COMMIT, "merges.txt")):
        served.pages[f"/gpt2/resolve/{revision}/{name}"] = hub_page(name.encode(), COMMIT)
    code = (
        "import sys; from humanclap import cli; from humanclap.download import pieces, sources\n"
        "gpt2 = sources.SOURCES['msclap'].pieces[-1]\n"
        "pieces.SOURCES = {'msclap': sources.Source('msclap', '', {'': ''}, (gpt2,))}\n"
        "sys.exit(cli.main(['fetch', 'msclap', '--to', sys.argv[1]]))"
    )
    environment = {**os.environ, "HF_ENDPOINT": served.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", code, str(tmp_path / "disk")]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"gpt2 (tokenizer): {tmp_path}/disk/weights/gpt2/vocab.json\n"
    assert cli.main(["fetch", "--list"]) == 0
