"""Straight-through estimators around `engine.mbu`: what the bits do going forward, a usable slope coming back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engine import mbu

SMALLEST_SCALE = 1e-4
"""SEQ's learned scale stays positive."""


def at_least(x: Tensor, bound: Tensor | float) -> Tensor:
    """x >= bound as 0 and 1 of x's dtype, without the detour over bool: that takes twenty times as long on CPUs."""
    with torch.no_grad():
        return torch.ge(x, bound, out=torch.empty_like(x))


class Bit(torch.autograd.Function):
    """Between a clipped line and the bit it becomes: (1 - a) * clip((x + 1) / 2, 0, 1) + a * (x >= 0).

    Annealed to a = 1 these are bits, and the slope is ApproxSign's triangle 2 - 2|x| on [-1, 1], halved for the 0/1
    range; at a = 0 it is the line's own. A run that anneals slowly first learns with true gradients.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, annealed: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.annealed = annealed
        bits = at_least(x, 0)
        return bits if annealed == 1 else torch.lerp(((x + 1) / 2).clamp_(0, 1), bits, annealed)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        triangle = (1 - x.abs()).clamp_(min=0)
        if ctx.annealed == 1:
            return grads[0] * triangle, None
        line = torch.gt(triangle, 0, out=torch.empty_like(x)) * 0.5
        return grads[0] * torch.lerp(line, triangle, ctx.annealed), None


def bit(x: Tensor, annealed: float = 1.0) -> Tensor:
    """`Bit`, typed."""
    bits: Tensor = Bit.apply(x, annealed)  # type: ignore[no-untyped-call]
    return bits


def straight_through(latent: Tensor, quantized: Tensor) -> Tensor:
    """The value of `quantized` with the gradient of `latent`: zero weights keep learning and can return."""
    return latent + (quantized - latent).detach()


def binary(latent: Tensor) -> Tensor:
    """`mbu.binarize` for torch."""
    return straight_through(latent, 2 * at_least(latent, 0) - 1)


def ternary(latent: Tensor, threshold: float | Tensor) -> Tensor:
    """`mbu.mask` for torch, without a gradient: -1, 0 and +1 of latent's dtype."""
    with torch.no_grad():
        keep = torch.gt(latent.abs(), threshold, out=torch.empty_like(latent))
        return (2 * at_least(latent, 0) - 1) * keep


def masked(latent: Tensor, threshold: float) -> Tensor:
    """`mbu.mask` for torch."""
    return straight_through(latent, ternary(latent, threshold))


def stretched(latent: Tensor, scale: Tensor) -> Tensor:
    """SEQ, the stretched elastic quantizer (ParetoQ): three equal bins of +-scale become scale * {-2, 0, 2} / 3.

    `scale` broadcasts against `latent` and learns: inside its range a weight passes its gradient on, outside it moves
    the scale alone.
    """
    scale = scale.clamp(min=SMALLEST_SCALE)
    x = (latent / scale).clamp(-1, 1)
    return scale * straight_through(x, ternary(latent, scale.detach() / 3) * (2 / 3))


def fixed_point(latent: Tensor, axis: tuple[int, ...] | None, limit: int = mbu.FIXED_POINT_MAX) -> Tensor:
    """`mbu.fixed_point` for torch: the rounded weights at their own scale."""
    magnitude = latent.detach().abs()
    largest = magnitude.amax(axis, keepdim=True) if axis is not None else magnitude.max()
    step = torch.where(largest > 0, largest / limit, 1.0)
    return straight_through(latent, torch.round(latent / step) * step)
