"""`python -m tests.bench.builds A B MODEL...`: two builds of the engine in turns, by the interpreters that have them.

A and B are Python interpreters (`TREE/.venv-dev/bin/python`), the models are files that both builds read. Every size is
one image; the builds take turns, A B B A and so on, each in a process of its own. Printed are both medians and the
ratio B / A of every pair of turns: its median, and the interval that covers the true median of the pairs with 95 %.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Sequence
from math import comb
from pathlib import Path

WORKER = """
import sys, time
import numpy as np
from engine.runtime import Engine
model, threads = sys.argv[1], int(sys.argv[2])
engine = Engine.load(model, device="cpu", threads=threads)
for line in sys.stdin:
    size, repeats = map(int, line.split())
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    engine.run([image])
    best = []
    for _ in range(repeats):
        started = time.perf_counter()
        engine.run([image])
        best.append(time.perf_counter() - started)
    print(sorted(best)[len(best) // 2], flush=True)
"""
"""What a process runs: it needs nothing of either tree but the engine."""

TURN = 0.15  # seconds that a turn takes at least


class Build:
    """One build's process."""

    def __init__(self, python: str, model: Path, threads: int) -> None:
        command = [python, "-c", WORKER, str(model.resolve()), str(threads)]
        # elsewhere than in a source tree, from which the engine would be imported without its native module
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/")

    def seconds(self, size: int, repeats: int) -> float:
        """Median of some runs on one `size` x `size` image."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(size, repeats, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def turns(builds: Sequence[Build], size: int, rounds: int) -> list[tuple[float, float]]:
    """Seconds of A and of B in every pair of turns."""
    repeats = max(1, round(TURN / builds[0].seconds(size, 3)))
    pairs = []
    for turn in range(rounds):
        order = (0, 1) if turn % 2 == 0 else (1, 0)
        taken = {which: builds[which].seconds(size, repeats) for which in order}
        pairs.append((taken[0], taken[1]))
    return pairs


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """The order statistics between which the median lies with 95 % (binomial, no assumption on the distribution)."""
    ordered, count = sorted(ratios), len(ratios)
    below, outside = 0, 0.5**count
    while below + 1 < (count + 1) // 2 and outside + comb(count, below + 1) * 0.5**count <= 0.025:
        below += 1
        outside += comb(count, below) * 0.5**count
    return ordered[below], ordered[count - 1 - below]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", help="interpreter of the build before")
    parser.add_argument("b", help="interpreter of the build after")
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--sizes", nargs="+", type=int, default=[256, 512, 1024, 2048])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=25)
    args = parser.parse_args()
    print(f"{'model':<24}{'size':>6}{'A ms':>10}{'B ms':>10}{'B / A':>8}  95 %")
    for model in args.models:
        builds = [Build(python, model, args.threads) for python in (args.a, args.b)]
        for size in args.sizes:
            pairs = turns(builds, size, args.rounds)
            ratios = [b / a for a, b in pairs]
            low, high = interval(ratios)
            before, after = (1e3 * statistics.median(times) for times in zip(*pairs, strict=True))
            ratio = statistics.median(ratios)
            print(
                f"{model.stem:<24}{size:>6}{before:>10.3f}{after:>10.3f}{ratio:>8.3f}  {low:.3f} to {high:.3f}",
                flush=True,
            )
        for build in builds:
            build.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
