"""Convolutions, the first layer's too: straight-through bits in training, exact integers in evaluation."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from engine import mbu, ops
from engine.layer import Layer
from engine.networks import multibranch
from engine.train import kinds, params, quantize
from engine.train.params import QuantizedParams

FLOAT32_INTEGERS = 1 << 24
"""Up to here float32 holds every integer."""


class BitConv(nn.Module):
    """Convolution, batch norm, activation: takes and gives levels [n, c, h, w], bits being 0 and 1.

    The first layer takes pixels / 255. With `full_precision`, the same layer in full precision and with ReLU.

    A layer has a set of latent weights for each of its segments, or one for both bits of its weights, one set after
    another along the axis of the outputs. Only their sum comes to the convolution, each segment times its factors.

    In layers that keep the resolution signs enter as 0/1: zero padding then is the border value -1, and what the two
    forms differ by is a constant of each channel that batch norm absorbs. In upsampling ones it would differ between
    the outputs of a channel, so there signs enter as +-1.
    """

    support: Tensor | None
    supported: Tensor | None
    threshold: Tensor
    frozen_weight: Tensor
    frozen_signs: Tensor
    frozen_theta: Tensor

    def __init__(
        self, layer: Layer, inputs: ops.Inputs, full_precision: bool = False, ramp: kinds.Ramp = kinds.CENTERED
    ) -> None:
        super().__init__()
        self.layer, self.inputs = layer, inputs
        self.kind = "float" if full_precision else layer.weights
        self.ramp = kinds.SIGN if layer.encoding == "sign" else ramp
        self.limit = kinds.MULTIBIT.get(self.kind, mbu.FIXED_POINT_MAX)
        self.transposed = layer.up > 1 and layer.kernel == 1
        self.signed = not full_precision and inputs[0].encoding == "sign"
        self.reads_bits = self.signed and layer.up == 1
        self.zeros = 0.0
        self.register_buffer("threshold", torch.tensor(-1.0), persistent=False)
        self.annealed: quantize.Share = 1.0
        self.bits = 0
        segments, channels_in = kinds.latents(layer), sum(tensor.channels for tensor in inputs[: len(layer.inputs)])
        outputs = segments * layer.channels * (1 if self.transposed else layer.up**2)
        pair = (channels_in, outputs) if self.transposed else (outputs, channels_in)
        size = layer.up if self.transposed else layer.kernel
        self.weight = nn.Parameter(torch.empty(*pair, size, size))
        nn.init.normal_(self.weight, std=(2 / (channels_in * layer.kernel**2)) ** 0.5)
        self.norm = nn.BatchNorm2d(layer.channels)
        self.scale: nn.Parameter | None = None
        if self.kind == "seq":
            self.scale = nn.Parameter(torch.empty(layer.channels))
            self.reset_scale()
        self.factors = nn.Parameter(torch.zeros(segments, layer.channels)) if segments > 1 else None
        support = torch.from_numpy(_support(layer)) if _branches(layer) else None
        self.register_buffer("support", support, persistent=False)
        where = None if support is None else support.expand_as(self.weight).flatten().nonzero()[:, 0]
        self.register_buffer("supported", where, persistent=False)
        for name in ("frozen_weight", "frozen_signs", "frozen_theta"):
            self.register_buffer(name, None, persistent=False)

    def forward(self, *read: Tensor) -> Tensor:
        """Levels of what it reads, in the order of `layer.reads`."""
        if self.kind == "float":
            return functional.relu(self.norm(self.sums(*read)), inplace=True)
        if self.training:
            return self._activate(self.norm(self.sums(*read)))
        x, residual = self._split(read)
        return self._exact(x, *residual)

    def sums(self, *read: Tensor) -> Tensor:
        """What batch norm sees in training, of levels in the order of `layer.reads`."""
        x, residual = self._split(read)
        return self._sums(x, self._merged(self.weight if self.kind == "float" else self._fake_quantized()), *residual)

    def _split(self, read: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(its inputs side by side, its residual where it has one)."""
        count = len(self.layer.inputs)
        return read[0] if count == 1 else torch.cat(read[:count], 1), read[count:]

    def train(self, mode: bool = True) -> BitConv:
        super().train(mode)
        if not mode and self.kind != "float":
            self._freeze()
        return self

    def quantized_params(self) -> QuantizedParams:
        """The layer's integers; raises ValueError for a layer in full precision."""
        return params.of_convolution(self)

    def refresh_threshold(self) -> None:
        """Take the masking threshold anew from the latent weights (a sort: not for every step), where they lie."""
        if self.kind in kinds.MASKED:
            self.threshold.copy_(quantize.zero_threshold(self.maskable(), self.zeros))
        elif self.kind == "twn":
            self.threshold.copy_(0.7 * self.maskable().abs().mean().double())
        elif self.kind == "max-abs":  # round(w / max |w|) is zero up to there
            self.threshold.copy_(0.5 * self.maskable().abs().max())

    def maskable(self) -> Tensor:
        """The latent weights but for those that are zero anyway, outside their branch's support."""
        latent = self.weight.detach()
        return latent if self.supported is None else latent.flatten()[self.supported]

    def reset_scale(self) -> None:
        """SEQ's scale begins where nothing is clipped: at every output channel's largest weight."""
        if self.scale is not None:
            self.scale.data = self.weight.detach().abs().amax(self.summed).view(self.layer.channels, -1).amax(1)

    @property
    def summed(self) -> tuple[int, ...]:
        """The axes of `weight` that an output sums over."""
        return (0, 2, 3) if self.transposed else (1, 2, 3)

    def _fake_quantized(self) -> Tensor:
        """The latent weights as bits; in `bits` bits as long as the layer has not its own, as large on average."""
        own = self._of_own_bits()
        if not self.bits or self.kind == "int16":
            return own
        finer, own = quantize.of_bits(self.weight, self.bits), own.detach()
        kept = finer * own.ne(0)
        return kept * (own.abs().sum() / kept.detach().abs().sum().clamp(min=1e-12))

    def _of_own_bits(self) -> Tensor:
        if self.kind == "binary":
            return quantize.binary(self.weight)
        if self.kind == "int16" or self.kind in kinds.MULTIBIT:
            return quantize.fixed_point(self.weight, self.summed, self.limit)
        if self.kind in kinds.TWO_BIT:
            return quantize.two_bits(self.weight, self.threshold)
        if self.scale is None:
            return quantize.masked(self.weight, self.threshold)
        return quantize.stretched(self.weight, self._by_output(self.scale))

    def _merged(self, weight: Tensor) -> Tensor:
        """The segments' weights, each times its factors, added up: those of one convolution."""
        if self.support is not None:
            weight = weight * self.support
        if self.factors is None:
            return weight
        fixed = self.kind != "float"
        factors = quantize.powers_of_two(self.factors, ops.MAX_EXPONENT) if fixed else torch.sigmoid(self.factors)
        axis = 1 if self.transposed else 0
        segments = (weight * self._by_output(factors.flatten())).chunk(len(factors), axis)
        return torch.stack(segments).sum(0)

    def _by_output(self, values: Tensor) -> Tensor:
        """Values of every channel, of one or of all segments, along the axis of the outputs in `weight`."""
        if self.transposed:
            return values.view(1, -1, 1, 1)
        return (values.repeat_interleave(self.layer.up**2) if self.layer.up > 1 else values).view(-1, 1, 1, 1)

    def _sums(self, x: Tensor, weight: Tensor, residual: Tensor | None = None, signs: Tensor | float = 1.0) -> Tensor:
        """What batch norm sees."""
        if self.transposed:
            return functional.conv_transpose2d(2 * x - 1 if self.signed else x, weight, stride=2)
        sums = functional.conv2d(x, weight, padding=self.layer.kernel // 2)
        if self.layer.up > 1:
            if self.signed:
                sums = 2 * sums - weight.sum((1, 2, 3)).view(-1, 1, 1)
            return functional.pixel_shuffle(sums, self.layer.up)
        if residual is None:
            return sums
        return sums + residual * (1 if self.kind == "float" else signs * 2**self.layer.residual_exponent)

    def _activate(self, z: Tensor) -> Tensor:
        highest = self.layer.thresholds
        if self.bits:
            return quantize.levels(z, self.ramp, highest, (1 << self.bits) - 1)
        if self.layer.encoding == "sign":
            return quantize.bit(z, self.annealed)
        return quantize.levels(z, self.ramp, highest, annealed=self.annealed)

    def _freeze(self) -> None:
        """Keep the integers in a floating point type that holds every sum exactly, in whatever order it is made."""
        found, factors, device = self.quantized_params(), params.exponents(self), self.weight.device
        weights = found.weights[None, :, None, None] if self.layer.op == "stem" else found.weights
        whole, signs = params.merged(weights, factors), found.arrays.get("residual_signs", np.ones(1, np.int8))
        theta = found.arrays["theta"].astype(np.int64)
        if self.reads_bits:  # 2 * sums - c >= theta
            theta = -(-(theta + params.bits_constant(self, whole, signs)[:, None]) // 2)
        small = int(params.bound(self, weights, factors).max()) < FLOAT32_INTEGERS
        # GPU libraries may transform small sums into larger ones (Winograd)
        dtype = torch.float32 if small and device.type == "cpu" else torch.float64

        def placed(array: NDArray[np.integer]) -> Tensor:
            return torch.from_numpy(array.astype(np.float64)).to(device, dtype)

        whole = np.moveaxis(whole, 5, 3)  # [channels, up, up, inputs, kernel, kernel]
        whole = np.moveaxis(whole[..., 0, 0], 3, 0) if self.transposed else whole.reshape(-1, *whole.shape[3:])
        self.frozen_weight = placed(whole).contiguous(memory_format=torch.channels_last)
        self.frozen_signs = placed(signs).view(-1, 1, 1)
        self.frozen_theta = placed(theta).view(*theta.shape, 1, 1)

    def _exact(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Levels by sums of integers in floating point, exact: no sum leaves the type's integer range."""
        dtype = self.frozen_weight.dtype
        levels = torch.round(x.double() * 255) if self.layer.op == "stem" else x
        added = None if residual is None else residual.to(dtype)
        sums = self._sums(levels.to(dtype), self.frozen_weight, added, self.frozen_signs)
        reached = [quantize.at_least(sums, theta) for theta in self.frozen_theta.unbind(1)]
        return torch.stack(reached).sum(0).to(x.dtype) if len(reached) > 1 else reached[0].to(x.dtype)


def _branches(layer: Layer) -> bool:
    """Whether its segments are the branches of an upsampling, each with weights in its support alone."""
    masked = kinds.stored(layer.weights) == "masked"
    return masked and kinds.latents(layer) > 1 and layer.up > 1 and layer.kernel > 1


def _support(layer: Layer) -> NDArray[np.float32]:
    """Where the branches of an upsampling may have weights, 0 or 1 [outputs of all branches, 1, kernel, kernel]."""
    each = [multibranch.support(branch) for branch in range(layer.segments)]
    allowed = np.stack([np.broadcast_to(support, (layer.channels, *support.shape)) for support in each])
    return allowed.reshape(-1, 1, layer.kernel, layer.kernel).astype(np.float32)
