"""Commands of many training runs: `table` and `sweep`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from service.cli import flags
from service.cli.flags import UserError

SHARED = ("width", "crop", "batch", "samples", "learning_rate", "foreground", "augment", "class_weights", "annealing",
          "zeros", "contrast", "resize", "keep_aspect", "classes", "validation", "group", "seed", "launch")  # fmt: skip
"""Settings of training that all runs of a table or a sweep may share."""

UNUSED_BY_SWEEP = {
    "blocks": ("annealing", "widths"),
    "zeros": ("annealing", "zeros", "widths", "configurations", "uniform"),
    "bits": ("annealing", "widths", "configurations", "uniform"),
    "widths": ("width", "zeros", "configurations", "uniform"),
}
"""Flags of which a sweep has values of its own, or no use for them."""

ALL = 1 << 12
"""Configurations of twelve blocks."""


def add(commands: Any) -> None:
    """Add them to the parser's commands."""
    _sweep_flags(flags.command(commands, sweep))
    _table_flags(flags.command(commands, table))


@flags.with_torch
def sweep(args: argparse.Namespace) -> int:
    """Train many configurations, briefly, and draw what they are worth; goes on where it stopped."""
    from engine.train.experiments import sweep

    if unused := [f"--{name.replace('_', '-')}" for name in UNUSED_BY_SWEEP[args.over] if name in args]:
        raise UserError(f"--over {args.over} has no use for {', '.join(unused)}")
    plan = sweep.plan(**_given(args, "start_samples", "test", "widths"))
    own = {"count": args.configurations} if "configurations" in args else {}
    for path in sweep.run(args.over, plan, stratified="uniform" not in args, devices=args.devices, **own):
        print(path)
    return 0


@flags.with_torch
def table(args: argparse.Namespace) -> int:
    """Train every row of a table on the same data with the same budget; goes on where it stopped."""
    from engine.train.experiments import fine_tuning, table

    if ("init" in args) != (args.over == "fine-tuning"):
        raise UserError(
            "--init, a model file or a shipped model, is what --over fine-tuning begins from, and no other table"
        )
    if args.over == "fine-tuning" and (args.test or args.paper):
        raise UserError("--over fine-tuning scores on what --init has not seen: neither --test nor --paper is of it")
    if args.over != "fine-tuning" and "images" in args:
        raise UserError("--images is of --over fine-tuning, and of no other table")
    if args.over == "fine-tuning":
        paths = fine_tuning.run(fine_tuning.plan(**_given(args, "seeds", "images")), args.devices)
    else:
        plan = table.plan(**_given(args, "seeds", "test"))
        paths = table.run(plan, args.devices, args.paper, args.over)
    print(paths[1].read_text(), *paths, sep="\n")
    return 0


def _sweep_flags(command: argparse.ArgumentParser) -> None:
    _common_flags(command)
    what = (
        "blocks: which of the twelve are masked; zeros: their share; bits: of the weights of each block; "
        "widths: these, activation bits and zeros together, Dice against milliseconds"
    )
    command.add_argument("--over", choices=["blocks", "zeros", "bits", "widths"], default="blocks", help=what)
    over_widths = "over widths: which (8 16 32)"
    command.add_argument("--widths", type=int, nargs="+", metavar="N", default=argparse.SUPPRESS, help=over_widths)
    own: dict[str, Any] = {"default": argparse.SUPPRESS}
    many = "over blocks: how many, or all (64)"
    command.add_argument("--configurations", type=_count_or_all, metavar="N", help=many, **own)
    uniform = "over blocks: draw them uniformly, not as many of each size"
    command.add_argument("--uniform", action="store_true", help=uniform, **own)
    _number(command, "--start-samples", "samples that what the runs begin from sees")
    flags.renamed(command, "--start-crops", "--start-samples")


def _table_flags(command: argparse.ArgumentParser) -> None:
    from engine.train.experiments.rows import PAPER, TABLES

    _common_flags(command)
    what = (
        "methods: MBU-Net's Table 1; recipe: the parts of our training, one added or left out at a time; "
        "bfcn: its bits; multi-branch: its branches and gates; fine-tuning: from --init and from nothing, on few images"
    )
    command.add_argument("--over", choices=[*TABLES, "fine-tuning"], default="methods", help=what)
    few = "of fine-tuning: images to learn from, of those that --init has not seen (10 30 100)"
    command.add_argument("--images", type=flags.count, nargs="+", metavar="N", default=argparse.SUPPRESS, help=few)
    flags.add_training(command, "init")
    _number(command, "--seeds", "runs of every row")
    command.add_argument("--paper", choices=list(PAPER), default="", help="compare with a paper's numbers")


def _common_flags(command: argparse.ArgumentParser) -> None:
    flags.add_data(command)
    command.add_argument("-o", "--out", required=True, type=Path, help="folder for tables, pictures and models")
    flags.add_training(command, *SHARED)
    test = "score on the data set's own test part, or on another folder (./test), in place of the validation part"
    command.add_argument("--test", nargs="?", const="test", default="", metavar="FOLDER", help=test)
    command.add_argument("--devices", nargs="+", default=["cpu"], metavar="D", help="a process each: cpu cpu, cuda:0 …")


def _count_or_all(text: str) -> int:
    return ALL if text == "all" else flags.count(text)


def _number(command: argparse.ArgumentParser, flag: str, meaning: str) -> None:
    command.add_argument(flag, type=int, metavar="N", default=argparse.SUPPRESS, help=meaning)


def _given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """What was given of a plan: settings of training, and the plan's own, `names`; classes as the folder has them."""
    from engine.train.data import layouts

    own = layouts.recognize(args.data).classes
    return (
        {"classes": own}
        | flags.training_of(args)
        | {name: value for name, value in vars(args).items() if name in names}
    )
