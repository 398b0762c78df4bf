"""`python -m tests.bench.training`: samples a second of a masked student that learns from a teacher, on noise.

Contenders are every one of --pythons (interpreters that have a build) with every one of --launches; they take turns,
each in a process of its own. Printed are their medians, and their ratio to the first: its median over the rounds, and
the interval that covers the true median with 95 %. A contender's first turn warms it up and counts for nothing.
With `--profile` it is then written to a file of that name in which kernels the first contender spends its time.
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

OWN = ("pythons", "launches", "steps", "rounds", "profile")
"""Options of the comparison; the others are settings of the run."""

WORKER = """
import dataclasses, json, sys, tempfile
from pathlib import Path
import numpy as np
import torch
from PIL import Image
from engine.train.config import Config
from engine.train.trainer import Trainer

given, steps = json.loads(sys.argv[1]), int(sys.argv[2])
known = {field.name for field in dataclasses.fields(Config)}
with tempfile.TemporaryDirectory() as folder:
    rng = np.random.default_rng(0)
    for part, shape in (("images", (512, 512, 3)), ("masks", (512, 512))):
        (Path(folder) / part).mkdir()
        for k in range(8):
            noise = rng.integers(0, 2, shape, np.uint8) * 255
            Image.fromarray(noise).save(Path(folder) / part / f"{k}.png")
    config = Config(folder, folder + "/run", **{name: value for name, value in given.items() if name in known})
    teacher = Trainer(dataclasses.replace(config, out=folder + "/teacher", full_precision=True), quiet=True)
    teacher.save()
    run = Trainer(dataclasses.replace(config, teacher=str(teacher.checkpoint)), quiet=True)
    run.step = 1  # where no masking thresholds are due
    for line in sys.stdin:
        if not line.strip():
            print(run.speed(steps), flush=True)
            continue
        with torch.profiler.profile() as profile:
            speed = run.speed(steps)
        by = "self_cuda_time_total" if run.device.type == "cuda" else "self_cpu_time_total"
        table = profile.key_averages().table(sort_by=by, row_limit=100, max_name_column_width=120)
        Path(line.strip()).write_text(table)
        print(speed, flush=True)
"""
"""What a process runs: of a build it needs what every one has had since trainers measured their speed."""


class Contender:
    """A build, launched in one way, in its process."""

    def __init__(self, python: str, settings: dict[str, Any], steps: int) -> None:
        command = [python, "-c", WORKER, json.dumps(settings), str(steps)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/")

    def speed(self) -> float:
        """Samples a second of some steps."""
        return self._ask()

    def profile(self, to: Path) -> None:
        """Write where the time of some steps goes."""
        self._ask(str(to.resolve()))

    def _ask(self, line: str = "") -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(line, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def parser() -> argparse.ArgumentParser:
    """What may be asked for."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--pythons", nargs="+", default=[sys.executable])
    found.add_argument("--launches", nargs="+", default=["auto"])
    found.add_argument("--device", default="auto")
    found.add_argument("--profile", type=Path)
    numbers = {"width": 64, "batch": 16, "crop": 224, "activation-bits": 1, "workers": -1, "steps": 3, "rounds": 5}
    for name, default in numbers.items():
        found.add_argument(f"--{name}", type=int, default=default)
    return found


def turns(contenders: Sequence[Contender], rounds: int) -> list[list[float]]:
    """Speeds of every contender in every round, the order turning round from one to the next."""
    for contender in contenders:
        contender.speed()
    found: list[list[float]] = [[] for _ in contenders]
    for turn in range(rounds):
        order = range(len(contenders))
        for which in order if turn % 2 == 0 else reversed(order):
            found[which].append(contenders[which].speed())
    return found


def main() -> None:
    """Measure and print."""
    args = parser().parse_args()
    settings = {name: value for name, value in vars(args).items() if name not in OWN}
    named = [(python, launch) for python in args.pythons for launch in args.launches]
    contenders = [Contender(python, settings | {"launch": launch}, args.steps) for python, launch in named]
    found = turns(contenders, args.rounds)
    for (python, launch), own in zip(named, found, strict=True):
        ratios = [mine / first for mine, first in zip(own, found[0], strict=True)]
        low, high = interval(ratios)
        print(
            f"{python} {launch}: {statistics.median(own):8.1f} samples/s, "
            f"{statistics.median(ratios):.3f} of the first ({low:.3f} to {high:.3f})"
        )
    if args.profile:
        contenders[0].profile(args.profile)
    for contender in contenders:
        contender.close()


if __name__ == "__main__":
    main()
