"""Contrastive pretraining of one stand-in on clips and captions that were heard and read before."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from .. import losses
from ..finetune.loop import make_optimizer, reproducible, seed_dropout, small_on_cpu
from .architectures import Architecture, new_model, new_tokenizer
from .settings import Pretraining

if TYPE_CHECKING:
    from transformers import ClapModel, RobertaTokenizerFast

_MAX_LOG_SCALE = math.log(100.0)  # LAION's own training clamps 1/τ there
_WARM_UP = 0.05
_MAX_GRADIENT_NORM = 1.0


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
        self.steps_an_epoch = settings.n_train // settings.batch_size
        self.step = 0

    def epoch(self, number: int) -> dict[str, float]:
        """Train once on every clip, but for the rest that fills no batch; returns a row of the curve."""
        order = torch.randperm(self.settings.n_train, generator=self.order)
        batches = order.split(self.settings.batch_size)[: self.steps_an_epoch]
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
        done = self.step / (self.settings.epochs * self.steps_an_epoch)
        return self.settings.learning_rate * min(1.0, (done + 1e-3) / _WARM_UP) * (1 + math.cos(math.pi * done)) / 2
