"""The paper's network as a flat list of layers, for any width and any choice of masked blocks (DESIGN section 3)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from engine.format import IMAGE, Layer

BLOCKS = tuple(f"{kind}{i}" for kind in ("Down", "CT", "Up") for i in (1, 2, 3, 4))
"""The twelve blocks between which the cost-aware strategy chooses: binary or masked."""


@dataclass(frozen=True)
class BlockCost:
    """What one block costs per image: multiply-accumulates (transposed ones at half weight) and weights."""

    block: str
    operations: float
    parameters: int


def layers(width: int = 64, classes: int = 1, masked: Collection[str] = BLOCKS) -> list[Layer]:
    """Flat layer list of MBU-Net; blocks named in `masked` hold -1/0/+1 weights, the others +-1.

    `width` is the first layer's channels (64 in the paper). `classes` is the number of logits per pixel: 1 for
    foreground against background. The input block's second convolution is always masked (section 3.2).
    """
    unknown = set(masked) - set(BLOCKS)
    if unknown:
        raise ValueError(f"no such block: {', '.join(sorted(unknown))}; there are {', '.join(BLOCKS)}")

    def kind(block: str) -> str:
        return "masked" if block in masked else "binary"

    def double(block: str, inputs: tuple[str, ...], channels: int) -> list[Layer]:
        name = block.lower()
        return [
            Layer(f"{name}.conv1", "conv3x3", inputs, channels, kind(block), block),
            Layer(f"{name}.conv2", "conv3x3", (f"{name}.conv1",), channels, kind(block), block),
        ]

    down_channels = [width * k for k in (2, 4, 8, 8)]
    up_channels = [width * k for k in (4, 2, 1, 1)]
    flat = [
        Layer("in.conv1", "pixels3x3", (IMAGE,), width, "int16"),
        Layer("in.conv2", "conv3x3", ("in.conv1",), width, "masked"),
    ]
    skips = ["in.conv2"]
    for i, channels in enumerate(down_channels, 1):
        flat.append(Layer(f"down{i}.pool", "pool2x2", (flat[-1].name,), flat[-1].channels))
        flat += double(f"Down{i}", (f"down{i}.pool",), channels)
        skips.append(f"down{i}.conv2")
    for i, channels in enumerate(up_channels, 1):
        block = f"CT{i}"
        flat.append(Layer(block.lower(), "upconv2x2", (flat[-1].name,), flat[-1].channels, kind(block), block))
        flat += double(f"Up{i}", (skips[4 - i], block.lower()), channels)
    flat.append(Layer("head", "head1x1", (flat[-1].name,), classes, "int16"))
    return flat


def block_costs(flat: Iterable[Layer], height: int, width: int) -> list[BlockCost]:
    """What each block costs for one image of `height` x `width` pixels, in the order of first appearance.

    A 3x3 convolution costs 9 * Cin * Cout operations per output pixel. A transposed one costs Cin * Cout per output
    pixel, and that enters at half weight: so computed, `mbu.cost_scores` reproduces the paper's Table A.4.
    """
    sizes, channels = {IMAGE: height * width}, {IMAGE: 3}
    costs: dict[str, BlockCost] = {}
    for layer in flat:
        pixels, channels_in = sizes[layer.inputs[-1]], sum(channels[name] for name in layer.inputs)
        pixels = {"pool2x2": pixels // 4, "upconv2x2": pixels * 4}.get(layer.op, pixels)
        sizes[layer.name], channels[layer.name] = pixels, layer.channels
        if layer.block:
            products = channels_in * layer.channels
            cost = costs.get(layer.block, BlockCost(layer.block, 0, 0))
            weight = 0.5 if layer.op == "upconv2x2" else 9
            costs[layer.block] = BlockCost(
                layer.block, cost.operations + weight * pixels * products, cost.parameters + layer.taps * products
            )
    return list(costs.values())
