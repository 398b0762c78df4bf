"""Our networks on a GPU beside PyTorch's: time by layer and whole, share of the binary Tensor Cores' peak, joules.

All in one process and one run, one contender after the other. "Device" is the network alone, pixels and masks lying in
the GPU's memory, replayed as a CUDA graph; "call" goes from pixels in pinned memory to masks in the host's memory.
PyTorch runs the full-precision network of the same shape, batch norm folded away, channels last, compiled, as a CUDA
graph too.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine import _native, mbu, roofline
from engine.backends import registry
from engine.backends.cuda import CudaBackend
from engine.networks import unet
from engine.plan import compile_plan
from engine.runtime import Engine
from service.cli.terminal import table
from tests.bench.contenders import fold_norm, image
from tests.models import random_model

BATCHES, QUICK_BATCHES = (1, 8, 64), (1, 8)
ZEROS = 0.9
TORCH = {"FP32": ("float32", False), "TF32": ("float32", True), "FP16": ("float16", True), "BF16": ("bfloat16", True)}
QUICK_TORCH = ("FP16",)
REPEATS, CALLS = 20, 20
LOAD_S = 2.0  # long against the 100 ms at which NVML's counter may be refreshed


@dataclass(frozen=True)
class Row:
    """One contender at one batch size: medians in seconds per batch, joules per image where they can be read."""

    name: str
    batch: int
    device_s: float
    call_s: float
    image_joules: float | None

    @property
    def images_per_s(self) -> float:
        """Images that the device alone takes in a second."""
        return self.batch / self.device_s


def main(
    device: str,
    width: int,
    size: int,
    batches: Sequence[int] = BATCHES,
    formats: Sequence[str] = tuple(TORCH),
    out: Path | None = None,
) -> None:
    """Measure on `device` ("cuda:0") beside PyTorch in these formats; print tables. `out` takes everything as JSON.

    What is ours comes first: a run that is cut short has it.
    """
    index = int(device.partition(":")[2] or 0)
    gpu = _native.gpus()[index]
    print(f"{gpu.name}, compute capability {gpu.capability / 10}, width {width}, {size} x {size}, random weights")
    networks = {name: random_model(width, masked=blocks, zeros=ZEROS) for name, blocks in masks(width, size).items()}
    layers = by_layer(networks["cost-aware"], device, size)
    print_head()
    found = {"gpu": gpu.name, "capability": gpu.capability, "width": width, "size": size, "zeros": ZEROS}
    rows = []

    def add(row: Row) -> None:
        print_row(row)
        rows.append(asdict(row))
        if out:
            out.write_text(json.dumps(found | {"layers": layers, "rows": rows}, indent=1))

    for batch in batches:
        for name, model in networks.items():
            add(ours(name, model, device, gpu.bus, batch, size))
    for batch in batches:
        for name in formats:
            add(torch_row(name, index, gpu.bus, batch, width, size))


def masks(width: int, size: int) -> dict[str, tuple[str, ...]]:
    """Blocks that are masked, by the network's name: none, the cheaper half by the paper's cost score, all."""
    costs = unet.block_costs(unet.layers(width), size, size)
    scores = mbu.cost_scores([cost.operations for cost in costs], [cost.parameters for cost in costs])
    cheapest = [costs[i].block for i in np.argsort(scores, kind="stable")]
    return {"binary": (), "cost-aware": tuple(cheapest[: len(cheapest) // 2]), "masked": unet.BLOCKS}


def by_layer(model: Any, device: str, size: int, batch: int = 8) -> list[dict[str, Any]]:
    """Kernel, microseconds, and tera-operations per second of every layer in a batch; their share of the peak."""
    backend = registry.choose(compile_plan(model), device, 0, "auto")[1]
    assert isinstance(backend, CudaBackend)
    rows = roofline.gpu_layer_times(model, backend, size, batch, REPEATS)
    peak = backend.session.peak()
    print(f"\nby layer, cost-aware, batch {batch}; products of bits alone: {peak / 1e12:.0f} Top/s")
    print(table(roofline.gpu_report(rows, peak)))
    return [
        asdict(row) | {"tops": row.rate and row.rate / 1e12, "of peak": row.rate and row.rate / peak} for row in rows
    ]


def ours(name: str, model: Any, device: str, bus: str, batch: int, size: int) -> Row:
    """One of our networks."""
    with Engine.load(model, device=device) as engine:
        images = [decoded(engine, size) for _ in range(batch)]
        steps = len(engine.model.layers)
        call_s = timed(lambda: engine.run(images))
        session = engine._backend.session  # type: ignore[attr-defined]
        device_s = statistics.median(session.seconds(0, steps, REPEATS) for _ in range(CALLS))
        launches: int = max(1, round(LOAD_S / (REPEATS * device_s)))

        def load() -> int:
            session.seconds(0, steps, REPEATS, launches)
            return (1 + launches) * REPEATS * batch  # the first launch warms up

        joules = joules_per_image(bus, load)
    return Row(f"mbunet, {name}", batch, device_s, call_s, joules)


def decoded(engine: Engine, size: int) -> Any:
    """The image where `torch_network` has it too: in memory that the GPU reads by itself."""
    pixels = engine.empty((size, size, 3))
    pixels[...] = image(size)
    return pixels


def torch_row(name: str, index: int, bus: str, batch: int, width: int, size: int) -> Row:
    """PyTorch in one of its number formats."""
    import torch

    with torch.cuda.device(index), torch.inference_mode():
        replay, call = torch_network(name, batch, width, size)

        device_s = statistics.median(events(replay) for _ in range(CALLS))
        replays = max(1, round(LOAD_S / device_s))

        def load() -> int:
            for _ in range(replays):
                replay()
            torch.cuda.synchronize()
            return replays * batch

        row = Row(f"PyTorch {name}", batch, device_s, timed(call), joules_per_image(bus, load))
    torch.cuda.empty_cache()
    torch.compiler.reset()
    return row


def torch_network(name: str, batch: int, width: int, size: int) -> tuple[Callable[[], None], Callable[[], Any]]:
    """(replay of the network's graph on the device, the whole call from host pixels to host masks)."""
    import torch

    from engine.train.network import Network

    kind, fast = TORCH[name]
    dtype = getattr(torch, kind)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = fast
    torch.backends.cudnn.benchmark = True
    network = Network(unet.layers(width), full_precision=True).eval()
    for stage in network.stages.values():
        if hasattr(stage, "norm"):
            fold_norm(stage)
    network.to(device="cuda", dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    host = torch.from_numpy(np.stack([image(size)] * batch)).pin_memory()
    pixels = host.cuda()

    def forward(nhwc: Any) -> Any:
        with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            return (network(nhwc.permute(0, 3, 1, 2))[:, 0] >= 0).to(torch.uint8)

    compiled = torch.compile(forward)
    with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
        for _ in range(3):
            masks = compiled(pixels)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        masks = compiled(pixels)

    def call() -> Any:
        pixels.copy_(host, non_blocking=True)
        graph.replay()
        return masks.cpu()

    return graph.replay, call


def timed(call: Callable[[], Any]) -> float:
    """Median seconds of a call that returns when its work is done."""
    seconds = []
    for turn in range(-3, CALLS):
        started = time.perf_counter()
        call()
        if turn >= 0:
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def events(replay: Callable[[], None]) -> float:
    """Mean device seconds of a graph's replay among REPEATS."""
    import torch

    started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    started.record()
    for _ in range(REPEATS):
        replay()
    ended.record()
    torch.cuda.synchronize()
    return 1e-3 * float(started.elapsed_time(ended)) / REPEATS


def joules_per_image(bus: str, load: Callable[[], int]) -> float | None:
    """Joules of the GPU's board per image under `load`, which returns how many it has run; None where NVML has none.

    All that runs between the two readings is counted; `load` lasts about LOAD_S, against which the gaps are short.
    """
    with nvml_counter(bus) as read:
        before = read()
        if before is None:
            return None
        images = load()
        after = read()
    return None if after is None else (after - before) / images


@contextmanager
def nvml_counter(bus: str) -> Iterator[Callable[[], float | None]]:
    """A function that reads the joules that the GPU at this PCI address has used so far, None where it cannot."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception as error:
        print(f"no joules: {error}")
        yield lambda: None
        return
    handle = pynvml.nvmlDeviceGetHandleByPciBusId(bus)

    def read() -> float | None:
        try:
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
        except pynvml.NVMLError:
            return None

    yield read
    pynvml.nvmlShutdown()


def print_head() -> None:
    """Over the lines of the networks' table."""
    print(f"\n{'':<22}{'batch':>6}{'device ms':>11}{'call ms':>10}{'images/s':>10}{'J/image':>10}", flush=True)


def print_row(row: Row) -> None:
    """A line of the networks' table, at once: a run that is cut short leaves what it has."""
    joules = "-" if row.image_joules is None else f"{row.image_joules:.5f}"
    times = f"{1e3 * row.device_s:>11.3f}{1e3 * row.call_s:>10.3f}{row.images_per_s:>10.0f}"
    print(f"{row.name:<22}{row.batch:>6}{times}{joules:>10}", flush=True)
