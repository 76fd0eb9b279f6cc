"""The settings of one fine-tuning, with the paper's values as defaults."""

from __future__ import annotations

from dataclasses import dataclass, fields
from numbers import Integral

import torch

from humanclap.checks import choice, number, whole_number
from humanclap.losses import CONTROL_KIND, KINDS
from humanclap.models import BASE

CHOICES = {
    "kind": (*KINDS, CONTROL_KIND),
    "trains": ("all", "heads"),
    "towers": ("both", "audio", "text"),
    "split_by": ("caption", "pair"),
    "precision": ("auto", "fp32", "bf16", "fp16"),
}


@dataclass(frozen=True)
class FinetuneConfig:
    """How a CLAP is fine-tuned on human ratings; "paper" marks what section IV-A states.

    kind: the loss, a row of Table I ("wsce+mse", "wsce+mae", "wsce", "mse", "mae"), or "sce": conventional
        CLAP training on the same pairs, which sees no rating. "sce" is a control and no row of the table.
    learning_rate: paper, 1e-5; constant, as no schedule is stated. LAION's own training warms up and decays.
    batch_size: paper, 8 pairs. It is part of the contrastive loss, whose negatives are the batch, so the
        validation loss is taken over batches of this size too.
    epochs: paper, 50.
    contrastive_weight, regression_weight: paper, [λ1, λ2] = [0.1, 1] (equation 6); used by the two-term kinds.
    weight_decay: not stated; 0.01 is torch's default for AdamW. Biases, norms, relative position biases and the
        temperature do not decay, as in LAION's training.
    dropout: not stated. True trains with the dropout of the base's own configuration (0.1 in the released ones).
    freeze_batch_norm: not stated. True keeps the running mean and variance of every batch norm (over the mel
        bins, and in the fusion block) as pretrained and normalises with them; scale and shift still train.
        The empty top bins of 16 kHz audio have a tiny spread, and statistics of 8 clips would amplify its
        noise; in a model with fusion, torch refuses those of a batch with a single long clip.
    learn_temperature: paper, "learnable": equation 5's τ = exp(-logit_scale_a), for both directions. 1/τ is
        clamped to 1-100 after each step. False leaves it as the base has it, outside that range too. ClapModel's
        logit_scale_t has no part in the loss and stays as it was.
    trains: paper, "all". "heads" trains the projections and the temperature only: the towers stay as they are, in eval
        mode, so their outputs are computed once for each clip and caption (`prepare(..., trains="heads")`), and no
        step goes through them. What comes out is an ordinary ClapModel.
    towers: not stated; "both", or only the "audio" or "text" tower with its projection, the other in eval mode.
    distinct_captions: not stated. True avoids two pairs with one caption in a batch, where the second clip would
        be a false negative. LAION's training draws at random.
    drop_last: not stated. False also trains on the short last batch of an epoch (1,925 = 240 x 8 + 5);
        LAION's training drops it.
    n_train: paper, 1,925 pairs that train, the rest of the train split validates; or a share below 1. Used by
        `split_pairs`, as are the next two.
    split_by: not stated. "caption" keeps the three clips of a caption on one side; "pair" draws pairs.
    split_seed: not stated. Apart from `seed`, so that several trainings can share one split.
    precision: not stated. "auto" is "bf16" autocast on a GPU that computes in it, else "fp32"; "fp16" scales
        the loss. Weights, optimizer and losses stay in float32, and float32 is not rounded to TF32. Validation,
        which chooses the epoch, is always in float32.
    seed: not stated. Decides the order of pairs and the dropout of each epoch; no global RNG is used.
    base: "LAION CLAP" in the paper. The published fused checkpoint, a hub id or a local folder.

    Raises ValueError for a value of the wrong type or outside its range.
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
    trains: str = "all"
    towers: str = "both"
    distinct_captions: bool = True
    drop_last: bool = False
    n_train: int | float = 1925
    split_by: str = "caption"
    split_seed: int = 0
    precision: str = "auto"
    seed: int = 0
    base: str = BASE

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            choice(getattr(self, name), name, allowed)
        for setting in fields(self):
            name, value = setting.name, getattr(self, setting.name)
            if setting.type == "bool" and not isinstance(value, bool):
                raise ValueError(f"{name} must be True or False, not {value!r}")
            if setting.type == "float":
                object.__setattr__(self, name, number(value, name, least=0))
            if setting.type == "int" or (name == "n_train" and isinstance(value, Integral)):
                object.__setattr__(self, name, whole_number(value, name, 0 if "seed" in name else 1))
        if not isinstance(self.n_train, int) and not 0 < number(self.n_train, "n_train") < 1:
            raise ValueError(f"n_train must be a whole number of pairs or a share below 1, not {self.n_train!r}")
        if self.learning_rate == 0:
            raise ValueError("learning_rate is 0: nothing would be learnt; the paper's is 1e-5")
        if "sce" in self.kind and self.batch_size < 2:
            raise ValueError(
                f"batch_size is {self.batch_size}, and the contrastive term of kind={self.kind!r} is zero "
                "for a single pair: use at least 2 (the paper's is 8), or kind 'mse' or 'mae'"
            )
        if "+" in self.kind and self.contrastive_weight == self.regression_weight == 0:
            raise ValueError("contrastive_weight and regression_weight are both 0: there is no loss left")
        if not (isinstance(self.base, str) and self.base):
            raise ValueError(f"base must be a name, a hub id or a local folder, not {self.base!r}")

    @classmethod
    def from_dict(cls, settings: dict, source: str) -> FinetuneConfig:
        """The configuration that `settings` by name give; `source` begins the message of an error.

        Raises ValueError for a name that is no setting.
        """
        known = [setting.name for setting in fields(cls)]
        if unknown := [str(name) for name in settings if name not in known]:
            raise ValueError(f"{source}: unknown setting {', '.join(unknown)}; allowed: {', '.join(known)}")
        return cls(**settings)


def choose_precision(precision: str, device: torch.device) -> str:
    """What "auto" means on `device`: "bf16" on a CUDA device that computes in it (Ampere or later), else "fp32".

    Raises ValueError for "fp16" where there is no CUDA device to scale the loss on.
    """
    if precision == "fp16" and device.type != "cuda":
        raise ValueError("precision 'fp16' needs a GPU; allowed here: 'auto', 'fp32' and 'bf16'")
    if precision != "auto":
        return precision
    bf16 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return "bf16" if bf16 else "fp32"
