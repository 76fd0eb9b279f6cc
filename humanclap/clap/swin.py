"""laion_clap's Swin blocks with their own weights, in fewer passes over memory: the same numbers, sooner."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F


def run_layers(layers: torch.nn.ModuleList, x: torch.Tensor) -> torch.Tensor:
    """Tokens `[B, L, C]` through all layers of an HTSAT in eval mode -> `[B, L', C']`.

    What the package does besides and no score uses is left out: the attention maps, and their means.
    """
    for layer in layers:
        for block in layer.blocks:
            x = _block(block, x)
        x = x if layer.downsample is None else layer.downsample(x)
    return x


def _block(block: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    n_batch, n_tokens, n_channels = x.shape
    size, heads = block.window_size**2, block.attn.num_heads
    n_windows = n_tokens // size
    to_windows, back = _orders(*block.input_resolution, block.window_size, block.shift_size, str(x.device))
    # One gather is the package's shift and cut into windows; one puts the tokens back.
    qkv = block.attn.qkv(block.norm1(x)[:, to_windows])
    qkv = qkv.view(n_batch, n_windows, size, 3, heads, n_channels // heads)
    # Windows and heads are one axis, so that one mask serves windows of all kinds: [B, W·h, size, C/h].
    query, key, value = qkv.permute(3, 0, 1, 4, 2, 5).flatten(2, 3).unbind(0)
    mask = _bias(block).to(query.dtype)
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=block.attn.scale)
    mixed = mixed.view(n_batch, n_windows, heads, size, -1).transpose(2, 3).reshape(x.shape)
    x = x + block.attn.proj(mixed)[:, back]
    return x + block.mlp(block.norm2(x))


def _bias(block: torch.nn.Module) -> torch.Tensor:
    """What is added to the attention: by relative place, and, in shifted windows, against other regions."""
    attention, size = block.attn, block.window_size**2
    bias = attention.relative_position_bias_table[attention.relative_position_index.flatten()]
    bias = bias.view(size, size, -1).permute(2, 0, 1)[None]  # [1, h, size, size]
    height, width = block.input_resolution
    n_windows = height * width // size
    if block.attn_mask is not None:
        bias = bias + block.attn_mask[:, None]
    return bias.expand(n_windows, -1, -1, -1).flatten(0, 1)[None]


@lru_cache(maxsize=32)
def _orders(height: int, width: int, side: int, shift: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each token of the windows comes from, `[L]`, and the way back."""
    with torch.inference_mode(False):  # to be used in training too, whoever asks first
        tokens = torch.arange(height * width).view(height, width).roll((-shift, -shift), dims=(0, 1))
        order = tokens.view(height // side, side, width // side, side).transpose(1, 2).flatten()
        return order.to(device), order.argsort().to(device)
