"""The loop: one model in training, step by step and epoch by epoch, and what makes it reproducible."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch

from humanclap import losses
from humanclap.finetune.config import FinetuneConfig
from humanclap.finetune.data import Batch, PairData, draw_batches

SMALL_MODEL = 5_000_000
"""Parameters below which a model on a CPU trains with one thread; the released models have 150 million."""
MAX_LOGIT_SCALE = 100.0
"""1/τ is kept within 1-100: LAION's training clamps its logarithm to [0, ln 100] after every step."""
EVALUATION_CHUNK = 64


class NonFiniteLoss(RuntimeError):
    """The loss became NaN or infinite; `result` has the best model so far, None before the first epoch."""

    result = None


# --- what makes a training reproducible, also for the demo's pretraining --------------------------------


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Restore the global RNG afterwards, sum gradients on a CPU in a fixed order, and keep float32 whole.

    Without the second, the gradient of a large relative position bias is added up by several threads at once.
    Without the third, cuDNN rounds the operands of float32 convolutions to TF32, 10 bits of mantissa, and so do
    matrix products where a caller asked for it; what runs under bf16 autocast is not touched.
    """
    matmul, cudnn, utils = torch.backends.cuda.matmul, torch.backends.cudnn, torch.utils.deterministic
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    flags = matmul.allow_tf32, cudnn.allow_tf32, utils.fill_uninitialized_memory
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if device.type == "cuda" else []):
        try:
            matmul.allow_tf32 = cudnn.allow_tf32 = False
            if device.type == "cpu":
                torch.use_deterministic_algorithms(True)
                utils.fill_uninitialized_memory = False  # it costs time, and nothing here reads before it writes
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
            matmul.allow_tf32, cudnn.allow_tf32, utils.fill_uninitialized_memory = flags


@contextmanager
def small_on_cpu(model: torch.nn.Module, device: torch.device) -> Iterator[None]:
    """One thread while a model of fewer than SMALL_MODEL parameters trains on a CPU.

    Its operations are too short to share: on a machine whose cores are not idle, threads that wait for each
    other made a step of the demo's model 20 times slower.
    """
    threads = torch.get_num_threads()
    small = device.type == "cpu" and sum(values.numel() for values in model.parameters()) < SMALL_MODEL
    try:
        torch.set_num_threads(1 if small else threads)
        yield
    finally:
        torch.set_num_threads(threads)


def seed_dropout(seed: int, device: torch.device) -> None:
    """Seed the generator that dropout on `device` draws from, and no other (torch.manual_seed reaches them all)."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def epoch_seeds(seed: int, epoch: int) -> tuple[int, int]:
    """Two independent seeds for an epoch: of its order, and of its dropout."""
    order, dropout = np.random.SeedSequence([seed, epoch]).generate_state(2)
    return int(order), int(dropout)


def make_optimizer(model: torch.nn.Module, config) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only: not on biases, norms, position biases and the temperature.

    `config` has learning_rate and weight_decay; parameters that need no gradient are left out.
    """
    trained = [(name, values) for name, values in model.named_parameters() if values.requires_grad]
    decayed = [values for name, values in trained if values.ndim >= 2 and "bias" not in name]
    plain = [values for name, values in trained if values.ndim < 2 or "bias" in name]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def choose_precision(precision: str, device: torch.device) -> str:
    """What "auto" means on `device`: "bf16" on a CUDA device that computes in it (Ampere or later), else "fp32".

    Raises ValueError for "fp16" where there is no CUDA device to scale the loss on.
    """
    if precision == "fp16" and device.type != "cuda":
        raise ValueError("precision 'fp16' needs a GPU; allowed here: 'auto', 'fp32' and 'bf16'")
    if precision != "auto":
        return precision
    bf16 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return "bf16" if bf16 else "fp32"


# --- the loop -------------------------------------------------------------------------------------------


class Trainer:
    """A copy of a ClapModel in training, with its optimizer and its two sets of pairs.

    Everything random in an epoch follows from (config.seed, epoch) alone, so that an epoch can be repeated
    without those before it. Features stay where `prepare` put them; a batch at a time goes to `device`. Use it within
    `reproducible(device)` and `small_on_cpu(model, device)`.
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
        self.precision = choose_precision(config.precision, device)
        self.model = copy.deepcopy(model).to(device=device, dtype=torch.float32)
        self.train_pairs, self.validation_pairs = train, validation
        # One layout for all epochs, variants and seeds: the contrastive loss depends on who shares a batch.
        generator = torch.Generator().manual_seed(0)
        self.validation_batches = draw_batches(validation, config.batch_size, generator, distinct_captions=True)
        self._parts = {
            name: (getattr(self.model, f"{name}_model"), getattr(self.model, f"{name}_projection"))
            for name in ("audio", "text")
        }
        self._trained = [part for name in self._parts if config.towers in ("both", name) for part in self._parts[name]]
        self.model.requires_grad_(False)
        for part in self._trained:
            part.requires_grad_(True)
        self.model.logit_scale_a.requires_grad_(config.learn_temperature)
        self.optimizer = make_optimizer(self.model, config)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")

    def batches(self, epoch: int) -> list[Batch]:
        """The training batches of `epoch` (from 1), in order."""
        config = self.config
        generator = torch.Generator().manual_seed(epoch_seeds(config.seed, epoch)[0])
        return draw_batches(self.train_pairs, config.batch_size, generator, config.distinct_captions, config.drop_last)

    def train_epoch(self, epoch: int, on_step: Callable[[int, float], object] | None = None) -> dict[str, float]:
        """Train on the batches of `epoch`; means over the pairs of "loss", its terms and "negative_share".

        After each step `on_step(step, loss)` is called, step from 1. Raises NonFiniteLoss, naming the step, when the
        loss is NaN or infinite.
        """
        self._training_mode()
        seed_dropout(epoch_seeds(self.config.seed, epoch)[1], self.device)
        batches, sums = self.batches(epoch), {}
        for step, batch in enumerate(batches, start=1):
            terms = self._step(batch)
            loss = self._finite(terms["loss"], f"epoch {epoch}, step {step} of {len(batches)}")
            _add(sums, terms, len(batch.pairs))
            if on_step is not None:
                on_step(step, loss)
        return _means(sums, sum(len(batch.pairs) for batch in batches))

    @torch.inference_mode()
    def validate(self, epoch: int) -> tuple[dict[str, float], np.ndarray]:
        """The same means over the validation pairs, and the CLAPScore of each of them, `[N]` in 0-1.

        In eval mode an embedding does not depend on its batch, so all are made first, in large chunks, and the loss
        is then taken over fixed batches of `config.batch_size`. All of it is in float32, whatever `config.precision`
        says: it decides which epoch is kept, and whoever opens the model scores in float32. Raises NonFiniteLoss.
        """
        self.model.eval()
        data, embedded = self.validation_pairs, {}
        with torch.autocast(self.device.type, enabled=False):  # of a caller
            for name, inputs, of_pair in (("audio", data.features, data.clip), ("text", data.tokens, data.caption)):
                chunks = torch.arange(len(next(iter(inputs.values())))).split(EVALUATION_CHUNK)
                rows = torch.cat([self._embed(name, self._rows(inputs, chunk)) for chunk in chunks])
                embedded[name] = rows[of_pair.to(self.device)]
        audio, text = embedded["audio"], embedded["text"]
        self._finite(audio.sum() + text.sum(), f"the validation after epoch {epoch}")
        sums: dict[str, torch.Tensor] = {}
        target = data.target.to(self.device)
        for batch in self.validation_batches:
            rows = batch.pairs.to(self.device)
            _add(sums, self._terms(audio[rows], text[rows], target[rows]), len(rows))
        return _means(sums, len(data)), losses.clap_score(audio, text).cpu().numpy()

    @property
    def temperature(self) -> float:
        """τ = exp(-logit_scale_a), as in equation 5."""
        return math.exp(-float(self.model.logit_scale_a.detach()))

    def state(self) -> dict:
        """Weights, optimizer and loss scale, as plain tensors and numbers."""
        parts = {"weights": self.model, "optimizer": self.optimizer, "scaler": self.scaler}
        return {name: part.state_dict() for name, part in parts.items()}

    def restore(self, state: dict) -> None:
        """Go back to what `state` returned."""
        self.model.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])

    def _training_mode(self) -> None:
        """Dropout and batch-norm statistics on in the trained towers, as far as the configuration says."""
        self.model.eval()
        for part in self._trained:
            part.train(self.config.dropout)
        for module in self.model.audio_model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.train(self.config.towers != "text" and not self.config.freeze_batch_norm)

    def _step(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The terms of the loss before this step; its "loss" is NaN too where the temperature's gradient was.

        Another broken gradient of a finite loss shows in the loss of the next step, or of the validation.
        """
        data, log_scale = self.train_pairs, self.model.logit_scale_a
        half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision)
        with torch.autocast(self.device.type, dtype=half) if half else nullcontext():
            audio = self._embed("audio", self._rows(data.features, batch.clips))
            tokens = self._rows(data.tokens, batch.captions)
            text = self._embed("text", {name: values[:, : batch.width] for name, values in tokens.items()})
        text = text.float()[batch.caption_of.to(self.device)]
        terms = self._terms(audio.float(), text, data.target[batch.pairs].to(self.device))
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(terms["loss"]).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        with torch.no_grad():
            if self.config.learn_temperature:
                log_scale.clamp_(0, math.log(MAX_LOGIT_SCALE))
            return {**terms, "loss": terms["loss"] + 0 * log_scale}

    def _terms(self, audio: torch.Tensor, text: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        config, scale = self.config, self.model.logit_scale_a.exp()
        terms = losses.human_clap_loss(
            audio, text, target, scale, config.kind, config.contrastive_weight, config.regression_weight
        )
        with torch.no_grad():
            # These pairs get no gradient from the regression term (ReLU, equation 3).
            terms["negative_share"] = (losses.cosine(audio, text) < 0).float().mean()
        return terms

    def _embed(self, name: str, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Projections `[n, D]` of features (name "audio") or tokens ("text"), not normalised."""
        tower, projection = self._parts[name]
        return projection(tower(**inputs, return_dict=True).pooler_output)

    def _rows(self, values: dict[str, torch.Tensor], rows: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: tensor[rows].to(self.device) for name, tensor in values.items()}

    def _finite(self, value: torch.Tensor, where: str) -> float:
        found = float(value)
        if not math.isfinite(found):
            raise NonFiniteLoss(
                f"the loss is {found} in {where} (kind {self.config.kind!r}, learning_rate "
                f"{self.config.learning_rate:g}): look for broken audio features or lower the learning rate"
            )
        return found


def _add(sums: dict[str, torch.Tensor], terms: dict[str, torch.Tensor], n_pairs: int) -> None:
    for name, value in terms.items():
        sums[name] = sums.get(name, 0) + value.detach() * n_pairs


def _means(sums: dict[str, torch.Tensor], n_pairs: int) -> dict[str, float]:
    return {name: float(total) / n_pairs for name, total in sums.items()}


def named_terms(prefix: str, means: dict[str, float]) -> dict[str, float]:
    """The loss and its two kinds of term under fixed names, NaN for what this loss does not have."""
    contrastive = means.get("wsce", means.get("sce", math.nan))
    regression = means.get("mse", means.get("mae", math.nan))
    loss = means.get("loss", math.nan)
    return {f"{prefix}loss": loss, f"{prefix}contrastive": contrastive, f"{prefix}regression": regression}
