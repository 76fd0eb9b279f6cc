"""The CLAPs of a study: the rows of its tables, the base of fine-tuning, and what notebook 03 trained."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from humanclap.files import expanded
from humanclap.losses import KINDS
from humanclap.models import MODELS

from .run import Study, StudyError, runs_folder

if TYPE_CHECKING:
    import torch

    from humanclap.clap import Clap

RELEASED_NOTE = (
    "human-clap-released is what the authors published as human-clap-wsce-mae. The paper has two versions, and these "
    "weights may belong to the earlier one; they were trained on RELATE's train split, so only test pairs are scored."
)
_PAPER = {model.row: model for model in MODELS.values() if model.row}


@dataclass(frozen=True)
class ModelSource:
    """One row of the tables: the `name` it has there, and what `load_clap` takes to open it."""

    name: str
    clap: str
    checkpoint: Path | None = None

    def load(self, **settings) -> Clap:
        """Open it; settings (window, seed, device, ...) as `load_clap` takes them."""
        from humanclap.clap import load_clap

        return load_clap(self.clap, checkpoint=self.checkpoint, **settings)


@dataclass(frozen=True)
class Lineup:
    """The models of a study before fine-tuning, in the order of the tables.

    base: the one that fine-tuning starts from and that gains are measured from. note: what a reader must know about
    them. released: rows that others trained on RELATE's train split.
    """

    sources: dict[str, ModelSource]
    base: str
    note: str
    released: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        return list(self.sources)

    def __getitem__(self, name: str) -> ModelSource:
        if name not in self.sources:
            raise StudyError(f"there is no model {name!r} in this study. Available: {', '.join(self.sources)}")
        return self.sources[name]


def lineup(profile: str, seed: int = 0) -> Lineup:
    """Make, or name, the profile's CLAPs.

    In the demo: two tiny ClapModels, pretrained at the first use on captions that leave things out. In the paper
    profile: LAION's fused CLAP as a ClapModel (the base) and through laion_clap, MS CLAP 2022 and 2023, and the
    authors' released Human-CLAP; nothing is fetched or opened here. Where HUMANCLAP_CHECKPOINTS names a folder, what
    is there under the row's name (laion-clapmodel/, laion-clap.pt, msclap-2022.pth, msclap-2023.pth,
    human-clap-released/) replaces the published weights, and the note says so.

    Raises:
        StudyError: HUMANCLAP_CHECKPOINTS names no folder, or one with none of these.
    """
    if profile == "demo":
        from humanclap.demo import make_standins

        folders = make_standins(runs_folder() / profile / f"claps-seed{seed}", seed=seed, progress=False)
        sources = {name: ModelSource(name, os.fspath(folder)) for name, folder in folders.items()}
        note = "tiny ClapModels, pretrained here: they stand in for LAION CLAP and MS CLAP and are neither"
        return Lineup(sources, "laion-standin", note)
    own, sources = _own_checkpoints(), {}
    for name, model in _PAPER.items():
        clap = f"{model.name}@{model.weights.revision}" if "/" in model.name else model.name
        sources[name] = ModelSource(name, clap, own.get(name))
        if name in own and name == "laion-clapmodel":  # a folder goes in as the name, a file as a copy of a named model
            sources[name] = ModelSource(name, os.fspath(own[name]))
    note = f"published weights. {RELEASED_NOTE}"
    if own:
        note = f"NOT the published weights for {', '.join(own)}: files of your own, from HUMANCLAP_CHECKPOINTS"
    return Lineup(sources, "laion-clapmodel", note, released=("human-clap-released",))


def _own_checkpoints() -> dict[str, Path]:
    named = os.environ.get("HUMANCLAP_CHECKPOINTS")
    if not named:
        return {}
    folder = expanded(named).resolve()
    found = {name: folder / model.own_file for name, model in _PAPER.items() if (folder / model.own_file).exists()}
    if not found:
        raise StudyError(
            f"HUMANCLAP_CHECKPOINTS is {named!r}, and none of {', '.join(model.own_file for model in _PAPER.values())} is "
            "there. Put your checkpoints there under these names, or unset it to use the published ones"
        )
    return found


# --- what notebook 03 trained ---------------------------------------------------------------------------


def checkpoints(run: Study) -> dict[tuple[str, int], Path]:
    """The checkpoints of notebook 03: (loss, training seed) -> folder, losses in the order of Table I.

    Raises:
        StudyError: a loss has none; names the notebook.
    """
    root = run.find("human-clap")
    found = {
        kind: sorted((int(path.parent.name[4:]), path) for path in root.glob(f"{kind}/seed*/model")) for kind in KINDS
    }
    if missing := [kind for kind, folders in found.items() if not folders]:
        raise StudyError(
            f"no checkpoint of {', '.join(missing)} in {root}. "
            "They come from notebooks/03_human_clap_finetuning.ipynb: run that first"
        )
    return {(kind, seed): folder for kind, folders in found.items() for seed, folder in folders}


def chosen_variant(run: Study) -> tuple[str, int] | None:
    """The loss and the training seed that notebook 03 chose by validation; None where it has left no choice."""
    table = run.find("tables/03_choice.csv")
    if not table.is_file():
        return None
    choice = pd.read_csv(table, dtype={"model": str})
    best = choice[choice["chosen"].astype(str) == "True"].iloc[0]
    return best["model"], int(best["training_seed"])


def chosen_loss(run: Study) -> str:
    """The loss that notebook 03 chose by validation. StudyError: it has left no choice; names the notebook."""
    if chosen := chosen_variant(run):
        return chosen[0]
    raise StudyError(
        f"{run.find('tables/03_choice.csv')} is not there. It comes from notebooks/03_human_clap_finetuning.ipynb: "
        "run that first"
    )


def chosen_clap(run: Study, clap: str = "", seed: int = 0) -> tuple[ModelSource, str]:
    """The CLAP that `clap` names (as `load_clap` takes it), else the Human-CLAP of notebook 03; and why it was taken.

    Where notebook 03 has left none: in the demo the LAION stand-in (made here if need be), in the paper profile the
    authors' released Human-CLAP. The name tells checkpoints apart: of a folder as <x>/seed0/model, the last three parts.
    """
    if clap:
        place = expanded(clap)
        if not place.exists():
            return ModelSource(clap, clap), "named by the parameter clap"
        parts = [part for part in place.resolve().parts[-4:] if part != place.anchor]
        name = "/".join(parts if place.name == "model" else parts[-1:])
        return ModelSource(name, os.fspath(place)), "named by the parameter clap"
    if chosen := chosen_variant(run):
        name = f"human-clap/{chosen[0]}/seed{chosen[1]}"
        folder = run.find(f"{name}/model")
        if (folder / "config.json").is_file():
            return ModelSource(name, os.fspath(folder)), "the Human-CLAP that notebook 03 chose on its validation pairs"
    claps = lineup(run.profile, seed)
    if claps.released:
        return claps[claps.released[0]], "the authors' released Human-CLAP: notebook 03 has left none here"
    return claps[claps.base], "a stand-in, NOT a Human-CLAP: notebook 03 has left none in this profile"


def with_shared_features(clap: Clap, kept: dict, limit_bytes: int = 2_000_000_000) -> Clap:
    """`clap`, which looks into `kept` before it reads a file: fine-tuning changes a model and not its front end.

    Features beyond `limit_bytes` are made anew for each checkpoint. Scores stay what they are.
    """
    make = clap.audio_features

    def features(path: str) -> dict[str, torch.Tensor]:
        key = (clap.front_end, path)
        found = kept.get(key) or make([path])
        size = sum(value.numel() * value.element_size() for value in found.values())
        if key not in kept and kept.get("bytes", 0) + size <= limit_bytes:
            kept[key], kept["bytes"] = found, kept.get("bytes", 0) + size
        return found

    def audio_features(paths) -> dict[str, torch.Tensor]:
        import torch

        each = [features(os.fspath(path)) for path in paths]
        return {name: torch.cat([one[name] for one in each]) for name in each[0]}

    clap.audio_features = audio_features
    return clap
