"""LAION's checkpoints and ClapModel folders, one into the other: no weight lost, the same embeddings."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from clap_folders import CAPTIONS, laion_names, save_clap
from full_size import hub, laion_checkpoint, save_clips, serving, session_folder, upstream_laion
from laion_small import laion_models, save_laion, small_laion
from transformers import ClapFeatureExtractor, ClapModel

from humanclap import load_clap
from humanclap.clap.checkpoints import read_weights
from humanclap.clap.laion import clapmodel_config, clapmodel_state, to_clapmodel, to_laion


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """The folder of a small RoBERTa tokenizer."""
    return save_clap(tmp_path_factory.mktemp("tokenizer") / "clap")


@pytest.fixture(scope="module", params=[False, True], ids=["unfused", "fused"])
def made(request, tmp_path_factory, tokenizer):
    """A small LAION model, its .pt and the folder that it was converted to."""
    root = tmp_path_factory.mktemp("fused" if request.param else "unfused")
    model = small_laion(request.param)
    checkpoint = save_laion(model, root / "small.pt")
    return model, checkpoint, to_clapmodel(checkpoint, root / "clapmodel", tokenizer), request.param


@torch.inference_mode()
def test_embeddings_are_those_of_laions_own_modules(made):
    laion, _, folder, fused = made
    model = ClapModel.from_pretrained(folder).eval()
    generator = torch.Generator().manual_seed(0)
    waveforms = 0.1 * torch.randn(3, 480_000, generator=generator) * torch.rand(3, 1, generator=generator)
    mels = laion.log_mels(waveforms)
    longer = torch.tensor([[False], [True], [False]])
    if fused:
        mels = torch.cat([mels, mels.roll(1, 0), mels.roll(1, 2), mels.roll(2, 0)], dim=1)
    expected = laion.embed_audio(waveforms, mels, longer)
    found = model.audio_projection(model.audio_model(input_features=mels, is_longer=longer).pooler_output)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert expected.std(dim=0).max() > 0.01  # the clips are told apart, or this would show nothing

    ids = torch.randint(3, 300, (3, 20), generator=generator)
    mask = torch.ones_like(ids)
    ids[1, 9:], mask[1, 9:] = 1, 0
    expected = laion.embed_text(ids, mask)
    found = model.text_projection(model.text_model(input_ids=ids, attention_mask=mask).pooler_output)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert expected.std(dim=0).max() > 0.01
    assert model.logit_scale_a == laion.logit_scale_a and model.logit_scale_t == laion.logit_scale_t


def test_the_folder_is_complete_and_opens_as_a_clap(made, tmp_path):
    _, _, folder, fused = made
    extractor = ClapFeatureExtractor.from_pretrained(folder)
    assert (extractor.frequency_min, extractor.frequency_max) == (50, 14_000)
    assert extractor.truncation == ("fusion" if fused else "rand_trunc")
    clap = load_clap(folder, device="cpu")
    assert (clap.max_tokens, clap.sample_rate, clap.window) == (77, 48_000, "fusion" if fused else "first")
    for vectors in (clap.embed_text(CAPTIONS), clap.embed_audio(save_clips(tmp_path, seconds=(0.5, 10.24)))):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_there_and_back_every_tensor_is_what_it_was_and_laion_clap_reads_it(made, tmp_path):
    """laion_clap's load_state_dict deletes a key, and the rest must fit the model to the last one."""
    _, checkpoint, folder, fused = made
    back = to_laion(folder, tmp_path / "back.pt", base=checkpoint)
    before, after = read_weights(checkpoint)[0], read_weights(back)[0]
    assert before.keys() == after.keys() and all(torch.equal(after[key], tensor) for key, tensor in before.items())
    state = laion_models().factory.load_state_dict(str(back))
    copy.deepcopy(small_laion(fused, seed=1)).load_state_dict(state, strict=True)
    assert torch.load(back, weights_only=True).keys() == {"state_dict"}


def test_what_a_clapmodel_lacks_comes_from_the_base_and_the_rest_does_not(made, tmp_path):
    laion, _, folder, fused = made
    other = small_laion(fused, seed=1)
    back = read_weights(to_laion(folder, tmp_path / "back.pt", save_laion(other, tmp_path / "base.pt")))[0]
    own, base = laion.state_dict(), other.state_dict()
    for key in ("audio_branch.tscam_conv.weight", "audio_branch.head.bias", "text_transform.sequential.0.weight"):
        assert torch.equal(back[key], base[key]) and not torch.equal(back[key], own[key])
    for key in ("audio_branch.layers.2.blocks.1.attn.qkv.weight", "text_projection.2.bias", "logit_scale_a"):
        assert torch.equal(back[key], own[key])


def test_query_key_and_value_are_the_thirds_in_this_order():
    """By hand: rows 0-1, 2-3 and 4-5 of six."""
    key, rows = "audio_branch.layers.0.blocks.1.attn.qkv.weight", torch.arange(12.0).view(6, 2)
    state = clapmodel_state({key: rows})
    start = "audio_model.audio_encoder.layers.0.blocks.1.attention.self."
    assert {name: state[f"{start}{name}.weight"].tolist() for name in ("query", "key", "value")} == {
        "query": [[0, 1], [2, 3]],
        "key": [[4, 5], [6, 7]],
        "value": [[8, 9], [10, 11]],
    }


def test_the_architecture_of_the_published_models_is_read_off_their_tensors():
    """Shapes alone, on the meta device: HTSAT-base with its four stages."""
    from transformers import ClapConfig

    audio = {"patch_embeds_hidden_size": 128, "hidden_size": 1024, "depths": [2, 2, 12, 2], "enable_fusion": True}
    with torch.device("meta"):
        model = ClapModel(ClapConfig(audio_config=audio, text_config={"layer_norm_eps": 1e-5}))
    wanted = model.state_dict()
    base = laion_names(wanted)
    config = clapmodel_config(base, "x.pt")
    assert (config.audio_config.depths, config.audio_config.num_attention_heads) == ([2, 2, 12, 2], [4, 8, 16, 32])
    assert (config.text_config.num_attention_heads, config.text_config.layer_norm_eps) == (12, 1e-5)
    with torch.device("meta"):
        again = ClapModel(config).state_dict()
    assert {key: value.shape for key, value in again.items()} == {key: value.shape for key, value in wanted.items()}


# --- refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"audio_branch.layers.0.blocks.0.attn.gate": torch.ones(1)}, "1 unexpected weight.s.: .*self.gate"),
        (
            {"xaudio_branch.norm.weight": torch.ones(1)},
            "1 unexpected weight.s.: xaudio_model.audio_encoder.norm.weight",
        ),
        ({"audio_branch.norm.bias": None}, "1 missing weight.s.: audio_model.audio_encoder.norm.bias"),
        ({"audio_projection.2.bias": torch.ones(3)}, "1 mismatched weight.s.: audio_projection.linear2.bias"),
        ({"text_branch.embeddings.word_embeddings.weight": None}, "word_embeddings.weight' is missing"),
    ],
)
def test_a_checkpoint_that_does_not_fit_raises_with_its_keys(tmp_path, tokenizer, changes, message):
    checkpoint = save_laion(small_laion(False), tmp_path / "spoilt.pt", **changes)
    with pytest.raises(ValueError, match=message):
        to_clapmodel(checkpoint, tmp_path / "folder", tokenizer)
    assert [path.name for path in tmp_path.iterdir()] == ["spoilt.pt"]  # nothing half done


def test_a_base_of_another_kind_raises_with_its_keys(made, tmp_path):
    _, _, folder, fused = made
    other = save_laion(small_laion(not fused), tmp_path / "other.pt")
    with pytest.raises(ValueError, match="base checkpoint is of another architecture: .*fusion_model"):
        to_laion(folder, tmp_path / "back.pt", other)
    wider = save_laion(small_laion(fused), tmp_path / "wider.pt", logit_scale_a=torch.ones(2))
    with pytest.raises(ValueError, match=r"1 tensor\(s\) .* differ in shape: logit_scale_a"):
        to_laion(folder, tmp_path / "back.pt", wider)
    assert not (tmp_path / "back.pt").exists()


def test_nothing_is_overwritten_and_a_missing_file_is_named(made, tmp_path, tokenizer):
    _, checkpoint, folder, _ = made
    with pytest.raises(FileExistsError, match="is there already"):
        to_clapmodel(checkpoint, folder, tokenizer)
    with pytest.raises(FileExistsError, match="is there already"):
        to_laion(folder, checkpoint, checkpoint)
    with pytest.raises(FileNotFoundError, match="absent.pt"):
        to_clapmodel(tmp_path / "absent.pt", tmp_path / "new", tokenizer)
    with pytest.raises(FileNotFoundError, match="tokenizer"):
        to_clapmodel(checkpoint, tmp_path / "new", tmp_path / "no tokenizer")
    assert not list(tmp_path.iterdir())


def test_half_precision_becomes_float32_and_no_generator_moves(tmp_path, tokenizer):
    model = copy.deepcopy(small_laion(False)).half()
    before = torch.get_rng_state()
    folder = to_clapmodel(save_laion(model, tmp_path / "half.pt"), tmp_path / "folder", tokenizer)
    assert torch.equal(torch.get_rng_state(), before)
    assert {p.dtype for p in ClapModel.from_pretrained(folder).parameters()} == {torch.float32}


# --- full size ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_full_size_there_and_back_through_laion_clap(request, tmp_path_factory, tmp_path):
    """HTSAT-base: CLAP_Module on the published format against ClapModel, and CLAP_Module on what came back."""
    folder = session_folder(request, tmp_path_factory)
    with serving(hub(folder, CAPTIONS)):
        checkpoint = laion_checkpoint(folder, base=True)
        converted = to_clapmodel(checkpoint, tmp_path / "clapmodel")
        back = to_laion(converted, tmp_path / "back.pt", checkpoint)
        upstream = upstream_laion(back, base=True)
        own = load_clap(checkpoint, device="cpu")  # by its weights, without a name
    original, state = read_weights(checkpoint)[0], upstream.model.state_dict()
    assert original.keys() - state.keys() == {"text_branch.embeddings.position_ids"}
    assert all(torch.equal(tensor, original[key]) for key, tensor in state.items())
    clap = load_clap(converted, device="cpu")
    expected = upstream.get_text_embedding(list(CAPTIONS))
    for found in (clap.embed_text(CAPTIONS), own.embed_text(CAPTIONS)):
        np.testing.assert_allclose(found, expected, atol=1e-6)

    features = clap.audio_features(save_clips(tmp_path / "clips", seconds=(7, 10.24)))
    with torch.no_grad():
        heard = upstream.model.audio_branch
        x = heard.bn0(features["input_features"].transpose(1, 3)).transpose(1, 3)
        hidden = heard.forward_features(heard.reshape_wav2img(x))["embedding"]
        expected = torch.nn.functional.normalize(upstream.model.audio_projection(hidden), dim=-1)
    for found in (clap.embed_features(features), own.embed_features(features)):
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)
