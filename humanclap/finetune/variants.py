"""The rows of Table I, each over several seeds: trained one after the other or side by side, compared, one chosen."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import torch

from humanclap.checks import whole_number
from humanclap.finetune.config import FinetuneConfig
from humanclap.finetune.data import PairData, open_base, prepare
from humanclap.finetune.result import FINISHED, FinetuneResult, open_folder, read_settings
from humanclap.finetune.train import finetune
from humanclap.losses import KINDS

Runs = dict[tuple[str, int], tuple[FinetuneConfig, Path]]  # by (kind, seed): configuration and folder
Failed = dict[tuple[str, int], str]


class VariantsFailed(RuntimeError):
    """One or more trainings failed; `failed` says how, by (kind, seed). Finished ones lie in their folders."""

    failed: Failed


@dataclass(frozen=True, eq=False)
class FinetuneRuns:
    """Fine-tunings that differ in loss and seed only: `results[kind, seed]`, in the order they were asked for."""

    results: dict[tuple[str, int], FinetuneResult]

    def best_rows(self) -> pd.DataFrame:
        """Each training at its best epoch, the one with the lowest validation loss.

        Columns: kind, training_seed, then those of the history (epoch, ..., validation_loss, validation_srcc, ...), and
        improved, whether that loss is below the base's.
        """
        parts = [
            result.history[result.history["epoch"] == result.best_epoch].assign(
                kind=kind, training_seed=seed, improved=result.improved
            )
            for (kind, seed), result in self.results.items()
        ]
        return _first(pd.concat(parts, ignore_index=True), ["kind", "training_seed"])

    def summary(self) -> pd.DataFrame:
        """One row per kind, over its seeds, at the best epoch of each.

        Columns: kind; n_seeds; validation_loss, validation_loss_sd, validation_srcc, validation_srcc_sd: mean and
        standard deviation over seeds (n - 1; empty for one seed, and where a seed has no SRCC, see `chosen`);
        n_without_srcc, how many seeds have none; best_epochs, such as "7, 9, 6", in the order of the seeds; n_improved,
        how many have a lower validation loss than the base; chosen, true for one kind.
        """
        rows, chosen = [], self.chosen[0]
        for kind, part in self.best_rows().groupby("kind", sort=False):
            row = {"kind": kind, "n_seeds": len(part)}
            for name in ("validation_loss", "validation_srcc"):
                values = part[name]
                row |= {name: values.mean(skipna=False), f"{name}_sd": values.std(ddof=1, skipna=False)}
            row["n_without_srcc"] = int(part["validation_srcc"].isna().sum())
            row |= {"best_epochs": ", ".join(map(str, part["epoch"])), "n_improved": int(part["improved"].sum())}
            rows.append(row | {"chosen": kind == chosen})
        return pd.DataFrame(rows)

    def histories(self) -> pd.DataFrame:
        """All histories, one below the other: model (the kind), training_seed, then the columns of a history."""
        parts = [result.history.assign(model=kind, training_seed=seed) for (kind, seed), result in self.results.items()]
        return _first(pd.concat(parts, ignore_index=True), ["model", "training_seed"])

    @property
    def chosen(self) -> tuple[str, int]:
        """The model to call Human-CLAP, by validation alone: the kind with the highest mean validation SRCC over its
        seeds, and of that kind the seed with the highest; of equal ones the first.

        A kind of which a seed has no validation SRCC has no mean and can't be chosen, however good its other seeds
        are; a warning counts them. Raises ValueError where every kind has such a seed.
        """
        best = self.best_rows()
        by_kind = best.groupby("kind", sort=False)["validation_srcc"]
        means = by_kind.agg(lambda values: values.mean(skipna=False))
        counts = by_kind.agg(lambda values: f"{values.isna().sum()} of {len(values)} seeds")[means.isna()]
        why = "have no validation SRCC, which constant ratings or scores leave undefined"
        without = "; ".join(f"{kind}: {count}" for kind, count in counts.items())
        if means.isna().all():
            raise ValueError(f"of every kind there are seeds that {why}: nothing to choose by ({without})")
        if without:
            warnings.warn(f"not chosen among are kinds with seeds that {why} ({without})", stacklevel=2)
        kind = means.idxmax()
        of_kind = best[best["kind"] == kind]
        return kind, int(of_kind.loc[of_kind["validation_srcc"].idxmax(), "training_seed"])


def _first(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    return table[columns + [name for name in table if name not in columns]]


def finetune_variants(
    config: FinetuneConfig,
    train_pairs: pd.DataFrame | PairData,
    validation_pairs: pd.DataFrame | PairData,
    audio_root: str | os.PathLike | None = None,
    output_dir: str | os.PathLike | None = None,
    kinds: Sequence[str] = KINDS,
    seeds: Sequence[int] = (0,),
    base=None,
    device: str = "auto",
    workers: int = 1,
    progress: bool = True,
    overwrite: bool = False,
    resume: bool = False,
    cache_dir: str | os.PathLike | None = None,
) -> FinetuneRuns:
    """Fine-tune one base on the same pairs with several losses and seeds, into `output_dir`/<kind>/seed<k>/.

    `config` gives all other settings; pairs, base and the rest are as in `finetune`. Clips are read once.
    `workers`: trainings at the same time, each in a process of its own: on a CPU for small models, which use one core
        each; on GPUs one per GPU, cuda:0 and on. Files are equal to those of workers=1 to the last byte (on a CPU).
    `resume`: finished trainings are read, the others go on or begin. `overwrite`: all begin anew.

    Raises what `finetune` raises for base and pairs, ValueError for kinds or seeds that are none or there twice,
    FileExistsError, before anything is trained, where one of the folders holds a run (neither `resume` nor
    `overwrite`), and VariantsFailed, once the others are finished, when a training fails. When a process dies, the
    others stop as well. `resume=True` goes on with all that are not finished.
    """
    for name, values in (("kinds", kinds), ("seeds", seeds)):
        if isinstance(values, str) or not len(values) or len(set(values)) < len(values):
            raise ValueError(f"{name} is {values!r}; give a list of at least one, each once")
    if output_dir is None:
        raise ValueError("output_dir is None: finetune_variants keeps each training in a folder of its own")
    runs = {}
    for kind, seed in product(kinds, seeds):
        one = replace(config, kind=kind, seed=seed)
        runs[kind, one.seed] = one, open_folder(Path(output_dir) / kind / f"seed{one.seed}", overwrite, resume)
    clap = open_base(base or config.base, device)
    devices = _devices(clap, device, whole_number(workers, "workers", 1))
    sets = [
        prepare(clap, pairs, audio_root, progress, cache_dir, config.trains)
        for pairs in (train_pairs, validation_pairs)
    ]
    if failed := _trained(runs, sets, clap, devices, progress, {"overwrite": overwrite, "resume": resume}):
        what = "; ".join(f"{kind} with seed {seed}: {problem}" for (kind, seed), problem in failed.items())
        error = VariantsFailed(
            f"{len(failed)} of {len(runs)} trainings failed, {what}. {len(runs) - len(failed)} are finished and stay in "
            "their folders; resume=True goes on with the others"
        )
        error.failed = failed
        raise error
    return FinetuneRuns({run: FinetuneResult.read(folder, one) for run, (one, folder) in runs.items()})


def _devices(clap, device: str, workers: int) -> list[str]:
    """A device for each worker."""
    place = next(clap.model.parameters()).device if device == "auto" else torch.device(device)
    if workers == 1 or place.type == "cpu":
        return [str(place)] * workers
    n_gpus = torch.cuda.device_count()
    if place.type != "cuda" or workers > n_gpus:
        raise ValueError(f"workers is {workers}, one per GPU, and torch sees {n_gpus} GPU(s): use at most that many")
    return [f"cuda:{number}" for number in range(workers)]


def _trained(runs: Runs, sets: list[PairData], clap, devices: list[str], progress: bool, how: dict) -> Failed:
    """Train `runs`, here or in a process per device, and return what went wrong.

    Each GPU has a queue of its own; on a CPU whoever is free takes the next run.
    """
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor
    from tqdm.auto import tqdm

    n, items = len(devices), list(runs.items())
    if n == 1:
        return _work(items, sets, clap, devices[0], progress, how)
    gpus = devices[0].startswith("cuda")
    queues = [(items[i::n], devices[i]) for i in range(n)] if gpus else [([item], "cpu") for item in items]
    # What a training needs of an open CLAP; features as numpy arrays, which joblib maps into the memory of all workers.
    names = ("front_end", "front_end_parts", "name", "checkpoint_sha256")
    base = SimpleNamespace(model=copy.deepcopy(clap.model).cpu(), **{name: getattr(clap, name) for name in names})
    arrays = [replace(part, features={name: held.numpy() for name, held in part.features.items()}) for part in sets]
    tasks = [delayed(_work)(queue, arrays, base, place, False, how, torch.get_num_threads()) for queue, place in queues]
    pool = Parallel(n_jobs=n, backend="loky", batch_size=1, mmap_mode="c", return_as="generator_unordered")
    failed: Failed = {}
    try:
        for found in tqdm(pool(tasks), "trainings", len(tasks), unit="run", disable=not progress):
            failed |= found
    except BrokenProcessPool as error:
        why = f"a training process died ({str(error).splitlines()[0]})"
        unfinished = [run for run, (_, folder) in items if (read_settings(folder) or {}).get("status") != FINISHED]
        failed = dict.fromkeys(unfinished, why) | failed
    finally:
        get_reusable_executor().shutdown(wait=True)  # else idle processes would keep their memory
    return failed


def _work(queue: list, sets: list, base, device: str, progress: bool, how: dict, threads: int | None = None) -> Failed:
    """Train one after the other and return what went wrong; the models are not kept in memory."""
    if threads:  # in a process of its own
        torch.set_num_threads(threads)
        sets = [
            replace(part, features={name: torch.from_numpy(v) for name, v in part.features.items()}) for part in sets
        ]
    failed = {}
    for run, (config, folder) in queue:
        try:
            finetune(config, *sets, base=base, output_dir=folder, device=device, progress=progress, **how)
        except Exception as error:  # noqa: BLE001  (whatever it is, the others can still be trained)
            failed[run] = f"{type(error).__name__}: {error}"
    return failed
