"""What makes a CPU fast changes no number: linear layers through oneDNN, and transformers' log-mels in blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from humanclap.clap.fast_cpu import OneDnnLinear


@torch.inference_mode()
def test_linear_layers_give_the_same_sums_through_one_dnn():
    generator = torch.Generator().manual_seed(0)
    for shape, n_out in (((1, 96), 96), ((3, 7, 96), 384), ((257, 384), 96), ((2, 5, 1, 768), 512)):
        x = torch.randn(shape, generator=generator)
        weight, bias = torch.randn(n_out, shape[-1], generator=generator), torch.randn(n_out, generator=generator)
        for own_bias in (bias, None):
            expected = F.linear(x.double(), weight.double(), None if own_bias is None else bias.double())
            with OneDnnLinear():
                found = F.linear(x, weight, own_bias)
                transposed = F.linear(x.transpose(0, -2).contiguous().transpose(0, -2), weight, own_bias)
            torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-5)
            torch.testing.assert_close(transposed, found)
            assert found.dtype == torch.float32


def test_one_dnn_stands_aside_where_it_does_not_belong(monkeypatch):
    from humanclap.clap import fast_cpu

    calls = []
    monkeypatch.setattr(fast_cpu, "_OPERATOR", lambda *arguments: calls.append(arguments))
    weight = torch.randn(96, 96)
    with OneDnnLinear():
        x = torch.randn(2, 96, requires_grad=True)
        F.linear(x, weight).sum().backward()  # a graph
        assert x.grad is not None
        with torch.inference_mode():
            F.linear(torch.randn(2, 96).double(), weight.double())  # another dtype
            F.linear(torch.randn(2, 8), torch.randn(8, 8), None)  # too small
            F.linear(torch.randn(0, 96), weight, None)  # nothing to do
            with torch.autocast("cpu", dtype=torch.bfloat16):
                assert F.linear(torch.randn(2, 96), weight, None).dtype == torch.bfloat16
            assert not calls
            F.linear(torch.randn(2, 96), weight, None)
            assert len(calls) == 1


# --- log-mels -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"fft_window_size": 512, "hop_length": 320, "sampling_rate": 16_000,
                                           "frequency_max": 8_000, "feature_size": 16}])  # fmt: skip
def test_log_mels_are_transformers_own(settings):
    from transformers import ClapFeatureExtractor

    from humanclap.clap.fast_cpu import log_mel

    extractor = ClapFeatureExtractor(**settings)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(70_001).astype(np.float32)
    # Loud, faint, silent at its end (the floor of -100 dB), and one that is cut off in the middle of a hop.
    clips = [noise, 1e-4 * noise[:48_000], np.concatenate([noise[:9_000], np.zeros(9_000, np.float32)]), noise[:999]]
    for clip in clips:
        for filters in (extractor.mel_filters, extractor.mel_filters_slaney):
            expected = extractor._np_extract_fbank_features(clip, filters)
            found = log_mel(clip, filters, extractor.fft_window_size, extractor.hop_length)
            assert found.dtype == np.float32 and found.shape == expected.shape
            np.testing.assert_allclose(found, expected, atol=1e-5)
