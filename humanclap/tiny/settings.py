"""How a stand-in is pretrained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real


@dataclass(frozen=True)
class Pretraining:
    """The settings of one pretraining; `seed` alone decides clips, initial weights and the order of batches.

    n_clips: pairs of a clip and a caption, each `clip_seconds` long (a whole number: it is the model's window);
        one in ten is held out, for the curve only.
    epochs, batch_size, learning_rate, weight_decay: AdamW on the symmetric cross entropy; the learning rate
        rises over the first twentieth of the steps and falls to 0 along a cosine.

    The defaults were chosen on corpora of other seeds than the demo's. They are few clips on purpose: enough to
    name events, while with ten times as many a stand-in follows the ratings far better than published CLAPs do and
    fine-tuning has little to add (benchmarks/demo_controls.md tells how they were chosen).

    Raises ValueError for a value outside its range, TypeError for one of the wrong type.
    """

    seed: int = 0
    n_clips: int = 1000
    clip_seconds: int = 4
    epochs: int = 12
    batch_size: int = 64
    learning_rate: float = 5e-4
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        lowest = {"seed": 0, "n_clips": 20, "clip_seconds": 1, "epochs": 1, "batch_size": 2}
        for name, least in lowest.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral):
                raise TypeError(f"{name} is {value!r}; it must be a whole number")
            if value < least:
                raise ValueError(f"{name} is {value}; it must be at least {least}")
            object.__setattr__(self, name, int(value))  # a numpy integer would not go into JSON
        if self.batch_size > self.n_train:
            raise ValueError(
                f"batch_size is {self.batch_size}, and n_clips = {self.n_clips} leaves {self.n_train} to train on: "
                "lower the one or raise the other"
            )
        for name, positive in (("learning_rate", True), ("weight_decay", False)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real):
                raise TypeError(f"{name} is {value!r}; it must be a number")
            if not (math.isfinite(value) and (value > 0 if positive else value >= 0)):
                raise ValueError(f"{name} is {value!r}; it must be finite and {'above 0' if positive else 'at least 0'}")
            object.__setattr__(self, name, float(value))

    @property
    def n_train(self) -> int:
        """The clips that are trained on; the other tenth is held out."""
        return self.n_clips - self.n_clips // 10
