"""What of a ClapModel trains, in which mode, and with which optimizer."""

from __future__ import annotations

import torch

from humanclap.finetune.config import FinetuneConfig


class Towers(torch.nn.Module):
    """Both towers of a ClapModel with their projections: features and tokens -> embeddings, not normalised."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, features: dict[str, torch.Tensor], tokens: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`[n, D]` of n clips, `[m, D]` of m captions."""
        return self.audio(**features), self.text(**tokens)

    def audio(self, **features: torch.Tensor) -> torch.Tensor:
        """Clips alone."""
        return self.model.audio_projection(self.model.audio_model(**features, return_dict=True).pooler_output)

    def text(self, **tokens: torch.Tensor) -> torch.Tensor:
        """Captions alone."""
        return self.model.text_projection(self.model.text_model(**tokens, return_dict=True).pooler_output)


def choose_trained(model: torch.nn.Module, config: FinetuneConfig) -> None:
    """Let gradients reach the chosen towers and the temperature, and nothing else."""
    model.requires_grad_(False)
    for tower in ("audio", "text"):
        if config.towers in ("both", tower):
            for module in _tower(model, tower):
                module.requires_grad_(True)
    model.logit_scale_a.requires_grad_(config.learn_temperature)


def set_training_mode(model: torch.nn.Module, config: FinetuneConfig) -> None:
    """Dropout and batch-norm statistics on in the trained towers, as far as `config` lets them be."""
    model.eval()
    for tower in ("audio", "text"):
        if config.towers in ("both", tower):
            for module in _tower(model, tower):
                module.train(config.dropout)
    for module in model.audio_model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.train(config.towers != "text" and not config.freeze_batch_norm)


def make_optimizer(model: torch.nn.Module, config: FinetuneConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only: not on biases, norms, position biases and the temperature."""
    trained = {name: values for name, values in model.named_parameters() if values.requires_grad}
    plain = [values for name, values in trained.items() if values.ndim < 2 or "bias" in name]
    decayed = [values for name, values in trained.items() if not (values.ndim < 2 or "bias" in name)]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def _tower(model: torch.nn.Module, name: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    return getattr(model, f"{name}_model"), getattr(model, f"{name}_projection")
