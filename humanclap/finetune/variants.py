"""The rows of Table I, each over several seeds: trained one after the other or side by side, compared, one chosen."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from numbers import Integral
from pathlib import Path

import pandas as pd

from humanclap.finetune.config import FinetuneConfig
from humanclap.finetune.data import PairData
from humanclap.finetune.folder import RunFolder
from humanclap.finetune.result import FinetuneResult
from humanclap.losses import KINDS


class VariantsFailed(RuntimeError):
    """One or more trainings failed; `failed` says how, by (kind, seed). Finished ones lie in their folders."""

    failed: dict[tuple[str, int], str]


@dataclass(frozen=True, eq=False)
class FinetuneRuns:
    """Fine-tunings that differ in loss and seed only: `results[kind, seed]`, in the order they were asked for."""

    results: dict[tuple[str, int], FinetuneResult]

    def best_rows(self) -> pd.DataFrame:
        """Each training at its best epoch, the one with the lowest validation loss.

        Columns: kind, training_seed, then those of the history (epoch, ..., validation_loss, validation_srcc, ...), and
        improved, whether that loss is below the base's.
        """
        rows = []
        for (kind, seed), result in self.results.items():
            best = result.history.set_index("epoch", drop=False).loc[result.best_epoch].to_dict()
            best["epoch"] = int(best["epoch"])
            rows.append({"kind": kind, "training_seed": seed, **best, "improved": result.improved})
        return pd.DataFrame(rows)

    def summary(self) -> pd.DataFrame:
        """One row a kind, over its seeds, at the best epoch of each.

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
        parts = [
            result.history.assign(model=kind, training_seed=seed) for (kind, seed), result in self.results.items()
        ]
        whole = pd.concat(parts, ignore_index=True)
        first = ["model", "training_seed"]
        return whole[first + [name for name in whole.columns if name not in first]]

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


def finetune_variants(
    config: FinetuneConfig,
    train_pairs: pd.DataFrame | PairData,
    validation_pairs: pd.DataFrame | PairData,
    audio_root: str | Path | None = None,
    output_dir: str | Path | None = None,
    kinds: Sequence[str] = KINDS,
    seeds: Sequence[int] = (0,),
    base=None,
    device: str = "auto",
    workers: int = 1,
    progress: bool = True,
    overwrite: bool = False,
    resume: bool = False,
    cache_dir: str | Path | None = None,
    tensorboard: bool = False,
) -> FinetuneRuns:
    """Fine-tune one base on the same pairs with several losses and seeds, into `output_dir`/<kind>/seed<k>/.

    `config` gives all other settings; pairs, base and the rest are as in `finetune`. Clips are read once.
    `workers`: trainings at the same time, each in a process of its own, on a CPU; for small models, which use one
        core each. Files are equal to those of workers=1 to the last byte.
    `resume`: finished trainings are read, the others go on or begin. `overwrite`: all begin anew.

    Raises what `finetune` raises for base and pairs, ValueError for kinds or seeds that are none or stand twice,
    FileExistsError, before anything is trained, where one of the folders holds a run (neither `resume` nor
    `overwrite`), and VariantsFailed when a training fails or its process dies: no other is begun then, those
    that run come to their end, and `resume=True` goes on.
    """
    from humanclap.finetune.accelerated import launched
    from humanclap.finetune.engine import load_base, prepared

    configs = _configs(config, kinds, seeds)
    if output_dir is None:
        raise ValueError("output_dir is None: finetune_variants keeps each training in a folder of its own")
    folders = {run: Path(output_dir) / run[0] / f"seed{run[1]}" for run in configs}
    if not (overwrite or resume):
        for folder in folders.values():
            RunFolder(folder).require_empty()
    if isinstance(workers, bool) or not isinstance(workers, Integral) or workers < 1:
        raise ValueError(f"workers is {workers!r}; it must be a whole number of at least 1")
    clap = load_base(base or config.base, "cpu" if launched() and device == "auto" else device)
    sets = [
        prepared(clap, pairs, audio_root, progress, cache_dir, name)
        for pairs, name in ((train_pairs, "train_pairs"), (validation_pairs, "validation_pairs"))
    ]
    settings = {"overwrite": overwrite, "resume": resume, "tensorboard": tensorboard}
    if workers == 1:
        return FinetuneRuns(_one_by_one(configs, folders, sets, clap, device, progress, settings))
    place = next(clap.model.parameters()).device
    if place.type != "cpu" or launched():
        where = "several launched processes" if launched() else f"a base on {place}"
        raise ValueError(f"workers={workers} trains side by side on a CPU, and this is {where}: use workers=1")
    _side_by_side(configs, folders, sets, clap, int(workers), progress, settings)
    return FinetuneRuns({run: FinetuneResult.read(RunFolder(folders[run]), configs[run]) for run in configs})


def _configs(config: FinetuneConfig, kinds, seeds) -> dict[tuple[str, int], FinetuneConfig]:
    for name, values in (("kinds", kinds), ("seeds", seeds)):
        if isinstance(values, str) or not len(values) or len(set(values)) < len(values):
            raise ValueError(f"{name} is {values!r}; give a list of at least one, each once")
    return {(kind, int(seed)): replace(config, kind=kind, seed=seed) for kind in kinds for seed in seeds}


def _one_by_one(configs, folders, sets, clap, device, progress, settings) -> dict[tuple[str, int], FinetuneResult]:
    from humanclap.finetune.engine import finetune

    results = {}
    for run, config in configs.items():
        try:
            result = finetune(
                config, *sets, base=clap, output_dir=folders[run], device=device, progress=progress, **settings
            )
        except (RuntimeError, OSError, ValueError) as error:
            raise _failure({run: f"{type(error).__name__}: {error}"}, list(results), folders) from error
        results[run] = result.release()  # fifteen full-size models would fill a GPU
    return results


def _side_by_side(configs, folders, sets, clap, workers: int, progress: bool, settings: dict) -> None:
    import torch
    from tqdm.auto import tqdm

    from humanclap.finetune.handover import save_base, save_pairs, work_folder
    from humanclap.finetune.workers import Pool

    jobs = [
        {"run": list(run), "config": asdict(config), "output_dir": str(folders[run].resolve()), **settings}
        for run, config in configs.items()
    ]
    done = []
    with work_folder(next(iter(folders.values())).parent.parent) as work:
        for data, name in zip(sets, ("train", "validation"), strict=True):
            save_pairs(data, work / name)
        save_base(clap, work / "base")
        (work / "threads.json").write_text(json.dumps(torch.get_num_threads()), encoding="utf-8")
        with tqdm(total=len(jobs), desc="trainings", unit="run", disable=not progress) as bar:

            def finished(job: dict) -> None:
                done.append(tuple(job["run"]))
                bar.set_postfix_str(f"{job['run'][0]}, seed {job['run'][1]}", refresh=False)
                bar.update()

            failed = Pool(work, workers).run(jobs, finished)
    if failed:
        raise _failure({tuple(jobs[place]["run"]): said for place, said in failed.items()}, done, folders)


def _failure(failed: dict[tuple[str, int], str], done: list, folders: dict) -> VariantsFailed:
    told = "; ".join(f"{kind} with seed {seed}: {said}" for (kind, seed), said in failed.items())
    error = VariantsFailed(
        f"{len(failed)} of {len(folders)} trainings failed, {told}. {len(done)} are finished and stay in their "
        f"folders; resume=True goes on with the others"
    )
    error.failed = failed
    return error


class Worker:
    """What a worker process has for all of its jobs: the base and the pairs."""

    def __init__(self, folder: Path) -> None:
        import torch

        from humanclap.finetune.handover import load_base, load_pairs

        torch.set_num_threads(json.loads((folder / "threads.json").read_text("utf-8")))
        self.clap = load_base(folder / "base")
        self.sets = [load_pairs(folder / name) for name in ("train", "validation")]

    def work(self, job: dict) -> None:
        """One training."""
        from humanclap.finetune.engine import finetune

        settings = {name: job[name] for name in ("output_dir", "overwrite", "resume", "tensorboard")}
        finetune(FinetuneConfig(**job["config"]), *self.sets, base=self.clap, progress=False, **settings)
