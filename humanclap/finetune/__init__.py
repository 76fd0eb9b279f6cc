"""Fine-tuning a CLAP on human ratings (the paper's section III): configuration, data, training loop."""

from humanclap.finetune.config import FinetuneConfig
from humanclap.finetune.data import PairData, prepare
from humanclap.finetune.engine import FinetuneResult, finetune
from humanclap.finetune.trainer import NonFiniteLoss
from humanclap.losses import CONTROL_KIND, KINDS

__all__ = [
    "CONTROL_KIND",
    "KINDS",
    "FinetuneConfig",
    "FinetuneResult",
    "NonFiniteLoss",
    "PairData",
    "finetune",
    "prepare",
]
