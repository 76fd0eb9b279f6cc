"""The shapes of the stand-ins, and the model, front end and tokenizer of each."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..synthetic import SAMPLE_RATE

if TYPE_CHECKING:
    from transformers import ClapFeatureExtractor, ClapModel, RobertaTokenizerFast

MAX_TOKENS = 64
_SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")  # ids 0-4, <pad> being 1, as in roberta-base
_PAD = 1


@dataclass(frozen=True)
class Architecture:
    """The shape of one stand-in: mel front end, HTSAT, text encoder and projection.

    HTSAT takes `mel_bins` × `spec_size`²/`mel_bins` frames, folds them into a square of `spec_size`, cuts it into
    square patches of `patch_size` and halves that grid from stage to stage, doubling `audio_width`. Attention
    runs in windows of `window_size` patches, which must divide every grid.
    """

    mel_bins: int
    fft_size: int
    frequency_max: int
    spec_size: int
    patch_size: int
    window_size: int
    depths: tuple[int, ...]
    heads: int
    audio_width: int
    text_width: int
    text_layers: int
    projection_dim: int
    vocabulary: int
    dropout: float = 0.1

    @property
    def frames(self) -> int:
        """The most spectrogram frames that HTSAT takes."""
        return self.spec_size * (self.spec_size // self.mel_bins)


ARCHITECTURES = {
    "laion-standin": Architecture(
        mel_bins=32, fft_size=1024, frequency_max=8000, spec_size=64, patch_size=16, window_size=4,
        depths=(2,), heads=4, audio_width=96, text_width=64, text_layers=2, projection_dim=64, vocabulary=600,
    ),
    "msclap-standin": Architecture(
        mel_bins=32, fft_size=512, frequency_max=7000, spec_size=64, patch_size=8, window_size=4,
        depths=(1, 1), heads=4, audio_width=40, text_width=48, text_layers=1, projection_dim=48, vocabulary=400,
    ),
}  # fmt: skip
"""LAION CLAP's stand-in and MS CLAP's: other front ends, depths, widths and tokenizers."""


def new_front_end(architecture: Architecture, clip_seconds: int) -> ClapFeatureExtractor:
    """The log-mel front end, 16 kHz, whose window is one clip, with a hop that fills HTSAT's frames."""
    from transformers import ClapFeatureExtractor

    # A centred STFT of n samples has 1 + n // hop frames, and HTSAT refuses one frame too many.
    hop = clip_seconds * SAMPLE_RATE // architecture.frames + 1
    return ClapFeatureExtractor(
        feature_size=architecture.mel_bins,
        sampling_rate=SAMPLE_RATE,
        hop_length=hop,
        max_length_s=clip_seconds,
        fft_window_size=architecture.fft_size,
        frequency_min=50,
        frequency_max=architecture.frequency_max,
        truncation="rand_trunc",
        padding="repeatpad",
    )


def new_tokenizer(captions: Sequence[str], vocabulary: int) -> RobertaTokenizerFast:
    """A byte-level BPE tokenizer of RoBERTa's kind, trained on the captions; it has tokens for any text."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaTokenizerFast

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        captions, vocab_size=vocabulary, min_frequency=2, special_tokens=list(_SPECIAL_TOKENS), show_progress=False
    )
    with tempfile.TemporaryDirectory() as folder:
        bpe.save_model(folder)
        files = (f"{folder}/vocab.json", f"{folder}/merges.txt")
        return RobertaTokenizerFast(*files, model_max_length=MAX_TOKENS)


def new_model(architecture: Architecture, vocabulary: int) -> ClapModel:
    """A ClapModel of this shape, for `vocabulary` tokens, with random weights from torch's global generator."""
    from transformers import ClapConfig, ClapModel

    stages = len(architecture.depths)
    audio = {
        "num_mel_bins": architecture.mel_bins,
        "spec_size": architecture.spec_size,
        "patch_size": architecture.patch_size,
        "patch_stride": [architecture.patch_size] * 2,
        "window_size": architecture.window_size,
        "depths": list(architecture.depths),
        "num_attention_heads": [architecture.heads] * stages,
        "num_hidden_layers": stages,
        "patch_embeds_hidden_size": architecture.audio_width,
        "hidden_size": architecture.audio_width * 2 ** (stages - 1),
        "hidden_dropout_prob": architecture.dropout,
        "enable_fusion": False,
    }
    text = {
        "vocab_size": vocabulary,
        "hidden_size": architecture.text_width,
        "num_hidden_layers": architecture.text_layers,
        "num_attention_heads": 4,
        "intermediate_size": 2 * architecture.text_width,
        "max_position_embeddings": MAX_TOKENS + _PAD + 1,  # RoBERTa counts positions from the padding id on
        "hidden_dropout_prob": architecture.dropout,
        "attention_probs_dropout_prob": architecture.dropout,
        "layer_norm_eps": 1e-5,
        "pad_token_id": _PAD,
    }
    return ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=architecture.projection_dim))
