"""The settings of one fine-tuning, with the paper's values as defaults."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from numbers import Integral, Real

from humanclap.losses import CONTROL_KIND, KINDS
from humanclap.models import BASE

MAX_LOGIT_SCALE = 100.0
"""1/τ is kept within 1-100: LAION's training clamps its logarithm to [0, ln 100] after every step."""

TOWERS = ("both", "audio", "text")
SPLITS = ("caption", "pair")
WINDOWS = ("fixed", "drawn")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class FinetuneConfig:
    """How a CLAP is fine-tuned on human ratings; "paper" marks what section IV-A states.

    kind: the loss, a row of Table I ("wsce+mse", "wsce+mae", "wsce", "mse", "mae"), or "sce": conventional
        CLAP training on the same pairs, which sees no rating. "sce" is a control and no row of the table.
    learning_rate: paper, 1e-5; constant, as no schedule is stated. LAION's own training warms up and decays.
    batch_size: paper, 8 pairs. It is part of the contrastive loss, whose negatives are the batch, so the
        validation loss is taken over batches of this size too. It counts the pairs of all processes together.
    epochs: paper, 50.
    contrastive_weight, regression_weight: paper, [λ1, λ2] = [0.1, 1] (equation 6); used by the two-term
        kinds.
    weight_decay: not stated; 0.01 is torch's default for AdamW. Biases, norms, the relative position biases
        and the temperature are left out of it, as in LAION's training.
    n_train: paper, 1,925 pairs that train, the rest of the train split validates; or a share below 1. Used by
        `split_pairs`, as are the next two.
    split_by: not stated. "caption" keeps the three clips of a caption on one side; "pair" draws pairs.
    split_seed: not stated. Apart from `seed`, so that several trainings can share one split.
    dropout: not stated. True trains with the dropout of the base's own configuration (0.1 in the released
        ones).
    spec_augment: not stated; off, as transformers trains. LAION's package has it on in training: after the
        first batch norm, two stripes of up to 63 frames and two of up to 7 mel bins are set to 0 in each clip.
    drop_path: not stated; 0 leaves the base's own, which is 0 in the released configurations. LAION's package
        trains with 0.1: whole residual branches are left out, from 0 in the first block to this rate in the
        last. transformers has the place for it on the attention branch only, LAION on both of a block.
    windows: not stated. "fixed" hears the same crop, or the same fusion chunks, of a long clip in every epoch,
        so features are computed once. "drawn" draws them anew each epoch, as LAION's package does in
        training, and reads the long clips again. Validation always hears the fixed ones.
    freeze_batch_norm: not stated. True keeps the running mean and variance of every batch norm (over the mel
        bins, and in the fusion block) as pretrained and normalises with them; scale and shift still train.
        The empty top bins of 16 kHz audio have a tiny spread, and statistics of 8 clips would amplify its
        noise; in a model with fusion, torch refuses those of a batch with a single long clip.
    learn_temperature: paper, "learnable": equation 5's τ = exp(-logit_scale_a), for both directions. 1/τ is
        clamped to 1-100 after each step. False leaves it as the base has it, outside that range too. ClapModel's
        logit_scale_t has no part in the loss and stays as it was.
    towers: not stated; "both", or only the "audio" or "text" tower with its projection, the other in eval
        mode.
    distinct_captions: not stated. True keeps one caption from standing twice in a batch, where its other clip
        would be a false negative. LAION's training draws at random.
    drop_last: not stated. False also trains on the short last batch of an epoch (1,925 = 240 x 8 + 5);
        LAION's training drops it.
    precision: not stated. "auto" is "bf16" autocast on a GPU that computes in it, else "fp32"; "fp16" scales
        the loss. Weights, optimizer and losses stay in float32, and float32 is not rounded to TF32. Validation, which
        chooses the epoch, is in float32 whatever stands here.
    compile: not stated. True puts both towers through torch.compile, with every caption padded to the longest
        so that shapes stay the same; they are compiled as fixed ones, once for a whole batch and once for a short
        last one (`drop_last` saves that). With fusion torch decides which sizes may vary, as the number of long clips
        in a batch does. Tested with a backend that traces and runs the graphs as they are; the
        compiler's own code is measured neither on a CPU nor on a GPU, so off.
    seed: not stated. Decides the order of pairs, the dropout, the augmentation and the drawn windows of each
        epoch, by itself: no global RNG.
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
    n_train: int | float = 1925
    split_by: str = "caption"
    split_seed: int = 0
    spec_augment: bool = False
    drop_path: float = 0.0
    windows: str = "fixed"
    precision: str = "auto"
    compile: bool = False
    seed: int = 0
    base: str = BASE

    def __post_init__(self) -> None:
        self._check_choice("kind", (*KINDS, CONTROL_KIND))
        for name, allowed in (
            ("towers", TOWERS),
            ("split_by", SPLITS),
            ("windows", WINDOWS),
            ("precision", PRECISIONS),
        ):
            self._check_choice(name, allowed)
        for name, lowest in (("batch_size", 1), ("epochs", 1), ("seed", 0), ("split_seed", 0)):
            self._check_integer(name, lowest)
        for name in ("learning_rate", "contrastive_weight", "regression_weight", "weight_decay", "drop_path"):
            self._check_number(name)
        if self.drop_path >= 1:
            raise ValueError(f"drop_path is {self.drop_path!r}; it must be below 1, LAION's is 0.1")
        if isinstance(self.n_train, Integral):
            self._check_integer("n_train", 1)
        else:
            self._check_number("n_train")
            if not 0 < self.n_train < 1:
                raise ValueError(f"n_train is {self.n_train!r}; it must be a whole number or a share below 1")
        if self.learning_rate == 0:
            raise ValueError("learning_rate is 0: nothing would be learnt; the paper's is 1e-5")
        for name, default in type(self).__dataclass_fields__.items():
            if default.type != "bool":
                continue
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
