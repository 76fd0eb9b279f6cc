"""Checkpoint files: what is let through, what is refused, and that nothing in a file ever runs."""

from __future__ import annotations

import pickle
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from humanclap import load_clap
from humanclap.clap.microsoft import msclap_version, read_msclap_state
from humanclap.clap.weights import (
    laion_architecture,
    load_whole,
    read_checkpoint,
    read_laion_state,
)

KEY = "audio_branch.patch_embed.proj.weight"


def _saved(content, path, **settings):
    torch.save(content, path, **settings)
    return path


def _laion_like(width=96, depths=(2, 2, 6, 2), fused=False):
    """The names and shapes that tell LAION's architectures apart."""
    state = {KEY: torch.ones(width, 1, 4, 4)}
    for layer, depth in enumerate(depths):
        state |= {f"audio_branch.layers.{layer}.blocks.{i}.norm1.weight": torch.ones(1) for i in range(depth)}
    state |= {f"text_branch.encoder.layer.{i}.output.dense.bias": torch.ones(1) for i in range(12)}
    state["text_branch.embeddings.word_embeddings.weight"] = torch.ones(50, 2)
    state["text_branch.embeddings.position_embeddings.weight"] = torch.ones(514, 2)
    if fused:
        state["audio_branch.patch_embed.fusion_model.local_att.0.weight"] = torch.ones(1)
    return state


# --- what is read ---------------------------------------------------------------------------------------


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
    read = read_laion_state(path)
    assert list(read) == [KEY] and torch.equal(read[KEY], torch.arange(4.0))
    assert read_checkpoint(path)["epoch"] == 3


def test_a_bare_state_is_read_too(tmp_path):
    assert list(read_laion_state(_saved({KEY: torch.ones(1)}, tmp_path / "bare.pt"))) == [KEY]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("audio_model", "width", "depth"), [("HTSAT-tiny", 96, 6), ("HTSAT-base", 128, 12)])
def test_the_architecture_is_read_off_the_weights(audio_model, width, depth, fused):
    found = laion_architecture(_laion_like(width, (2, 2, depth, 2), fused))
    assert (found.fused, found.audio_model) == (fused, audio_model)
    assert (found.n_tokens, found.n_positions, found.text_layers) == (50, 514, 12)


def test_other_architectures_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"64 wide with depths \(2, 2, 6, 2\); known: HTSAT-tiny"):
        laion_architecture(_laion_like(64))
    without_roberta = {key: value for key, value in _laion_like().items() if "word_embeddings" not in key}
    with pytest.raises(ValueError, match="word_embeddings.weight is missing"):
        laion_architecture(without_roberta)
    other_fusion = _laion_like(fused=True) | {"audio_branch.mel_conv1d.0.weight": torch.ones(1)}
    with pytest.raises(ValueError, match="allowed: aff_2d"):
        laion_architecture(other_fusion)
    for key, message in (
        ("audio_model.x", "ClapModel"),
        ("audio_encoder.x", "MS CLAP"),
        ("x", "its names are x"),
    ):
        with pytest.raises(ValueError, match=message):
            read_laion_state(_saved({key: torch.ones(1)}, tmp_path / "other.pt"))
    assert msclap_version({"audio_encoder.base.htsat.x": 0}) == "2023"
    assert msclap_version({"audio_encoder.base.conv_block1.x": 0}) == "2022"
    with pytest.raises(ValueError, match="no MS CLAP 2022 or 2023"):
        msclap_version(_laion_like())


# --- what is refused ------------------------------------------------------------------------------------


class Trap:
    """Would make a file when unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("where", ["state_dict", "model", "beside"])
@pytest.mark.parametrize("name", ["laion", "laion-fusion", "msclap-2022", "msclap-2023", None])
def test_a_pickle_that_would_run_code_is_refused_and_nothing_runs(tmp_path, name, where, zipped):
    trap = Trap(tmp_path / "ran")
    content = {"weights": {KEY: torch.ones(1)}, "x": trap} if where == "beside" else {where: {KEY: trap}}
    path = _saved(content, tmp_path / "trap.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="trap.pt could not be loaded: it holds more than weights"):
        load_clap(path, device="cpu") if name is None else load_clap(name, checkpoint=path, device="cpu")
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(trap))
    assert (tmp_path / "ran").exists()  # the trap works


def test_only_the_allow_list_is_let_through(tmp_path):
    """numpy scalars, as LAION's files hold them; not arrays, not classes, not functions."""
    before = set(torch.serialization.get_safe_globals())
    for value in (np.ones(2), Path("x"), print, np.random.RandomState(0)):
        with pytest.raises(ValueError, match="more than weights"):
            read_checkpoint(_saved({KEY: torch.ones(1), "x": value}, tmp_path / "x.pt"))
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("read", [read_laion_state, read_msclap_state])
def test_truncated_empty_and_foreign_files_each_say_so(tmp_path, read, zipped):
    whole = _saved({KEY: torch.ones(5000)}, tmp_path / "whole.pt", _use_new_zipfile_serialization=zipped)
    content = whole.read_bytes()
    messages = {
        b"": "it is empty",
        content[: len(content) // 2]: "cut short",
        content[:-10]: "cut short",
        b"RIFF....WAVE": "it is no PyTorch checkpoint; it begins with b'RIFF'",
        pickle.dumps({KEY: 1}): "more than weights",
    }
    for number, (spoilt, message) in enumerate(messages.items()):
        path = tmp_path / f"{number}.pt"
        path.write_bytes(spoilt)
        with pytest.raises(ValueError, match=rf"{number}\.pt could not be loaded: .*{message}"):
            read(path)
    for other, message in (
        ([1, 2], "holds a list"),
        ({KEY: 3}, f"no set of weights: {KEY}"),
        ({}, "it is empty"),
    ):
        with pytest.raises(ValueError, match=message):
            read(_saved(other, tmp_path / "other.pt"))
    with pytest.raises(FileNotFoundError, match="is a folder"):
        read(tmp_path)


def test_weights_that_do_not_fit_are_named():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    state = model.state_dict()
    load_whole(model, {key: value + 1 for key, value in state.items()}, "x.pt")
    assert torch.equal(model[1].running_mean, torch.ones(2))
    spoilt = {
        "1 missing weight(s): 0.bias": {k: v for k, v in state.items() if k != "0.bias"},
        "1 unexpected weight(s): 0.scale": state | {"0.scale": torch.ones(1)},
        "1 mismatched weight(s): 1.bias": state | {"1.bias": torch.ones(3)},
    }
    for message, other in spoilt.items():
        with pytest.raises(ValueError) as error:
            load_whole(model, other, "x.pt", may_differ=("position_ids",))
        assert message in str(error.value)
    load_whole(model, state | {"text.position_ids": torch.ones(1)}, "x.pt", may_differ=("position_ids",))


def test_no_loader_turns_weights_only_off():
    """Neither in our code nor as an argument that something else passes on."""
    package = Path(sys.modules["humanclap"].__file__).parent
    for path in package.rglob("*.py"):
        assert "weights_only=False" not in path.read_text(encoding="utf-8"), path
