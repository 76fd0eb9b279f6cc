"""Fine-tune a CLAP on human ratings: what is checked first, and whether a run begins, goes on or is done."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import torch

from humanclap.finetune.accelerated import Engine, launched, state_kept
from humanclap.finetune.batches import repeated_captions
from humanclap.finetune.checkpoint import CheckpointError
from humanclap.finetune.config import FinetuneConfig
from humanclap.finetune.data import PairData, prepare
from humanclap.finetune.folder import RunFolder
from humanclap.finetune.manifest import conditions_changed, describe, differences
from humanclap.finetune.repeat import reproducible, small_on_cpu
from humanclap.finetune.result import FINISHED, FinetuneResult
from humanclap.finetune.run import Run
from humanclap.finetune.trainer import NonFiniteLoss, Trainer
from humanclap.finetune.windows import DrawnWindows


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
    resume: bool = False,
    cache_dir: str | Path | None = None,
    tensorboard: bool = False,
) -> FinetuneResult:
    """Fine-tune a CLAP on rated pairs (equation 6) and keep the epoch with the lowest validation loss.

    Epoch 0, the base, is measured and recorded but cannot win, as the paper chooses among trained models;
    `FinetuneResult.improved` says whether training beat it.

    `train_pairs`, `validation_pairs`: DataFrames with audio (relative to `audio_root`), text and target
        (0-1), as `relate.aggregate_pairs` makes them; or what `prepare` made of them, to read the audio once
        for several runs.
    `output_dir`: gets, after every epoch, `history.csv`, `times.csv` and a checkpoint, after every better one
        `model/`, and `manifest.json`. The checkpoints are removed when the run is finished.
    `base`: a name, folder or loaded CLAP that is a ClapModel; None takes `config.base`. It is not changed.
    `device`: "auto" or a torch device, for a base that is loaded here; a loaded one trains where it is.
    `overwrite`: replace a run that lies in `output_dir`.
    `resume`: go on with the run in `output_dir` after its last whole epoch. It ends as if it had never been
        stopped: bit-equal on a CPU with the same torch and number of threads. Where there is no run, or one
        that was stopped before its first epoch ended, it begins; a finished one is read and returned.
    `cache_dir`: where `prepare` keeps features.
    `tensorboard`: write the history to `output_dir`/tensorboard, too.

    Under `accelerate launch` (or torchrun) every process calls this with the same arguments; `config.batch_size`
    counts the pairs of all of them, the first one writes, and `output_dir` must be one folder for all.

    Warns (UserWarning) when pairs or captions stand in both sets, as the validation loss then rewards memory,
    when a batch cannot avoid a repeated caption, and when a run goes on with another number of threads or
    another torch than before. Raises what `prepare` raises, TypeError for a base that is no ClapModel,
    ValueError for prepared pairs from another front end, FileExistsError for an `output_dir` that holds a run
    (neither `resume` nor `overwrite`), CheckpointError (a ValueError) for a run to resume that had another
    configuration, base or data, or whose checkpoint is damaged, RuntimeError where another process trains in
    the folder, OSError where a file cannot be written, saying what is whole; and NonFiniteLoss when the loss
    becomes NaN or infinite: the best model until then stays in `output_dir` and in the error's `result`.
    """
    folder = _folder(output_dir, overwrite, resume, tensorboard)
    with state_kept(), ExitStack() as stack:
        on_cpu = launched() and device == "auto"
        clap = load_base(base or config.base, "cpu" if on_cpu else device)
        place = next(clap.model.parameters()).device
        engine = Engine(config, None if launched() and (on_cpu or place.type != "cpu") else place)
        progress = progress and engine.is_main
        with engine.accelerator.main_process_first():  # the others then find what it has cached
            train = prepared(clap, train_pairs, audio_root, progress, cache_dir, "train_pairs")
            validation = prepared(clap, validation_pairs, audio_root, progress, cache_dir, "validation_pairs")
        shared = _shared(train, validation, engine.is_main)
        windows = DrawnWindows(clap, train) if config.windows == "drawn" else None
        if folder is not None and engine.is_main:
            stack.enter_context(folder.held())
        stack.enter_context(reproducible(engine.device))
        stack.enter_context(small_on_cpu(clap.model, engine.device))
        trainer = Trainer(config, clap.model, train, validation, engine.device, engine, windows)
        if engine.is_main:
            _tell_repeated_captions(trainer)
        settings = describe(trainer, clap, shared)
        engine.require_same({name: settings[name] for name in ("config", "base", "data")})
        run = Run(trainer, clap, folder, settings, tensorboard)
        if folder is not None:
            finished = _take_up(run, folder, resume)
            if finished is not None:
                return finished
        try:
            run.train(progress)
        except NonFiniteLoss as error:
            raise run.stopped(error) from None
        return run.result()


def _folder(output_dir, overwrite: bool, resume: bool, tensorboard: bool) -> RunFolder | None:
    if overwrite and resume:
        raise ValueError("resume=True goes on with a run and overwrite=True replaces it: give one of them")
    if output_dir is None:
        for name, asked in (("resume", resume), ("tensorboard", tensorboard)):
            if asked:
                raise ValueError(f"{name}=True needs an output_dir")
        return None
    folder = RunFolder(Path(output_dir))
    if not (overwrite or resume):
        folder.require_empty()
    return folder


def _take_up(run: Run, folder: RunFolder, resume: bool) -> FinetuneResult | None:
    """Bring `run` to where the run in `folder` stopped, or make the folder empty; a finished run's result."""
    engine = run.trainer.engine
    manifest = folder.read_manifest() if resume else None
    epochs = folder.checkpoints.epochs() if resume else []
    done = None
    if epochs and not (manifest and manifest.get("status") == FINISHED):
        done = folder.checkpoints.read(epochs[-1])
    before = done.settings if done else manifest
    if before is not None:
        other = differences(before, run.settings)
        if other:
            where = folder.checkpoints.path(done.epoch) if done else folder.path
            raise CheckpointError(
                f"{where} is of another fine-tuning: {'; '.join(other)}. Nothing was changed there; give another "
                "output_dir, or overwrite=True to replace it"
            )
    engine.wait()
    if manifest and manifest.get("status") == FINISHED:
        if engine.is_main:
            folder.checkpoints.remove()  # it was stopped while it tidied up
            folder.clear_remains()
        return FinetuneResult.read(folder, run.trainer.config)
    if engine.is_main:
        folder.clear_remains() if done else folder.clear()
    if done:
        if engine.is_main:
            _tell_conditions(folder.checkpoints.path(done.epoch), conditions_changed(done.settings, run.settings))
        run.go_on(done)
    engine.wait()
    return None


def load_base(base, device: str):
    """`base`, opened if it is a name or folder. Raises TypeError for what is no ClapModel."""
    if isinstance(base, (str, Path)):
        from humanclap.clap import load_clap

        base = load_clap(str(base), device=device)
    if not all(hasattr(base, name) for name in ("model", "audio_features", "text_tokens", "front_end")):
        raise TypeError(
            f"base is a {type(base).__name__}, and only a transformers ClapModel can be fine-tuned: give a "
            "save_pretrained folder, or convert a LAION .pt to one first"
        )
    return base


def prepared(clap, pairs, audio_root, progress: bool, cache_dir, name: str) -> PairData:
    """`pairs`, prepared if they are a DataFrame. Raises ValueError for pairs prepared with another front end."""
    if not isinstance(pairs, PairData):
        if audio_root is None:
            raise ValueError(f"audio_root is None: it is needed to read the audio of {name}")
        return prepare(clap, pairs, audio_root, progress, cache_dir)
    if pairs.front_end != clap.front_end:
        raise ValueError(
            f"{name} were prepared with another front end than the base has: {pairs.front_end} against "
            f"{clap.front_end}; prepare them with this base"
        )
    return pairs


def _shared(train: PairData, validation: PairData, tell: bool) -> dict[str, int]:
    """How many pairs, captions and clips stand in both sets; warns of the first two."""
    keys = {"pairs": ["audio", "text"], "captions": ["text"], "clips": ["audio"]}
    held = {name: set(map(tuple, train.pairs[columns].to_numpy())) for name, columns in keys.items()}
    shared = {
        name: len(held[name] & set(map(tuple, validation.pairs[columns].to_numpy())))
        for name, columns in keys.items()
    }
    if tell and (shared["pairs"] or shared["captions"]):
        warnings.warn(
            f"{shared['pairs']} pairs and {shared['captions']} captions stand in the training and the "
            "validation set: the validation loss then rewards memory. "
            "relate.split_train_validation(by='caption') keeps them apart",
            stacklevel=3,
        )
    return shared


def _tell_conditions(checkpoint: Path, changed: list[str]) -> None:
    if changed:
        warnings.warn(
            f"{checkpoint} was trained with {' and '.join(changed)}: the run goes on, and may not end bit-equal to "
            "one that was never stopped",
            stacklevel=4,
        )


def _tell_repeated_captions(trainer: Trainer) -> None:
    config, repeated = trainer.config, repeated_captions(trainer.batches(1))
    if config.distinct_captions and repeated:
        warnings.warn(
            f"{repeated} of {len(trainer.train_pairs)} training pairs have to share a batch of "
            f"{config.batch_size} with a pair of the same caption: there are too few captions, or one has "
            "more clips than there are batches",
            stacklevel=3,
        )
