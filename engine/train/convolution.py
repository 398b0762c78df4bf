"""The layers of bits, and the first: straight-through bits in training, exact integers in evaluation."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from engine import mbu
from engine.layer import Layer
from engine.train import kinds, quantize
from engine.train.params import QuantizedParams


class BitConv(nn.Module):
    """Convolution, batch norm, activation. Takes and gives 0/1 bits [n, c, h, w]; the first layer takes pixels / 255.

    In 3x3 layers bits enter as 0/1: zero padding then is the border value -1, and the sum of the weights, by which the
    two forms differ, is a constant that batch norm absorbs. With `full_precision`, the same layer in full precision and
    with ReLU.
    """

    frozen_weight: Tensor
    frozen_theta: Tensor

    def __init__(self, layer: Layer, channels_in: int, full_precision: bool = False) -> None:
        super().__init__()
        self.upsamples = layer.up > 1
        self.kind = "float" if full_precision else layer.weights
        self.takes_pixels = layer.op == "stem"
        self.zeros = 0.0
        self.threshold = -1.0
        self.annealed = 1.0
        pair = (channels_in, layer.channels) if self.upsamples else (layer.channels, channels_in)
        size = 2 if self.upsamples else 3
        self.weight = nn.Parameter(torch.empty(*pair, size, size))
        nn.init.normal_(self.weight, std=(2 / (channels_in * (1 if self.upsamples else 9))) ** 0.5)
        self.norm = nn.BatchNorm2d(layer.channels)
        self.scale: nn.Parameter | None = None
        if self.kind == "seq":
            self.scale = nn.Parameter(torch.empty(layer.channels))
            self.reset_scale()
        self.register_buffer("frozen_weight", None, persistent=False)
        self.register_buffer("frozen_theta", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "float":
            return functional.relu(self.norm(self._convolve(x, self.weight)), inplace=True)
        if self.training:
            return quantize.bit(self.norm(self._convolve(x, self._fake_quantized())), self.annealed)
        return self._exact(x)

    def train(self, mode: bool = True) -> BitConv:
        super().train(mode)
        if not mode and self.kind != "float":
            params = self.quantized_params()
            order = (3, 0, 1, 2) if self.upsamples else (0, 3, 1, 2)
            weight = torch.from_numpy(params.weights.transpose(order).astype(np.float64))
            device = self.weight.device
            self.frozen_weight = weight.to(device, self._exact_type(), memory_format=torch.channels_last)
            self.frozen_theta = torch.from_numpy(params.offsets.astype(np.float64)).to(device, self._exact_type())
        return self

    def refresh_threshold(self) -> None:
        """Take the masking threshold anew from the latent weights (a partial sort: not for every step)."""
        latent = self.weight.detach()
        if self.kind == "masked":
            self.threshold = mbu.zero_threshold(latent.cpu().numpy(), self.zeros)
        elif self.kind == "twn":
            self.threshold = 0.7 * float(latent.abs().mean())
        elif self.kind == "max-abs":  # round(w / max |w|) is zero up to there
            self.threshold = 0.5 * float(latent.abs().max())

    def reset_scale(self) -> None:
        """SEQ's scale begins where nothing is clipped: at every output channel's largest weight."""
        if self.scale is not None:
            self.scale.data = self.weight.detach().abs().amax(self._inputs)

    @property
    def _inputs(self) -> tuple[int, ...]:
        """The axes of `weight` that an output channel sums over."""
        return (0, 2, 3) if self.upsamples else (1, 2, 3)

    def quantized_params(self) -> QuantizedParams:
        """The layer's integers, by `engine.mbu` alone; raises ValueError for a layer in full precision."""
        weights, step = self._quantized_weights()
        if self.kind == "int16":
            bound = 255 * np.abs(weights.astype(np.int64)).sum((1, 2, 3))
            scale, bias = step / 255, np.zeros_like(step)
        else:
            taps = np.abs(weights.astype(np.int64)).sum(3)
            bound = taps.max((1, 2)) if self.upsamples else taps.sum((1, 2))
            # acc = sum w (2 b - 1), and batch norm saw acc itself when upsampling, else sum w b = (acc + sum w) / 2
            scale = step * (1.0 if self.upsamples else 0.5)
            bias = np.zeros_like(step) if self.upsamples else 0.5 * step * weights.sum((1, 2, 3), dtype=np.float64)
        theta, flip = mbu.fold(self._batch_norm(scale, bias), bound)
        return QuantizedParams(np.where(flip[:, None, None, None], -weights, weights), theta[:, 0])

    def _quantized_weights(self) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
        """(weights int16 [out, kh, kw, in], step float64 [out]): what batch norm has seen is weights * step."""
        latent = self.weight.detach().cpu().numpy()
        latent = latent.transpose((1, 2, 3, 0) if self.upsamples else (0, 2, 3, 1))
        if self.kind == "float":
            raise ValueError("a layer in full precision has no integers")
        if self.kind == "int16" or self.kind in kinds.MULTIBIT:
            limit = kinds.MULTIBIT.get(self.kind, mbu.FIXED_POINT_MAX)
            weights, steps = mbu.fixed_point(latent, (1, 2, 3), limit)
            return weights, steps.reshape(-1)
        step = np.ones(len(latent))
        if self.kind == "binary":
            return mbu.binarize(latent).astype(np.int16), step
        if self.scale is None:
            return mbu.mask(latent, self.threshold).astype(np.int16), step
        scale = self.scale.detach().cpu().clamp(min=quantize.SMALLEST_SCALE)
        threshold = (scale / 3).numpy()[:, None, None, None]
        return mbu.mask(latent, threshold).astype(np.int16), scale.double().numpy() * (2 / 3)

    def _batch_norm(self, scale: NDArray[np.float64], bias: NDArray[np.float64]) -> mbu.BatchNorm:
        def array(tensor: Tensor) -> NDArray[np.float64]:
            return tensor.detach().cpu().double().numpy()

        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, var = array(norm.running_mean), array(norm.running_var)
        return mbu.BatchNorm(array(norm.weight), array(norm.bias), mean, var, scale, bias, norm.eps)

    def _fake_quantized(self) -> Tensor:
        if self.kind == "binary":
            return quantize.binary(self.weight)
        if self.kind == "int16" or self.kind in kinds.MULTIBIT:
            limit = kinds.MULTIBIT.get(self.kind, mbu.FIXED_POINT_MAX)
            return quantize.fixed_point(self.weight, self._inputs, limit)
        if self.scale is None:
            return quantize.masked(self.weight, self.threshold)
        return quantize.stretched(self.weight, self.scale.view((1, -1, 1, 1) if self.upsamples else (-1, 1, 1, 1)))

    def _convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.upsamples:  # taps do not overlap and nothing is padded, but their weight sums differ: enter as +-1
            return functional.conv_transpose2d(x if self.kind == "float" else 2 * x - 1, weight, stride=2)
        return functional.conv2d(x, weight, padding=1)

    def _exact_type(self) -> torch.dtype:
        """float32 holds sums below 2^24, all but the first layer's; GPU libraries may transform them (Winograd)."""
        return torch.float32 if self.weight.device.type == "cpu" and not self.takes_pixels else torch.float64

    def _exact(self, x: Tensor) -> Tensor:
        """Sums of integers in floating point, exact: no sum, in whatever order, leaves the type's integer range."""
        weight = self.frozen_weight
        if self.takes_pixels:
            acc = self._convolve(torch.round(x.double() * 255), weight)
        elif self.upsamples:
            acc = self._convolve(x.to(weight.dtype), weight)
        else:
            acc = 2 * self._convolve(x.to(weight.dtype), weight) - weight.sum((1, 2, 3)).view(-1, 1, 1)
        return quantize.at_least(acc, self.frozen_theta.view(-1, 1, 1)).to(x.dtype)
