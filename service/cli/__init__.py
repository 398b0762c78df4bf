"""The command `mbunet`: one function per subcommand. Whatever is slow to import is imported where it is needed."""

from __future__ import annotations

import argparse
import functools
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.cli import engine_commands, flags, train_commands
from service.cli.terminal import progress
from service.settings import Settings, SettingsError

if TYPE_CHECKING:
    from engine.format import Model
    from engine.train.evaluate import Segments
    from service.cli.bulk import Outcome

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp"})
DATA_HELP = "folder with images/ and masks/"
THRESHOLD_HELP = "probability at which a pixel is foreground"


class UserError(Exception):
    """Something that the person at the terminal can put right; the message says what."""


def serve(args: argparse.Namespace) -> int:
    """Serve a model over HTTP."""
    from service.server import serve

    return serve(flags.settings_of(args))


def segment(args: argparse.Namespace) -> int:
    """Write the masks of images and folders, computed here, by a server or by a Ray cluster; what is there stays."""
    from service.cli import bulk

    targets = _targets(_images(args.images), args.out)
    todo = [source for source, target in targets.items() if args.overwrite or not bulk.is_done(target, args.overlay)]
    if len(todo) < len(targets):
        there = f"{len(targets) - len(todo)} of {len(targets)} masks are there already"
        print(f"mbunet: {there}; --overwrite makes them anew", file=sys.stderr)
    failures = []
    try:
        for _, outcome in zip(progress(todo, "image"), _outcomes(args, todo), strict=True):
            if outcome.failure:
                failures.append(f"mbunet: {outcome.source}: {outcome.failure}")
            else:
                bulk.write(outcome, targets[outcome.source])
    finally:
        print(*failures, sep="\n", end="\n" if failures else "", file=sys.stderr)
    return 1 if failures else 0


def _outcomes(args: argparse.Namespace, sources: Sequence[Path]) -> Iterator[Outcome]:
    """What becomes of the images, from where the flags want it."""
    from service.cli import bulk

    job = bulk.Job(flags.settings_of(args), args.threshold, args.overlay)
    if not sources:
        return iter(())
    if args.url:
        return bulk.by_server(job, sources, args.url, args.parallel, args.patience)
    if not args.ray:
        return bulk.here(job, sources)
    from service.cli import cluster

    try:
        return cluster.segment(job, sources)
    except ImportError:
        raise UserError("--ray needs Ray: pip install 'mbunet[ray]'") from None


def train(args: argparse.Namespace) -> int:
    """Train on a folder of images/ and masks/; resumes where an interrupted run stopped."""
    _require_torch()
    from engine import strategy
    from engine.train.config import Config
    from engine.train.trainer import Trainer

    names = {field.name for field in fields(Config)}
    given: dict[str, Any] = {name: value for name, value in vars(args).items() if name in names}
    given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    if "masked" in given:
        default = Config(args.data, args.out)
        cost = strategy.CostModel(args.cost_model, args.w_op, args.w_param, given.get("zeros", default.zeros))
        width = given.get("width", default.width)
        given["masked"] = strategy.choose(given["masked"], cost, width, args.sweep_csv, args.within)
        print(f"masked blocks: {' '.join(given['masked']) or 'none'}")
    trainer = Trainer(Config(**given))
    scores = trainer.run()
    print(f"validation: Dice {scores.dice:.4f}, IoU {scores.iou:.4f}, F1 {scores.f1:.4f} over {scores.images} images")
    print(f"checkpoint: {trainer.checkpoint}\nnext: mbunet export {trainer.checkpoint} MODEL.safetensors")
    return 0


def export(args: argparse.Namespace) -> int:
    """Turn a checkpoint into a model file and prove that it computes the same bits."""
    _require_torch()
    from engine.train.export import export

    path = export(args.checkpoint, args.out, name=args.name, class_name=args.class_name)
    print(_model(str(path)).provenance["removed"], path, sep="\n")
    return 0


def evaluate(args: argparse.Namespace) -> int:
    """Print mean Dice, IoU and F1 of a model on a folder of images/ and masks/."""
    from engine.train import card, evaluate
    from engine.train.data import layouts

    samples = evaluate.select(layouts.samples(args.data), args.part, args.share, args.seed)
    with _scored(args) as engine:
        rows = evaluate.evaluate(
            engine, progress(samples, "image"), args.threshold, args.otsu, engine.class_names, calibration=True
        )
    if args.csv:
        evaluate.write_csv(rows, args.csv)
    if args.card:
        args.card.write_text(card.write(_model(args.model), rows, args.part), encoding="utf-8")
    print(evaluate.table(rows))
    print(f"expected calibration error of the probabilities: {evaluate.calibration_error(rows):.4f}")
    return 0


def _model(name: str) -> Model:
    from engine.format import load
    from engine.runtime import resolve

    return load(resolve(name))


def _scored(args: argparse.Namespace) -> AbstractContextManager[Segments]:
    """The engine to score; a trainer's checkpoint (.pt) is run by torch, full precision included."""
    if not str(args.model).endswith(".pt"):
        return flags.engine_of(flags.settings_of(args))
    _require_torch()
    from engine.train.export import CheckpointEngine

    return nullcontext(CheckpointEngine(args.model))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status: 0, 1 for work that failed, 2 for wrong usage."""
    args = parser().parse_args(arguments)
    try:
        status: int = args.run(args)
    except SettingsError as error:
        print(f"mbunet: {error}", file=sys.stderr)
        return 2
    except _user_errors() as error:
        print(f"mbunet: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def parser() -> argparse.ArgumentParser:
    """Every command with its flags. Settings keep their defaults in `Settings`, training's in `Config`."""
    top = argparse.ArgumentParser(prog="mbunet", description="Segmentation by U-Nets on single bits.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    flags.add_settings(_command(commands, serve), *(field.name for field in fields(Settings)))
    _segment_flags(_command(commands, segment))
    _train_flags(_command(commands, train))
    _export_flags(_command(commands, export))
    _evaluate_flags(_command(commands, evaluate, "eval"))
    train_commands.data_flags(_command(commands, train_commands.data))
    train_commands.sweep_flags(_command(commands, _with_torch(train_commands.sweep)))
    train_commands.table_flags(_command(commands, _with_torch(train_commands.table)))
    engine_commands.info_flags(_command(commands, engine_commands.info))
    engine_commands.bench_flags(_command(commands, engine_commands.bench))
    engine_commands.selftest_flags(_command(commands, engine_commands.selftest))
    return top


def _command(commands: Any, run: Any, name: str = "") -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(
        name or run.__name__, help=run.__doc__, description=run.__doc__, allow_abbrev=False
    )
    made.set_defaults(run=run)
    return made


def _segment_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("images", nargs="+", type=Path, metavar="IN", help="image files, or folders of them")
    command.add_argument("-o", "--out", required=True, type=Path, help="folder for NAME.png, or one .png file")
    command.add_argument("--overlay", action="store_true", help="write NAME.overlay.png as well")
    command.add_argument("--threshold", type=flags.share, help=THRESHOLD_HELP)
    command.add_argument("--overwrite", action="store_true", help="make masks anew that are there already")
    where = command.add_mutually_exclusive_group()
    where.add_argument("--url", help="ask this server instead of computing here, as in http://localhost:8080")
    where.add_argument("--ray", action="store_true", help="compute on a Ray cluster: RAY_ADDRESS, or this machine's")
    command.add_argument(
        "--parallel", type=flags.count, default=8, metavar="N", help="requests at a time, to --url (8)"
    )
    seconds = "seconds for which a server that is lost or full is asked again (60)"
    command.add_argument("--patience", type=float, default=60.0, metavar="S", help=seconds)
    flags.add_settings(command, "model", "max_pixels", "api_key", *flags.ENGINE)


def _train_flags(command: argparse.ArgumentParser) -> None:
    """What is not given stays out of the namespace, so that Config's own defaults hold."""
    command.add_argument("data", help=DATA_HELP)
    command.add_argument("-o", "--out", required=True, help="folder for checkpoint, log and pictures")
    kinds = {
        "width": (int, "channels of the first layer (64 is the paper's network)"),
        "crops": (int, "the budget: crops seen in all"),
        "batch": (int, "crops in one step"),
        "crop": (int, "side of a crop in pixels"),
        "rate": (float, "highest learning rate"),
        "zeros": (float, "share of zeros in masked layers at the end"),
        "zeros_from": (float, "share of zeros at the start, from which it climbs over half of the run"),
        "zeros_by": (str, "layer: zero weights, alike in every layer; cost: zero products of all layers together"),
        "soften": (float, "share of the run in which activations harden from a line to bits"),
        "contrast": (str, "none, or stretch every image to its own grey range"),
        "resize": (int, "side that every image is resized to first; 0, the default: images keep their size"),
        "validation": (float, "share of the samples that no training step sees"),
        "seed": (int, "of split, crops and weights"),
        "repeat": (int, "of crops and weights alone: another run on the same split"),
        "init": (str, "checkpoint to start from"),
        "teacher": (str, "full-precision checkpoint to learn from"),
        "validate_every": (int, "steps between two looks at the validation images"),
        "device": (str, "torch device"),
    }
    for name, (kind, meaning) in kinds.items():
        flag = "--" + name.replace("_", "-")
        command.add_argument(flag, type=kind, metavar="X", default=argparse.SUPPRESS, help=meaning)
    lists = {
        "masked": "masked blocks: all, none, their names, the N cheapest to mask, or auto (needs --sweep-csv)",
        "weights": "quantiser of masked weights, or BLOCK=QUANTISER: masked, twn, max-abs, seq, int8, int4",
        "classes": "names of the classes of index masks, the background first",
        "without": "parts of the recipe to leave out: geometry, colour, dice, norms",
    }
    for name, meaning in lists.items():
        command.add_argument(f"--{name}", nargs="*", metavar="X", default=argparse.SUPPRESS, help=meaning)
    command.add_argument("--floating", action="store_true", help="a full-precision network: a teacher")
    command.add_argument("--cost-model", default="bmma", help="for --masked: bmma (default) or cpu")
    command.add_argument("--w-op", type=float, default=0.5, metavar="X", help="equation 2's weight of operations (0.5)")
    command.add_argument("--w-param", type=float, default=0.5, metavar="X", help="its weight of parameters (0.5)")
    command.add_argument("--sweep-csv", type=Path, help="for --masked auto: the table that mbunet sweep has written")
    command.add_argument("--within", type=float, default=0.01, metavar="X", help="Dice that auto may lose (0.01)")


def _export_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("checkpoint", type=Path)
    command.add_argument("out", type=Path, help="the model file to write, ending in .safetensors")
    command.add_argument("--name", default="", help="name of the model; by default the file's")
    command.add_argument("--class-name", default="foreground", help="what the foreground shows")


def _evaluate_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", help=flags.MODEL_HELP)
    command.add_argument("data", help=DATA_HELP)
    command.add_argument("--part", choices=("validation", "training", "all"), default="all", help="default: all")
    command.add_argument("--share", type=flags.share, default=0.2, help="of the samples held for validation (0.2)")
    command.add_argument("--seed", type=int, default=0, help="of the split into training and validation (0)")
    command.add_argument("--threshold", type=flags.share, help=THRESHOLD_HELP)
    command.add_argument("--otsu", action="store_true", help="score Otsu's threshold beside the model")
    command.add_argument("--csv", type=Path, help="write the scores of every image to this file")
    command.add_argument("--card", type=Path, help="write a model card (Markdown) to this file; not for checkpoints")
    flags.add_settings(command, *flags.ENGINE)


def _images(given: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            found += sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"{path}: no such file or folder")
    if not found:
        raise UserError(f"no images ({', '.join(sorted(IMAGE_SUFFIXES))}) in {', '.join(map(str, given))}")
    return found


def _targets(images: Sequence[Path], out: Path) -> dict[Path, Path]:
    """Where every image's mask goes; raises UserError rather than write two masks to one file, or over an image."""
    one_file = len(images) == 1 and out.suffix.lower() == ".png" and not out.is_dir()
    targets = {image: out if one_file else out / f"{image.stem}.png" for image in images}
    if len(set(targets.values())) < len(targets):
        raise UserError("two of the images have one name: their masks would be written to one file")
    for image, target in targets.items():
        if target.resolve() == image.resolve():
            raise UserError(f"{image}: its mask would be written over it; choose another folder")
    return targets


def _require_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise UserError("this command needs PyTorch: pip install 'mbunet[train]'")


def _with_torch(command: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    @functools.wraps(command)
    def run(args: argparse.Namespace) -> int:
        _require_torch()
        return command(args)

    return run


def _user_errors() -> tuple[type[Exception], ...]:
    """Errors that say enough in one line. Model files, data folders and training settings raise ValueErrors."""
    from engine.runtime import EngineError

    return UserError, EngineError, OSError, ValueError
