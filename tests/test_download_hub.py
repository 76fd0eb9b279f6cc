"""Weights and tokenizers from a stand-in for the hub on this machine: into its cache, or a folder to carry."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from clap_folders import CAPTIONS, save_clap
from download_server import Page, serving
from huggingface_hub import constants, file_download

from humanclap import download, load_clap
from humanclap.download import DownloadError, find_hub_files, hub_files, weights_folder
from humanclap.files import sha256_of
from humanclap.models import BASE, FRONT_END_FILE, MODELS, ROBERTA, ROWS, HubFiles, hub_model

WEIGHTS = np.random.default_rng(0).bytes(200_000)
COMMIT = "a" * 40
SPEC = HubFiles("owner/name", (("weights.pt",), ("config.json",)), COMMIT, hashlib.sha256(WEIGHTS).hexdigest())
FILES = {"weights.pt": WEIGHTS, "config.json": b"{}"}


def _reset_sessions():
    """The hub's client keeps its connections, and in them whether it is offline."""
    from huggingface_hub import utils

    getattr(utils, "reset_sessions", getattr(utils, "close_session", lambda: None))()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A stand-in for the hub, an empty hub cache and an empty data folder."""
    monkeypatch.delenv("HUMANCLAP_DATA", raising=False)
    monkeypatch.setattr("humanclap.download.PROJECT", tmp_path / "project")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with serving() as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        template = served.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)  # below 1.0
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        _reset_sessions()
        yield served
    monkeypatch.undo()
    _reset_sessions()


@pytest.fixture
def offline(hub, monkeypatch):
    """Call it, and the network is gone, as with HF_HUB_OFFLINE=1."""

    def set_offline():
        hub.pages.clear()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        _reset_sessions()

    return set_offline


@pytest.mark.parametrize("revision", [COMMIT, None])
def test_files_come_to_the_cache_and_are_found_there(tmp_path, hub, offline, revision):
    spec = replace(SPEC, revision=revision)
    hub.add_repository("owner/name", COMMIT, FILES, branch="main")
    assert find_hub_files(spec) is None
    path = hub_files(spec, progress=False)
    assert path.read_bytes() == WEIGHTS and (path.parent / "config.json").read_bytes() == b"{}"
    assert path.is_relative_to(tmp_path / "hub") and path.parent.name == COMMIT
    n_requests = len(hub.requests)
    assert hub_files(spec) == path and len(hub.requests) == n_requests
    offline()
    assert hub_files(spec) == path


def test_files_to_carry_lie_below_the_folder_and_are_found_there_first(tmp_path, hub, offline, monkeypatch):
    hub.add_repository("owner/name", COMMIT, FILES)
    place = tmp_path / "disk" / "weights" / "owner" / "name"
    assert hub_files(SPEC, tmp_path / "disk", progress=False) == place / "weights.pt"
    assert not (tmp_path / "hub" / "models--owner--name").exists() and find_hub_files(SPEC) is None
    hub_files(SPEC, progress=False)
    monkeypatch.setenv("HUMANCLAP_DATA", str(tmp_path / "disk"))
    offline()
    assert hub_files(SPEC) == place / "weights.pt"


def test_the_first_of_a_group_and_what_else_is_offered(hub):
    spec = HubFiles(
        "owner/name", (("model.safetensors", "pytorch_model.bin"),), COMMIT, optional=("vocab.json", "no.txt")
    )
    hub.add_repository("owner/name", COMMIT, {"pytorch_model.bin": WEIGHTS, "vocab.json": b"{}", "other": b"other"})
    path = hub_files(spec, progress=False)
    assert {file.name for file in path.parent.iterdir()} == {"pytorch_model.bin", "vocab.json"}
    with pytest.raises(DownloadError, match=f"owner/name has no config.json at {COMMIT}"):
        hub_files(replace(spec, files=(*spec.files, ("config.json",))), progress=False)


@pytest.mark.parametrize("published", [True, False], ids=["published sha256", "the hub's sha256"])
def test_another_content_than_stated_is_removed(hub, published):
    spec = SPEC if published else replace(SPEC, sha256=None)
    hub.add_repository("owner/name", COMMIT, FILES, damaged="weights.pt")
    with pytest.raises(DownloadError, match=f"weights.pt has sha256 .* expected {SPEC.sha256}; it was removed"):
        hub_files(spec, progress=False)
    assert find_hub_files(spec) is None
    hub.add_repository("owner/name", COMMIT, FILES)
    assert hub_files(spec, progress=False).read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("status", "headers", "message"),
    [
        (404, {"X-Error-Code": "RevisionNotFound"}, "404"),
        (403, {"X-Error-Code": "GatedRepo"}, "403"),
        (200, {}, "could not be fetched"),  # no hub at all, but a page
    ],
)
def test_what_the_hub_refuses_says_the_way_by_hand(hub, status, headers, message):
    hub.pages[f"/api/models/owner/name/revision/{COMMIT}"] = Page(b"<html>", status, headers)
    with pytest.raises(DownloadError, match=message) as error:
        hub_files(SPEC, progress=False)
    said = str(error.value)
    assert f"hf download owner/name weights.pt config.json --revision {COMMIT} --local-dir DIR" in said
    assert str(weights_folder("owner/name")) in said and "\n" not in said


def test_offline_and_no_hub_and_no_room(hub, offline, monkeypatch):
    hub.add_repository("owner/name", COMMIT, FILES)
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=1000))
        with pytest.raises(DownloadError, match="weights.pt needs 200kB"):
            hub_files(SPEC, progress=False)
    assert {method for method, _ in hub.requests} == {"GET"} and len(hub.requests) == 1
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadError, match="could not be fetched: .*By hand"):
        hub_files(SPEC, progress=False)
    offline()
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE.*By hand"):
        hub_files(SPEC, progress=False)
    assert len(hub.requests) == 1


def test_a_tokenizer_of_another_revision_will_do_without_a_network(hub, offline, caplog):
    hub.add_repository("roberta-base", "b" * 40, {"vocab.json": b"{}", "merges.txt": b"x"}, branch="main")
    path = hub_files(replace(ROBERTA, revision=None), progress=False)
    offline()
    assert hub_files(ROBERTA) == path and f"instead of revision {ROBERTA.revision}" in caplog.text
    with pytest.raises(DownloadError):
        hub_files(replace(ROBERTA, any_revision=False))


# --- fetch, load_clap and the registry ------------------------------------------------------------------


@pytest.mark.parametrize("carried", [False, True])
def test_what_was_fetched_opens_without_a_network(tmp_path, hub, offline, monkeypatch, carried):
    """human-clap, its weights of a tiny model, through `fetch` and then `load_clap`, from the cache or a folder."""
    folder = save_clap(tmp_path / "model", fused=True)
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    weights, front_end = MODELS["human-clap"].needs
    own = {name: files.pop(name) for name in ("config.json", "model.safetensors")}
    hub.add_repository(weights.repository, weights.revision, own)
    hub.add_repository(front_end.repository, front_end.revision, files)
    disk = tmp_path / "disk" if carried else None
    with pytest.raises(DownloadError, match=f"model.safetensors has sha256 .*, expected {weights.sha256}"):
        download.fetch("human-clap", disk, progress=False)
    tiny = replace(weights, sha256=sha256_of(folder / "model.safetensors"))
    monkeypatch.setitem(MODELS, "human-clap", replace(MODELS["human-clap"], weights=tiny))
    monkeypatch.setitem(download.SOURCES, "human-clap", (tiny, front_end))
    assert download.fetch("human-clap", disk, progress=False)["state"].tolist() == ["here", "here"]
    if carried:
        monkeypatch.setenv("HUMANCLAP_DATA", str(disk))
    offline()
    clap = load_clap("human-clap", device="cpu")
    assert clap.checkpoint_sha256 == tiny.sha256
    np.testing.assert_array_equal(clap.embed_text(CAPTIONS), load_clap(folder, device="cpu").embed_text(CAPTIONS))


def test_files_that_are_not_the_published_ones_are_told_apart(hub, offline, monkeypatch, tmp_path):
    monkeypatch.setenv("HUMANCLAP_DATA", str(tmp_path))
    place = weights_folder("lukewys/laion_clap")
    place.mkdir(parents=True)
    for name in ("630k-audioset-best.pt", "630k-audioset-fusion-best.pt"):
        (place / name).write_bytes(b"mine")
    offline()
    states = download.status("laion").set_index("piece")["state"]
    assert states["630k-audioset-best.pt"] == "other"  # its size is published
    assert states["630k-audioset-fusion-best.pt"] == "here" and states["roberta-base (tokenizer)"] == "missing"
    with pytest.raises(DownloadError, match="630k-audioset-best.pt is not the published"):
        download.fetch("laion")


def test_the_registry_is_whole_and_makes_nothing_up():
    for name, model in MODELS.items():
        assert model.name == name and model.group in download.SOURCES
        assert set(model.needs) <= set(download.SOURCES[model.group])
        assert model.row is None or (model.row in ROWS and model.own_file)
        for spec in model.needs:
            assert spec.sha256 is None or len(spec.sha256) == 64
            assert spec.revision is None or len(spec.revision) == 40
    rows = [model.row for model in MODELS.values() if model.row]
    assert rows == ["laion-clapmodel", "laion-clap", "msclap-2022", "msclap-2023", "human-clap-released"]
    assert MODELS[BASE].backend == "huggingface"


def test_a_hub_id_means_the_revision_that_was_written_down():
    known = MODELS["laion/clap-htsat-unfused"].weights
    assert hub_model(known.repository) == hub_model(known.repository, known.revision) == known
    other = hub_model(known.repository, "main")
    assert other.revision == "main" and other.sha256 is None and (FRONT_END_FILE,) in other.files
    assert hub_model("someone/clap").revision is None
