"""Equations 1-6 against numbers derived by hand, naive loops and numerical gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from humanclap import losses

# Three pairs in the plane, of uneven lengths, whose cosines are known without computing:
#   audio: (2, 0), (0, 3), (-1, 0)    text: (5, 0), (3, 4), (0, -2)
#   unit:  (1, 0), (0, 1), (-1, 0)          (1, 0), (.6, .8), (0, -1)
AUDIO = [[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]]
TEXT = [[5.0, 0.0], [3.0, 4.0], [0.0, -2.0]]
TARGET = [0.9, 0.3, 0.2]
# Row i, column j: cosine of text i with audio j.
SIMILARITY = [[1.0, 0.0, -1.0], [0.6, 0.8, -0.6], [0.0, -1.0, 0.0]]
SCALE = 2.0


def _tensors(dtype=torch.float64):
    return (torch.tensor(values, dtype=dtype) for values in (AUDIO, TEXT, TARGET))


def _by_hand(weights):
    """Equation 5 on SIMILARITY with math.exp and math.log only."""
    total = 0.0
    for i, weight in enumerate(weights):
        text_row = sum(math.exp(SCALE * SIMILARITY[i][j]) for j in range(3))
        audio_column = sum(math.exp(SCALE * SIMILARITY[j][i]) for j in range(3))
        own = math.exp(SCALE * SIMILARITY[i][i])
        total += weight * (math.log(own / text_row) + math.log(own / audio_column))
    return -total / (2 * 3)


def _random(n=7, d=5, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    audio, text = (torch.randn(n, d, generator=generator, dtype=dtype) for _ in range(2))
    return audio, text, torch.rand(n, generator=generator, dtype=dtype)


# --- equation 1 -----------------------------------------------------------------------------------------


def test_clap_score_by_hand_in_numpy_and_torch():
    in_numpy = losses.clap_score(np.array(AUDIO), np.array(TEXT))
    np.testing.assert_allclose(in_numpy, [1.0, 0.8, 0.0], atol=1e-15)
    audio, text, _ = _tensors(torch.float32)
    score = losses.clap_score(audio, text)
    torch.testing.assert_close(score, torch.tensor([1.0, 0.8, 0.0]))
    np.testing.assert_allclose(losses.cosine([[2.0, 0.0]], [[-3.0, 0.0]]), [-1.0])


def test_clap_score_does_not_depend_on_length_and_stays_within_one():
    audio, text, _ = (x.numpy() for x in _random(200, 16))
    expected = losses.clap_score(audio, text)
    for factor in (1e-200, 1e-30, 7.0, 1e30, 1e200):
        np.testing.assert_allclose(losses.clap_score(audio * factor, text), expected, rtol=1e-12)
    assert losses.cosine(audio, audio * 3).max() <= 1.0
    assert losses.cosine(audio, -audio).min() >= -1.0


def test_clap_score_in_torch_stays_within_one_and_keeps_its_gradient():
    audio, _, _ = _random(300, 64, dtype=torch.float32)
    unit = F.normalize(audio, dim=-1)
    over = (unit * unit).sum(dim=-1) > 1
    assert over.any()  # rounding does pass 1: there is something to take off
    assert losses.clap_score(audio, audio).max() == 1 and losses.cosine(audio, -audio).min() == -1
    torch.testing.assert_close(losses.clap_score(audio, audio), torch.ones(300))
    text = audio.clone().requires_grad_()
    (losses.cosine(audio, text) * 1000).sum().backward()
    kept = text.grad
    text = audio.clone().requires_grad_()
    ((unit * F.normalize(text, dim=-1)).sum(dim=-1) * 1000).sum().backward()
    torch.testing.assert_close(kept, text.grad, rtol=0, atol=0)
    assert kept[over].abs().sum() > 0


def test_complex_embeddings_are_refused():
    for make in (np.array, torch.tensor):
        with pytest.raises(ValueError, match="text_emb is complex"):
            losses.clap_score(make(AUDIO), make(TEXT) + 1j)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_clap_score_names_rows_without_a_cosine(bad):
    broken = np.array(AUDIO)
    broken[1] = bad
    with pytest.raises(ValueError, match=r"audio_emb .*\(row 1\)"):
        losses.clap_score(broken, TEXT)


def test_clap_score_in_torch_scores_a_zero_row_zero_with_finite_gradient():
    audio = torch.zeros(1, 3, requires_grad=True)
    score = losses.clap_score(audio, torch.ones(1, 3))
    score.sum().backward()
    assert score.item() == 0 and torch.isfinite(audio.grad).all()


@pytest.mark.parametrize("shape", [(2, 2), (3, 3), (3,)])
def test_shapes_that_are_not_pairs_are_refused(shape):
    for score in (
        lambda: losses.clap_score(np.ones(shape), TEXT),
        lambda: losses.sce(torch.ones(shape), torch.tensor(TEXT), 1.0),
    ):
        with pytest.raises(ValueError, match=r"\[N, D\]"):
            score()


def test_numpy_and_torch_are_not_mixed():
    with pytest.raises(TypeError, match="two numpy arrays or two torch tensors"):
        losses.clap_score(torch.tensor(AUDIO), np.array(TEXT))


# --- equations 2-6 by hand ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*losses.KINDS, "sce"])
def test_overall_loss_by_hand(kind):
    values = {"wsce": _by_hand(TARGET), "sce": _by_hand([1, 1, 1]), "mse": 0.3 / 3, "mae": 0.8 / 3}
    result = losses.human_clap_loss(*_tensors(), SCALE, kind, contrastive_weight=0.25, regression_weight=3.0)
    names = kind.split("+")
    assert set(result) == {"loss", *names}
    for name in names:
        assert result[name].item() == pytest.approx(values[name], abs=1e-12)
    expected = 0.25 * values[names[0]] + 3.0 * values[names[1]] if len(names) == 2 else values[names[0]]
    assert result["loss"].item() == pytest.approx(expected, abs=1e-12)


def test_the_papers_weights_are_the_default():
    result = losses.human_clap_loss(*_tensors(), SCALE, "wsce+mae")
    assert result["loss"].item() == pytest.approx(0.1 * _by_hand(TARGET) + 0.8 / 3, abs=1e-12)


# --- oracles and properties -----------------------------------------------------------------------------


def test_sce_is_the_cross_entropy_and_weighted_sce_divides_by_n_and_not_by_the_weights_sum():
    audio, text, target = _random()
    logits, labels = 10 * F.normalize(text) @ F.normalize(audio).T, torch.arange(7)
    expected = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    torch.testing.assert_close(losses.sce(audio, text, 10.0), expected)
    torch.testing.assert_close(losses.weighted_sce(audio, text, torch.ones(7).double(), 10.0), expected)
    torch_weighted = sum(F.cross_entropy(x, labels, weight=target) for x in (logits, logits.T)) / 2
    ours = losses.weighted_sce(audio, text, target, 10.0)
    assert abs(float(torch_weighted - ours)) > 0.1
    torch.testing.assert_close(torch_weighted * target.sum() / 7, ours)


@pytest.mark.parametrize("kind", [*losses.KINDS, "sce"])
def test_gradients_in_float64(kind):
    audio, text, target = _random(4, 3)
    assert losses.cosine(audio, text).abs().min() > 1e-2  # away from the kinks of ReLU and |x|
    assert (losses.clap_score(audio, text) - target).abs().min() > 1e-3
    scale = torch.tensor(2.0, dtype=torch.float64)

    def loss(audio, text, scale):
        return losses.human_clap_loss(audio, text, target, scale, kind)["loss"]

    inputs = [x.requires_grad_() for x in (audio, text, scale)]
    assert torch.autograd.gradcheck(loss, inputs)


def test_a_negative_cosine_gets_no_gradient_from_regression():
    audio = torch.tensor([[1.0, 0.2], [-1.0, 0.2]], requires_grad=True)
    losses.mae(audio, torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0.5, 0.5])).backward()
    assert audio.grad[0].abs().sum() > 0 and audio.grad[1].abs().sum() == 0


def test_half_precision_and_autocast_are_computed_in_float32():
    audio, text, target = _random(6, 32, dtype=torch.float32)
    expected = losses.human_clap_loss(audio, text, target, 100.0, "wsce+mae")["loss"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = losses.human_clap_loss(audio, text, target, 100.0, "wsce+mae")["loss"]
    torch.testing.assert_close(under_autocast, expected)
    assert losses.mse(audio.bfloat16(), text.bfloat16(), target).dtype == torch.float32


# --- refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [[9.0, 3.0, 2.0], [0.5, -0.1, 0.5], [0.5, math.nan, 0.5]])
def test_targets_outside_zero_to_one_are_refused(bad):
    audio, text, _ = _tensors()
    for loss in (losses.mse, losses.mae, lambda a, t, y: losses.weighted_sce(a, t, y, 1.0)):
        with pytest.raises(ValueError, match="within 0-1"):
            loss(audio, text, torch.tensor(bad))


def test_targets_of_another_shape_are_refused():
    audio, text, _ = _tensors()
    with pytest.raises(ValueError, match="target has shape"):
        losses.mse(audio, text, torch.full((3, 1), 0.5))


@pytest.mark.parametrize("bad", [0.0, math.nan, None, torch.tensor(-2.0), torch.ones(2)])
def test_logit_scale_must_be_a_positive_scalar(bad):
    audio, text, target = _tensors()
    with pytest.raises(ValueError, match="logit_scale"):
        losses.weighted_sce(audio, text, target, bad)


def test_an_unknown_kind_lists_the_allowed_ones():
    with pytest.raises(ValueError, match=r"'mse\+mae'.*wsce\+mse, wsce\+mae, wsce, mse, mae"):
        losses.human_clap_loss(*_tensors(), SCALE, "mse+mae")


@pytest.mark.parametrize("weights", [{"contrastive_weight": -0.1}, {"regression_weight": math.nan}])
def test_weights_that_would_turn_the_loss_around_are_refused(weights):
    with pytest.raises(ValueError, match=f"{next(iter(weights))} is .*must be a finite number >= 0"):
        losses.human_clap_loss(*_tensors(), SCALE, "wsce+mse", **weights)


def test_an_empty_batch_and_arrays_are_refused():
    with pytest.raises(ValueError, match="the batch is empty.*at least one pair"):
        losses.sce(torch.ones(0, 2), torch.ones(0, 2), 1.0)
    with pytest.raises(TypeError, match="torch tensor"):
        losses.sce(np.array(AUDIO), np.array(TEXT), 1.0)
    with pytest.raises(TypeError, match="torch tensor"):
        losses.mae(np.array(AUDIO), np.array(TEXT), np.array(TARGET))
