"""One model in training: steps, epochs and validation on prepared pairs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from humanclap import losses
from humanclap.finetune.accelerated import Engine
from humanclap.finetune.augment import DropPaths, SpecAugment
from humanclap.finetune.batches import Batch, draw_batches, own_share
from humanclap.finetune.config import MAX_LOGIT_SCALE, FinetuneConfig
from humanclap.finetune.data import PairData
from humanclap.finetune.placement import placed, take
from humanclap.finetune.repeat import epoch_seeds, seed_dropout
from humanclap.finetune.towers import Towers, choose_trained, make_optimizer, set_training_mode
from humanclap.finetune.windows import DrawnWindows

EVALUATION_CHUNK = 64
VALIDATION_SEED = 0
COMPILE_BACKEND = "inductor"


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
        engine: Engine | None = None,
        windows: DrawnWindows | None = None,
    ) -> None:
        """`engine` None makes one on `device`; `windows` goes with config.windows="drawn". Raises ValueError."""
        self.config, self.device = config, device
        self.engine = engine or Engine(config, device)
        self.model = copy.deepcopy(model).to(device=device, dtype=torch.float32)
        self.train_pairs, self.validation_pairs = placed(train, device), placed(validation, device)
        if (config.windows == "drawn") != (windows is not None):
            raise ValueError(f"config.windows is {config.windows!r}: 'drawn', and only that, needs `windows`")
        self._windows = windows
        if windows is not None:  # they are overwritten in each epoch, and the caller's are not ours
            own = {name: values.clone() for name, values in self.train_pairs.features.items()}
            self.train_pairs = replace(self.train_pairs, features=own)
        # One layout for all epochs, variants and seeds: the contrastive loss depends on who shares a batch.
        self.validation_batches = draw_batches(
            self.validation_pairs, config.batch_size, torch.Generator().manual_seed(VALIDATION_SEED), True
        )
        choose_trained(self.model, config)
        trains_audio = config.towers != "text"
        self._spec_augment = SpecAugment(self.model) if config.spec_augment and trains_audio else None
        self._drop_paths = DropPaths(self.model, config.drop_path) if config.drop_path and trains_audio else None
        self.optimizer = self.engine.accelerator.prepare_optimizer(
            make_optimizer(self.model, config), device_placement=False
        )
        self._trained = [values for values in self.model.parameters() if values.requires_grad]
        self._towers = Towers(self.model)
        if config.compile:
            # The local branch of fusion sees as many rows as a batch has long clips: fixed, each number would be
            # compiled, until torch gives up and runs it as it is.
            fused = self.model.config.audio_config.enable_fusion
            self._towers.compile(backend=COMPILE_BACKEND, dynamic=None if fused else False)

    def batches(self, epoch: int) -> list[Batch]:
        """The training batches of `epoch` (from 1), in order, those of all processes together."""
        config = self.config
        generator = torch.Generator().manual_seed(epoch_seeds(config.seed, epoch)[0])
        return draw_batches(
            self.train_pairs, config.batch_size, generator, config.distinct_captions, config.drop_last
        )

    def train_epoch(
        self, epoch: int, on_step: Callable[[int, torch.Tensor], object] | None = None
    ) -> dict[str, float]:
        """Train on the batches of `epoch`; means over the pairs of "loss", its terms and "negative_share".

        Each batch is measured as the step reaches it. After each step `on_step(step, loss)` is called, step from 1
        and loss a scalar on the model's device, of the whole batch; reading it waits for the device. Raises
        NonFiniteLoss, naming the step, when the loss is NaN or infinite.
        """
        self._set_training(True)
        if self._windows is not None:
            drawn = self._windows.draw(self.config.seed, epoch)
            features = self.train_pairs.features["input_features"]
            features[self._windows.clips.to(features.device)] = drawn.to(features.device)
        seed_dropout(epoch_seeds(self.config.seed, epoch, self.engine.rank)[1], self.device)
        batches = self.batches(epoch)
        sums: dict[str, torch.Tensor] = {}
        unread: list[torch.Tensor] = []
        for step, batch in enumerate(batches, start=1):
            terms = self._step(batch, unread)
            _add(sums, terms, len(batch.pairs))
            # Reading a number waits for the device: free on a CPU, so once an epoch elsewhere.
            if self.device.type == "cpu" or step == len(batches):
                where = f"epoch {epoch}, step {{}} of {len(batches)}"
                self._require_finite(unread, where, first_step=step - len(unread) + 1)
                unread.clear()
            if on_step is not None:
                on_step(step, terms["loss"].detach())
        return _means(sums, sum(len(batch.pairs) for batch in batches))

    @torch.inference_mode()
    def validate(self, epoch: int) -> tuple[dict[str, float], np.ndarray]:
        """The same means over the validation pairs, and the CLAPScore of each of them, `[N]` in 0-1.

        In eval mode an embedding does not depend on its batch, so all are made first, in large chunks and by all
        processes, and the loss is then taken over fixed batches of `config.batch_size`. All of it is in float32,
        whatever `config.precision` says: it decides which epoch is kept, and whoever opens the checkpoint scores in
        float32. Raises NonFiniteLoss.
        """
        self._set_training(False)
        data = self.validation_pairs
        audio, text = self._embed_all(data)
        self._require_finite([audio.sum() + text.sum()], f"the validation after epoch {epoch}", first_step=1)
        sums: dict[str, torch.Tensor] = {}
        for batch in self.validation_batches:
            rows = batch.pairs.to(self.device)
            terms = self._terms(audio[rows], text[rows], data.target[rows])
            _add(sums, terms, len(batch.pairs))
        return _means(sums, len(data)), losses.clap_score(audio, text).cpu().numpy()

    @property
    def temperature(self) -> float:
        """τ = exp(-logit_scale_a), as in equation 5."""
        return math.exp(-float(self.model.logit_scale_a.detach()))

    def finish(self) -> torch.nn.Module:
        """The model, in eval mode and without what training put on it."""
        self._set_training(False)
        for extra in (self._spec_augment, self._drop_paths):
            if extra is not None:
                extra.remove()
        return self.model.requires_grad_(True)

    def _set_training(self, active: bool) -> None:
        if active:
            set_training_mode(self.model, self.config)
        else:
            self.model.eval()
        if self._spec_augment is not None:
            self._spec_augment.active = active
        if self._drop_paths is not None:
            self._drop_paths.train(active)

    def _step(self, batch: Batch, unread: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        engine, data, n_pairs = self.engine, self.train_pairs, len(batch.pairs)
        share = engine.shares(n_pairs)[engine.rank]
        audio, text = self._embed(data, own_share(data, batch, share, whole_width=self.config.compile))
        terms = self._terms(
            engine.together(audio, n_pairs), engine.together(text, n_pairs), take(data.target, batch.pairs, self.device)
        )
        self.optimizer.zero_grad(set_to_none=True)
        if terms["loss"].requires_grad:  # not in a process without pairs
            engine.accelerator.backward(terms["loss"])
        engine.sum_gradients(self._trained)
        self.optimizer.step()
        with torch.no_grad():
            log_scale = self.model.logit_scale_a
            if self.config.learn_temperature:
                log_scale.clamp_(0, math.log(MAX_LOGIT_SCALE))
            # A finite loss can have a NaN gradient. It shows here where the temperature gets one too; without a
            # contrastive term, or with the temperature held still, in the loss of the next step or of the validation.
            unread.append(terms["loss"].detach() + 0 * log_scale)
        return terms

    def _terms(
        self, audio: torch.Tensor, text: torch.Tensor, target: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        config, scale = self.config, self.model.logit_scale_a.exp()
        if not self.engine.is_main:
            scale = scale.detach()  # every process has the whole loss: one of them gives its gradient
        terms = losses.human_clap_loss(
            audio, text, target, scale, config.kind, config.contrastive_weight, config.regression_weight
        )
        with torch.no_grad():
            # These pairs get no gradient from the regression term (ReLU, equation 3).
            terms["negative_share"] = (losses.cosine(audio, text) < 0).float().mean()
        return terms

    def _embed(self, data: PairData, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings `[n, D]` of the pairs of `batch`, not normalised, in float32."""
        if not len(batch.pairs):
            nothing = torch.zeros((0, self.model.config.projection_dim), device=self.device)
            return nothing, nothing
        with self.engine.accelerator.autocast():
            audio, text = self._towers(
                self._rows(data.features, batch.clips),
                {name: values[:, : batch.width] for name, values in self._rows(data.tokens, batch.captions).items()},
            )
        return audio.float(), text.float()[batch.caption_of.to(self.device, non_blocking=True)]

    def _embed_all(self, data: PairData) -> tuple[torch.Tensor, torch.Tensor]:
        """The embeddings of every pair, `[N, D]` each, in float32 even within a caller's autocast."""
        embedded = []
        for values, encode in ((data.features, self._towers.audio), (data.tokens, self._towers.text)):
            n_rows = len(next(iter(values.values())))
            share = self.engine.shares(n_rows)[self.engine.rank]
            own = [torch.zeros((0, self.model.config.projection_dim), device=self.device)]
            with torch.autocast(self.device.type, enabled=False):
                for rows in torch.arange(share.start, share.stop).split(EVALUATION_CHUNK) if len(share) else ():
                    own.append(encode(**self._rows(values, rows)))
            embedded.append(self.engine.together(torch.cat(own), n_rows))
        return embedded[0][data.clip.to(self.device)], embedded[1][data.caption.to(self.device)]

    def _rows(self, values: dict[str, torch.Tensor], rows: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: take(tensor, rows, self.device) for name, tensor in values.items()}

    def _require_finite(self, values: list[torch.Tensor], where: str, first_step: int) -> None:
        finite = torch.isfinite(torch.stack(values)).tolist()
        if not all(finite):
            place = finite.index(False)
            raise NonFiniteLoss(
                f"the loss is {float(values[place])} in {where.format(first_step + place)} (kind "
                f"{self.config.kind!r}, learning_rate {self.config.learning_rate:g}): look for broken audio "
                "features or lower the learning rate"
            )


def _add(sums: dict[str, torch.Tensor], terms: dict[str, torch.Tensor], n_pairs: int) -> None:
    for name, value in terms.items():
        sums[name] = sums.get(name, 0) + value.detach() * n_pairs


def _means(sums: dict[str, torch.Tensor], n_pairs: int) -> dict[str, float]:
    return {name: float(total) / n_pairs for name, total in sums.items()}
