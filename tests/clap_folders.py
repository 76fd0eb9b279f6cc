"""Tiny random `ClapModel` folders in the real format, and clips to put through them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import torch

CAPTIONS = (
    "A dog barks twice followed by a train horn",
    "rain",
    "A woman is speaking while music plays in the background and people clap",
    "Birds sing",
    "An engine idles, then accelerates",
)


def save_clap(folder: Path, fused: bool = False, seed: int = 0, **extractor_settings) -> Path:
    """A random ClapModel at 16 kHz with windows of 1 s, its extractor and a tokenizer trained on CAPTIONS."""
    from tokenizers import ByteLevelBPETokenizer
    from tokenizers.processors import RobertaProcessing
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, RobertaTokenizerFast

    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(CAPTIONS, vocab_size=320, special_tokens=specials, show_progress=False)
    bpe.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer = RobertaTokenizerFast(tokenizer_object=bpe._tokenizer, model_max_length=48)
    tokenizer.save_pretrained(folder)

    # transformers' own fusion, an oracle of ours, has 64 mel bins written into it.
    mel_bins, spec_size = (64, 64) if fused else (16, 32)
    settings = {
        "feature_size": mel_bins, "sampling_rate": 16_000, "hop_length": 320, "max_length_s": 1, "fft_window_size": 512,
        "frequency_min": 50, "frequency_max": 8_000, "truncation": "fusion" if fused else "rand_trunc",
        "padding": "repeatpad",
    }  # fmt: skip
    ClapFeatureExtractor(**settings | extractor_settings).save_pretrained(folder)

    text = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 64, "projection_dim": 8,
    }  # fmt: skip
    audio = {
        "num_mel_bins": mel_bins, "spec_size": spec_size, "patch_size": 4, "patch_stride": [4, 4], "window_size": 4,
        "depths": [1, 1], "num_attention_heads": [2, 2], "patch_embeds_hidden_size": 16, "hidden_size": 32,
        "aff_block_r": 2, "enable_fusion": fused, "enable_patch_layer_norm": True, "projection_dim": 8, "mlp_ratio": 2.0,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=8))
        # As initialised, every clip and caption falls on nearly one point, where nothing could be told apart.
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(4)
            for projection in (model.audio_projection, model.text_projection):
                projection.linear2.bias.uniform_(-0.3, 0.3)  # else a ReLU may leave nothing but zeros
            model.audio_model.audio_encoder.batch_norm.running_mean.fill_(-20.0)  # dB
            model.audio_model.audio_encoder.batch_norm.running_var.fill_(100.0)
    model.save_pretrained(folder)
    return folder


def laion_names(clapmodel: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A ClapModel's tensors under LAION's names, by plain replacement; query, key and value one below the other."""
    names = {
        "audio_model.audio_encoder.batch_norm.": "audio_branch.bn0.",
        "audio_model.audio_encoder.": "audio_branch.",
        "attention.self.relative": "attn.relative",
        "attention.output.dense": "attn.proj",
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "intermediate.dense.": "mlp.fc1.",
        "output.dense.": "mlp.fc2.",
        "projection.linear1.": "projection.0.",
        "projection.linear2.": "projection.2.",
    }
    found = {}
    for own, tensor in clapmodel.items():
        key = own
        for old, new in names.items() if not own.startswith("text_model.") else (("text_model.", "text_branch."),):
            key = key.replace(old, new)
        if "attention.self.query" in key and key.startswith("audio_branch."):
            thirds = [clapmodel[own.replace(".query.", f".{kind}.")] for kind in ("query", "key", "value")]
            key, tensor = key.replace("attention.self.query", "attn.qkv"), torch.cat(thirds)
        if "attention.self." not in key or key.startswith("text_branch."):
            found[key] = tensor
    return found


def save_clips(folder: Path, seed: int = 0) -> list[Path]:
    """Six clips of noise bursts: shorter than, exactly and longer than 1 s; 8 to 44.1 kHz; one in stereo."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    lengths = ((16_000, 0.3), (16_000, 1.0), (16_000, 1.01), (16_000, 2.5), (8_000, 0.7), (44_100, 1.6))
    paths = []
    for i, (rate, seconds) in enumerate(lengths):
        shape = (int(rate * seconds), 2) if i == 5 else int(rate * seconds)
        envelope = np.linspace(1, 0.1, int(rate * seconds)).reshape(-1, *[1] * (np.ndim(np.empty(shape)) - 1))
        paths.append(folder / f"clip{i}.wav")
        soundfile.write(paths[-1], 0.3 * rng.standard_normal(shape).clip(-3, 3) * envelope, rate)
    return paths
