"""LAION's CLAP from its own `.pt` files: laion_clap's modules and weights, without the waste."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ..files import sha256_of
from .. import audio
from .embedder import Embedder, choose_window, padded, require_captions, require_several
from .front_end import chunk_starts, tokenizer_sha256
from .packages import laion_models, surroundings_kept, untrained
from .published import fetch_tokenizer
from .swin import run_layers
from .weights import LaionArchitecture, laion_architecture, load_whole, read_laion_state

SAMPLE_RATE = 48_000
CLIP_SAMPLES = 480_000
MAX_TOKENS = 77
_FFT, _HOP, _MELS, _LOWEST_HZ, _HIGHEST_HZ = 1024, 480, 64, 50, 14_000
_FRAMES = CLIP_SAMPLES // _HOP + 1
_BLOCK_FRAMES = 6_000  # a minute
_FLOOR = 1e-10  # of a mel bin's power: -100 dB
_FORMAT = 1  # raise it when the same settings would give other features
# A buffer with a place in files from before transformers 4.31, and without one since.
_MAY_DIFFER = ("text_branch.embeddings.position_ids",)


class LaionClap(Embedder):
    """A LAION CLAP (HTSAT-tiny or -base, with or without feature fusion), in eval mode.

    The numbers are laion_clap's; a clip's features are decided by that clip alone, where the package crops at
    random. The attributes are those of the Clap protocol.
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike,
        name: str | None = None,
        device: str = "auto",
        window: str | None = None,
        precision: str = "fp32",
        seed: int = 0,
        fused: bool | None = None,
    ):
        """Open a `.pt` file; `fused`, where given, is what it must be. The rest is as in `load_clap`."""
        super().__init__(device, precision)
        self.name = name or Path(checkpoint).name
        state = read_laion_state(checkpoint)
        architecture = laion_architecture(state, checkpoint)
        if fused not in (None, architecture.fused):
            kinds = {True: "with feature fusion", False: "without feature fusion"}
            raise ValueError(
                f"{self.name} is a model {kinds[fused]}, and {checkpoint} is one "
                f"{kinds[architecture.fused]}: use "
                f"load_clap({'laion-fusion' if architecture.fused else 'laion'!r}, checkpoint=...)"
            )
        self._fused = architecture.fused
        allowed = ("fusion", *audio.POLICIES) if self._fused else audio.POLICIES
        self.window = choose_window(window, allowed, self.name)
        self.seed, self.sample_rate = seed, SAMPLE_RATE
        self._tokenizer = _read_tokenizer()
        self._module = _build(architecture, state, checkpoint).to(self.device)
        self._branch = self._module.audio_branch
        self._dimension = self._module.audio_projection[2].out_features
        self._filters = self._mel_filters(state)
        self.checkpoint_sha256 = sha256_of(checkpoint)

    @property
    def front_end(self) -> str:
        """All that decides features and tokens, in one line of JSON: the same text, the same features."""
        settings = {"package": f"laion-clap {version('laion-clap')}", "format": _FORMAT, "fused": self._fused}
        settings |= {"window": self.window, "tokenizer_sha256": tokenizer_sha256(self._tokenizer)}
        if self.window == "upstream":
            settings["seed"] = self.seed
        return json.dumps(settings, sort_keys=True)

    def audio_features(self, paths: Sequence[str | os.PathLike]) -> dict[str, torch.Tensor]:
        """N files -> `input_features` float32 `[N, C, 1001, 64]`, log-mels in dB, and `is_longer` `[N, 1]`.

        C is 4 for a model with feature fusion (the clip shrunk, three chunks), else 1. Under "mean" there is
        a row for each window. Raises AudioError, with the path, for a file that can't be read.
        """
        require_several(paths, "paths")
        rng = np.random.RandomState(self.seed) if self.window == "upstream" else None
        seconds = CLIP_SAMPLES / SAMPLE_RATE if self.window == "first" else None  # of a long clip what is heard
        clips = [self._features(audio.load_audio(path, SAMPLE_RATE, seconds), rng) for path in paths]
        if not clips:
            raise ValueError("no files were given; audio_features needs at least one")
        counts = torch.tensor([len(mels) for mels, _ in clips])
        flags = torch.tensor([longer for _, longer in clips]).repeat_interleave(counts)[:, None]
        rows = {"input_features": torch.cat([mels for mels, _ in clips]), "is_longer": flags}
        return rows | {"windows": counts} if self.window == "mean" else rows

    def text_tokens(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """N captions -> `input_ids` and `attention_mask`, int64 `[N, L]`, L at most 77, as upstream."""
        require_several(texts, "texts")
        require_captions(texts)
        ids = self._tokenizer(list(texts), truncation=True, max_length=MAX_TOKENS)["input_ids"]
        return padded(ids, self._tokenizer.pad_token_id)

    def encode_audio(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """`audio_features` -> projections `[N, 512]`, not normalised, differentiable, where the model is."""
        branch = self._branch
        longer = features["is_longer"].flatten().nonzero().flatten().to(self.device)
        mels = features["input_features"]
        mels = mels if len(longer) else mels[:, :1]  # no chunk is looked at
        x = branch.bn0(mels.to(self.device).transpose(1, 3)).transpose(1, 3)
        x = branch.patch_embed(branch.reshape_wav2img(x), longer_idx=longer)
        # The branch's forward() from here on, less its class scores, which no CLAPScore uses.
        return self._module.audio_projection(branch.norm(run_layers(branch.layers, x)).mean(dim=1))

    def encode_text(self, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
        """`text_tokens` -> projections `[N, 512]`, not normalised, differentiable, where the model is."""
        return self._module.encode_text(tokens, device=self.device)

    # --- inside -----------------------------------------------------------------------------------------

    def _features(self, waveform: np.ndarray, rng: np.random.RandomState | None) -> tuple[torch.Tensor, bool]:
        """A clip at 48 kHz -> log-mels `[W, C, 1001, 64]` of its windows, and whether chunks are fused."""

        def draw(overflow: int) -> int:
            return rng.randint(0, overflow + 1)

        if not self._fused:
            cuts = audio.windows(waveform, CLIP_SAMPLES, self.window, draw)
            return self._log_mels(cuts)[:, None], False
        overflow = len(waveform) - CLIP_SAMPLES
        if self.window not in ("fusion", "upstream") or overflow <= 0:
            policy = "first" if self.window in ("fusion", "upstream") else self.window
            mels = self._log_mels(audio.windows(waveform, CLIP_SAMPLES, policy))
            return mels[:, None].expand(-1, 4, -1, -1), False
        mel = self._log_mels([waveform])[0]
        fits = len(mel) == _FRAMES  # longer by less than one hop: as many frames as a clip that fits
        starts = [] if fits else chunk_starts(len(mel) - _FRAMES + 1, rng)
        if rng is not None:
            draw(overflow)  # of a crop that the package makes and its fused models do not hear
        if fits:
            return mel.expand(1, 4, -1, -1), False
        shrunk = F.interpolate(mel[None, None], size=(_FRAMES, _MELS), mode="bilinear", antialias=True)[0]
        return torch.cat([shrunk, *(mel[None, start : start + _FRAMES] for start in starts)])[None], True

    def _log_mels(self, cuts: Iterable[np.ndarray]) -> torch.Tensor:
        """W waveforms `[T]` -> log-mels `[W, frames, 64]` in dB, by an FFT where the package convolves."""
        return torch.stack([torch.cat(list(self._mel_blocks(_through_int16(cut)))) for cut in cuts])

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
            yield 10 * (power.T @ self._filters).clamp_min(_FLOOR).log10()

    def _mel_filters(self, state: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """`[513, 64]`: those in the checkpoint, or, with feature fusion, the ones that torchaudio makes."""
        if not self._fused:
            return state["audio_branch.logmel_extractor.melW"].float().clone()
        from torchaudio.functional import melscale_fbanks

        return melscale_fbanks(_FFT // 2 + 1, _LOWEST_HZ, _HIGHEST_HZ, _MELS, SAMPLE_RATE)


def _build(architecture: LaionArchitecture, state: Mapping[str, torch.Tensor], path) -> torch.nn.Module:
    """laion_clap's own model with the checkpoint's weights, in eval mode."""
    from transformers import RobertaConfig, RobertaModel

    package = laion_models()
    config = RobertaConfig(
        vocab_size=architecture.n_tokens,
        max_position_embeddings=architecture.n_positions,
        num_hidden_layers=architecture.text_layers,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )
    with surroundings_kept():
        text_branch = RobertaModel(config)
        with untrained(package.model, "RobertaModel", text_branch):
            model, settings = package.create_model(
                architecture.audio_model,
                "roberta",
                device=torch.device("cpu"),
                enable_fusion=architecture.fused,
                fusion_type="aff_2d" if architecture.fused else "None",
            )
        heard = settings["audio_cfg"]
        expected = {
            "sample_rate": SAMPLE_RATE,
            "clip_samples": CLIP_SAMPLES,
            "window_size": _FFT,
            "hop_size": _HOP,
        }
        expected |= {"mel_bins": _MELS, "fmin": _LOWEST_HZ, "fmax": _HIGHEST_HZ}
        if any(heard[key] != value for key, value in expected.items()):
            raise RuntimeError(
                f"this laion-clap has another front end, {heard}; expected {expected}: use 1.1.7"
            )
        load_whole(model, state, path, _MAY_DIFFER)
    return model.eval()


def _read_tokenizer():
    from transformers import RobertaTokenizerFast

    return RobertaTokenizerFast.from_pretrained(fetch_tokenizer("roberta-base"), local_files_only=True)


def _through_int16(waveform: np.ndarray) -> np.ndarray:
    """Samples cut off to 16 bits, as LAION's models were trained and are used."""
    samples = np.clip(waveform, -1, 1)
    samples *= np.float32(32767)
    return samples.astype(np.int16) / np.float32(32767)
