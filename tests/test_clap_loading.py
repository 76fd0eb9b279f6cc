"""Folders, names and hub ids to a model that is whole, or to an error that says what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from clap_folders import CAPTIONS, save_clap, save_clips
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from humanclap import load_clap
from humanclap.clap.huggingface import HuggingFaceClap
from humanclap.files import sha256_of
from humanclap.models import FUSED_FRONT_END, MODELS


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("claps")
    return {fused: save_clap(root / ("fused" if fused else "unfused"), fused) for fused in (False, True)}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return save_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def claps(folders):
    return {fused: load_clap(folder, device="cpu") for fused, folder in folders.items()}


@pytest.fixture
def folder(folders, tmp_path):
    """A copy of the unfused model's folder, to be spoilt."""
    return Path(shutil.copytree(folders[False], tmp_path / "spoilt"))


def _edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# --- loading --------------------------------------------------------------------------------------------


def test_a_pickle_of_weights_loads_and_gives_the_same(folder, claps):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    clap = load_clap(folder, device="cpu")
    np.testing.assert_array_equal(clap.embed_text(CAPTIONS), claps[False].embed_text(CAPTIONS))
    assert clap.checkpoint_sha256 == sha256_of(folder / "pytorch_model.bin")


def test_a_pickle_that_runs_code_is_refused(folder, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    (folder / "model.safetensors").unlink()
    torch.save({"logit_scale_a": Trap()}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="pytorch_model.bin could not be loaded"):
        load_clap(folder, device="cpu")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_empty_cut_and_foreign_weights_each_say_so(folder, file):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save = save_file if file == "model.safetensors" else torch.save
    save(weights, folder / file)
    whole = (folder / file).read_bytes()
    for content, message in (
        (b"", "it is empty"),
        (whole[: len(whole) // 2], "it is cut short"),
        (b"<html>not found</html>", "it is no (safetensors file|PyTorch checkpoint)"),
    ):
        (folder / file).write_bytes(content)
        with pytest.raises(ValueError, match=f"{file} could not be loaded: {message}"):
            load_clap(folder, device="cpu")


def test_half_precision_weights_are_computed_in_float32(folder):
    weights = load_file(folder / "model.safetensors")
    halves = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
    _edit_json(folder / "config.json", dtype="float16")
    clap = load_clap(folder, device="cpu")
    assert {parameter.dtype for parameter in clap.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
def test_weights_that_do_not_fit_raise_with_their_names(folder, change):
    weights = load_file(folder / "model.safetensors")
    key = "audio_projection.linear1.weight"
    if change == "missing":
        del weights[key]
    elif change == "unexpected":
        key = "audio_projection.linear3.weight"
        weights[key] = torch.ones(1)
    else:
        weights[key] = torch.ones(3, 3)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=key.replace(".", r"\.")):
        load_clap(folder, device="cpu")


def test_position_ids_may_be_missing(folder, claps):
    weights = load_file(folder / "model.safetensors")
    present = [key for key in weights if key.endswith(("position_ids", "token_type_ids"))]
    for key in present:
        del weights[key]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    np.testing.assert_array_equal(
        load_clap(folder, device="cpu").embed_text(CAPTIONS), claps[False].embed_text(CAPTIONS)
    )


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_a_missing_file_is_named(folder, file):
    (folder / file).unlink()
    with pytest.raises(FileNotFoundError, match=file):
        load_clap(folder, device="cpu")


def test_a_missing_tokenizer_is_named(folder):
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (folder / name).unlink(missing_ok=True)
    message = "no tokenizer: expected tokenizer.json or vocab.json and merges.txt"
    with pytest.raises(FileNotFoundError, match=message):
        load_clap(folder, device="cpu")


def test_broken_and_foreign_folders_are_refused(folder):
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ValueError, match="model.safetensors could not be loaded"):
        load_clap(folder, device="cpu")
    _edit_json(folder / "config.json", model_type="roberta")
    with pytest.raises(ValueError, match="model_type 'roberta'"):
        load_clap(folder, device="cpu")
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json is not the configuration"):
        load_clap(folder, device="cpu")


def test_a_front_end_that_does_not_fit_the_model_is_refused(folder):
    _edit_json(folder / "preprocessor_config.json", truncation="fusion")
    with pytest.raises(ValueError, match="truncation 'fusion'.*needs 'rand_trunc'"):
        load_clap(folder, device="cpu")
    _edit_json(folder / "preprocessor_config.json", truncation="rand_trunc", padding="pad")
    with pytest.raises(ValueError, match="padding 'pad'"):
        load_clap(folder, device="cpu")


# --- names ----------------------------------------------------------------------------------------------


def test_an_unknown_name_lists_the_known():
    for name in ("laoin", "./no-such-folder", "a/b/c", ""):
        with pytest.raises(ValueError, match="laion, laion-fusion, msclap-2022, msclap-2023, human-clap"):
            load_clap(name)


@pytest.mark.parametrize("name", ["laion", "laion-fusion", "msclap-2022", "msclap-2023", "weights.pt"])
def test_a_checkpoint_that_is_not_there_is_named(name, tmp_path):
    path = tmp_path / name
    checkpoint = {} if name == "weights.pt" else {"checkpoint": path}
    with pytest.raises(FileNotFoundError, match=f"{path.name} is not there"):
        load_clap(path if name == "weights.pt" else name, device="cpu", **checkpoint)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "tpu"}, "unknown device 'tpu'; allowed: auto, cpu, cuda"),
        ({"device": "cuda:99"}, "torch sees"),
        ({"window": "random"}, "unknown window 'random'; known for unfused: first, center"),
        ({"window": "fusion"}, "unknown window 'fusion'; known for unfused: first, center"),
        ({"precision": "fp8"}, "unknown precision 'fp8'; allowed: fp32, bf16, fp16"),
        ({"device": "mps"}, "device 'mps' is not there"),
        ({"seed": -1}, "seed is -1"),
        ({"checkpoint": "model.safetensors"}, "checkpoint goes with a named model"),
    ],
)
def test_bad_settings_are_refused(folders, settings, message):
    with pytest.raises(ValueError, match=message):
        load_clap(folders[False], **{"device": "cpu"} | settings)


# --- the hub, as a local cache --------------------------------------------------------------------------


HUMAN_CLAP = MODELS["human-clap"].weights


def _into_hub_cache(root: Path, repository: str, revision: str, source: Path, files) -> None:
    snapshot = root / f"models--{repository.replace('/', '--')}" / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text(revision)
    for file in files:
        shutil.copy(source / file, snapshot)


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty hub cache, and no network, as HF_HOME and HF_HUB_OFFLINE=1 would give a fresh process."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_human_clap_is_the_pinned_model_with_laions_front_end(hub_cache, folders, claps, clips):
    model_files = ("config.json", "model.safetensors")
    _into_hub_cache(hub_cache, HUMAN_CLAP.repository, HUMAN_CLAP.revision, folders[True], model_files)
    others = [file.name for file in folders[True].iterdir() if file.name not in model_files]
    _into_hub_cache(hub_cache, FUSED_FRONT_END.repository, FUSED_FRONT_END.revision, folders[True], others)
    clap = load_clap("human-clap", device="cpu")
    assert (clap.name, clap.window) == ("human-clap", "fusion")
    np.testing.assert_array_equal(clap.embed_audio(clips), claps[True].embed_audio(clips))
    np.testing.assert_array_equal(clap.embed_text(CAPTIONS), claps[True].embed_text(CAPTIONS))


def test_a_hub_id_is_found_in_the_cache(hub_cache, folders, claps):
    files = [file.name for file in folders[False].iterdir()]
    _into_hub_cache(hub_cache, "someone/clap", "0" * 40, folders[False], files)
    for name in ("someone/clap", f"someone/clap@{'0' * 40}"):
        clap = load_clap(name, device="cpu")
        assert clap.name == name
        np.testing.assert_array_equal(clap.embed_text(CAPTIONS), claps[False].embed_text(CAPTIONS))


def test_what_can_not_be_fetched_is_named_with_the_way_to_bring_it(hub_cache):
    command = f"hf download {HUMAN_CLAP.repository} model.safetensors config.json --revision {HUMAN_CLAP.revision}"
    with pytest.raises(FileNotFoundError, match=command):
        load_clap("human-clap", device="cpu")
    with pytest.raises(FileNotFoundError, match="hf download laion/clap-htsat-unfused"):
        load_clap("laion/clap-htsat-unfused", device="cpu")


@pytest.mark.parametrize("name", ["laion", "laion-fusion", "msclap-2022", "msclap-2023"])
def test_a_named_checkpoint_that_can_not_be_fetched_says_what_to_bring_and_where(hub_cache, name):
    wanted = MODELS[name].weights
    with pytest.raises(FileNotFoundError) as error:
        load_clap(name, device="cpu")
    pinned = f" --revision {wanted.revision}" if wanted.revision else ""
    assert f"hf download {wanted.repository} {wanted.name}{pinned} " in str(error.value)
    assert f"load_clap('{name}', checkpoint=" in str(error.value)


def test_a_published_file_with_another_content_is_refused(hub_cache, tmp_path):
    wanted = MODELS["laion"].weights
    (tmp_path / wanted.name).write_bytes(b"something else")
    _into_hub_cache(hub_cache, wanted.repository, wanted.revision, tmp_path, [wanted.name])
    with pytest.raises(ValueError, match=f"expected {wanted.sha256}"):
        load_clap("laion", device="cpu")


def test_a_front_end_of_its_own_is_used_and_noted(hub_cache, folders, caplog):
    """human-clap's siblings carry a preprocessor; the tiny model's differs from LAION's."""
    files = [file.name for file in folders[True].iterdir()]
    _into_hub_cache(hub_cache, HUMAN_CLAP.repository, HUMAN_CLAP.revision, folders[True], files)
    clap = load_clap("human-clap", device="cpu")
    assert clap.sample_rate == 16_000
    assert "differs from LAION's: {'sampling_rate': 16000" in caplog.text
    assert "written down elsewhere" in caplog.text  # random weights are not the published ones


def test_human_clap_from_a_local_folder(folders, claps, tmp_path):
    for checkpoint in (folders[True], folders[True] / "model.safetensors"):
        clap = load_clap("human-clap", checkpoint=checkpoint, device="cpu")
        assert clap.name == "human-clap"
        np.testing.assert_array_equal(clap.embed_text(CAPTIONS), claps[True].embed_text(CAPTIONS))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_clap("human-clap", checkpoint=tmp_path / "nowhere")


def test_the_class_opens_folders_too(folders):
    assert HuggingFaceClap(folders[False], device="cpu", name="mine").name == "mine"
