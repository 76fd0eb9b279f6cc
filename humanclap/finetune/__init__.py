"""Fine-tuning a CLAP on human ratings (the paper's section III): configuration, data, training, checkpoints."""

from humanclap.finetune.card import write_card
from humanclap.finetune.checkpoint import CheckpointError
from humanclap.finetune.config import FinetuneConfig
from humanclap.finetune.data import PairData, prepare, split_pairs
from humanclap.finetune.engine import finetune
from humanclap.finetune.result import FinetuneResult
from humanclap.finetune.trainer import NonFiniteLoss, Trainer
from humanclap.finetune.variants import FinetuneRuns, VariantsFailed, finetune_variants
from humanclap.losses import CONTROL_KIND, KINDS

__all__ = [
    "CONTROL_KIND",
    "KINDS",
    "CheckpointError",
    "FinetuneConfig",
    "FinetuneResult",
    "FinetuneRuns",
    "NonFiniteLoss",
    "PairData",
    "Trainer",
    "VariantsFailed",
    "finetune",
    "finetune_variants",
    "prepare",
    "split_pairs",
    "write_card",
]
