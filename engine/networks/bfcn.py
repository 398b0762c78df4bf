"""BFCN (arXiv 1612.00212), a reconstruction: a fully convolutional network of low-bit activations and weights.

Published: activations of two bits and weights of one or two, by DoReFa's quantisers; first and last layer in higher
precision; residual blocks where the resolution is rebuilt. Only abstract and summaries could be read, so this is ours:
the backbone and its widths, pooling in the place of strides, the residual added as a level inside the sum, the
upsampling as a convolution with four times the outputs, and the masked weights, which the paper does not have.
"""

from __future__ import annotations

import math
from typing import Any

from engine.layer import IMAGE, Layer
from engine.networks.unet import encoding


def layers(
    width: int = 32,
    classes: int = 1,
    weights: str = "binary",
    weight_bits: int = 1,
    activation_bits: int = 2,
    zeros: float = 0.0,
) -> list[Layer]:
    """Flat layer list; `width` is the channels at full resolution, eight times as many at 1 / 16.

    `weights` are "binary" (the paper's) or "masked", `zeros` of them zero: a residual is added about as large as what
    the others add up to. Two `weight_bits` are two segments: 2 * s1 + s0, of +-1 each the
    values -3, -1, 1 and 3.
    """
    if weight_bits not in (1, 2):
        raise ValueError(f"weights have 1 or 2 bits, not {weight_bits}")
    written: dict[str, Any] = {"planes": activation_bits, "encoding": encoding(activation_bits)}
    flat = [Layer("in", "stem", (IMAGE,), width, "int16", 3, **written)]

    def conv(name: str, read: str, channels: int, residual: str = "", up: int = 1) -> str:
        spread = 3 * math.sqrt(channels * (1 - zeros))  # of the sum at the start, in that of what it reads
        exponent = max(0, round(math.log2(spread))) if residual else 0
        options: dict[str, Any] = {"segments": weight_bits, "residual": residual, "residual_exponent": exponent}
        flat.append(Layer(name, "conv", (read,), channels, weights, 3, up, **options, **written))
        return name

    def block(name: str, read: str, channels: int, inner: str = "", outer: bool = True) -> str:
        """Two convolutions; the second adds what the first reads, where `outer`, and the first `inner`."""
        first = conv(f"{name}.conv1", read, channels, inner)
        return conv(f"{name}.conv2", first, channels, read if outer else "")

    def pool(name: str) -> str:
        last = flat[-1]
        flat.append(Layer(name, "pool", (last.name,), last.channels, **written))
        return name

    block("res2", pool("pool2"), width)
    block("res4a", pool("pool4"), 2 * width, outer=False)
    res4 = block("res4b", flat[-1].name, 2 * width)
    block("res8a", pool("pool8"), 4 * width, outer=False)
    res8 = block("res8b", flat[-1].name, 4 * width)
    block("res16a", pool("pool16"), 8 * width, outer=False)
    res16 = block("res16b", flat[-1].name, 8 * width)
    dec8 = block("dec8", conv("up8", res16, 4 * width, up=2), 4 * width, inner=res8)
    dec4 = block("dec4", conv("up4", dec8, 2 * width, up=2), 2 * width, inner=res4)
    return [*flat, Layer("head", "head", (dec4,), classes, "int16", 1, doublings=2)]
