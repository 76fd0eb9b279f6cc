"""The demo's stand-in CLAPs: two tiny `transformers.ClapModel`s, pretrained on the synthetic corpus's sounds.

They learn as LAION's and Microsoft's models did, by contrast, from captions that leave things out. So they name events
and hardly react to what is missing, added, noisy or in the wrong order: that is what the ratings add.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from humanclap import losses
from humanclap.checks import number, whole_number
from humanclap.files import writing
from humanclap.finetune.train import make_optimizer, reproducible, seed_dropout, small_on_cpu

from .clips import pretraining_clips
from .sounds import SAMPLE_RATE, event_kinds

if TYPE_CHECKING:
    from transformers import ClapFeatureExtractor, ClapModel, RobertaTokenizerFast

SETTINGS_FILE = "pretraining.json"
"""What a stand-in was made with; written last, so that a folder which holds it is complete."""

CURVE_FILE = "pretraining.csv"
"""The learning curve: one row per epoch."""

_FORMAT = 1  # raise it when the same settings give another model
_FILES = ("config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json", CURVE_FILE)
MAX_TOKENS = 64
_SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")  # ids 0-4, <pad> being 1, as in roberta-base
_PAD = 1
_MAX_LOG_SCALE = math.log(100.0)  # LAION's own training clamps 1/τ there
_WARM_UP = 0.05
_MAX_GRADIENT_NORM = 1.0


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


@dataclass(frozen=True)
class Pretraining:
    """The settings of one pretraining; `seed` alone decides clips, initial weights and the order of batches.

    n_clips: pairs of a clip and a caption, each `clip_seconds` long (a whole number: it is the model's window);
        one in ten is held out, for the curve only.
    epochs, batch_size, learning_rate, weight_decay: AdamW on the symmetric cross entropy; the learning rate
        rises over the first twentieth of the steps and falls to 0 along a cosine.

    The defaults were chosen on corpora of other seeds than the demo's. They are few clips on purpose: enough to
    name events, while with ten times as many a stand-in follows the ratings far better than published CLAPs do and
    fine-tuning has little to add (benchmarks/demo_controls.md tells how they were chosen).

    Raises ValueError for a value outside its range, TypeError for one of the wrong type.
    """

    seed: int = 0
    n_clips: int = 1000
    clip_seconds: int = 4
    epochs: int = 12
    batch_size: int = 64
    learning_rate: float = 5e-4
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        lowest = {"seed": 0, "n_clips": 20, "clip_seconds": 1, "epochs": 1, "batch_size": 2}
        checked: dict = {name: whole_number(getattr(self, name), name, least) for name, least in lowest.items()}
        checked |= {name: number(getattr(self, name), name, 0) for name in ("learning_rate", "weight_decay")}
        for name, value in checked.items():
            object.__setattr__(self, name, value)  # a numpy integer would not go into JSON
        if self.learning_rate == 0:
            raise ValueError("learning_rate must be above 0")
        if self.batch_size > self.n_train:
            raise ValueError(
                f"batch_size is {self.batch_size}, and n_clips = {self.n_clips} leaves {self.n_train} to train on: "
                "lower the one or raise the other"
            )

    @property
    def n_train(self) -> int:
        """The clips that are trained on; the other tenth is held out."""
        return self.n_clips - self.n_clips // 10


def make_standins(
    root: str | os.PathLike,
    seed: int = 0,
    progress: bool = True,
    settings: Pretraining | None = None,
    architectures: Mapping[str, Architecture] = ARCHITECTURES,
) -> dict[str, Path]:
    """Pretrain the stand-ins that `root` lacks; returns the folders by name: "laion-standin", "msclap-standin".

    Each is a folder for `load_clap` or `ClapModel.from_pretrained`: model, tokenizer, preprocessor, and beside
    them pretraining.csv (the curve) and pretraining.json (the settings). A complete folder with the same
    settings is left alone, one with others is replaced, whole or not at all. The same seed gives the same bytes
    on the same machine and number of threads. `settings` asks for another size; its seed gives way to `seed`.
    Raises what `Pretraining` raises, and FileExistsError for a folder of that name that is no stand-in.
    """
    settings = replace(settings or Pretraining(), seed=seed)
    folders = {name: Path(root) / name for name in architectures}
    missing = {
        name: architecture
        for name, architecture in architectures.items()
        if not _is_made(folders[name], architecture, settings)
    }
    if missing:
        Path(root).mkdir(parents=True, exist_ok=True)
        front_ends = {name: new_front_end(shape, settings.clip_seconds) for name, shape in missing.items()}
        mels, captions = _hear_clips(front_ends, settings, progress)
        for name, architecture in missing.items():
            _make(folders[name], architecture, settings, front_ends[name], mels[name], captions, progress)
    return folders


def naming_accuracy(audio_emb: np.ndarray, kind_emb: np.ndarray, kinds: Iterable[str]) -> float:
    """The share of single-event clips for which their own kind has the highest cosine, 0-1; chance is 1/K.

    `audio_emb` [N, D] of the clips and `kind_emb` [K, D] of `kind_caption` for `event_kinds()`, in
    that order, are L2-normalised, as `embed_audio` and `embed_text` give them; `kinds` are the N true ones.
    Raises ValueError for shapes that do not go together.
    """
    names, kinds = event_kinds(), list(kinds)
    if np.shape(audio_emb)[:1] != (len(kinds),) or np.shape(kind_emb)[:1] != (len(names),):
        raise ValueError(
            f"audio_emb {np.shape(audio_emb)} needs a row for each of the {len(kinds)} clips, and kind_emb "
            f"{np.shape(kind_emb)} one for each of the {len(names)} kinds"
        )
    best = (np.asarray(audio_emb) @ np.asarray(kind_emb).T).argmax(axis=1)
    return float(np.mean([names[i] == kind for i, kind in zip(best, kinds)]))


def final_improvement(loss: Iterable[float]) -> float:
    """How much a learning curve still fell at its end: 1 - mean(last fifth) / mean(the fifth before it).

    0 is flat, negative is a rise; `loss` has one positive value per epoch. Raises ValueError for fewer than ten.
    """
    values = np.asarray(list(loss), dtype=np.float64)
    if len(values) < 10:
        raise ValueError(f"the curve has {len(values)} epochs; comparing its last two fifths needs at least 10")
    fifth = len(values) // 5
    return float(1.0 - values[-fifth:].mean() / values[-2 * fifth : -fifth].mean())


def _recorded(architecture: Architecture, settings: Pretraining) -> dict:
    """What SETTINGS_FILE holds, as JSON gives it back."""
    record = {
        "data": "synthetic",
        "format": _FORMAT,
        "pretraining": asdict(settings),
        "architecture": asdict(architecture),
    }
    return json.loads(json.dumps(record))


def _is_made(folder: Path, architecture: Architecture, settings: Pretraining) -> bool:
    """Whether `folder` is complete and made with these settings; FileExistsError where it is something else."""
    if not folder.exists():
        return False
    try:
        recorded = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise FileExistsError(
            f"{folder} is there and is no stand-in CLAP (no readable {SETTINGS_FILE}): move it away, or name "
            "another root"
        ) from None
    complete = all((folder / name).is_file() for name in _FILES)
    return complete and recorded == _recorded(architecture, settings)


def _hear_clips(front_ends: dict, settings: Pretraining, progress: bool) -> tuple[dict[str, np.ndarray], list[str]]:
    """The log-mels float32 [n_clips, 1, frames, mel_bins] of each front end, and the captions.

    A waveform is dropped once it is heard: all of them together would take more memory than anything else.
    """
    from tqdm.auto import tqdm

    clips = pretraining_clips(settings.seed, settings.n_clips, settings.clip_seconds)
    heard: dict[str, list[np.ndarray]] = {name: [] for name in front_ends}
    captions = []
    for waveform, caption in tqdm(clips, "pretraining clips", settings.n_clips, unit="clip", disable=not progress):
        for name, front_end in front_ends.items():
            mel = front_end(waveform, sampling_rate=SAMPLE_RATE)["input_features"]
            heard[name].append(np.asarray(mel[0], dtype=np.float32))
        captions.append(caption)
    return {name: np.stack(mels) for name, mels in heard.items()}, captions


def _make(folder, architecture, settings, front_end, mels, captions, progress) -> None:
    """Pretrain one stand-in and write its folder, whole or not at all."""
    model, tokenizer, curve = pretrain(architecture, settings, mels, captions, folder.name if progress else "")
    with writing(folder, folder=True) as made:
        for part in (model, tokenizer, front_end):
            part.save_pretrained(made)
        curve.to_csv(made / CURVE_FILE, index=False, lineterminator="\n")
        record = json.dumps(_recorded(architecture, settings), indent=2) + "\n"
        (made / SETTINGS_FILE).write_text(record, encoding="utf-8")


def fused_twin(folder: str | os.PathLike, target: str | os.PathLike, seed: int = 0) -> Path:
    """Write a copy of a stand-in with feature fusion to `target`, and return that folder; left alone if it is there.

    A fused model hears a clip that is longer than its window as four spectrograms; a flag says which clips are. The
    fusion block is new and untrained: the twin shows what the flag does to a score, not how good a fused CLAP is.
    """
    from transformers import AutoTokenizer, ClapConfig, ClapFeatureExtractor, ClapModel

    target = Path(target)
    if (target / "model.safetensors").is_file():
        return target
    config = ClapConfig.from_pretrained(folder)
    config.audio_config.enable_fusion = True
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ClapModel(config)
    model.load_state_dict(ClapModel.from_pretrained(folder).state_dict(), strict=False)
    front_end = ClapFeatureExtractor.from_pretrained(folder)
    front_end.truncation = "fusion"
    target.parent.mkdir(parents=True, exist_ok=True)
    with writing(target, folder=True) as made:
        for part in (model, AutoTokenizer.from_pretrained(folder), front_end):
            part.save_pretrained(made)
    return target


# --- model, front end and tokenizer -----------------------------------------------------------------------


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


# --- pretraining ------------------------------------------------------------------------------------------


def pretrain(
    architecture: Architecture, settings: Pretraining, mels: np.ndarray, captions: list[str], progress: str = ""
) -> tuple[ClapModel, RobertaTokenizerFast, pd.DataFrame]:
    """Train a new ClapModel with the symmetric cross entropy (`losses.sce`) of clips and their captions.

    `mels` float32 [n_clips, 1, frames, mel_bins] in dB goes row by row with `captions`; the last tenth is held
    out. Returns the model in eval mode, its tokenizer, and the curve: epoch, learning_rate after it, train_loss
    (mean over its steps), held_out_loss, temperature. `progress` names the bar; "" shows none. The global RNG
    is left as it was.
    """
    from tqdm.auto import tqdm

    cpu = torch.device("cpu")
    with reproducible(cpu):
        seed_dropout(settings.seed, cpu)
        tokenizer = new_tokenizer(captions, architecture.vocabulary)
        model = new_model(architecture, len(tokenizer))
        with small_on_cpu(model, cpu):
            tokens = tokenizer(captions, padding=True, return_tensors="pt")
            run = _Run(model, settings, torch.from_numpy(mels), tokens)
            bar = tqdm(range(1, settings.epochs + 1), progress, unit="epoch", disable=not progress)
            curve = pd.DataFrame([run.epoch(epoch) for epoch in bar])
    model.logit_scale_t.data.copy_(model.logit_scale_a.data)  # one temperature served both directions
    return model, tokenizer, curve


class _Run:
    """A model in pretraining, with its optimizer and all clips and captions."""

    def __init__(self, model: ClapModel, settings: Pretraining, mels: torch.Tensor, tokens: dict) -> None:
        self.model, self.settings, self.mels = model, settings, mels
        self.ids, self.mask = tokens["input_ids"], tokens["attention_mask"]
        self.order = torch.Generator().manual_seed(settings.seed)
        model.logit_scale_t.requires_grad_(False)
        norm = model.audio_model.audio_encoder.batch_norm
        heard = mels[: settings.n_train]
        norm.running_mean.copy_(heard.mean(dim=(0, 1, 2)))
        norm.running_var.copy_(heard.var(dim=(0, 1, 2)))
        self.optimizer = make_optimizer(model, settings)
        self.steps_per_epoch = settings.n_train // settings.batch_size
        self.step = 0

    def epoch(self, number: int) -> dict[str, float]:
        """Train once on every clip, but for the rest that fills no batch; returns a row of the curve."""
        order = torch.randperm(self.settings.n_train, generator=self.order)
        batches = order.split(self.settings.batch_size)[: self.steps_per_epoch]
        self.model.train()
        self.model.audio_model.audio_encoder.batch_norm.eval()  # the mel statistics are known beforehand
        train_loss = float(np.mean([self._train_on(batch) for batch in batches]))
        self.model.eval()
        held_out = torch.arange(self.settings.n_train, self.settings.n_clips).split(self.settings.batch_size)
        with torch.inference_mode():
            # The loss of a batch grows with its size, so a short last one would not compare.
            whole = [rows for rows in held_out if len(rows) == self.settings.batch_size] or held_out[:1]
            held_out_loss = float(np.mean([self._loss(rows).item() for rows in whole]))
        return {
            "epoch": number,
            "learning_rate": self._learning_rate(),
            "train_loss": train_loss,
            "held_out_loss": held_out_loss,
            "temperature": math.exp(-self.model.logit_scale_a.item()),
        }

    def _train_on(self, rows: torch.Tensor) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        loss = self._loss(rows)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), _MAX_GRADIENT_NORM)
        self.optimizer.step()
        with torch.no_grad():
            self.model.logit_scale_a.clamp_(0.0, _MAX_LOG_SCALE)
        self.step += 1
        return loss.item()

    def _loss(self, rows: torch.Tensor) -> torch.Tensor:
        model, width = self.model, int(self.mask[rows].sum(dim=1).max())
        audio = model.audio_model(input_features=self.mels[rows]).pooler_output
        text = model.text_model(self.ids[rows, :width], self.mask[rows, :width]).pooler_output
        return losses.sce(model.audio_projection(audio), model.text_projection(text), model.logit_scale_a.exp())

    def _learning_rate(self) -> float:
        """A short warm-up, then half a cosine down to 0."""
        done = self.step / (self.settings.epochs * self.steps_per_epoch)
        return self.settings.learning_rate * min(1.0, (done + 1e-3) / _WARM_UP) * (1 + math.cos(math.pi * done)) / 2
