"""Names, folders and files to a CLAP whose numbers carry the checksum of what made them, or to an error that says why."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import shutil
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from clap_folders import CAPTIONS, laion_names, save_clap, save_clips
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from humanclap import load_clap, score_pairs
from humanclap.clap import MODELS
from humanclap.clap.checkpoints import load_whole, read_shapes, read_weights
from humanclap.clap.huggingface import save_clapmodel
from humanclap.clap.laion import clapmodel_config
from humanclap.clap.microsoft import msclap_version
from humanclap.files import sha256_of

KEY = "audio_branch.patch_embed.proj.weight"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("claps")
    kinds = {"unfused": {}, "fused": {"fused": True}, "other": {"seed": 1}}
    return {name: save_clap(root / name, **settings) for name, settings in kinds.items()}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return save_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def expected(folders):
    """The captions' vectors under each folder."""
    return {name: load_clap(folder, device="cpu").embed_text(CAPTIONS) for name, folder in folders.items()}


@pytest.fixture
def folder(folders, tmp_path):
    """A copy of the unfused model's folder, to be spoilt."""
    return Path(shutil.copytree(folders["unfused"], tmp_path / "spoilt"))


def _edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _embed(folder, **settings):
    return load_clap(folder, device="cpu", **settings).embed_text(CAPTIONS)


def _saved(content, path, **settings):
    torch.save(content, path, **settings)
    return path


# --- folders --------------------------------------------------------------------------------------------


def test_a_pickle_of_weights_gives_the_same(folder, expected):
    path = _saved(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    np.testing.assert_array_equal(_embed(folder), expected["unfused"])
    assert load_clap(folder).checkpoint_sha256 == sha256_of(path)


def test_half_precision_weights_are_computed_in_float32(folder):
    weights = load_file(folder / "model.safetensors")
    halves = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
    _edit_json(folder / "config.json", dtype="float16")
    assert {parameter.dtype for parameter in load_clap(folder, device="cpu").model.parameters()} == {torch.float32}


def test_constants_may_be_missing_or_left_over(folder, expected):
    weights = load_file(folder / "model.safetensors")
    bare = {key: value for key, value in weights.items() if not key.endswith(("position_ids", "token_type_ids"))}
    ids = {"text_model.embeddings.position_ids": torch.arange(64)[None]}
    for state in (bare, bare | ids):
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        np.testing.assert_array_equal(_embed(folder), expected["unfused"])


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "[1]", "config.json holds a list"),
        ("preprocessor_config.json", {"padding": "pad"}, "padding 'pad'.*needs 'repeatpad'"),
        ("preprocessor_config.json", "{}", "lacks feature_size, sampling_rate"),
        ("tokenizer.json", "{}", "tokenizer in .* could not be loaded"),
    ],
)
def test_damaged_and_foreign_files_of_a_folder_are_refused(folder, file, content, message):
    if isinstance(content, dict):
        _edit_json(folder / file, **content)
    else:
        (folder / file).write_text(content)
    with pytest.raises(ValueError, match=message):
        load_clap(folder)


def test_a_saved_folder_opens_the_same_and_appears_whole_or_not_at_all(folders, tmp_path, monkeypatch):
    clap = load_clap(folders["unfused"], device="cpu")
    again = load_clap(save_clapmodel(tmp_path / "saved", clap.model, clap.front_end_parts), device="cpu")
    assert again.front_end == clap.front_end
    np.testing.assert_array_equal(again.embed_text(CAPTIONS), clap.embed_text(CAPTIONS))
    monkeypatch.setattr(type(clap.tokenizer), "save_pretrained", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_clapmodel(tmp_path / "half", clap.model, clap.front_end_parts)
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


# --- the checksum is that of what made the numbers ------------------------------------------------------


def test_weights_replaced_before_the_first_embedding_or_between_two_runs(folders, folder, expected):
    """Same size, and the time set back. The new weights give numbers under their checksum, or an error: never mixed."""
    first, unseen, seen = (load_clap(folder, device="cpu") for _ in range(3))
    np.testing.assert_array_equal(first.embed_text(CAPTIONS), expected["unfused"])
    assert seen.checkpoint_sha256 == sha256_of(folders["unfused"] / "model.safetensors")
    path, other = folder / "model.safetensors", folders["other"] / "model.safetensors"
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    with path.open("r+b") as file:  # which keeps the inode
        file.write(other.read_bytes())
    os.utime(path, ns=times)
    for clap in (load_clap(folder, device="cpu"), unseen):  # nobody has seen their checksum
        np.testing.assert_array_equal(clap.embed_text(CAPTIONS), expected["other"])
        assert clap.checkpoint_sha256 == sha256_of(other) != first.checkpoint_sha256
    with pytest.raises(ValueError, match="model.safetensors has changed since spoilt was opened"):
        seen.embed_text(CAPTIONS)


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_weights_replaced_while_many_clips_are_scored_change_nothing(folder, clips, file, monkeypatch):
    if file == "pytorch_model.bin":
        _saved(load_file(folder / "model.safetensors"), folder / file)
        (folder / "model.safetensors").unlink()
    captions = [f"{text} {i}" for i, text in enumerate(CAPTIONS * 2)][: len(clips)]
    want = score_pairs(load_clap(folder, device="cpu"), clips, captions, progress=False)
    clap = load_clap(folder, device="cpu")
    own = clap.embed_features

    def spoiling(features):
        with (folder / file).open("r+b") as weights:  # what was mapped to the file would change, too
            weights.write(bytes(weights.seek(0, 2)))
        return own(features)

    monkeypatch.setattr(clap, "embed_features", spoiling)
    found = score_pairs(clap, clips, captions, progress=False)
    np.testing.assert_allclose(found["cosine"], want["cosine"], atol=1e-6)
    assert set(found["checkpoint_sha256"]) == set(want["checkpoint_sha256"])


def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    path, load, reads = _saved({KEY: torch.zeros(9)}, tmp_path / "x.pt"), torch.load, []

    def changing(file, **settings):
        reads.append(file)
        content = load(file, **settings)
        if len(reads) == 1:
            _saved({KEY: torch.ones(9)}, path)
        return content

    monkeypatch.setattr(torch, "load", changing)
    state, sha256 = read_weights(path)
    assert len(reads) == 2 and state[KEY].sum() == 9
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(torch, "load", lambda *_, **__: path.write_bytes(path.read_bytes()) and {KEY: torch.ones(1)})
    with pytest.raises(OSError, match="changes while it is read"):
        read_weights(path)


# --- checkpoint files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False])
def test_a_published_file_is_unwrapped(tmp_path, zipped):
    """`module.` prefixes, a state_dict among training state, numpy scalars; also in torch's older format."""
    state = OrderedDict({f"module.{KEY}": torch.arange(4.0)})
    content = {
        "epoch": np.int64(3), "lr": np.float64(1e-4), "half": np.float32(1), "name": "x",
        "optimizer": {"state": {}},
        "state_dict": state,
    }  # fmt: skip
    path = _saved(content, tmp_path / "laion.pt", _use_new_zipfile_serialization=zipped)
    for wrapped in (path, _saved({KEY: torch.arange(4.0)}, tmp_path / "bare.pt")):
        read, sha256 = read_weights(wrapped)
        assert list(read) == [KEY] and torch.equal(read[KEY], torch.arange(4.0))
        assert sha256 == hashlib.sha256(wrapped.read_bytes()).hexdigest()
        assert {key: value.shape for key, value in read_shapes(wrapped).items()} == {KEY: (4,)}


@pytest.fixture(scope="module")
def laion_state(folders):
    """The fused model's weights under LAION's names."""
    return laion_names(load_file(folders["fused"] / "model.safetensors"))


def test_a_laion_file_opens_without_laion_clap_with_all_its_weights(laion_state, folders, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "laion_clap", None)
    monkeypatch.setattr("humanclap.clap.laion.hub_files", lambda _: folders["fused"] / "tokenizer.json")
    path = _saved({"state_dict": {f"module.{key}": value for key, value in laion_state.items()}}, tmp_path / "laion.pt")
    ours, folder = (load_clap(source, device="cpu") for source in (path, folders["fused"]))
    assert (ours.name, ours.window, ours.sample_rate, ours.max_tokens) == ("laion.pt", "fusion", 48_000, 62)
    assert ours.checkpoint_sha256 == sha256_of(path) and not hasattr(ours, "front_end_parts")
    state = ours.model.state_dict()
    assert all(torch.equal(state[key], tensor) for key, tensor in folder.model.state_dict().items())
    np.testing.assert_allclose(np.linalg.norm(ours.embed_text(CAPTIONS), axis=1), 1, atol=1e-6)
    with pytest.raises(ValueError, match=r"laion is a model without feature fusion, .* use load_clap\('laion-fusion'"):
        load_clap("laion", checkpoint=path)


def test_other_architectures_are_named(laion_state):
    lacking = {key: value for key, value in laion_state.items() if "word_embeddings" not in key}
    with pytest.raises(ValueError, match="word_embeddings.weight' is missing. Allowed: HTSAT-tiny"):
        clapmodel_config(lacking, "x.pt")
    with pytest.raises(ValueError, match="x.pt holds no LAION CLAP: .* its names are audio_encoder.x"):
        clapmodel_config({"audio_encoder.x": torch.ones(1)}, "x.pt")
    assert msclap_version({"audio_encoder.base.htsat.x": 0}, "x.pth") == "2023"
    assert msclap_version({"audio_encoder.base.conv_block1.x": 0}, "x.pth") == "2022"
    with pytest.raises(ValueError, match="no MS CLAP 2022 or 2023"):
        msclap_version({KEY: 0}, "x.pth")


class Trap:
    """Would make a file when unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("where", ["state_dict", "beside"])
@pytest.mark.parametrize("name", ["msclap-2023", None, "folder"])
def test_a_pickle_that_would_run_code_is_refused_and_nothing_runs(folder, tmp_path, name, where, zipped):
    trap = Trap(tmp_path / "ran")
    content = {"weights": {KEY: torch.ones(1)}, "x": trap} if where == "beside" else {where: {KEY: trap}}
    path = folder / "pytorch_model.bin" if name == "folder" else tmp_path / "trap.pt"
    _saved(content, path, _use_new_zipfile_serialization=zipped)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=f"{path.name} could not be loaded: it holds more than weights"):
        load_clap(name, checkpoint=path) if name in MODELS else load_clap(folder if name else path)
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(trap))
    assert (tmp_path / "ran").exists()  # the trap works


def test_only_the_allow_list_is_let_through(tmp_path):
    """numpy scalars, as LAION's files hold them; not arrays, not classes, not functions."""
    before = set(torch.serialization.get_safe_globals())
    for value in (np.ones(2), Path("x"), print, np.random.RandomState(0)):
        with pytest.raises(ValueError, match="more than weights"):
            read_weights(_saved({KEY: torch.ones(1), "x": value}, tmp_path / "x.pt"))
    assert set(torch.serialization.get_safe_globals()) == before
    package = Path(sys.modules["humanclap"].__file__).parent
    for path in package.rglob("*.py"):
        assert "weights_only=False" not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_empty_and_foreign_files_each_say_so(tmp_path, zipped):
    whole = _saved({KEY: torch.ones(5000)}, tmp_path / "whole.pt", _use_new_zipfile_serialization=zipped)
    content = whole.read_bytes()
    messages = {
        b"": "it is empty",
        content[: len(content) // 2]: "cut short",
        content[:-10]: "cut short",
        pickle.dumps({KEY: 1}): "more than weights",
    }
    for number, (spoilt, message) in enumerate(messages.items()):
        path = tmp_path / f"{number}.pt"
        path.write_bytes(spoilt)
        for read in (load_clap, read_weights):
            with pytest.raises(ValueError, match=rf"{number}\.pt could not be loaded: .*{message}"):
                read(path)
    for other, message in (([1, 2], "holds a list"), ({KEY: 3}, f"no set of weights: {KEY}"), ({}, "it is empty")):
        with pytest.raises(ValueError, match=message):
            load_clap(_saved(other, tmp_path / "other.pt"))
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(ValueError, match=r"pipe\.pt is a named pipe"):
        load_clap(tmp_path / "pipe.pt")


def test_no_second_copy_of_the_weights_is_made():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    state = {key: value + 1 for key, value in model.state_dict().items()}
    load_whole(model, state, "x.pt")
    assert model[0].weight.data_ptr() == state["0.weight"].data_ptr() and model[0].weight.requires_grad
    assert torch.equal(model[1].running_mean, torch.ones(2))


# --- names ----------------------------------------------------------------------------------------------


def test_an_unknown_name_lists_the_known_and_a_missing_file_is_named(tmp_path):
    for name in ("laoin", "./no-such-folder", "a/b/c", ""):
        with pytest.raises(ValueError, match="laion, laion-fusion, msclap-2022, msclap-2023, human-clap"):
            load_clap(name)
    for name in ("laion", "msclap-2022", "human-clap"):
        with pytest.raises(FileNotFoundError, match="gone is not there"):
            load_clap(name, checkpoint=tmp_path / "gone")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "tpu"}, "unknown device 'tpu'; allowed: auto, cpu, cuda"),
        ({"device": "cuda:99"}, "torch sees"),
        ({"window": "fusion"}, "unknown window 'fusion'; known for unfused: first, center"),
        ({"precision": "fp8"}, "precision must be one of fp32, bf16, fp16, not 'fp8'"),
        ({"device": "mps"}, "device 'mps' is not there"),
        ({"seed": -1}, "seed must be a whole number of at least 0, not -1"),
        ({"checkpoint": "model.safetensors"}, "checkpoint goes with a named model"),
    ],
)
def test_bad_settings_are_refused(folders, settings, message):
    with pytest.raises(ValueError, match=message):
        load_clap(folders["unfused"], **{"device": "cpu"} | settings)


def test_a_missing_extra_is_named_with_the_way_to_install_it(tmp_path, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "msclap" else find(name))
    path = _saved({"audio_encoder.base.htsat.x": torch.ones(1)}, tmp_path / "weights.pt")
    with pytest.raises(ImportError, match=r"pip install '\.\[msclap\]', with Python 3\.11 or 3\.12"):
        load_clap("msclap-2023", checkpoint=path)


# --- the hub, as a local cache --------------------------------------------------------------------------


def _into_hub_cache(root: Path, spec, source: Path, files) -> None:
    snapshot = root / f"models--{spec[0].replace('/', '--')}" / "snapshots" / spec[1]
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text(spec[1])
    for file in files:
        shutil.copy(source / file, snapshot)


def _place(files) -> tuple[str, str]:
    return files.repository, files.revision or "1" * 40


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty hub cache, and no network, as HF_HOME and HF_HUB_OFFLINE=1 would give a fresh process."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_weights_that_are_not_the_published_ones_are_refused(hub_cache, folders):
    spec, files = MODELS["human-clap"].weights, [file.name for file in folders["fused"].iterdir()]
    _into_hub_cache(hub_cache, _place(spec), folders["fused"], files)
    clap = load_clap("human-clap", device="cpu")
    for attribute in ("checkpoint_sha256", "model"):
        with pytest.raises(ValueError, match=f"is not the published .*expected {spec.sha256}"):
            getattr(clap, attribute)


def test_human_clap_from_a_local_folder(folders, expected):
    for checkpoint in (folders["fused"], folders["fused"] / "model.safetensors"):
        np.testing.assert_array_equal(_embed("human-clap", checkpoint=checkpoint), expected["fused"])


def test_a_hub_id_is_found_in_the_cache(hub_cache, folders, expected):
    files = [file.name for file in folders["unfused"].iterdir()]
    _into_hub_cache(hub_cache, ("someone/clap", "0" * 40), folders["unfused"], files)
    for name in ("someone/clap", f"someone/clap@{'0' * 40}"):
        assert load_clap(name).name == name
        np.testing.assert_array_equal(_embed(name), expected["unfused"])


@pytest.mark.parametrize("name", ["laion", "msclap-2022", "human-clap", "laion/clap-htsat-unfused"])
def test_what_can_not_be_fetched_is_named_with_the_way_to_get_it(hub_cache, name):
    wanted = MODELS[name].weights
    revision = f" --revision {wanted.revision}" if wanted.revision else ""
    with pytest.raises(FileNotFoundError, match=f"hf download {wanted.repository}.*{revision}"):
        load_clap(name)


def test_loading_is_silent(folder, capsys, caplog):
    """No bars and no lines of transformers' own."""
    with caplog.at_level(logging.WARNING):
        _ = load_clap(folder, device="cpu").model
    assert capsys.readouterr() == ("", "") and not caplog.records
