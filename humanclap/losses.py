"""CLAPScore and the paper's training losses (equations 1-6), each defined once.

Shapes: N pairs, D dimensions. Embeddings are `[N, D]` of any length and are normalised inside; row i of
the audio goes with row i of the text. `target` is the mean human rating divided by 10: `[N]` in 0-1.
`logit_scale` is 1/τ, a positive scalar that is already exponentiated, one for both directions.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

KINDS = ("wsce+mse", "wsce+mae", "wsce", "mse", "mae")
"""The five objectives of Table I, in its order."""

CONTROL_KIND = "sce"
"""Conventional CLAP training on the same pairs, which sees no rating: a control, not a row of Table I."""


def cosine(audio_emb, text_emb):
    """Row-wise cosine similarity, e_audio·e_text / (‖e_audio‖‖e_text‖): `[N, D]`, `[N, D]` -> `[N]` in -1..1.

    Two numpy arrays (or lists) give a float64 array; two torch tensors give a differentiable tensor of at
    least float32. Raises ValueError for shapes that differ or are not `[N, D]`, complex values, and, in
    numpy, for a row of length zero or with NaN or infinity, which has no cosine. In torch that would need a
    host sync on a GPU, so there a zero row scores 0 and NaN stays NaN.
    """
    tensors = [isinstance(embedding, torch.Tensor) for embedding in (audio_emb, text_emb)]
    if all(tensors):
        audio, text = _unit_rows(audio_emb, text_emb)
        similarity = (audio * text).sum(dim=-1)
        # Rounding can pass ±1 (1.0000002). What is over is taken off as a constant: a clamp would also take
        # the gradient.
        return similarity - (similarity - similarity.clamp(-1, 1)).detach()
    if any(tensors):
        raise TypeError(
            f"audio_emb is a {type(audio_emb).__name__} and text_emb a {type(text_emb).__name__}: "
            "give two numpy arrays or two torch tensors"
        )
    for name, embedding in (("audio_emb", audio_emb), ("text_emb", text_emb)):
        _require_real(name, np.iscomplexobj(embedding))
    audio, text = np.asarray(audio_emb, dtype=np.float64), np.asarray(text_emb, dtype=np.float64)
    _require_pairs(audio.shape, text.shape)
    audio, text = _numpy_unit_rows(audio, "audio_emb"), _numpy_unit_rows(text, "text_emb")
    # Rounding can leave a cosine of 1 + 2e-16, which is no cosine.
    return np.clip((audio * text).sum(axis=1), -1.0, 1.0)


def clap_score(audio_emb, text_emb):
    """CLAPScore, max(cosine, 0), of each pair (equation 1): `[N, D]`, `[N, D]` -> `[N]` in 0..1.

    numpy or torch, row by row; the torch result is differentiable, with gradient 0 where the cosine is
    negative (ReLU, equation 3). Raises as `cosine` does.
    """
    similarity = cosine(audio_emb, text_emb)
    return torch.relu(similarity) if isinstance(similarity, torch.Tensor) else np.maximum(similarity, 0.0)


def mse(audio_emb, text_emb, target) -> torch.Tensor:
    """Mean squared error of CLAPScore, (1/N) Σ (a_i - ReLU(cos_i))² (equations 2-3): a scalar in 0..1.

    A pair with negative cosine gets no gradient. Raises ValueError for wrong shapes or a target outside 0-1.
    """
    score = clap_score(audio_emb, text_emb)
    return (_checked_target(target, score) - score).square().mean()


def mae(audio_emb, text_emb, target) -> torch.Tensor:
    """Mean absolute error of CLAPScore, (1/N) Σ |a_i - ReLU(cos_i)| (equations 3-4): a scalar in 0..1.

    A pair with negative cosine gets no gradient. Raises ValueError for wrong shapes or a target outside 0-1.
    """
    score = clap_score(audio_emb, text_emb)
    return (_checked_target(target, score) - score).abs().mean()


def sce(audio_emb, text_emb, logit_scale) -> torch.Tensor:
    """Symmetric cross entropy, the contrastive loss of conventional CLAP: a scalar >= 0.

    -(1/2N) Σ_i [log softmax_j(s t_i·a_j)_i + log softmax_j(s a_i·t_j)_i], with s = logit_scale = 1/τ and
    unit embeddings t (text) and a (audio). Two pairs with one caption in a batch count as each other's
    negatives. Raises ValueError for wrong shapes or a logit_scale that is no positive scalar.
    """
    return _pair_losses(audio_emb, text_emb, logit_scale).mean()


def weighted_sce(audio_emb, text_emb, target, logit_scale) -> torch.Tensor:
    """Symmetric cross entropy weighted by the human score (equation 5): a scalar >= 0.

    -(1/2N) Σ_i a_i [log softmax_j(s t_i·a_j)_i + log softmax_j(s a_i·t_j)_i], with s = logit_scale = 1/τ.
    The embeddings are normalised, as LAION trains; the paper's print of equation 5 omits that. The sum is
    divided by N, so a batch of low ratings has a small loss; `F.cross_entropy(weight=a)` divides by Σ a_i
    and is another loss. Raises ValueError for wrong shapes, a target outside 0-1 or a logit_scale that is
    no positive scalar.
    """
    losses = _pair_losses(audio_emb, text_emb, logit_scale)
    return (_checked_target(target, losses) * losses).mean()


def human_clap_loss(
    audio_emb,
    text_emb,
    target,
    logit_scale,
    kind: str,
    contrastive_weight: float = 0.1,
    regression_weight: float = 1.0,
) -> dict[str, torch.Tensor]:
    """The Human-CLAP objective, L = λ1 L_wSCE + λ2 L_reg (equation 6), with its terms by name.

    `kind` is one of KINDS: "wsce+mse" and "wsce+mae" weigh their terms with `contrastive_weight` (λ1) and
    `regression_weight` (λ2); "wsce", "mse" and "mae" are a single term of weight 1, whatever the weights.
    "sce" is accepted too, as the control that sees no rating. Returns "loss", to be minimised, and each term
    unweighted under its own name ("wsce", "mse", "mae" or "sce"), all scalars. Raises ValueError for an
    unknown kind, a weight that is negative or not finite, and what the single losses refuse.
    """
    if kind not in (*KINDS, CONTROL_KIND):
        allowed = ", ".join(KINDS)
        raise ValueError(f"unknown loss kind {kind!r}; allowed: {allowed}, and the control {CONTROL_KIND!r}")
    weights = {"contrastive_weight": contrastive_weight, "regression_weight": regression_weight}
    for name, weight in weights.items():
        try:
            usable = math.isfinite(weight) and weight >= 0
        except (TypeError, ValueError, RuntimeError):  # text, None, a tensor of many values
            usable = False
        if not usable:
            raise ValueError(f"{name} is {weight!r}; it must be a finite number >= 0")

    terms = {}
    for name in kind.split("+"):
        if name == "wsce":
            terms[name] = weighted_sce(audio_emb, text_emb, target, logit_scale)
        elif name == "sce":
            terms[name] = sce(audio_emb, text_emb, logit_scale)
        else:
            terms[name] = {"mse": mse, "mae": mae}[name](audio_emb, text_emb, target)
    if len(terms) == 1:
        return {"loss": next(iter(terms.values())), **terms}
    contrastive, regression = terms.values()
    return {"loss": contrastive_weight * contrastive + regression_weight * regression, **terms}


def _pair_losses(audio_emb, text_emb, logit_scale) -> torch.Tensor:
    """Cross entropy of each pair, the mean of both directions: `[N]`."""
    audio, text = _unit_rows(audio_emb, text_emb)
    scale = _checked_scale(logit_scale)
    _require_some(len(audio))
    # Under autocast the product would be rounded to 8 bits of mantissa and then multiplied by up to 100.
    with torch.autocast(audio.device.type, enabled=False):
        logits = scale * (text @ audio.T)  # [N texts, N audios]
    text_to_audio = F.log_softmax(logits, dim=1).diagonal()
    audio_to_text = F.log_softmax(logits, dim=0).diagonal()
    return -(text_to_audio + audio_to_text) / 2


def _unit_rows(audio_emb, text_emb) -> tuple[torch.Tensor, torch.Tensor]:
    """Both embeddings `[N, D]` at unit length, in float32 or better; a zero row stays zero."""
    for name, embedding in (("audio_emb", audio_emb), ("text_emb", text_emb)):
        if not isinstance(embedding, torch.Tensor):
            raise TypeError(f"{name} is a {type(embedding).__name__}; the losses take torch tensors [N, D]")
        _require_real(name, embedding.is_complex())
    _require_pairs(tuple(audio_emb.shape), tuple(text_emb.shape))
    dtype = torch.promote_types(torch.promote_types(audio_emb.dtype, text_emb.dtype), torch.float32)
    return F.normalize(audio_emb.to(dtype), dim=-1), F.normalize(text_emb.to(dtype), dim=-1)


def _numpy_unit_rows(embedding: np.ndarray, name: str) -> np.ndarray:
    # Scaling by the largest entry first keeps the squares of very long or short rows within range.
    largest = np.abs(embedding).max(axis=1, keepdims=True, initial=0.0)
    bad = np.flatnonzero(~(np.isfinite(largest) & (largest > 0)))
    if bad.size:
        shown = ", ".join(map(str, bad[:5])) + (", ..." if bad.size > 5 else "")
        raise ValueError(
            f"{name} has {bad.size} row(s) of length zero or with NaN or infinity (row {shown}); such a row "
            "has no cosine: leave the pair out, or embed it again"
        )
    scaled = embedding / largest
    return scaled / np.linalg.norm(scaled, axis=1, keepdims=True)


def _require_real(name: str, is_complex: bool) -> None:
    if is_complex:
        raise ValueError(f"{name} is complex; an embedding must be of real numbers, [N, D]")


def _require_pairs(audio_shape: tuple[int, ...], text_shape: tuple[int, ...]) -> None:
    if len(audio_shape) != 2 or audio_shape != text_shape or audio_shape[1] == 0:
        raise ValueError(
            f"audio_emb has shape {list(audio_shape)} and text_emb {list(text_shape)}; both must be [N, D] "
            "with the same N and D, row i of one going with row i of the other"
        )


def _require_some(n_pairs: int) -> None:
    if n_pairs == 0:
        raise ValueError("the batch is empty (audio_emb has 0 rows); a loss needs at least one pair")


def _checked_target(target, like: torch.Tensor) -> torch.Tensor:
    """`target` as `[N]` in the dtype of `like`; its range is checked on the CPU only, to spare a GPU sync."""
    if not isinstance(like, torch.Tensor) or not isinstance(target, torch.Tensor):
        raise TypeError("the losses take torch tensors: embeddings [N, D] and target [N]")
    _require_some(len(like))
    if target.shape != like.shape:
        raise ValueError(
            f"target has shape {list(target.shape)}; it must be {list(like.shape)}, one value for each pair"
        )
    if target.device != like.device:
        raise ValueError(f"target is on {target.device}, the embeddings on {like.device}; move one of them")
    if target.device.type == "cpu":
        outside = target[~((target >= 0) & (target <= 1))]
        if outside.numel():
            raise ValueError(
                f"target holds {outside[0].item()!r}; it must be within 0-1: the mean rating, 0-10, over 10"
            )
    return target.to(like.dtype)


def _checked_scale(logit_scale):
    """`logit_scale` as a float or a 0-d tensor; its sign is checked on the CPU only, to spare a GPU sync."""
    if isinstance(logit_scale, torch.Tensor):
        if logit_scale.numel() != 1:
            raise ValueError(f"logit_scale has shape {list(logit_scale.shape)}; it must be one scalar, 1/τ")
        value = float(logit_scale.detach()) if logit_scale.device.type == "cpu" else None
        logit_scale = logit_scale.reshape(())
    else:
        try:
            value = logit_scale = float(logit_scale)
        except (TypeError, ValueError):
            raise ValueError(f"logit_scale is {logit_scale!r}; it must be one positive scalar, 1/τ") from None
    if value is not None and not (math.isfinite(value) and value > 0):
        raise ValueError(
            f"logit_scale is {value!r}; it must be 1/τ > 0, already exponentiated: model.logit_scale_a.exp()"
        )
    return logit_scale
