"""The cost-aware strategy (section 3.2): what a configuration costs on each backend, and which blocks to mask first.

A configuration is the set of blocks whose weights are masked (-1, 0, +1); the others are binary (-1, +1). Its cost is
counted in *products*: one activation bit times one weight bit, summed over every weight and every pixel that it sees.

* "bmma": Tensor Cores multiply whole tiles. A masked weight is two bits, so it costs two products, zero or not.
* "cpu": the bit-sliced counter visits non-zero weights only. A masked weight costs one product if it is not zero.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine import mbu, ops
from engine.layer import Layer
from engine.networks import unet

BACKENDS = ("bmma", "cpu")
SIDE = 512  # pixels; costs are for one image of this height and width


@dataclass(frozen=True)
class CostModel:
    """How cost is counted: for a backend, with the weights of equation 2 and the zeros that training aims at."""

    backend: str = "bmma"
    w_op: float = 0.5
    w_param: float = 0.5
    zeros: float = 0.9

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ValueError(f"no cost model {self.backend!r}; there are {', '.join(BACKENDS)}")
        if self.w_op < 0 or self.w_param < 0 or self.w_op + self.w_param == 0:
            raise ValueError(f"the weights of the cost score are not negative and not both 0, as {self.w_op} and "
                             f"{self.w_param} are")  # fmt: skip

    def scores(self, flat: Iterable[Layer]) -> dict[str, float]:
        """Cost of masking each block; the cheapest is masked first.

        On BMMA this is equation 2. On a CPU masking takes `zeros` of a block's products and weights away, so the same
        score, times that share, is a saving and counts as negative.
        """
        costs = unet.block_costs(flat, SIDE, SIDE)
        values = mbu.cost_scores([c.operations for c in costs], [c.parameters for c in costs], self.w_op, self.w_param)
        sign = 1.0 if self.backend == "bmma" else -self.zeros
        return {cost.block: float(sign * value) for cost, value in zip(costs, values, strict=True)}

    def ranking(self, flat: Iterable[Layer]) -> list[str]:
        """Blocks, the cheapest to mask first; equal costs keep the network's order."""
        scores = self.scores(flat)
        return sorted(scores, key=scores.__getitem__)


def products(flat: Iterable[Layer], backend: str, zeros: float = 0.9) -> float:
    """Products of the bit convolutions for one image of 512 x 512, `zeros` of the masked weights being zero."""
    per_masked_weight = 2.0 if backend == "bmma" else 1.0 - zeros
    layers = list(flat)
    return sum(
        count * (per_masked_weight if layer.weights == "masked" else 1.0)
        for layer, count in zip(layers, weight_visits(layers), strict=True)
    )


def weight_visits(flat: Sequence[Layer]) -> list[float]:
    """For every layer its weights times the bits that each one sees at 512 x 512; 0 where none are bits."""
    visits, tensors = ops.visits(flat, SIDE), ops.tensors(flat)
    return [
        float(visits[layer.name] * tensors[layer.inputs[0]].planes) if ops.operation(layer).has_bits else 0.0
        for layer in flat
    ]


def choose(
    wanted: Sequence[str], cost: CostModel, width: int, sweep: str | Path | None = None, within: float = 0.01
) -> tuple[str, ...]:
    """The blocks to mask: `all`, `none`, `auto`, a number N (the N cheapest) or the blocks' names.

    `auto` reads the CSV of a sweep over configurations: among those whose Dice is at most `within` below the fully
    masked one's, the cheapest by `cost.backend`'s column. Raises ValueError for what is none of these.
    """
    flat = unet.layers(width)
    if len(wanted) == 1:
        (word,) = wanted
        if word == "auto":
            if sweep is None:
                raise ValueError("--masked auto needs --sweep-csv, the sweep.csv that `mbunet sweep DATA` has written")
            return cheapest_within(sweep, cost.backend, within)
        if word in ("all", "none"):
            return unet.BLOCKS if word == "all" else ()
        if word.isdecimal():
            if int(word) > len(unet.BLOCKS):
                raise ValueError(f"there are {len(unet.BLOCKS)} blocks to mask, not {word}")
            return in_order(cost.ranking(flat)[: int(word)])
    return in_order(wanted)


def in_order(blocks: Collection[str]) -> tuple[str, ...]:
    """`blocks` in the network's order; raises ValueError for a name that is no block."""
    unknown = sorted(set(blocks) - set(unet.BLOCKS))
    if unknown:
        raise ValueError(f"no such block: {', '.join(unknown)}; there are {', '.join(unet.BLOCKS)}")
    return tuple(block for block in unet.BLOCKS if block in blocks)


def cheapest_within(sweep: str | Path, backend: str, within: float) -> tuple[str, ...]:
    """Masked blocks of the sweep's cheapest configuration at most `within` Dice below its fully masked one."""
    with Path(sweep).open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("dice")]
    full = [float(row["dice"]) for row in rows if set(row["masked"].split()) == set(unet.BLOCKS)]
    if not full:
        raise ValueError(f"{sweep}: holds no fully masked configuration to compare with")
    near = [row for row in rows if float(row["dice"]) >= float(np.mean(full)) - within]
    if not near:
        raise ValueError(f"{sweep}: no configuration is within {within} of the fully masked one's mean Dice")
    return in_order(min(near, key=lambda row: float(row[f"{backend}_products"]))["masked"].split())
