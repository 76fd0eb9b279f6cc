"""LAION's CLAP from its own `.pt` files: laion_clap's modules and weights, without the waste."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from .. import audio
from ..checks import need_extra
from ..hub import hub_files
from ..models import ROBERTA
from .checkpoints import LaionArchitecture, laion_architecture, load_whole, read_shapes
from .embedder import FUSION, MelEmbedder
from .fast_cpu import FLOOR, run_layers
from .upstream import laion_models, surroundings_kept, untrained

SAMPLE_RATE = 48_000
CLIP_SAMPLES = 480_000
MAX_TOKENS = 77
"""Where laion_clap cuts a caption, in tokens."""
_FFT, _HOP, _MELS, _LOWEST_HZ, _HIGHEST_HZ = 1024, 480, 64, 50, 14_000
_BLOCK_FRAMES = 6_000  # a minute
_SETTINGS = {
    "sample_rate": SAMPLE_RATE, "clip_samples": CLIP_SAMPLES, "window_size": _FFT, "hop_size": _HOP,
    "mel_bins": _MELS, "fmin": _LOWEST_HZ, "fmax": _HIGHEST_HZ,
}  # fmt: skip
# A buffer with a place in files from before transformers 4.31, and without one since.
_MAY_DIFFER = ("text_branch.embeddings.position_ids",)


class LaionClap(MelEmbedder):
    """A LAION CLAP (HTSAT-tiny or -base, with or without feature fusion); the numbers are laion_clap's."""

    antialias = True
    sample_rate, n_samples, n_frames = SAMPLE_RATE, CLIP_SAMPLES, CLIP_SAMPLES // _HOP + 1
    max_tokens, dimension = MAX_TOKENS, 512

    def __init__(self, checkpoint: Path, name: str, fused: bool | None = None, **settings):
        """Open a `.pt` file; `fused`, where given, is what the file must be.

        `settings` are Embedder's. Raises ExtraMissing; FileNotFoundError; ValueError for a file that is damaged, would
        run code, or holds another model.
        """
        self._architecture = laion_architecture(read_shapes(checkpoint), checkpoint)
        need_extra("laion_clap", "laion", "LAION's own checkpoint")
        self.fused = self._architecture.fused
        if fused not in (None, self.fused):
            kinds = {True: "with feature fusion", False: "without feature fusion"}
            raise ValueError(
                f"{name} is a model {kinds[fused]}, and {checkpoint} is one {kinds[self.fused]}: use "
                f"load_clap({'laion-fusion' if self.fused else 'laion'!r}, checkpoint=...)"
            )
        super().__init__(name, [checkpoint], (FUSION, *audio.POLICIES) if self.fused else audio.POLICIES, **settings)
        from transformers import RobertaTokenizerFast

        self.tokenizer = RobertaTokenizerFast.from_pretrained(hub_files(ROBERTA).parent, local_files_only=True)

    def encode_audio(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """`audio_features` -> projections `[N, 512]`, not normalised, differentiable, where the model is."""
        branch = self.model.audio_branch
        longer = features["is_longer"].flatten().nonzero().flatten().to(self.device)
        mels = features["input_features"]
        mels = mels if len(longer) else mels[:, :1]  # no chunk is looked at
        x = branch.bn0(mels.to(self.device).transpose(1, 3)).transpose(1, 3)
        x = branch.patch_embed(branch.reshape_wav2img(x), longer_idx=longer)
        # The branch's forward() from here on, less its class scores, which no CLAPScore uses.
        return self.model.audio_projection(branch.norm(run_layers(branch.layers, x)).mean(dim=1))

    def encode_text(self, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
        """`text_tokens` -> projections `[N, 512]`, not normalised, differentiable, where the model is."""
        return self.model.encode_text(tokens, device=self.device)

    def log_mel(self, waveform: np.ndarray) -> torch.Tensor:
        """As laion_clap, by an FFT where the package convolves, through 16 bits as LAION's models were trained."""
        return torch.cat(list(self._mel_blocks(_through_int16(waveform))))

    def draw_more(self, rng: np.random.RandomState, overflow: int) -> None:
        """A crop that the package makes and its fused models do not hear."""
        rng.randint(0, overflow + 1)

    def front_end_settings(self) -> dict:
        """The package decides the rest."""
        return {"package": f"laion-clap {version('laion-clap')}", "fused": self.fused}

    def build(self, state: dict[str, torch.Tensor], path: Path) -> torch.nn.Module:
        """laion_clap's own model with the checkpoint's weights."""
        if laion_architecture(state, path) != self._architecture:
            raise ValueError(f"{path} has changed since {self.name} was opened: start again (load_clap)")
        model = _empty_model(self._architecture)
        model.mel_filters = self._mel_filters(state)  # a plain attribute: features are made on the CPU
        load_whole(model, state, path, _MAY_DIFFER)
        return model

    def _mel_blocks(self, samples: np.ndarray) -> Iterator[torch.Tensor]:
        """Log-mels, a block of frames at a time: the spectrum of an hour would take gigabytes."""
        reach = _FFT // 2
        signal = F.pad(torch.from_numpy(samples)[None], (reach, reach), mode="reflect")[0]
        window = torch.hann_window(_FFT)
        n_frames = len(samples) // _HOP + 1
        for start in range(0, n_frames, _BLOCK_FRAMES):
            end = min(start + _BLOCK_FRAMES, n_frames)
            part = signal[start * _HOP : (end - 1) * _HOP + _FFT]
            spectrum = torch.stft(part, _FFT, _HOP, window=window, center=False, return_complex=True)
            power = torch.view_as_real(spectrum).square().sum(dim=-1)
            yield 10 * (power.T @ self.model.mel_filters).clamp_min(FLOOR).log10()

    def _mel_filters(self, state: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """`[513, 64]`: those in the checkpoint, or, with feature fusion, the ones that torchaudio makes."""
        if not self.fused:
            return state["audio_branch.logmel_extractor.melW"].float().clone()
        from torchaudio.functional import melscale_fbanks

        return melscale_fbanks(_FFT // 2 + 1, _LOWEST_HZ, _HIGHEST_HZ, _MELS, SAMPLE_RATE)


def _empty_model(architecture: LaionArchitecture) -> torch.nn.Module:
    """laion_clap's own model, random. Raises RuntimeError for a laion-clap with another front end."""
    from transformers import RobertaConfig, RobertaModel

    package = laion_models()
    config = RobertaConfig(
        vocab_size=architecture.n_tokens,
        max_position_embeddings=architecture.n_positions,
        num_hidden_layers=architecture.text_layers,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )
    with surroundings_kept(), untrained(package.model, "RobertaModel", RobertaModel(config)):
        model, settings = package.create_model(
            architecture.audio_model,
            "roberta",
            device=torch.device("cpu"),
            enable_fusion=architecture.fused,
            fusion_type="aff_2d" if architecture.fused else "None",
        )
    heard = settings["audio_cfg"]
    if any(heard[key] != value for key, value in _SETTINGS.items()):
        raise RuntimeError(f"this laion-clap has another front end, {heard}; expected {_SETTINGS}: use 1.1.7")
    return model


def _through_int16(waveform: np.ndarray) -> np.ndarray:
    """Samples cut off to 16 bits, as LAION's models were trained and are used."""
    samples = np.clip(waveform, -1, 1)
    samples *= np.float32(32767)
    return samples.astype(np.int16) / np.float32(32767)
