"""The CLAPs of a study: which rows its tables have before any fine-tuning, and which of them fine-tuning starts from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .run import StudyError, cache_folder, runs_folder

if TYPE_CHECKING:
    from humanclap.clap import Clap
    from humanclap.clap.lazy import LazyClap

BASE_ID = "laion/clap-htsat-fused@365dea6ef167def6676140ed93bbc43f84dabb28"
RELEASED_NOTE = (
    "human-clap-released is what the authors published as human-clap-wsce-mae. The paper has two versions, and these "
    "weights may belong to the earlier one; they have seen RELATE's train split, so only test pairs are scored with them."
)
# name of the row -> what load_clap takes, and how a file of one's own in its place is called
_PAPER = {
    "laion-clapmodel": (BASE_ID, "laion-clapmodel"),
    "laion-clap": ("laion-fusion", "laion-clap.pt"),
    "msclap-2022": ("msclap-2022", "msclap-2022.pth"),
    "msclap-2023": ("msclap-2023", "msclap-2023.pth"),
    "human-clap-released": ("human-clap", "human-clap-released"),
}


@dataclass(frozen=True)
class ModelSource:
    """One row of the tables: the `name` it has there, and what `load_clap` takes to open it."""

    name: str
    clap: str
    checkpoint: Path | None = None

    def load(self, **settings) -> Clap:
        """Open it now; settings (window, seed, device, ...) as `load_clap` takes them."""
        from humanclap.clap import load_clap

        return load_clap(self.clap, checkpoint=self.checkpoint, **settings)

    def lazy(self, **settings) -> LazyClap:
        """Open it only if something must be embedded: what is in the cache needs no weights."""
        from humanclap.clap.lazy import LazyClap

        return LazyClap(self.clap, checkpoint=self.checkpoint, memory=cache_folder(), **settings)


@dataclass(frozen=True)
class Lineup:
    """The models of a study before fine-tuning, in the order of the tables.

    base: the one that fine-tuning starts from and that gains are measured from. note: what a reader must know of
    them. released: rows that were trained on RELATE's train split by others.
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

    def lazy(self) -> dict[str, LazyClap]:
        """Every model by name, none of them opened yet."""
        return {name: source.lazy() for name, source in self.sources.items()}


def lineup(profile: str, seed: int = 0, progress: bool = True) -> Lineup:
    """Make, or name, the profile's CLAPs.

    In the demo: two tiny ClapModels, pretrained on the spot on captions that leave things out. In the paper profile:
    LAION's fused CLAP as a ClapModel (the base) and through laion_clap, MS CLAP 2022 and 2023, and the authors'
    released Human-CLAP; nothing is fetched or opened here. Where HUMANCLAP_CHECKPOINTS names a folder, what lies there
    under the row's name (laion-clapmodel/, laion-clap.pt, msclap-2022.pth, msclap-2023.pth, human-clap-released/)
    takes the place of the published weights, and the note says so.

    Raises:
        StudyError: HUMANCLAP_CHECKPOINTS names no folder, or one in which none of those lies.
    """
    if profile == "demo":
        from humanclap.tiny import make_standins

        folders = make_standins(runs_folder() / profile / f"claps-seed{seed}", seed=seed, progress=progress)
        sources = {name: ModelSource(name, os.fspath(folder)) for name, folder in folders.items()}
        note = "tiny ClapModels, pretrained on the spot: they stand in for LAION CLAP and MS CLAP and are neither"
        return Lineup(sources, "laion-standin", note)
    own = _own_checkpoints()
    sources = {}
    for name, (clap, _) in _PAPER.items():
        place = own.get(name)
        # A ClapModel's folder goes in as the name, a file as a copy of a named model.
        sources[name] = (
            ModelSource(name, os.fspath(place)) if place and name == "laion-clapmodel" else ModelSource(name, clap, place)
        )
    note = f"published weights. {RELEASED_NOTE}"
    if own:
        note = f"NOT the published weights for {', '.join(own)}: files of your own, from HUMANCLAP_CHECKPOINTS"
    return Lineup(sources, "laion-clapmodel", note, released=("human-clap-released",))


def _own_checkpoints() -> dict[str, Path]:
    named = os.environ.get("HUMANCLAP_CHECKPOINTS")
    if not named:
        return {}
    folder = Path(named).expanduser().resolve()
    found = {name: folder / place for name, (_, place) in _PAPER.items() if (folder / place).exists()}
    if not found:
        raise StudyError(
            f"HUMANCLAP_CHECKPOINTS is {named!r}, and none of {', '.join(place for _, place in _PAPER.values())} is "
            "there. Put your checkpoints there under these names, or unset it to use the published ones"
        )
    return found
