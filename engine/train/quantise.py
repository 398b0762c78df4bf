"""Straight-through estimators around `engine.mbu`: what the bits do going forward, a usable slope coming back."""

from __future__ import annotations

import torch
from torch import Tensor

from engine import mbu


class Bit(torch.autograd.Function):
    """x >= 0 as 0.0 or 1.0. Backward: ApproxSign's triangle, 2 - 2|x| on [-1, 1], halved for the 0/1 range."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return grads[0] * (1 - x.abs()).clamp_(min=0)


def straight_through(latent: Tensor, quantised: Tensor) -> Tensor:
    """The value of `quantised` with the gradient of `latent`: zero weights keep learning and can return."""
    return latent + (quantised - latent).detach()


def binary(latent: Tensor) -> Tensor:
    """`mbu.binarize` for torch."""
    return straight_through(latent, torch.where(latent >= 0, 1.0, -1.0))


def masked(latent: Tensor, threshold: float) -> Tensor:
    """`mbu.mask` for torch."""
    return straight_through(latent, torch.where(latent >= 0, 1.0, -1.0) * (latent.abs() > threshold))


def fixed_point(latent: Tensor, axis: tuple[int, ...] | None) -> Tensor:
    """`mbu.fixed_point` for torch: the rounded weights at their own scale."""
    magnitude = latent.detach().abs()
    largest = magnitude.amax(axis, keepdim=True) if axis is not None else magnitude.max()
    step = torch.where(largest > 0, largest / mbu.FIXED_POINT_MAX, 1.0)
    return straight_through(latent, torch.round(latent / step) * step)
