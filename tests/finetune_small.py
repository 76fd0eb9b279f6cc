"""A tiny random ClapModel and rated tones, for the tests of fine-tuning; no number of theirs speaks of sound."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, RobertaTokenizerFast

SAMPLE_RATE, CLIP_SECONDS, MELS, SPEC = 8000, 2, 16, 64
SOUNDS = ("dog", "train", "bell", "rain", "wind", "siren", "bird", "saw")


def make_corpus(root: Path) -> pd.DataFrame:
    """48 rated tones, three to a caption, written into `root`: audio, text and target."""
    rng = np.random.default_rng(0)
    time = np.arange(int(1.5 * SAMPLE_RATE)) / SAMPLE_RATE
    rows = []
    for index in range(48):
        caption = f"a {SOUNDS[index // 3 % 8]} followed by a {SOUNDS[(index // 3 * 3 + index // 24) % 8]}"
        tone = np.sin(2 * np.pi * (150 + 60 * (index // 3)) * time) + 0.2 * rng.standard_normal(len(time))
        soundfile.write(root / f"{index:02d}.wav", 0.2 * tone, SAMPLE_RATE, subtype="PCM_16")
        rows.append({"audio": f"{index:02d}.wav", "text": caption, "target": int(rng.integers(0, 11)) / 10})
    return pd.DataFrame(rows)


def make_clap(folder, texts, fused=False):
    """A random ClapModel with a front end, as save_pretrained writes it; its cosines lie on both sides of
    0."""
    tokenizer = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(texts, vocab_size=320, special_tokens=special, show_progress=False)
    folder.mkdir()
    tokenizer.save_model(str(folder))
    RobertaTokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=40).save_pretrained(
        folder
    )
    frames = SPEC * SPEC // MELS
    ClapFeatureExtractor(
        feature_size=MELS, sampling_rate=SAMPLE_RATE, max_length_s=CLIP_SECONDS, fft_window_size=256,
        hop_length=math.ceil(SAMPLE_RATE * CLIP_SECONDS / (frames - 1)), frequency_min=50, frequency_max=4000,
        truncation="fusion" if fused else "rand_trunc", padding="repeatpad",
    ).save_pretrained(folder)  # fmt: skip
    config = ClapConfig(
        text_config={
            "vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "projection_dim": 32, "intermediate_size": 64, "max_position_embeddings": 42,
            "layer_norm_eps": 1e-5, "initializer_factor": 2.0,
        },
        audio_config={
            "spec_size": SPEC, "num_mel_bins": MELS, "patch_embeds_hidden_size": 8, "depths": [1, 1],
            "hidden_size": 16, "num_attention_heads": [2, 2], "window_size": 4, "projection_dim": 32,
            "enable_fusion": fused, "fusion_type": "aff_2d" if fused else None, "initializer_factor": 2.0,
        },
        projection_dim=32,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = ClapModel(config)
        shared = torch.randn(32)
        for projection in (model.audio_projection, model.text_projection):
            projection.linear2.bias.data.copy_(0.15 * shared)
        batch_norm = model.audio_model.audio_encoder.batch_norm
        batch_norm.running_mean.fill_(-30.0)
        batch_norm.running_var.fill_(200.0)
    model.save_pretrained(folder)
    return folder
