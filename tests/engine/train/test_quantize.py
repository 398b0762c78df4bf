"""The straight-through estimators: forward what `engine.mbu` says, backward a usable slope."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine import mbu
from engine.train import kinds, quantize

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


@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize("ramp", [kinds.DOREFA, kinds.CENTERED])
def test_levels_are_those_that_are_folded_into_thresholds(ramp: kinds.Ramp, planes: int) -> None:
    targets = (np.array(mbu.level_targets(planes)) - ramp.shift) / ramp.scale
    x = torch.cat([X + 0.003, torch.from_numpy(targets + 1e-12), torch.from_numpy(targets - 1e-12)])
    expected = (x.numpy()[:, None] >= targets).sum(1)
    np.testing.assert_array_equal(quantize.levels(x, ramp, (1 << planes) - 1), expected)


def test_ties_of_levels_go_up() -> None:
    assert quantize.levels(torch.tensor([0.5]), kinds.DOREFA, 1).tolist() == [1]
    assert quantize.levels(torch.tensor([0.5]), kinds.DOREFA, 3).tolist() == [2]
    assert quantize.levels(torch.tensor([0.5], dtype=torch.bfloat16), kinds.CENTERED, 3).tolist() == [2]


@pytest.mark.parametrize("annealed", [0.0, 0.25, 1.0])
def test_levels_pass_gradients_on_to_the_margin_of_their_ramp(annealed: float) -> None:
    for ramp, low, high in ((kinds.DOREFA, 0.0, 1.0), (kinds.CENTERED, -1.0, 2.0)):
        x = X.clone().requires_grad_()
        (slope,) = torch.autograd.grad(quantize.levels(x, ramp, 3, annealed=annealed).sum(), x)
        inside = X.clamp(low + 1e-9, high - 1e-9) == X
        assert torch.equal(slope, torch.where(inside, 3 * ramp.scale, 0.0).double())


def test_levels_are_annealed_from_a_clipped_line_and_begin_in_finer_steps() -> None:
    line = 3 * (X / 2 + 0.25).clamp(0, 1)
    hard = quantize.levels(X, kinds.CENTERED, 3)
    assert torch.allclose(quantize.levels(X, kinds.CENTERED, 3, annealed=0), line)
    assert torch.allclose(quantize.levels(X, kinds.CENTERED, 3, annealed=0.3), torch.lerp(line, hard, 0.3))
    fine = quantize.levels(X, kinds.CENTERED, 3, steps=255)
    assert 0 < float((fine - line).abs().max()) <= 1.5 / 255 + 1e-9


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


def test_weights_of_two_bits_are_those_of_mbu_with_dorefas_gradient() -> None:
    latent = torch.randn(4, 3, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kept = mbu.mask(latent.numpy(), 0.5) != 0
    w = latent.clone().requires_grad_()
    values = quantize.two_bits(w, 0.5)
    np.testing.assert_allclose(values.detach(), mbu.two_bits(latent.numpy()) * kept, atol=1e-12)
    (slope,) = torch.autograd.grad(values.sum(), w, retain_graph=True)
    (expected,) = torch.autograd.grad(3 * (torch.tanh(w) / torch.tanh(w).abs().max()).sum(), w)
    assert torch.allclose(slope, expected)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weights_of_several_bits_are_equal_steps(bits: int) -> None:
    latent = torch.randn(500, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values, soft = quantize.of_bits(latent, bits), quantize.squashed(latent)
    steps = (values + 1) / 2 * (2**bits - 1)
    assert torch.allclose(steps, steps.round())
    assert float((values - soft).abs().max()) <= 1 / (2**bits - 1) + 1e-9
    assert float(values.abs().max()) == pytest.approx(1)


def test_factors_are_powers_of_two_with_the_sigmoids_gradient() -> None:
    logits = torch.linspace(-6, 6, 41, dtype=torch.float64, requires_grad=True)
    factors = quantize.powers_of_two(logits, 3)
    exponents = mbu.exponents(torch.sigmoid(logits).detach().numpy(), 3)
    np.testing.assert_allclose(factors.detach(), 2.0**exponents)
    (slope,) = torch.autograd.grad(factors.sum(), logits)
    assert torch.allclose(slope, 8 * torch.sigmoid(logits) * (1 - torch.sigmoid(logits)))


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
