"""The settings of one fine-tuning, with the paper's values as defaults."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from numbers import Integral, Real

from humanclap.losses import CONTROL_KIND, KINDS

MAX_LOGIT_SCALE = 100.0
"""1/τ is kept within 1-100: LAION's training clamps its logarithm to [0, ln 100] after every step."""

TOWERS = ("both", "audio", "text")


@dataclass(frozen=True)
class FinetuneConfig:
    """How a CLAP is fine-tuned on human ratings; "paper" marks what section IV-A states.

    kind: the loss, a row of Table I ("wsce+mse", "wsce+mae", "wsce", "mse", "mae"), or "sce": conventional
        CLAP training on the same pairs, which sees no rating. "sce" is a control and no row of the table.
    learning_rate: paper, 1e-5; constant, as no schedule is stated. LAION's own training warms up and decays.
    batch_size: paper, 8 pairs. It is part of the contrastive loss, whose negatives are the batch, so the
        validation loss is taken over batches of this size too.
    epochs: paper, 50.
    contrastive_weight, regression_weight: paper, [λ1, λ2] = [0.1, 1] (equation 6); used by the two-term
        kinds.
    weight_decay: not stated; 0.01 is torch's default for AdamW. Biases, norms, the relative position biases
        and the temperature are left out of it, as in LAION's training.
    dropout: not stated. True trains with the dropout of the base's own configuration (0.1 in the released
        ones); SpecAugment and DropPath, which LAION's package adds in training, are off in transformers.
    freeze_batch_norm: not stated. True keeps the running mean and variance of every batch norm (over the mel
        bins, and in the fusion block) as pretrained and normalises with them; scale and shift still train.
        The empty top bins of 16 kHz audio have a tiny spread, and statistics of 8 clips would amplify its
        noise; in a model with fusion, torch refuses those of a batch with a single long clip.
    learn_temperature: paper, "learnable": equation 5's τ = exp(-logit_scale_a), for both directions. 1/τ is
        clamped to 1-100. ClapModel's logit_scale_t has no part in the loss and stays as it was.
    towers: not stated; "both", or only the "audio" or "text" tower with its projection, the other in eval
        mode.
    distinct_captions: not stated. True keeps one caption from standing twice in a batch, where its other clip
        would be a false negative. LAION's training draws at random.
    drop_last: not stated. False also trains on the short last batch of an epoch (1,925 = 240 x 8 + 5);
        LAION's training drops it.
    seed: not stated. Decides the order of pairs and the dropout of each epoch, by itself: no global RNG.
    base: "LAION CLAP" in the paper. The published fused checkpoint, a hub id or a local folder.

    Raises ValueError for a value outside its range, TypeError for one of the wrong type.
    """

    kind: str = "wsce+mae"
    learning_rate: float = 1e-5
    batch_size: int = 8
    epochs: int = 50
    contrastive_weight: float = 0.1
    regression_weight: float = 1.0
    weight_decay: float = 0.01
    dropout: bool = True
    freeze_batch_norm: bool = True
    learn_temperature: bool = True
    towers: str = "both"
    distinct_captions: bool = True
    drop_last: bool = False
    seed: int = 0
    base: str = "laion/clap-htsat-fused"

    def __post_init__(self) -> None:
        self._check_choice("kind", (*KINDS, CONTROL_KIND))
        self._check_choice("towers", TOWERS)
        for name, lowest in (("batch_size", 1), ("epochs", 1), ("seed", 0)):
            self._check_integer(name, lowest)
        for name in ("learning_rate", "contrastive_weight", "regression_weight", "weight_decay"):
            self._check_number(name)
        if self.learning_rate == 0:
            raise ValueError("learning_rate is 0: nothing would be learnt; the paper's is 1e-5")
        for name in ("dropout", "freeze_batch_norm", "learn_temperature", "distinct_captions", "drop_last"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} is {getattr(self, name)!r}; allowed: True or False")
        if "sce" in self.kind and self.batch_size < 2:
            raise ValueError(
                f"batch_size is {self.batch_size}, and the contrastive term of kind={self.kind!r} is zero "
                "for a single pair: use at least 2 (the paper's is 8), or kind 'mse' or 'mae'"
            )
        if "+" in self.kind and self.contrastive_weight == self.regression_weight == 0:
            raise ValueError("contrastive_weight and regression_weight are both 0: there is no loss left")
        if not (isinstance(self.base, str) and self.base):
            raise TypeError(f"base is {self.base!r}; it must be a name: a hub id or a local folder")

    def variant(self, kind: str) -> FinetuneConfig:
        """The same settings with another loss."""
        return replace(self, kind=kind)

    def to_dict(self) -> dict:
        """All settings by name, for a manifest."""
        return asdict(self)

    def _check_choice(self, name: str, allowed: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}; allowed: {', '.join(allowed)}")

    def _check_integer(self, name: str, lowest: int) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise TypeError(f"{name} is {value!r}; it must be a whole number")
        if value < lowest:
            raise ValueError(f"{name} is {value}; it must be at least {lowest}")
        object.__setattr__(self, name, int(value))  # a numpy integer would not go into the JSON manifest

    def _check_number(self, name: str) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{name} is {value!r}; it must be a number")
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} is {value!r}; it must be finite and not negative")
        object.__setattr__(self, name, float(value))
