"""One model in training: steps, epochs and validation on prepared pairs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import torch

from humanclap import losses
from humanclap.finetune.config import MAX_LOGIT_SCALE, FinetuneConfig
from humanclap.finetune.data import Batch, PairData, draw_batches
from humanclap.finetune.repeat import epoch_seeds, seed_dropout

EVALUATION_CHUNK = 64
VALIDATION_SEED = 0


class NonFiniteLoss(RuntimeError):
    """The loss became NaN or infinite; `result` has the best model so far, None before the first epoch."""

    result = None


class Trainer:
    """A copy of a ClapModel in training, with its optimizer and its two sets of pairs.

    Everything random in an epoch follows from (config.seed, epoch) alone, so that an epoch can be repeated
    without those before it. Use it within `reproducible(device)`, which keeps the global RNG as it was, and
    `small_on_cpu(model, device)`.
    """

    def __init__(
        self,
        config: FinetuneConfig,
        model: torch.nn.Module,
        train: PairData,
        validation: PairData,
        device: torch.device,
    ) -> None:
        self.config, self.device = config, device
        self.model = copy.deepcopy(model).to(device=device, dtype=torch.float32)
        self.train_pairs, self.validation_pairs = train.to(device), validation.to(device)
        # One layout for all epochs, variants and seeds: the contrastive loss depends on who shares a batch.
        self.validation_batches = draw_batches(
            self.validation_pairs, config.batch_size, torch.Generator().manual_seed(VALIDATION_SEED), True
        )
        choose_trained(self.model, config)
        self.optimizer = make_optimizer(self.model, config)

    def batches(self, epoch: int) -> list[Batch]:
        """The training batches of `epoch` (from 1), in order."""
        config = self.config
        generator = torch.Generator().manual_seed(epoch_seeds(config.seed, epoch)[0])
        return draw_batches(
            self.train_pairs, config.batch_size, generator, config.distinct_captions, config.drop_last
        )

    def train_epoch(self, epoch: int, after_step: Callable[[], object] = lambda: None) -> dict[str, float]:
        """Train on the batches of `epoch`; means over the pairs of "loss", its terms and "negative_share".

        Each batch is measured as the step reaches it. Raises NonFiniteLoss, naming the step, when the loss is
        NaN or infinite.
        """
        set_training_mode(self.model, self.config)
        seed_dropout(epoch_seeds(self.config.seed, epoch)[1], self.device)
        batches = self.batches(epoch)
        sums: dict[str, torch.Tensor] = {}
        unread: list[torch.Tensor] = []
        for step, batch in enumerate(batches, start=1):
            _add(sums, self._step(batch, unread), len(batch.pairs))
            # Reading a number waits for the device: free on a CPU, so once an epoch elsewhere.
            if self.device.type == "cpu" or step == len(batches):
                where = f"epoch {epoch}, step {{}} of {len(batches)}"
                self._require_finite(unread, where, first_step=step - len(unread) + 1)
                unread.clear()
            after_step()
        return _means(sums, sum(len(batch.pairs) for batch in batches))

    @torch.inference_mode()
    def validate(self, epoch: int) -> tuple[dict[str, float], np.ndarray]:
        """The same means over the validation pairs, and the CLAPScore of each of them, `[N]` in 0-1.

        In eval mode an embedding does not depend on its batch, so all are made first, in large chunks, and
        the loss is then taken over fixed batches of `config.batch_size`. Raises NonFiniteLoss.
        """
        self.model.eval()
        data = self.validation_pairs
        audio, text = self._embed_all(data)
        self._require_finite([audio.sum() + text.sum()], f"the validation after epoch {epoch}", first_step=1)
        sums: dict[str, torch.Tensor] = {}
        for batch in self.validation_batches:
            terms = self._terms(audio[batch.pairs], text[batch.pairs], data.target[batch.pairs])
            _add(sums, terms, len(batch.pairs))
        return _means(sums, len(data)), losses.clap_score(audio, text).cpu().numpy()

    @property
    def temperature(self) -> float:
        """τ = exp(-logit_scale_a), as in equation 5."""
        return math.exp(-float(self.model.logit_scale_a.detach()))

    def _step(self, batch: Batch, unread: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        data = self.train_pairs
        audio = embed_audio(self.model, data, batch.clips)
        text = embed_text(self.model, data, batch.captions, batch.width)[batch.caption_of]
        terms = self._terms(audio, text, data.target[batch.pairs])
        self.optimizer.zero_grad(set_to_none=True)
        terms["loss"].backward()
        self.optimizer.step()
        with torch.no_grad():
            log_scale = self.model.logit_scale_a.clamp_(0, math.log(MAX_LOGIT_SCALE))
            # A finite loss can have a NaN gradient, which shows in the temperature at once.
            unread.append(terms["loss"].detach() + 0 * log_scale)
        return terms

    def _terms(
        self, audio: torch.Tensor, text: torch.Tensor, target: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        config, scale = self.config, self.model.logit_scale_a.exp()
        terms = losses.human_clap_loss(
            audio, text, target, scale, config.kind, config.contrastive_weight, config.regression_weight
        )
        with torch.no_grad():
            # These pairs get no gradient from the regression term (ReLU, equation 3).
            terms["negative_share"] = (losses.cosine(audio, text) < 0).float().mean()
        return terms

    def _embed_all(self, data: PairData) -> tuple[torch.Tensor, torch.Tensor]:
        """The embeddings of every pair, `[N, D]` each."""
        n_clips, n_captions = len(data.features["input_features"]), len(data.tokens["input_ids"])
        chunks = (
            torch.arange(n_clips).split(EVALUATION_CHUNK),
            torch.arange(n_captions).split(EVALUATION_CHUNK),
        )
        audio = torch.cat([embed_audio(self.model, data, clips) for clips in chunks[0]])
        text = torch.cat([embed_text(self.model, data, captions) for captions in chunks[1]])
        return audio[data.clip], text[data.caption]

    def _require_finite(self, values: list[torch.Tensor], where: str, first_step: int) -> None:
        finite = torch.isfinite(torch.stack(values)).tolist()
        if not all(finite):
            place = finite.index(False)
            raise NonFiniteLoss(
                f"the loss is {float(values[place])} in {where.format(first_step + place)} (kind "
                f"{self.config.kind!r}, learning_rate {self.config.learning_rate:g}): look for broken audio "
                "features or lower the learning rate"
            )


def embed_audio(model: torch.nn.Module, data: PairData, clips: torch.Tensor) -> torch.Tensor:
    """Embeddings of some distinct clips, not normalised: indices `[n]` -> `[n, D]`."""
    features = {name: values[clips] for name, values in data.features.items()}
    return model.audio_projection(model.audio_model(**features).pooler_output)


def embed_text(
    model: torch.nn.Module, data: PairData, captions: torch.Tensor, width: int | None = None
) -> torch.Tensor:
    """Embeddings of some distinct captions, from their first `width` tokens: indices `[n]` -> `[n, D]`."""
    tokens = {name: values[captions, :width] for name, values in data.tokens.items()}
    return model.text_projection(model.text_model(**tokens).pooler_output)


def choose_trained(model: torch.nn.Module, config: FinetuneConfig) -> None:
    """Let gradients reach the chosen towers and the temperature, and nothing else."""
    model.requires_grad_(False)
    for tower in ("audio", "text"):
        if config.towers in ("both", tower):
            for module in _tower(model, tower):
                module.requires_grad_(True)
    model.logit_scale_a.requires_grad_(config.learn_temperature)


def set_training_mode(model: torch.nn.Module, config: FinetuneConfig) -> None:
    """Dropout and batch-norm statistics on in the trained towers, as far as `config` lets them be."""
    model.eval()
    for tower in ("audio", "text"):
        if config.towers in ("both", tower):
            for module in _tower(model, tower):
                module.train(config.dropout)
    for module in model.audio_model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.train(config.towers != "text" and not config.freeze_batch_norm)


def make_optimizer(model: torch.nn.Module, config: FinetuneConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only: not on biases, norms, position biases and the temperature."""
    trained = {name: values for name, values in model.named_parameters() if values.requires_grad}
    plain = [values for name, values in trained.items() if values.ndim < 2 or "bias" in name]
    decayed = [values for name, values in trained.items() if not (values.ndim < 2 or "bias" in name)]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def _tower(model: torch.nn.Module, name: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    return getattr(model, f"{name}_model"), getattr(model, f"{name}_projection")


def _add(sums: dict[str, torch.Tensor], terms: dict[str, torch.Tensor], n_pairs: int) -> None:
    for name, value in terms.items():
        sums[name] = sums.get(name, 0) + value.detach() * n_pairs


def _means(sums: dict[str, torch.Tensor], n_pairs: int) -> dict[str, float]:
    return {name: float(total) / n_pairs for name, total in sums.items()}
