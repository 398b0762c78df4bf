"""How near the engine comes to what the machine can do: measured ceilings, and every layer beside them.

On a GPU the ceiling is the rate at which its Tensor Cores multiply bits that lie in registers. On the CPU, bit-sliced
counting spends one carry-save addition on every non-zero weight and vector of positions, so its ceiling is the rate of
those additions when vectors come from L1 (at best), from L2 (deep layers), or from memory.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine import _native, ops
from engine.backends.cpu import CpuBackend
from engine.backends.cuda import CudaBackend
from engine.model import Model
from engine.plan import compile_plan

SOURCES = {"L1": 16 * 2**10, "L2": 512 * 2**10, "memory": 256 * 2**20}
"""Where vectors come from, and bytes of every thread that lie there on any machine of today."""


@dataclass(frozen=True)
class LayerTime:
    """A layer's median milliseconds, its border's included, and the non-zero products it computes (0: none counted)."""

    layer: str
    kind: str  # of the operation (`engine.ops`), or "all else"
    ms: float
    products: int

    @property
    def rate(self) -> float:
        """Non-zero multiply-accumulates per second."""
        return 1e3 * self.products / self.ms


def ceilings(kernel: str, threads: int) -> dict[str, float]:
    """Non-zero multiply-accumulates per second of `threads` threads by SOURCES; an eighth of it is bytes per second."""
    return {source: _native.peak(kernel, threads, size) for source, size in SOURCES.items()}


def layer_times(model: Model, kernel: str, threads: int, size: int, runs: int) -> list[LayerTime]:
    """Every layer of `model` on one `size` x `size` image, and what one whole run takes beyond them."""
    backend = CpuBackend(compile_plan(model), kernel, threads)
    size, _ = model.padded(size, size)
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    backend.run([image], [0], want_logits=False)
    steps, whole = [], []
    for _ in range(runs):
        started = time.perf_counter()
        backend.run([image], [0], want_logits=False)
        whole.append(time.perf_counter() - started)
        steps.append(backend.session.step_seconds)
    products = _products(model, size)
    rows = [
        LayerTime(layer.name, ops.operation(layer).kind, 1e3 * statistics.median(seconds), products[layer.name])
        for layer, seconds in zip(model.layers, zip(*steps, strict=True), strict=True)
    ]
    rest = statistics.median(total - sum(seconds) for total, seconds in zip(whole, steps, strict=True))
    return [*rows, LayerTime("all else", "all else", 1e3 * rest, 0)]


@dataclass(frozen=True)
class GpuLayerTime:
    """A layer's kernel and mean microseconds for a batch, and the operations on bits that it is (0: none)."""

    layer: str
    kernel: str
    weights: str
    us: float
    operations: float

    @property
    def rate(self) -> float | None:
        """Operations per second; None where there are none, and in a layer that the one before has done."""
        return 1e6 * self.operations / self.us if self.operations and self.us else None


def gpu_layer_times(model: Model, backend: CudaBackend, size: int, batch: int, runs: int) -> list[GpuLayerTime]:
    """Every layer of `model` on `batch` images of `size` x `size`, each alone in a graph of `runs` repetitions."""
    size, _ = model.padded(size, size)
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    backend.run([image] * batch, [0] * batch, want_logits=False)
    return [
        GpuLayerTime(
            layer.name,
            backend.explain(i, layer)[0],
            layer.weights,
            1e6 * backend.session.seconds(i, i + 1, runs),
            batch * work,
        )
        for i, (layer, work) in enumerate(zip(model.layers, operations(model, size), strict=True))
    ]


def operations(model: Model, size: int) -> list[float]:
    """By layer: operations of one image on bits, two (multiply, add) for every weight, position and plane.

    Masked weights count twice: they are two bits.
    """
    visits = ops.visits(model.layers, size)
    bits = {"binary": 1, "masked": 2}
    return [
        2.0 * bits.get(layer.weights, 0) * visits[layer.name] * model.outputs[layer.inputs[0]].planes
        for layer in model.layers
    ]


def gpu_report(rows: Sequence[GpuLayerTime], peak: float) -> list[dict[str, str]]:
    """`rows` as a table, with the part of `peak` (operations on bits per second) that each reaches."""
    return [
        {
            "layer": row.layer,
            "us": f"{row.us:.1f}",
            "Top/s": f"{row.rate / 1e12:.0f}" if row.rate else "",
            "of peak": f"{row.rate / peak:.0%}" if row.rate else "",
            "kernel": row.kernel,
        }
        for row in rows
    ]


def report(rows: Sequence[LayerTime], ceiling: float | None = None) -> list[dict[str, str]]:
    """`rows` and their totals as a table; with a `ceiling` (products per second) also the part of it reached."""
    convolutions = [row for row in rows if row.kind == "convolution"]
    others = [row for row in rows if row.kind != "convolution"]
    total = sum(row.ms for row in rows)
    lines = [
        *rows,
        *(_sum(kind, some) for kind, some in (("convolutions", convolutions), ("not convolutions", others))),
    ]
    table = []
    for row in [*lines, LayerTime("whole image", "", total, 0)]:
        cells = {"layer": row.layer, "kind": row.kind, "ms": f"{row.ms:.3f}", "time": f"{row.ms / total:.1%}"}
        cells["non-zero GMAC/s"] = f"{row.rate / 1e9:.0f}" if row.products else ""
        if ceiling:
            cells["of ceiling"] = f"{row.rate / ceiling:.0%}" if row.products else ""
        table.append(cells)
    return table


def _sum(name: str, rows: Sequence[LayerTime]) -> LayerTime:
    return LayerTime(name, "sum", sum(row.ms for row in rows), sum(row.products for row in rows))


def _products(model: Model, size: int) -> dict[str, int]:
    """By layer: non-zero weights times the positions and planes at which each is used; 0 where none are bits."""
    found = dict.fromkeys((layer.name for layer in model.layers), 0)
    for layer in model.layers:
        if ops.operation(layer).has_bits:
            read = model.outputs[layer.inputs[0]]
            found[layer.name] = int(np.count_nonzero(model.ternary(layer))) * read.planes * (size // read.stride) ** 2
    return found
