"""Commands around data sets: `data check`."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from service.cli import flags, terminal
from service.cli.terminal import progress


def add(commands: Any) -> None:
    """Add them to the parser's commands."""
    _data_flags(flags.command(commands, data))


def data(args: argparse.Namespace) -> int:
    """Look at a folder of images and masks, and say everything that is wrong with it."""
    from engine.train import split
    from engine.train.config import Config
    from engine.train.data import dataset, facts, layouts
    from engine.train.data.check import check
    from engine.train.recipe import plan

    config = Config(out="", **flags.training_of(args, "data", *flags.DATA))
    found = layouts.recognize(args.data, config.selection)
    own = dataset.grouped(found.samples, config.group)
    found = replace(found, samples=split.with_held(own, config, config.selection))
    print(f"{args.data}: {found.layout}, {len(found.samples)} samples")
    if found.classes:
        print(f"classes: {', '.join(found.classes)}")
    counts = {part: sum(sample.part == part for sample in found.samples) for part in dataset.PARTS}
    if any(counts.values()):
        print("its own parts: " + ", ".join(f"{part} {count}" for part, count in counts.items() if count))
    strata, split_groups = {s.stratum for s in found.samples}, {s.split_group for s in found.samples}
    for label, values in (("strata", strata), ("split groups", split_groups)):
        if values - {""}:
            print(f"{label}: {len(values)}")
    seen: list[facts.SampleFacts] = []
    classes = args.classes or len(found.classes)
    faults = check(found, classes, config.share, config.seed, lambda samples: progress(samples, "sample"), seen.append)
    if seen:
        names = found.classes or tuple(f"class {k}" for k in range(classes))
        looks = facts.of_samples(seen, names)
        print(*looks.lines, *(f"from which follows: {choice}" for choice in plan.of_folder(looks)), sep="\n")
    if not faults:
        print("nothing is wrong")
    if not any(fault.stops for fault in faults):
        print(f"next: {_train_command(args) if dataset.usable(own) else _test_command(args)}")
    if not faults:
        return 0
    rows = [{"file": _below(fault.file, args.data), "what is wrong": fault.what} for fault in faults]
    print(f"\n{terminal.table(rows)}\n\n{len(faults)} faults in {len({fault.file for fault in faults})} files")
    return 1


def _train_command(args: argparse.Namespace) -> str:
    """That for the folder of `data check`, with what was given there."""
    given = flags.training_of(args, *flags.DATA)
    words = [f"--{name} {shlex.quote(str(value))}" for name, value in given.items()]
    if args.classes:
        words.append("--classes background " + " ".join(f"NAME{k}" for k in range(1, args.classes)))
    places = shlex.join([str(args.data), "-o", f"runs/{args.data.resolve().name}"])
    return " ".join(["mbunet train", places, *words])


def _test_command(args: argparse.Namespace) -> str:
    """What scores on the folder of `data check` where it is a test part, of which nothing is learned."""
    return shlex.join(["mbunet", "eval", "MODEL", str(args.data), "--part", "test"])


def _below(file: Path, folder: Path) -> str:
    """The path of `file` from `folder` on."""
    return str(file.relative_to(folder)) if file.is_relative_to(folder) else str(file)


def _data_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("action", choices=["check"])
    flags.add_data(command, Path)
    command.add_argument("--classes", type=int, default=0, metavar="N", help="masks hold class indices 0 to N - 1")
    flags.add_training(command, *flags.DATA)
