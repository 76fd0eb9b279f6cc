"""One fine-tuning: the loop, its validation, and the checkpoint that it can be resumed from to the last bit."""

from __future__ import annotations

import copy
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from humanclap import losses
from humanclap.clap.huggingface import save_clapmodel
from humanclap.evaluate import correlations
from humanclap.files import write_text, writing
from humanclap.finetune.config import FinetuneConfig, choose_precision
from humanclap.finetune.data import (
    POOLED,
    Batch,
    PairData,
    check_pairs,
    draw_batches,
    open_base,
    prepare,
    repeated_captions,
    warn_of_pairs,
)
from humanclap.finetune.result import (
    CHECKPOINT,
    HISTORY,
    MODEL,
    SCORES,
    SETTINGS,
    CheckpointError,
    FinetuneResult,
    describe,
    open_folder,
    run_folder,
    write_card,
)

SMALL_MODEL = 5_000_000
"""Parameters below which a model on a CPU trains with one thread; the released models have 150 million."""
MAX_LOGIT_SCALE = 100.0
"""1/τ is kept within 1-100: LAION's training clamps its logarithm to [0, ln 100] after every step."""


class NonFiniteLoss(RuntimeError):
    """The loss became NaN or infinite; `result` has the best model so far, None before the first epoch."""

    result = None


# --- what makes a training reproducible, also for the demo's pretraining --------------------------------


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Restore the global RNG afterwards, sum gradients on a CPU in a fixed order, and keep float32 whole (no TF32).

    Else several threads would add up the gradient of a relative position bias, and cuDNN would round float32.
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
    """One thread while a model of fewer than SMALL_MODEL parameters trains on a CPU: threads that wait for each other
    made a step of the demo's model 20 times slower on busy cores."""
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
    return tuple(np.random.SeedSequence([seed, epoch]).generate_state(2).tolist())


def make_optimizer(model: torch.nn.Module, config) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only: not on biases, norms, position biases and the temperature.

    `config` has learning_rate and weight_decay; parameters that need no gradient are left out.
    """
    trained = [(name, values) for name, values in model.named_parameters() if values.requires_grad]
    decayed = [values for name, values in trained if values.ndim >= 2 and "bias" not in name]
    plain = [values for name, values in trained if values.ndim < 2 or "bias" in name]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


# --- the loop -------------------------------------------------------------------------------------------


class Trainer:
    """A copy of a ClapModel in training, with its optimizer and its two sets of pairs.

    Everything random in an epoch follows from (config.seed, epoch) alone. Features stay where `prepare` put them; a batch
    at a time goes to `device`. Use it within `reproducible(device)` and `small_on_cpu(model, device)`.
    """

    def __init__(self, config: FinetuneConfig, model, train: PairData, validation: PairData, device: torch.device):
        self.config, self.device = config, device
        self.precision = choose_precision(config.precision, device)
        self.model = copy.deepcopy(model).to(device=device, dtype=torch.float32)
        self.train_pairs, self.validation_pairs = train, validation
        # One layout for all epochs, variants and seeds: the contrastive loss depends on who shares a batch.
        generator = torch.Generator().manual_seed(0)
        self.validation_batches = draw_batches(validation, config.batch_size, generator, distinct_captions=True)
        parts = {name: [f"{name}_model", f"{name}_projection"] for name in ("audio", "text")}
        self._parts = {name: [getattr(self.model, part) for part in names] for name, names in parts.items()}
        part = slice(1, 2) if config.trains == "heads" else slice(2)  # the projection, or the tower as well
        self._trained = [p for name in self._parts if config.towers in ("both", name) for p in self._parts[name][part]]
        self.model.requires_grad_(False)
        for part in self._trained:
            part.requires_grad_(True)
        self.model.logit_scale_a.requires_grad_(config.learn_temperature)
        self.optimizer = make_optimizer(self.model, config)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")

    def batches(self, epoch: int) -> list[Batch]:
        """The training batches of `epoch` (from 1), in order."""
        config, generator = self.config, torch.Generator().manual_seed(epoch_seeds(self.config.seed, epoch)[0])
        return draw_batches(self.train_pairs, config.batch_size, generator, config.distinct_captions, config.drop_last)

    def train_epoch(self, epoch: int, on_step: Callable[[int, float], object] | None = None) -> dict[str, float]:
        """Train on the batches of `epoch`; means over the pairs of "loss", its terms and "negative_share".

        After each step `on_step(step, loss)` is called, step from 1. Raises NonFiniteLoss, naming the step.
        """
        self._training_mode()
        seed_dropout(epoch_seeds(self.config.seed, epoch)[1], self.device)
        batches, seen = self.batches(epoch), []
        for step, batch in enumerate(batches, start=1):
            terms = self._step(batch)
            loss = self._finite(terms["loss"], f"epoch {epoch}, step {step} of {len(batches)}")
            seen.append(({name: value.detach() for name, value in terms.items()}, len(batch.pairs)))
            if on_step is not None:
                on_step(step, loss)
        return _means(seen)

    @torch.inference_mode()
    def validate(self, epoch: int) -> tuple[dict[str, float], np.ndarray]:
        """The same means over the validation pairs, and the CLAPScore of each of them, `[N]` in 0-1.

        In eval mode an embedding does not depend on its batch, so all are made first, in large chunks, and the loss
        is then taken over fixed batches of `config.batch_size`. All of it is in float32, whatever `config.precision`
        says: it decides which epoch is kept, and whoever opens the model scores in float32. Raises NonFiniteLoss.
        """
        self.model.eval()
        data, target = self.validation_pairs, self.validation_pairs.target.to(self.device)

        def embedded(name: str, inputs: dict[str, torch.Tensor], of_pair: torch.Tensor) -> torch.Tensor:
            chunks = torch.arange(len(next(iter(inputs.values())))).split(64)
            rows = torch.cat([self._embed(name, self._rows(inputs, chunk)) for chunk in chunks])
            return rows[of_pair.to(self.device)]

        with torch.autocast(self.device.type, enabled=False):  # of a caller
            audio, text = embedded("audio", data.features, data.clip), embedded("text", data.tokens, data.caption)
        self._finite(audio.sum() + text.sum(), f"the validation after epoch {epoch}")
        batches = [batch.pairs.to(self.device) for batch in self.validation_batches]
        means = _means([(self._terms(audio[rows], text[rows], target[rows]), len(rows)) for rows in batches])
        return means, losses.clap_score(audio, text).cpu().numpy()

    @property
    def temperature(self) -> float:
        """τ = exp(-logit_scale_a), as in equation 5."""
        return math.exp(-float(self.model.logit_scale_a.detach()))

    def state(self) -> dict:
        """Weights, optimizer and loss scale, as plain tensors and numbers."""
        return {name: getattr(self, name).state_dict() for name in ("model", "optimizer", "scaler")}

    def restore(self, state: dict) -> None:
        """Go back to what `state` returned."""
        for name in ("model", "optimizer", "scaler"):
            if state[name]:  # a scaler that is off has no state
                getattr(self, name).load_state_dict(state[name])

    def _training_mode(self) -> None:
        """Dropout and batch-norm statistics on in the trained towers, as far as the configuration says."""
        self.model.eval()
        for part in self._trained:
            part.train(self.config.dropout)
        for module in self.model.audio_model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.train(self.model.audio_model in self._trained and not self.config.freeze_batch_norm)

    def _step(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The terms of the loss before this step; "loss" is NaN where the temperature's gradient was. Another broken
        gradient of a finite loss shows in the next step or the validation."""
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
        weights = config.contrastive_weight, config.regression_weight
        terms = losses.human_clap_loss(audio, text, target, scale, config.kind, *weights)
        with torch.no_grad():  # these pairs get no gradient from the regression term (ReLU, equation 3)
            return {**terms, "negative_share": (losses.cosine(audio, text) < 0).float().mean()}

    def _embed(self, name: str, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Projections `[n, D]` of features (name "audio") or tokens ("text"), or of a tower's outputs; not normalised."""
        tower, projection = self._parts[name]
        return projection(inputs[POOLED] if POOLED in inputs else tower(**inputs, return_dict=True).pooler_output)

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


def _means(batches: list[tuple[dict[str, torch.Tensor], int]]) -> dict[str, float]:
    """Terms of batches and the pairs of each, averaged over pairs."""
    n_pairs = sum(n for _, n in batches)
    return {name: float(sum(terms[name] * n for terms, n in batches)) / n_pairs for name in batches[0][0]}


def _named_terms(prefix: str, means: dict[str, float]) -> dict[str, float]:
    """The loss and its two kinds of term under fixed names, NaN for what this loss does not have."""
    terms = {"loss": ["loss"], "contrastive": ["wsce", "sce"], "regression": ["mse", "mae"]}
    return {prefix + kind: next((means[n] for n in names if n in means), math.nan) for kind, names in terms.items()}


# --- the epochs -----------------------------------------------------------------------------------------


class _Run:
    """One fine-tuning, from its first epoch or from the checkpoint `saved`, to its result.

    `state` is in the checkpoint beside the trainer's: the history's `rows`, `best_epoch`, `scores` of the validation
    pairs (base_clap_score, clap_score) and `resumed`, the epochs after which the run was taken up.
    """

    def __init__(self, trainer: Trainer, clap, folder: Path | None, settings: dict, saved: dict | None):
        self.trainer, self.clap, self.folder, self.settings = trainer, clap, folder, settings
        self.state = {"rows": [], "best_epoch": None, "scores": {}, "resumed": []}
        self.best_weights: dict[str, torch.Tensor] = {}  # where no folder keeps them
        if saved is None:
            return
        trainer.restore(saved)
        self.state = {name: saved[name] for name in self.state}
        epoch, best = len(saved["rows"]) - 1, saved["best_epoch"]
        self.state["resumed"] = [*saved["resumed"], epoch]
        if best != epoch and not (folder / MODEL).is_dir():
            raise CheckpointError(
                f"{folder / MODEL} is not there, and epoch {best}, the best so far, is in no checkpoint any more; "
                "overwrite=True begins anew"
            )
        self._write_epoch(better=best == epoch)  # it may have been stopped between checkpoint and model

    def train(self, progress: bool) -> FinetuneResult:
        """All epochs that are left, and the result."""
        from tqdm.auto import tqdm

        config, steps, rows = self.trainer.config, len(self.trainer.batches(1)), self.state["rows"]
        started, first = time.perf_counter(), max(len(rows) - 1, 0) * steps
        self._write_settings("running")  # what a killed run leaves behind
        bar = tqdm(total=config.epochs * steps, initial=first, desc=config.kind, unit="step", disable=not progress)
        try:
            with bar:
                for epoch in range(len(rows), config.epochs + 1):
                    self._epoch(epoch, bar)
        except NonFiniteLoss as error:
            self._write_settings(f"stopped: {error}")
            if (best := self.state["best_epoch"]) is None:
                raise NonFiniteLoss(f"{error}. No epoch was finished, so there is no model to keep") from None
            where = self.folder / MODEL if self.folder else "the error's .result"
            stopped = NonFiniteLoss(f"{error}. The best model until then, of epoch {best}, is in {where}")
            stopped.result = self._result()
            raise stopped from None
        result = self._result()
        if self.folder is not None:
            write_text(self.folder / SCORES, result.validation.to_csv(index=False))
            self._write_settings("running")  # with the best epoch, which the card shows
            write_card(self.folder / MODEL)
            self._write_settings("finished", seconds=round(time.perf_counter() - started, 3))
            (self.folder / CHECKPOINT).unlink(missing_ok=True)
        return result

    def _epoch(self, epoch: int, bar) -> None:
        def show(step: int, loss: float) -> None:
            bar.update()
            bar.set_postfix(epoch=epoch, loss=f"{loss:.4f}", refresh=False)

        rows, scores = self.state["rows"], self.state["scores"]
        trained = self.trainer.train_epoch(epoch, show) if epoch else {}
        validated, score = self.trainer.validate(epoch)
        # Strictly lower: of two equal epochs the earlier one wins.
        better = epoch > 0 and all(validated["loss"] < row["validation_loss"] for row in rows[1:])
        rows.append({
            "epoch": epoch,
            **_named_terms("train_", trained),
            "negative_share": trained.get("negative_share", math.nan),
            **_named_terms("validation_", validated),
            "validation_negative_share": validated["negative_share"],
            "validation_srcc": self._srcc(epoch, score),
            "temperature": self.trainer.temperature,
        })  # fmt: skip
        if better:
            self.state["best_epoch"] = epoch
        if better or epoch == 0:
            scores["clap_score" if epoch else "base_clap_score"] = score.tolist()
        self._save(epoch, better)
        names = ["train_loss"] * bool(epoch) + ["validation_loss", "validation_srcc"]
        bar.set_postfix({"epoch": epoch} | {name.removeprefix("train_"): f"{rows[-1][name]:.4f}" for name in names})

    def _srcc(self, epoch: int, score: np.ndarray) -> float:
        target = self.trainer.validation_pairs.pairs["target"].to_numpy()
        srcc = float(correlations(score, target).srcc) if len(score) > 1 else math.nan
        if math.isnan(srcc) and (len(score) < 2 or np.ptp(target) > 0):  # equal ratings were warned of before
            why = "there is one validation pair" if len(score) < 2 else "all validation pairs have the same score"
            warnings.warn(f"the validation SRCC does not exist in epoch {epoch}: {why}", stacklevel=5)
        return srcc

    def _save(self, epoch: int, better: bool) -> None:
        if self.folder is None:
            if better:
                weights = self.trainer.model.state_dict()
                self.best_weights = {name: values.detach().cpu().clone() for name, values in weights.items()}
            return
        try:
            # The checkpoint first: a run stopped right after it still has the weights that model/ should get.
            if epoch:
                with writing(self.folder / CHECKPOINT) as fresh, fresh.open("wb") as file:
                    torch.save({**self.trainer.state(), **self.state, "settings": self.settings}, file)
            self._write_epoch(better)
        except Exception as error:  # torch and safetensors raise errors of their own
            cause = error.__context__ if isinstance(error.__context__, OSError) else error
            reason = getattr(cause, "strerror", None) or " ".join(str(cause).split())[:200]
            raise OSError(
                f"epoch {epoch} could not be saved in {self.folder} ({reason}); the last checkpoint and the best model "
                "that were saved are whole. Make room and call again with resume=True (--resume)"
            ) from error

    def _write_epoch(self, better: bool) -> None:
        if better:
            save_clapmodel(self.folder / MODEL, self.trainer.model, self.clap.front_end_parts)
        write_text(self.folder / HISTORY, pd.DataFrame(self.state["rows"]).to_csv(index=False))

    def _write_settings(self, status: str, **more) -> None:
        best, resumed = self.state["best_epoch"], self.state["resumed"]
        self.settings |= {"status": status, "best_epoch": best, "resumed": resumed, **more}
        if self.folder is not None:
            write_text(self.folder / SETTINGS, json.dumps(self.settings, indent=2) + "\n")

    def _result(self) -> FinetuneResult:
        model = None
        if self.folder is None:
            model = self.trainer.model.eval().requires_grad_(True)
            model.load_state_dict(self.best_weights)
        return FinetuneResult(
            config=self.trainer.config,
            history=pd.DataFrame(self.state["rows"]),
            best_epoch=self.state["best_epoch"],
            validation=self.trainer.validation_pairs.pairs[["audio", "text", "target"]].assign(**self.state["scores"]),
            checkpoint=self.folder / MODEL if self.folder else None,
            settings=self.settings,
            in_memory=model,
        )


# --- one call -------------------------------------------------------------------------------------------


def finetune(
    config: FinetuneConfig,
    train_pairs: pd.DataFrame | PairData,
    validation_pairs: pd.DataFrame | PairData,
    audio_root: str | os.PathLike | None = None,
    output_dir: str | os.PathLike | None = None,
    base=None,
    device: str = "auto",
    progress: bool = True,
    overwrite: bool = False,
    resume: bool = False,
    cache_dir: str | os.PathLike | None = None,
) -> FinetuneResult:
    """Fine-tune a CLAP on rated pairs (equation 6) and keep the epoch with the lowest validation loss.

    Epoch 0, the base, is measured and recorded but cannot win, as the paper chooses among trained models;
    `FinetuneResult.improved` says whether training beat it.

    `train_pairs`, `validation_pairs`: DataFrames with audio (relative to `audio_root`), text and target (0-1); or what
        `prepare` made of them, to read the audio once for several runs.
    `output_dir`: gets, after every epoch, history.csv and checkpoint.pt, and after every better one model/, each whole
        or not at all; at the end validation.csv and a model card, and the checkpoint is removed.
    `base`: a name, folder or loaded CLAP that is a ClapModel; None takes `config.base`. It is not changed.
    `device`: a torch device; "auto" is where a loaded base is, else a GPU where there is one.
    `overwrite`: replace a run that lies in `output_dir`.
    `resume`: go on with the run in `output_dir` after its last whole epoch. It ends as if it had never been
        stopped: bit-equal on a CPU with the same torch and number of threads. Where there is no run, it begins; a
        finished one is read and returned.
    `cache_dir`: where `prepare` keeps features.

    Warns (UserWarning) of pairs or captions in both sets, as the validation loss then rewards memory, of ratings that
    are all equal, a validation SRCC that does not exist, a caption that a batch has to repeat, and a run that goes on
    with another torch or number of threads. Raises what `prepare` raises, TypeError for a base that is no ClapModel,
    FileExistsError for an `output_dir` that holds a run (neither `resume` nor `overwrite`), CheckpointError (a
    ValueError) where the run to resume had another configuration, base or data, or its checkpoint is damaged,
    RuntimeError where another process trains in the folder, OSError where an epoch can't be saved, and NonFiniteLoss
    when the loss becomes NaN or infinite: the best model until then stays in `output_dir` and in the error's `result`.
    """
    folder = open_folder(output_dir, overwrite, resume)
    clap = open_base(base or config.base, device)
    place = next(clap.model.parameters()).device if device == "auto" else torch.device(device)
    precision = choose_precision(config.precision, place)
    given = {"train": train_pairs, "validation": validation_pairs}
    checked = {n: check_pairs(clap, part, audio_root, f"{n}_pairs", config.trains) for n, part in given.items()}
    with ExitStack() as stack:
        stack.enter_context(reproducible(place))
        stack.enter_context(small_on_cpu(clap.model, place))
        settings = describe(config, clap, checked, place, precision)
        finished, saved = stack.enter_context(run_folder(folder, settings, resume))
        if finished:
            return FinetuneResult.read(folder, config)
        warn_of_pairs(settings["data"]["shared"], {name: pairs["target"] for name, (pairs, _) in checked.items()})
        data = [prepare(clap, pairs, audio_root, progress, cache_dir, config.trains) for pairs in given.values()]
        trainer = Trainer(config, clap.model, *data, place)
        repeated = repeated_captions(trainer.batches(1))
        if config.distinct_captions and repeated:
            warnings.warn(
                f"{repeated} of {len(data[0])} training pairs have to share a batch of {config.batch_size} with a pair of "
                "the same caption: there are too few captions, or one has more clips than there are batches",
                stacklevel=2,
            )
        return _Run(trainer, clap, folder, settings, saved).train(progress)
