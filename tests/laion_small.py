"""A small made-up LAION CLAP of laion_clap's own modules: another width and depth, the same names and arithmetic."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from functools import lru_cache
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch
from full_size import randomised, upstream_packages
from torch import nn

WIDTH, JOINT, TEXT_WIDTH = 16, 24, 64


def laion_models() -> ModuleType:
    """laion_clap's `clap_module`, its models, without the package around it, which asks the hub for three tokenizers."""
    with upstream_packages():
        warnings.filterwarnings("ignore", message="torch.meshgrid")
        sys.path.insert(0, next(iter(importlib.util.find_spec("laion_clap").submodule_search_locations)))
        return importlib.import_module("clap_module")


class SmallLaion(nn.Module):
    """laion_clap.CLAP's parts under its names; CLAP itself has RoBERTa's 768 written into it."""

    def __init__(self, fused: bool, n_tokens: int = 300):
        super().__init__()
        models = laion_models()
        from transformers import RobertaConfig, RobertaModel

        heard = SimpleNamespace(mel_bins=64, window_size=1024, hop_size=480, sample_rate=48_000, fmin=50, fmax=14_000)
        self.audio_branch = models.htsat.HTSAT_Swin_Transformer(
            embed_dim=WIDTH, depths=[2, 1, 2, 1], num_heads=[2, 4, 4, 8], config=heard, enable_fusion=fused,
            fusion_type="aff_2d" if fused else "None",
        )  # fmt: skip
        config = RobertaConfig(
            vocab_size=n_tokens, hidden_size=TEXT_WIDTH, num_hidden_layers=2, num_attention_heads=1,
            intermediate_size=96, max_position_embeddings=82, type_vocab_size=1, layer_norm_eps=1e-5,
        )  # fmt: skip
        self.text_branch = RobertaModel(config)
        self.text_projection, self.audio_projection = _projection(TEXT_WIDTH), _projection(WIDTH * 8)
        self.text_transform = models.model.MLPLayers(units=[JOINT] * 3, dropout=0.1)
        self.audio_transform = models.model.MLPLayers(units=[JOINT] * 3, dropout=0.1)
        self.logit_scale_a, self.logit_scale_t = nn.Parameter(torch.tensor(3.0)), nn.Parameter(torch.tensor(2.0))

    def embed_audio(self, waveforms: torch.Tensor, mels: torch.Tensor, longer: torch.Tensor) -> torch.Tensor:
        """By the package's own forward: `mels` `[N, 4, 1001, 64]` is what a fused model hears, else the waveforms."""
        heard = {"waveform": waveforms, "mel_fusion": mels, "longer": longer}
        return self.audio_projection(self.audio_branch(heard, device="cpu")["embedding"])

    def log_mels(self, waveforms: torch.Tensor) -> torch.Tensor:
        return self.audio_branch.logmel_extractor(self.audio_branch.spectrogram_extractor(waveforms))

    def embed_text(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.text_projection(self.text_branch(input_ids, attention_mask=attention_mask).pooler_output)


@lru_cache(maxsize=4)
def small_laion(fused: bool, seed: int = 0) -> SmallLaion:
    """One with weights of its own in every layer, in eval mode. Shared: to be copied before it is changed."""
    with upstream_packages(), torch.random.fork_rng(devices=[]):
        return randomised(SmallLaion(fused), seed)


def save_laion(model: SmallLaion, path: Path, **changes: torch.Tensor | None) -> Path:
    """As LAION publishes: `module.` before every name; `changes` set (or, with None, leave out) single tensors."""
    state = {**model.state_dict(), "text_branch.embeddings.position_ids": torch.arange(82)[None], **changes}
    content = {"epoch": 1, "state_dict": {f"module.{k}": v for k, v in state.items() if v is not None}}
    torch.save(content, path)
    return path


def _projection(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, JOINT), nn.ReLU(), nn.Linear(JOINT, JOINT))
