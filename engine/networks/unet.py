"""MBU-Net (arXiv 2601.11660): the paper's network as a flat list of layers, for any width and any masked blocks.

Published: the topology, the widths (Table A.4 is reproduced by them), one-bit activations, the twelve blocks. Ours:
activations of two bits, levels 0 to 3, which the paper does not have.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from engine import ops
from engine.layer import IMAGE, Layer

BLOCKS = tuple(f"{kind}{i}" for kind in ("Down", "CT", "Up") for i in (1, 2, 3, 4))
"""The twelve blocks between which the cost-aware strategy chooses: binary or masked."""


@dataclass(frozen=True)
class BlockCost:
    """What one block costs per image: multiply-accumulates (transposed ones at half weight) and weights."""

    block: str
    operations: float
    parameters: int


def layers(
    width: int = 64, classes: int = 1, masked: Collection[str] = BLOCKS, activation_bits: int = 1
) -> list[Layer]:
    """Flat layer list of MBU-Net; blocks named in `masked` hold -1/0/+1 weights, the others +-1.

    `width` is the first layer's channels (64 in the paper). `classes` is the number of logits per pixel: 1 for
    foreground against background. The input block's second convolution is always masked (section 3.2). Activations are
    signs with one bit, levels from 0 to 3 with two.
    """
    unknown = set(masked) - set(BLOCKS)
    if unknown:
        raise ValueError(f"no such block: {', '.join(sorted(unknown))}; there are {', '.join(BLOCKS)}")
    written: dict[str, Any] = {"planes": activation_bits, "encoding": encoding(activation_bits)}

    def conv(name: str, inputs: tuple[str, ...], channels: int, block: str, kernel: int = 3, up: int = 1) -> Layer:
        weights = "masked" if block in masked or not block else "binary"
        return Layer(name, "conv", inputs, channels, weights, kernel, up, block=block, **written)

    def double(block: str, inputs: tuple[str, ...], channels: int) -> list[Layer]:
        name = block.lower()
        return [
            conv(f"{name}.conv1", inputs, channels, block),
            conv(f"{name}.conv2", (f"{name}.conv1",), channels, block),
        ]

    down_channels = [width * k for k in (2, 4, 8, 8)]
    up_channels = [width * k for k in (4, 2, 1, 1)]
    flat = [
        Layer("in.conv1", "stem", (IMAGE,), width, "int16", 3, **written),
        conv("in.conv2", ("in.conv1",), width, ""),
    ]
    skips = ["in.conv2"]
    for i, channels in enumerate(down_channels, 1):
        flat.append(Layer(f"down{i}.pool", "pool", (flat[-1].name,), flat[-1].channels, **written))
        flat += double(f"Down{i}", (f"down{i}.pool",), channels)
        skips.append(f"down{i}.conv2")
    for i, channels in enumerate(up_channels, 1):
        block = f"CT{i}"
        flat.append(conv(block.lower(), (flat[-1].name,), flat[-1].channels, block, kernel=1, up=2))
        flat += double(f"Up{i}", (skips[4 - i], block.lower()), channels)
    flat.append(Layer("head", "head", (flat[-1].name,), classes, "int16", 1))
    return flat


def encoding(activation_bits: int) -> str:
    """How activations are written: one bit is a sign, two are a level. Raises ValueError for other widths."""
    if activation_bits not in (1, 2):
        raise ValueError(f"activations have 1 or 2 bits, not {activation_bits}")
    return "sign" if activation_bits == 1 else "unsigned"


def block_costs(flat: Iterable[Layer], height: int, width: int) -> list[BlockCost]:
    """What each block costs for one image of `height` x `width` pixels, in the order of first appearance.

    A 3x3 convolution costs 9 * Cin * Cout operations per output pixel. A transposed one costs Cin * Cout per output
    pixel, and that enters at half weight: so computed, `mbu.cost_scores` reproduces the paper's Table A.4.
    """
    flat = list(flat)
    tensors, costs = ops.tensors(flat), dict[str, BlockCost]()
    for layer in flat:
        if not layer.block:
            continue
        weights = ops.weight_count(layer, tuple(tensors[name] for name in layer.inputs))
        pixels = height * width // tensors[layer.inputs[0]].stride ** 2
        cost = costs.get(layer.block, BlockCost(layer.block, 0, 0))
        weight = 1 / layer.up  # a transposed one's four weights at half each
        costs[layer.block] = BlockCost(
            layer.block, cost.operations + weight * pixels * weights, cost.parameters + weights
        )
    return list(costs.values())
