"""Fine-tuning a CLAP on human ratings (the paper's section III): configuration, data, training, checkpoints."""

from humanclap.finetune.command import finetune_table, read_pairs
from humanclap.finetune.config import FinetuneConfig
from humanclap.finetune.data import PairData, prepare, split_pairs
from humanclap.finetune.result import CheckpointError, FinetuneResult, write_card
from humanclap.finetune.train import NonFiniteLoss, Trainer, finetune
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
    "finetune_table",
    "finetune_variants",
    "prepare",
    "read_pairs",
    "split_pairs",
    "write_card",
]
