"""`python -m tests.bench.modules A.so B.so ...`: native modules with CUDA in turns, on one GPU.

Each is built of some state of `csrc` for this Python, and runs in a process of its own under the Python of this tree.
For networks of random weights and every batch the modules take turns; printed are the median microseconds of a batch on
the GPU alone (a CUDA graph, replayed), the ratio to the first module with the interval that covers the true median of
the rounds with 95 %, and where masks differ from the first one's. `--layers` prints every layer too, each replayed
alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.builds import interval

ROOT = Path(__file__).parents[2]
NETWORKS = ("masked", "binary")

WORKER = """
import importlib.util, json, sys, zlib
import numpy as np
import engine

spec = importlib.util.spec_from_file_location("engine._native", sys.argv[1])
sys.modules["engine._native"] = engine._native = importlib.util.module_from_spec(spec)
spec.loader.exec_module(engine._native)

from engine.networks import unet
from engine.plan import compile_plan
from engine.backends.cuda import CudaBackend
from tests.models import random_model

gpu, width, size, repeats = map(int, sys.argv[2:])
image = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
backends = {}
for line in sys.stdin:
    network, batch, layers = json.loads(line)
    if network not in backends:
        model = random_model(width, masked=unet.BLOCKS if network == "masked" else (), zeros=0.9)
        backends[network] = [layer.name for layer in model.layers], CudaBackend(compile_plan(model), gpu)
    names, backend = backends[network]
    masks, _ = backend.run([image] * batch, [0] * batch, False)
    session, steps = backend.session, len(names)
    found = {"whole": session.seconds(0, steps, repeats), "masks": zlib.crc32(b"".join(map(bytes, masks)))}
    if layers:
        found["layers"] = {name: session.seconds(i, i + 1, repeats) for i, name in enumerate(names)}
    print(json.dumps(found), flush=True)
"""
"""What a process runs: of a module it needs what all have had since sessions could time their steps."""


class Module:
    """A native module, in its process."""

    def __init__(self, path: Path, gpu: int, width: int, size: int, repeats: int) -> None:
        self.name = str(path)
        command = [sys.executable, "-c", WORKER, str(path.resolve()), *map(str, (gpu, width, size, repeats))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def measure(self, network: str, batch: int, layers: bool) -> dict[str, Any]:
        """Seconds of a batch, and of its layers; the checksum of its masks."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([network, batch, layers]), file=self._process.stdin, flush=True)
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def turns(modules: Sequence[Module], network: str, batch: int, rounds: int, layers: bool) -> list[list[dict[str, Any]]]:
    """What every module has measured in every round, the order turning round from one to the next."""
    found: list[list[dict[str, Any]]] = [[] for _ in modules]
    for turn in range(rounds):
        order = range(len(modules))
        for which in order if turn % 2 == 0 else reversed(order):
            found[which].append(modules[which].measure(network, batch, layers))
    return found


def print_cell(network: str, batch: int, modules: Sequence[Module], found: Sequence[Sequence[dict[str, Any]]]) -> None:
    """A network at one batch size: a line a module, and where layers were asked for a line a layer."""
    first = found[0]
    for module, own in zip(modules, found, strict=True):
        ratios = [mine["whole"] / its["whole"] for mine, its in zip(own, first, strict=True)]
        low, high = interval(ratios)
        same = "" if {one["masks"] for one in own} == {first[0]["masks"]} else "  MASKS DIFFER"
        print(
            f"{network:<8}{batch:>4}  {module.name:<24}{1e6 * statistics.median(one['whole'] for one in own):>10.1f} us"
            f"{statistics.median(ratios):>8.3f}  {low:.3f} to {high:.3f}{same}",
            flush=True,
        )
    for layer in first[0].get("layers", ()):
        each = (1e6 * statistics.median(one["layers"][layer] for one in own) for own in found)
        print(f"{'':<14}{layer:<24}" + "".join(f"{us:>10.1f}" for us in each), flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="+", type=Path)
    parser.add_argument("--layers", action="store_true", help="every layer too")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    numbers = {"gpu": 0, "width": 64, "size": 512, "rounds": 5, "repeats": 20}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    modules = [Module(path, args.gpu, args.width, args.size, args.repeats) for path in args.modules]
    for network in args.networks:
        for batch in args.batches:
            print_cell(network, batch, modules, turns(modules, network, batch, args.rounds, args.layers))
    for module in modules:
        module.close()


if __name__ == "__main__":
    main()
