"""Straight-through estimators around `engine.mbu`: what the bits do going forward, a usable slope coming back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from engine import mbu
from engine.train.kinds import Ramp

SMALLEST_SCALE = 1e-4
"""SEQ's learned scale stays positive."""

Share = float | Tensor
"""From 0 to 1: a number, or a float32 scalar on the device, which a captured step reads anew each time."""


def lerp(start: Tensor, end: Tensor, weight: Share) -> Tensor:
    """`torch.lerp`, whose weight may be a float32 scalar: it is rounded to the others' dtype."""
    return torch.lerp(start, end, weight.to(start.dtype) if isinstance(weight, Tensor) else weight)


def _whole(share: Share) -> bool:
    """Whether it is the number 1: nothing is waited for to see what a scalar on a device is."""
    return not isinstance(share, Tensor) and share == 1


def at_least(x: Tensor, bound: Tensor | float) -> Tensor:
    """x >= bound as 0 and 1 of x's dtype."""
    return _compared(torch.ge, x, bound)


def above(x: Tensor, bound: Tensor | float) -> Tensor:
    """x > bound as 0 and 1 of x's dtype."""
    return _compared(torch.gt, x, bound)


@torch.no_grad()
def _compared(compare: Callable[..., Tensor], x: Tensor, bound: Tensor | float) -> Tensor:
    """Without the detour over bool, which takes twenty times as long on CPUs; in fused kernels it is none."""
    if torch.compiler.is_compiling():
        return compare(x, bound).to(x.dtype)
    return compare(x, bound, out=torch.empty_like(x))


class Bit(torch.autograd.Function):
    """Between a clipped line and the bit it becomes: (1 - a) * clip((x + 1) / 2, 0, 1) + a * (x >= 0).

    Annealed to a = 1 these are bits, and the slope is ApproxSign's triangle 2 - 2|x| on [-1, 1], halved for the 0/1
    range; at a = 0 it is the line's own. A run that anneals slowly first learns with true gradients.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, annealed: Share) -> Tensor:
        ctx.save_for_backward(x)
        ctx.annealed = annealed
        bits = at_least(x, 0)
        return bits if _whole(annealed) else lerp(((x + 1) / 2).clamp_(0, 1), bits, annealed)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        triangle = (1 - x.abs()).clamp_(min=0)
        if _whole(ctx.annealed):
            return grads[0] * triangle, None
        line = above(triangle, 0) * 0.5
        return grads[0] * lerp(line, triangle, ctx.annealed), None


def bit(x: Tensor, annealed: Share = 1.0) -> Tensor:
    """`Bit`, typed."""
    bits: Tensor = Bit.apply(x, annealed)  # type: ignore[no-untyped-call]
    return bits


class Levels(torch.autograd.Function):
    """Between a clipped line and its levels: `highest` * ((1 - a) * y + a * round(y)), y being x on its ramp, clipped.

    round is DoReFa's quantize_k with ties up: to `steps` equal steps, which are the levels, or finer at first.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, ramp: Ramp, highest: int, steps: int, annealed: Share) -> Tensor:
        ctx.save_for_backward(x)
        ctx.ramp, ctx.highest = ramp, highest
        line = _on_ramp(x, ramp).clamp_(0, 1)
        levels = torch.floor(line * steps + 0.5).mul_(highest / steps)
        return (levels if _whole(annealed) else lerp(line * highest, levels, annealed)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        (x,) = ctx.saved_tensors
        inside = 0.5 + ctx.ramp.margin - (_on_ramp(x, ctx.ramp) - 0.5).abs_()
        slope = above(inside, 0) * (ctx.highest * ctx.ramp.scale)
        return grads[0] * slope.to(x.dtype), None, None, None, None


def _on_ramp(x: Tensor, ramp: Ramp) -> Tensor:
    """Where x lies between the ramp's ends, 0 and 1; of bfloat16 in float32, for the rounding that follows."""
    return (x.float() if x.dtype == torch.bfloat16 else x) * ramp.scale + ramp.shift


def levels(x: Tensor, ramp: Ramp, highest: int, steps: int = 0, annealed: Share = 1.0) -> Tensor:
    """`Levels`, typed; as many steps as levels unless told otherwise."""
    found: Tensor = Levels.apply(x, ramp, highest, steps or highest, annealed)  # type: ignore[no-untyped-call]
    return found


def straight_through(latent: Tensor, quantized: Tensor) -> Tensor:
    """The value of `quantized` with the gradient of `latent`: zero weights keep learning and can return."""
    return latent + (quantized - latent).detach()


def binary(latent: Tensor) -> Tensor:
    """`mbu.binarize` for torch."""
    return straight_through(latent, 2 * at_least(latent, 0) - 1)


def ternary(latent: Tensor, threshold: float | Tensor) -> Tensor:
    """`mbu.mask` for torch, without a gradient: -1, 0 and +1 of latent's dtype."""
    with torch.no_grad():
        return (2 * at_least(latent, 0) - 1) * above(latent.abs(), threshold)


def masked(latent: Tensor, threshold: float | Tensor) -> Tensor:
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


def squashed(latent: Tensor) -> Tensor:
    """DoReFa's range for weights: tanh, over its largest magnitude in the layer, so from -1 to 1."""
    soft = torch.tanh(latent)
    return soft / soft.abs().max().clamp(min=1e-12)


def of_bits(latent: Tensor, bits: int) -> Tensor:
    """DoReFa's weights of `bits` bits, 2 or more, from -1 to 1, ties up."""
    soft, steps = squashed(latent), (1 << bits) - 1
    return straight_through(soft, 2 * torch.floor((soft / 2 + 0.5) * steps + 0.5) / steps - 1)


def zero_threshold(latent: Tensor, zeros: float) -> Tensor:
    """`mbu.zero_threshold` for torch, a scalar where `latent` lies: on a GPU it is sorted there, unwaited for."""
    if latent.device.type == "cpu":  # numpy's partition is the fastest there
        return torch.tensor(mbu.zero_threshold(latent.numpy(), zeros))
    return threshold_in_place(latent, zeros)


def threshold_in_place(latent: Tensor, zeros: float) -> Tensor:
    """`zero_threshold` by a sort where `latent` lies."""
    count = mbu.zero_count(latent.numel(), zeros)
    if count == 0:
        return torch.full((), -1.0, device=latent.device)
    return latent.abs().flatten().sort().values[count - 1]


def two_bits(latent: Tensor, threshold: float | Tensor) -> Tensor:
    """`mbu.two_bits` for torch, and zero up to `threshold`: -3, -1, 0, 1 and 3, with DoReFa's gradient."""
    thirds = 3 * of_bits(latent, 2)
    return straight_through(thirds, thirds * ternary(latent, threshold).abs())


def powers_of_two(logits: Tensor, most: int) -> Tensor:
    """2 ** `mbu.exponents` of sigmoid(`logits`): factors from 1 to 2 ** most, with the sigmoid's gradient."""
    factors = torch.sigmoid(logits)
    nearest = torch.floor(torch.log2(factors.detach()) + (most + 0.5)).clamp_(0, most)
    return straight_through(factors * (1 << most), torch.exp2(nearest))


def fixed_point(latent: Tensor, axis: tuple[int, ...] | None, limit: int = mbu.FIXED_POINT_MAX) -> Tensor:
    """`mbu.fixed_point` for torch: the rounded weights at their own scale."""
    magnitude = latent.detach().abs()
    largest = magnitude.amax(axis, keepdim=True) if axis is not None else magnitude.max()
    step = torch.where(largest > 0, largest / limit, 1.0)
    return straight_through(latent, torch.round(latent / step) * step)
