"""The straight-through estimators: forward what `engine.mbu` says, backward a usable slope."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine import mbu
from engine.train import quantize

X = torch.linspace(-2, 2, 81, dtype=torch.float64)


def gradient(annealed: float) -> torch.Tensor:
    x = X.clone().requires_grad_()
    (slope,) = torch.autograd.grad(quantize.bit(x, annealed).sum(), x)
    return slope


def test_hard_bits() -> None:
    assert torch.equal(quantize.bit(X), (X >= 0).double())
    assert torch.equal(gradient(1), (1 - X.abs()).clamp(min=0))


def test_soft_bits_are_a_clipped_line_with_its_own_slope() -> None:
    assert torch.equal(quantize.bit(X, 0), ((X + 1) / 2).clamp(0, 1))
    assert torch.equal(gradient(0), torch.where(X.abs() < 1, 0.5, 0.0).double())


@pytest.mark.parametrize("annealed", [0.25, 0.75])
def test_between_them_both_are_mixed(annealed: float) -> None:
    mixed = (1 - annealed) * quantize.bit(X, 0) + annealed * quantize.bit(X)
    assert torch.allclose(quantize.bit(X, annealed), mixed, rtol=0, atol=1e-15)
    slopes = (1 - annealed) * gradient(0) + annealed * gradient(1)
    assert torch.allclose(gradient(annealed), slopes, rtol=0, atol=1e-15)


def test_weights_are_those_of_mbu_and_every_weight_learns() -> None:
    latent = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    latent[0, 0, 0, 0] = 0
    threshold = mbu.zero_threshold(latent.numpy(), 0.7)
    pairs = [
        (quantize.binary, mbu.binarize(latent.numpy())),
        (lambda w: quantize.masked(w, threshold), mbu.mask(latent.numpy(), threshold)),
        (lambda w: quantize.masked(w, -1.0), mbu.binarize(latent.numpy())),
    ]
    for quantized, expected in pairs:
        w = latent.clone().requires_grad_()
        values = quantized(w)
        assert np.allclose(values.detach().numpy(), expected, atol=1e-6)
        (slope,) = torch.autograd.grad(values.sum(), w)
        assert torch.equal(slope, torch.ones_like(w))


@pytest.mark.parametrize("axis", [None, (1, 2, 3)])
def test_fixed_point_is_that_of_mbu(axis: tuple[int, ...] | None) -> None:
    latent = torch.randn(4, 3, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    integers, step = mbu.fixed_point(latent.numpy(), axis)
    assert np.allclose(quantize.fixed_point(latent, axis).numpy(), integers * step, rtol=0, atol=1e-12)


def test_at_least_keeps_the_dtype() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        assert quantize.at_least(torch.tensor([-1.0, 0.0, 2.0], dtype=dtype), 0).tolist() == [0, 1, 1]
        assert quantize.at_least(torch.tensor([1.0], dtype=dtype), 0).dtype == dtype


def test_the_stretched_quantiser_has_three_equal_bins_and_a_scale_that_learns() -> None:
    latent = torch.tensor([-2.0, -0.9, -0.5, -0.3, 0.0, 0.3, 0.5, 0.9, 2.0], requires_grad=True)
    scale = torch.tensor(1.2, requires_grad=True)
    values = quantize.stretched(latent, scale)
    assert torch.allclose(values, 0.8 * torch.tensor([-1.0, -1, -1, 0, 0, 0, 1, 1, 1]))
    slopes = torch.autograd.grad(values, (latent, scale), torch.eye(9)[8] + torch.eye(9)[5])
    assert slopes[0].tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 0]  # clipped weights leave it to the scale
    assert slopes[1].item() == pytest.approx(2 / 3 - 0.3 / 1.2)
