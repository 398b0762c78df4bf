"""Commands around training: look at a data folder, run the paper's table and its sweeps."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def data(args: argparse.Namespace) -> int:
    """Look at a folder of images and masks, and say everything that is wrong with it."""
    from engine.train.data import layouts

    found = layouts.recognize(args.data)
    sizes = sorted({sample.size for sample in found.samples}) if not found.problems else []
    print(f"{args.data}: {found.layout}, {len(found.samples)} samples")
    strata, split_groups = {s.stratum for s in found.samples}, {s.split_group for s in found.samples}
    for label, values in (("strata", strata), ("split groups", split_groups)):
        if values - {""}:
            print(f"{label}: {len(values)}")
    if sizes:
        print(f"sizes (w, h): {len(sizes)}, from {sizes[0]} to {sizes[-1]}")
    problems = found.check(args.classes)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(problems)} problems" if problems else "nothing is wrong")
    return 1 if problems else 0


def sweep(args: argparse.Namespace) -> int:
    """Train many configurations from one shared checkpoint and draw the paper's figures; resumes."""
    from engine.train.experiments import sweep

    plan = sweep.Plan(
        args.data, args.out, **_given(args, "width", "crop", "batch", "crops", "start_crops", "contrast", "resize")
    )
    count = 4096 if args.configurations == "all" else int(args.configurations)
    for path in sweep.run(args.over, plan, count, not args.uniform, args.devices):
        print(path)
    return 0


def table(args: argparse.Namespace) -> int:
    """Train every method on the same data with the same budget: the paper's Table 1; resumes."""
    from engine.train.experiments import table

    plan = table.Plan(
        args.data, args.out, **_given(args, "width", "crop", "batch", "crops", "seeds", "contrast", "resize")
    )
    paths = table.run(plan, args.devices, args.paper, args.over)
    print(paths[1].read_text(), *paths, sep="\n")
    return 0


def data_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("action", choices=["check"])
    command.add_argument("data", type=Path, help="images/ and masks/, or DSB-2018, ISIC or Carvana as downloaded")
    command.add_argument("--classes", type=int, default=0, metavar="N", help="masks hold class indices 0 to N - 1")


def sweep_flags(command: argparse.ArgumentParser) -> None:
    _common_flags(command)
    what = "blocks: which of the twelve are masked; zeros: their share; bits: of the weights of each block"
    command.add_argument("--over", choices=["blocks", "zeros", "bits"], default="blocks", help=what)
    command.add_argument("--configurations", default="64", metavar="N", help="over blocks: how many, or all (64)")
    command.add_argument("--uniform", action="store_true", help="draw them uniformly, not as many of each size")
    _number(command, "--start-crops", "crops that the shared checkpoint sees")


def table_flags(command: argparse.ArgumentParser) -> None:
    _common_flags(command)
    what = "methods: the paper's table; recipe: the parts of our own, one added or left out at a time"
    command.add_argument("--over", choices=["methods", "recipe"], default="methods", help=what)
    _number(command, "--seeds", "runs of every method")
    command.add_argument("--paper", choices=["Carvana", "ISIC", "Nuclei"], default="", help="compare with its column")


def _common_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("data", help="folder with images and masks")
    command.add_argument("-o", "--out", required=True, type=Path, help="folder for tables, pictures and models")
    _number(command, "--width", "channels of the first layer")
    _number(command, "--crop", "side of a crop in pixels")
    _number(command, "--batch", "crops in one step")
    _number(command, "--crops", "crops that each run sees")
    command.add_argument("--contrast", default=argparse.SUPPRESS, help="none, or stretch")
    _number(command, "--resize", "side that every image is resized to first (0: its own)")
    command.add_argument("--devices", nargs="+", default=["cpu"], metavar="D", help="a process each: cpu cpu, cuda:0 …")


def _number(command: argparse.ArgumentParser, flag: str, meaning: str) -> None:
    command.add_argument(flag, type=int, metavar="N", default=argparse.SUPPRESS, help=meaning)


def _given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    return {name: value for name, value in vars(args).items() if name in names}
