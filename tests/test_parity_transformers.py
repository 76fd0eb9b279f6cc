"""`ClapModel` folders of LAION's size: our numbers are those of transformers' own processor and model."""

from __future__ import annotations

import full_size
import numpy as np
import pytest
import torch
from transformers import ClapModel, ClapProcessor

from humanclap import audio, load_clap
from humanclap.audio import load_audio

pytestmark = pytest.mark.slow

LIMIT = 1e-5
"""Of 1 - cosine. Measured on a CPU: at most 1e-12, for audio and for text."""


@pytest.fixture(scope="module")
def captions(real_ratings):
    return sorted(real_ratings["text"].unique())


@pytest.fixture(scope="module", params=[False, True], ids=["unfused", "fused"])
def folder(request, tmp_path_factory, captions):
    root = full_size.session_folder(request, tmp_path_factory)
    with full_size.serving(full_size.hub(root, captions)):
        return full_size.clapmodel_folder(root, fused=request.param)


@pytest.fixture(scope="module")
def clap(folder):
    return load_clap(folder, device="cpu")


@pytest.fixture(scope="module")
def clips(tmp_path_factory, recordings):
    made = full_size.save_clips(tmp_path_factory.mktemp("clips"))
    return [*made, recordings / "dog.wav", recordings / "train.wav"]


@pytest.fixture(scope="module")
def upstream(folder):
    """The untouched call: processor and model, on a list of waveforms."""
    model, processor = ClapModel.from_pretrained(folder).eval(), ClapProcessor.from_pretrained(folder)

    def embed(waveforms):
        inputs = processor.feature_extractor(waveforms, sampling_rate=48_000, return_tensors="pt")
        with torch.inference_mode():
            return _tensor(model.get_audio_features(**inputs)).numpy()

    def embed_text(texts):
        inputs = processor.tokenizer(texts, padding=True, return_tensors="pt")
        with torch.inference_mode():
            return _tensor(model.get_text_features(**inputs)).numpy()

    return embed, embed_text


def _tensor(output):
    return output if isinstance(output, torch.Tensor) else output.pooler_output


def test_upstream_is_transformers_own_call_under_the_same_seed(folder, upstream, clips):
    """Of long and short clips, and of short ones alone, one of which a fused model then takes for long."""
    clap = load_clap(folder, device="cpu", window="upstream", seed=3)
    for paths in (clips[1:], clips[:2]):
        state = np.random.get_state()
        np.random.seed(3)
        expected = upstream[0]([load_audio(path, 48_000) for path in paths])
        np.random.set_state(state)
        assert full_size.worst_angle(clap.embed_audio(paths), expected) < LIMIT


def test_the_default_window_is_transformers_given_the_same(clap, upstream, clips, monkeypatch):
    waveforms = [load_audio(path, 48_000) for path in clips]
    if clap.window == "fusion":  # with long clips in the list no short one is marked
        monkeypatch.setattr(np.random, "choice", lambda places: places[len(places) // 2])
    else:
        waveforms = [audio.windows(waveform, 480_000, "first")[0] for waveform in waveforms]
    vectors = clap.embed_audio(clips)
    assert full_size.worst_angle(vectors, upstream[0](waveforms)) < LIMIT
    alone = np.concatenate([clap.embed_audio([path]) for path in clips[:4:3]])
    np.testing.assert_allclose(alone, vectors[:4:3], atol=1e-6)


def test_captions_are_transformers(clap, upstream, captions):
    assert full_size.worst_angle(clap.embed_text(captions[:12]), upstream[1](captions[:12])) < LIMIT
