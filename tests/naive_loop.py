"""Fine-tuning as a straightforward script does it: what the engine must equal, and what it is timed against.

Nothing of humanclap is in here. The model is transformers' own, its processor makes the features, the losses are
the paper's equations, the optimizer is torch's with its two groups written out, and the loop is a loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

LEARNING_RATE, WEIGHT_DECAY = 1e-5, 0.01


def equations(audio: torch.Tensor, text: torch.Tensor, a: torch.Tensor, tau: torch.Tensor, kind: str) -> torch.Tensor:
    """Equations 2 to 6 for the embeddings `[N, D]` of one batch, its scores `a` `[N]` in 0-1 and τ."""
    e_audio = audio / audio.norm(dim=1, keepdim=True)
    e_text = text / text.norm(dim=1, keepdim=True)
    y = torch.relu((e_text * e_audio).sum(dim=1))  # (3)
    products = e_text @ e_audio.T / tau  # [texts, audios]
    own = products.diagonal()
    logs = (own - products.logsumexp(dim=1)) + (own - products.logsumexp(dim=0))
    n = len(a)
    value = {
        "mse": ((a - y) ** 2).sum() / n,  # (2)
        "mae": (a - y).abs().sum() / n,  # (4)
        "wsce": -(a * logs).sum() / (2 * n),  # (5)
        "sce": -logs.sum() / (2 * n),  # (5) without its weights
    }
    if "+" not in kind:
        return value[kind]
    contrastive, regression = kind.split("+")
    return 0.1 * value[contrastive] + 1.0 * value[regression]  # (6), [λ1, λ2] = [0.1, 1]


def adamw(model: nn.Module, learning_rate: float = LEARNING_RATE) -> torch.optim.AdamW:
    """torch's AdamW as it comes; weight decay on the weights of linear, convolution and embedding layers alone."""
    layers = [module for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d, nn.Embedding))]
    decayed = [layer.weight for layer in layers]
    held = {id(weight) for weight in decayed}
    plain = [parameter for parameter in model.parameters() if id(parameter) not in held]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate)


def set_mode(model: nn.Module, dropout: bool) -> nn.Module:
    """Training mode, or eval mode without `dropout`; batch norms keep their running statistics in both."""
    model.train(dropout)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    return model


def embed(model: nn.Module, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Projections of clips and captions, `[N, D]` each, through the model's public calls, the audio first."""
    audio = model.get_audio_features(input_features=inputs["input_features"], is_longer=inputs["is_longer"])
    text = model.get_text_features(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
    return tuple(getattr(output, "pooler_output", output) for output in (audio, text))  # an object in transformers 5


def train(
    model: nn.Module,
    batches: Iterable[tuple[dict[str, torch.Tensor], torch.Tensor]],
    kind: str,
    learning_rate: float = LEARNING_RATE,
    dropout: bool = False,
    before_step: Callable[[int], object] = lambda step: None,
) -> list[float]:
    """One step for each of the batches (inputs of the model, scores `[N]`), in order; the loss of each."""
    set_mode(model, dropout)
    optimizer = adamw(model, learning_rate)
    device = next(model.parameters()).device
    found = []
    for step, (inputs, a) in enumerate(batches):
        before_step(step)
        inputs = {name: values.to(device) for name, values in inputs.items()}
        audio, text = embed(model, inputs)
        loss = equations(audio, text, a.to(device), 1 / model.logit_scale_a.exp(), kind)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found
