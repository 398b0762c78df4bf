"""The multi-branch network of Ding et al. (arXiv 2405.17776), a reconstruction: upsampling in branches, and gates.

Published: weights and activations of one bit; an upsampling by several branches in parallel that are merged with
learned factors (a sigmoid, a product element by element); attention in two binary parts. Only abstract and summaries
could be read, so this is ours: MBU-Net's encoder and decoder around it, which branches there are, factors per channel
that are powers of two, and both parts of the attention as gates of one bit on the two coarsest skip connections, by
position and by channel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.layer import IMAGE, Layer
from engine.networks.unet import encoding

BRANCHES = 3
GATES = ("none", "position", "channel", "both")


def layers(
    width: int = 64,
    classes: int = 1,
    weights: str = "masked",
    branches: int = BRANCHES,
    gates: str = "both",
    activation_bits: int = 1,
) -> list[Layer]:
    """Flat layer list; `width` is the first layer's channels.

    Upsamplings have `branches` branches, see `support`; they hold zeros outside their supports, so their weights are
    masked, while all others are `weights`, "binary" or "masked". `gates` is one of GATES.
    """
    if gates not in GATES:
        raise ValueError(f"gates are one of {', '.join(GATES)}, not {gates}")
    if not 1 <= branches <= BRANCHES:
        raise ValueError(f"there are 1 to {BRANCHES} branches, not {branches}")
    written: dict[str, Any] = {"planes": activation_bits, "encoding": encoding(activation_bits)}
    flat = [Layer("in.conv1", "stem", (IMAGE,), width, "int16", 3, **written)]

    def add(name: str, op: str, inputs: tuple[str, ...], channels: int, *rest: Any, **options: Any) -> str:
        flat.append(Layer(name, op, inputs, channels, *rest, **{**written, **options}))
        return name

    def double(name: str, inputs: tuple[str, ...], channels: int) -> str:
        first = add(f"{name}.conv1", "conv", inputs, channels, weights, 3)
        return add(f"{name}.conv2", "conv", (first,), channels, weights, 3)

    def gated(name: str, skip: str, coarse: str, channels: int) -> str:
        """`skip` where its own position and its channel at the coarser level are open."""
        if gates in ("position", "both"):
            position = add(f"{name}.position", "conv", (skip,), 1, weights, 3, planes=1)
            skip = add(f"{name}.gate1", "gate", (skip, position), channels)
        if gates in ("channel", "both"):
            channel = add(f"{name}.channel", "conv", (coarse,), channels, weights, 1, 2, planes=1)
            skip = add(f"{name}.gate2", "gate", (skip, channel), channels)
        return skip

    skips = [add("in.conv2", "conv", ("in.conv1",), width, weights, 3)]
    for i, factor in enumerate((2, 4, 8, 8), 1):
        pool = add(f"down{i}.pool", "pool", (skips[-1],), flat[-1].channels)
        skips.append(double(f"down{i}", (pool,), factor * width))
    coarse = skips.pop()
    for i, factor in enumerate((4, 2, 1, 1), 1):
        skip, channels = skips.pop(), (8, 4, 2, 1)[i - 1] * width
        if i <= 2:
            skip = gated(f"up{i}", skip, coarse, channels)
        up = add(f"up{i}.branches", "conv", (coarse,), flat[-1].channels, "masked", 3, 2, branches)
        coarse = double(f"up{i}", (skip, up), factor * width)
    return [*flat, Layer("head", "head", (coarse,), classes, "int16", 1)]


def support(branch: int) -> NDArray[np.bool_]:
    """Where a branch of an upsampling may have weights, bool [2, 2, 3, 3]: for each output of a square, which inputs.

    0 is the sub-pixel convolution (all nine), 1 the transposed convolution 4x4 of stride 2 (the four nearest), 2 the
    transposed 2x2 of stride 2 (the one below).
    """
    allowed = np.zeros((2, 2, 3, 3), np.bool_)
    for i in range(2):
        for j in range(2):
            rows, columns = ([slice(0, 3)] * 2, [slice(i, i + 2), slice(j, j + 2)], [slice(1, 2)] * 2)[branch]
            allowed[i, j, rows, columns] = True
    return allowed
