"""Fine-tune a CLAP on human ratings: epochs, selection by validation loss, and what is written down."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from humanclap.evaluate.correlation import correlations
from humanclap.finetune.checkpoint import RunFolder, describe
from humanclap.finetune.config import FinetuneConfig
from humanclap.finetune.data import PairData, prepare, repeated_captions
from humanclap.finetune.repeat import reproducible, small_on_cpu
from humanclap.finetune.trainer import NonFiniteLoss, Trainer


@dataclass(frozen=True, eq=False)
class FinetuneResult:
    """What came out of one fine-tuning.

    history: one row an epoch, 0 to `config.epochs`, epoch 0 being the base before any step. Columns: epoch;
        train_loss, train_contrastive (SCE or wSCE), train_regression (MSE or MAE), means over the pairs as
        the epoch went by, empty for epoch 0, and terms that the loss does not have are empty; negative_share,
        the share of training pairs whose cosine was below 0, which get no gradient from the regression term;
        validation_loss, validation_contrastive, validation_regression, validation_negative_share;
        validation_srcc (of CLAPScore, NaN where undefined); temperature (τ, after the epoch).
    best_epoch: the trained epoch (1 or later) with the lowest validation loss, the earliest of equal ones.
    model: the ClapModel of that epoch, in eval mode.
    checkpoint: the folder it lies in, for `load_clap` or `ClapModel.from_pretrained`; None without
        output_dir.
    n_train, n_validation: pairs.
    settings: the manifest: configuration, versions, device, sha256 of the base's weights and of the data.
    """

    config: FinetuneConfig
    history: pd.DataFrame
    best_epoch: int
    model: torch.nn.Module
    checkpoint: Path | None
    n_train: int
    n_validation: int
    settings: dict

    @property
    def improved(self) -> bool:
        """Whether the best epoch has a lower validation loss than the base had."""
        loss = self.history.set_index("epoch")["validation_loss"]
        return bool(loss[self.best_epoch] < loss[0])


def finetune(
    config: FinetuneConfig,
    train_pairs: pd.DataFrame | PairData,
    validation_pairs: pd.DataFrame | PairData,
    audio_root: str | Path | None = None,
    output_dir: str | Path | None = None,
    base=None,
    device: str = "auto",
    progress: bool = True,
    overwrite: bool = False,
) -> FinetuneResult:
    """Fine-tune a CLAP on rated pairs (equation 6) and keep the epoch with the lowest validation loss.

    Epoch 0, the base, is measured and recorded but cannot win, as the paper chooses among trained models;
    `FinetuneResult.improved` says whether training beat it.

    `train_pairs`, `validation_pairs`: DataFrames with audio (relative to `audio_root`), text and target
        (0-1), as `relate.aggregate_pairs` makes them; or what `prepare` made of them, to read the audio once
        for several runs.
    `output_dir`: gets `history.csv` after every epoch, `model/` after every better one, and `manifest.json`.
    `base`: a name, folder or loaded CLAP that is a ClapModel; None takes `config.base`. It is not changed.
    `device`: "auto" or a torch device, for a base that is loaded here; a loaded one trains where it is.
    `overwrite`: replace a run that lies in `output_dir`.

    Warns (UserWarning) when pairs or captions stand in both sets, as the validation loss then rewards memory,
    and when a batch cannot avoid a repeated caption. Raises what `prepare` raises, TypeError for a base that
    is no ClapModel, ValueError for prepared pairs from another front end, FileExistsError for an `output_dir`
    that holds a run, and NonFiniteLoss when the loss becomes NaN or infinite: the best model until then stays
    in `output_dir` and in the error's `result`.
    """
    clap = _load_base(base or config.base, device)
    train = _prepared(clap, train_pairs, audio_root, progress, "train_pairs")
    validation = _prepared(clap, validation_pairs, audio_root, progress, "validation_pairs")
    shared = _shared(train, validation)
    folder = None if output_dir is None else RunFolder.create(output_dir, overwrite)
    place = next(clap.model.parameters()).device
    with reproducible(place), small_on_cpu(clap.model, place):
        trainer = Trainer(config, clap.model, train, validation, place)
        _tell_repeated_captions(trainer)
        run = _Run(trainer, clap, folder, describe(trainer, clap, shared))
        try:
            run.train(progress)
        except NonFiniteLoss as error:
            raise run.stopped(error) from None
    return run.result()


class _Run:
    """The epochs of one fine-tuning: history, the best model so far, and the files."""

    def __init__(self, trainer: Trainer, clap, folder: RunFolder | None, settings: dict) -> None:
        self.trainer, self.clap, self.folder, self.settings = trainer, clap, folder, settings
        self.rows: list[dict] = []
        self.best_epoch: int | None = None
        self.best_loss = np.inf
        self.best_state: dict[str, torch.Tensor] = {}
        self.started = time.perf_counter()
        self._write_status("running")  # what a killed run leaves behind

    def train(self, progress: bool) -> None:
        from tqdm.auto import tqdm

        config = self.trainer.config
        steps = len(self.trainer.batches(1))
        with tqdm(total=config.epochs * steps, desc=config.kind, unit="step", disable=not progress) as bar:
            for epoch in range(config.epochs + 1):
                trained = self.trainer.train_epoch(epoch, bar.update) if epoch else {}
                validated, score = self.trainer.validate(epoch)
                self.rows.append(self._row(epoch, trained, validated, score))
                # Strictly lower: of two equal epochs the earlier one wins.
                if epoch and validated["loss"] < self.best_loss:
                    self._keep(epoch, validated["loss"])
                if self.folder:
                    self.folder.write_history(self.history)
                shown = {"loss": trained["loss"]} if epoch else {}
                shown |= {
                    "validation_loss": validated["loss"],
                    "validation_srcc": self.rows[-1]["validation_srcc"],
                }
                bar.set_postfix(epoch=epoch, **{name: f"{value:.4f}" for name, value in shown.items()})
        self._write_status("finished")

    @property
    def history(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows)

    def result(self) -> FinetuneResult:
        model = self.trainer.model
        model.load_state_dict(self.best_state)
        model.requires_grad_(True).eval()
        return FinetuneResult(
            config=self.trainer.config,
            history=self.history,
            best_epoch=self.best_epoch,
            model=model,
            checkpoint=self.folder.model if self.folder else None,
            n_train=len(self.trainer.train_pairs),
            n_validation=len(self.trainer.validation_pairs),
            settings=self.settings,
        )

    def stopped(self, error: NonFiniteLoss) -> NonFiniteLoss:
        """The same error, with the best model and word of where it is."""
        self._write_status(f"stopped: {error}")
        if self.best_epoch is None:
            return NonFiniteLoss(f"{error}. No epoch was finished, so there is no model to keep")
        where = self.folder.model if self.folder else "the error's .result"
        complete = NonFiniteLoss(
            f"{error}. The best model until then, of epoch {self.best_epoch}, is in {where}"
        )
        complete.result = self.result()
        return complete

    def _keep(self, epoch: int, loss: float) -> None:
        model = self.trainer.model
        self.best_epoch, self.best_loss = epoch, loss
        self.best_state = {name: values.detach().cpu().clone() for name, values in model.state_dict().items()}
        if self.folder:
            self.folder.write_model(model, self.clap)

    def _write_status(self, status: str) -> None:
        seconds = round(time.perf_counter() - self.started, 3)
        self.settings.update(status=status, best_epoch=self.best_epoch, seconds=seconds)
        if self.folder:
            self.folder.write_manifest(self.settings)

    def _row(self, epoch: int, trained: dict, validated: dict, score: np.ndarray) -> dict:
        target = self.trainer.validation_pairs.pairs["target"].to_numpy()
        return {
            "epoch": epoch,
            **_named("train_", trained),
            "negative_share": trained.get("negative_share", np.nan),
            **_named("validation_", validated),
            "validation_negative_share": validated["negative_share"],
            "validation_srcc": correlations(score, target).srcc if len(score) > 1 else np.nan,
            "temperature": self.trainer.temperature,
        }


def _named(prefix: str, means: dict[str, float]) -> dict[str, float]:
    """The loss and its two kinds of term under fixed names, NaN for what this loss does not have."""
    contrastive = means.get("wsce", means.get("sce", np.nan))
    regression = means.get("mse", means.get("mae", np.nan))
    loss = means.get("loss", np.nan)
    return {f"{prefix}loss": loss, f"{prefix}contrastive": contrastive, f"{prefix}regression": regression}


def _load_base(base, device: str):
    if isinstance(base, (str, Path)):
        from humanclap.clap import load_clap

        base = load_clap(str(base), device=device)
    if not all(hasattr(base, name) for name in ("model", "audio_features", "text_tokens", "front_end")):
        raise TypeError(
            f"base is a {type(base).__name__}, and only a transformers ClapModel can be fine-tuned: give a "
            "save_pretrained folder, or convert a LAION .pt to one first"
        )
    return base


def _prepared(clap, pairs, audio_root, progress: bool, name: str) -> PairData:
    if not isinstance(pairs, PairData):
        if audio_root is None:
            raise ValueError(f"audio_root is None: it is needed to read the audio of {name}")
        return prepare(clap, pairs, audio_root, progress)
    if pairs.front_end != clap.front_end:
        raise ValueError(
            f"{name} were prepared with another front end than the base has: {pairs.front_end} against "
            f"{clap.front_end}; prepare them with this base"
        )
    return pairs


def _shared(train: PairData, validation: PairData) -> dict[str, int]:
    """How many pairs, captions and clips stand in both sets; warns of the first two."""
    keys = {"pairs": ["audio", "text"], "captions": ["text"], "clips": ["audio"]}
    held = {name: set(map(tuple, train.pairs[columns].to_numpy())) for name, columns in keys.items()}
    shared = {
        name: len(held[name] & set(map(tuple, validation.pairs[columns].to_numpy())))
        for name, columns in keys.items()
    }
    if shared["pairs"] or shared["captions"]:
        warnings.warn(
            f"{shared['pairs']} pairs and {shared['captions']} captions stand in the training and the "
            "validation set: the validation loss then rewards memory. "
            "relate.split_train_validation(by='caption') keeps them apart",
            stacklevel=3,
        )
    return shared


def _tell_repeated_captions(trainer: Trainer) -> None:
    config, repeated = trainer.config, repeated_captions(trainer.batches(1))
    if config.distinct_captions and repeated:
        warnings.warn(
            f"{repeated} of {len(trainer.train_pairs)} training pairs have to share a batch of "
            f"{config.batch_size} with a pair of the same caption: there are too few captions, or one has "
            "more clips than there are batches",
            stacklevel=3,
        )
