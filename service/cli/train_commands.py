"""Commands around training: `train`, `export`, `eval`."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.images import Selection
from service.cli import flags, terminal
from service.cli.flags import UserError
from service.cli.terminal import progress

if TYPE_CHECKING:
    from engine.model import Model, Preprocessing
    from engine.train.data.dataset import Parts, Sample
    from engine.train.data.files import DataError

SUFFIX = ".safetensors"  # of model files


def add(commands: Any) -> None:
    """Add them to the parser's commands."""
    _train_flags(flags.command(commands, train))
    _export_flags(flags.command(commands, export))
    _evaluate_flags(flags.command(commands, evaluate, "eval"))


@flags.with_torch
def train(args: argparse.Namespace) -> int:
    """From a folder of images/ and masks/ to a served model and a report; the same command goes on where it stopped."""
    from engine.train.trainer import Interrupted

    given = _training_settings(args)
    part = args.bits_only or given.get("full_precision", False)
    try:
        return _train_part(given) if part else _train_all(given)
    except Interrupted as stopped:
        print(f"mbunet: {stopped}", file=sys.stderr)
        return 130


def _train_all(given: dict[str, Any]) -> int:
    """The whole recipe."""
    from engine.train.recipe.run import Recipe

    if "minutes" in given and "samples" in given:
        raise UserError("a budget is one of --minutes or of --samples, not both")
    recipe = Recipe(given, gone=terminal.seconds_since_start())
    with _interrupts(recipe.stop):
        outcome = recipe.run()
    print("", *outcome.summary, "next:", *(f"  {command}" for command in outcome.commands), sep="\n")
    return 0


def _train_part(given: dict[str, Any]) -> int:
    """One stage alone: a checkpoint."""
    from engine.train import threads
    from engine.train.config import Config
    from engine.train.data import leaks
    from engine.train.recipe import finish, record
    from engine.train.trainer import Trainer

    if (Path(given["out"]) / record.FILE).is_file():
        raise UserError(
            f"{given['out']} holds a whole recipe: go on without --full-precision and --bits-only, "
            "or choose another output folder"
        )
    threads.choose()
    trainer = Trainer(Config(**given))
    if not trainer.step and (said := leaks.warning(trainer.training, trainer.validation)):
        print(f"warning: {said}")
    with _interrupts(trainer.stop):
        found = trainer.run()
    print(f"validation: {found}")
    taken = finish.best([trainer.out], print)
    after = f"train {shlex.quote(given['data'])} -o RUN --teacher {shlex.quote(str(taken))}"
    if not trainer.config.full_precision:
        after = f"export {shlex.quote(str(taken))} MODEL.safetensors"
    print(f"checkpoint: {trainer.checkpoint}\nnext: mbunet {after}")
    return 0


def _training_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Those that were given; --masked as names of blocks."""
    from engine import strategy
    from engine.train.config import Config
    from engine.train.data import dataset, layouts

    given, default = flags.training_of(args), Config(args.data, args.out)
    found = layouts.recognize(args.data)
    if found.samples and not dataset.usable(found.samples):
        raise UserError(f"{args.data} is a test part: nothing is learned from it; mbunet eval --part test scores on it")
    if found.classes:
        given.setdefault("classes", found.classes)
    if "init" in given:
        given = _taken_over(given, default) | given
    if given.get("classes") and "class_name" in vars(args):
        raise UserError("--class-name is for masks of one class; these have several, which --classes names")
    if "masked" in vars(args):
        cost = strategy.CostModel(args.cost_model, args.w_op, args.w_param, given.get("zeros", default.zeros))
        width = given.get("width", default.width)
        given["masked"] = strategy.choose(given["masked"], cost, width, args.sweep_csv, args.within)
        if given.get("family", default.family) == default.family:
            print(f"masked blocks: {' '.join(given['masked']) or 'none'}")
    return given


def _taken_over(given: dict[str, Any], default: Any) -> dict[str, Any]:
    """What a run takes over from the one that it begins from, where nothing else is asked for."""
    from engine.train import pretrained

    taken = pretrained.settings(given["init"])
    unlike = {name: value for name, value in taken.items() if name not in given and value != getattr(default, name)}
    if unlike:
        print(
            f"as {given['init']}: " + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in unlike.items())
        )
    return taken


@contextmanager
def _interrupts(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` at the first Ctrl-C; the second one is what it always is."""

    def first(*_: Any) -> None:
        signal.signal(signal.SIGINT, before)
        print("\nmbunet: stops within a few steps and saves; once more to stop at once", file=sys.stderr)
        stop()

    before = signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@flags.with_torch
def export(args: argparse.Namespace) -> int:
    """Turn a checkpoint into a model file and prove that it computes the same bits."""
    from engine.train.export import config_of, export

    if args.out.suffix != SUFFIX:
        raise UserError(f"{args.out}: a model file's name ends in {SUFFIX}")
    one_class = [
        f"--{name}" for name in ("class-name", "threshold") if getattr(args, name.replace("-", "_")) is not None
    ]
    if one_class and config_of(args.checkpoint).classes:
        raise UserError(f"{args.checkpoint} has several classes and takes no {', '.join(one_class)}")
    path = export(
        args.checkpoint,
        args.out,
        name=args.name,
        class_name=args.class_name or "",
        threshold=0.5 if args.threshold is None else args.threshold,
        selection=Selection(args.channel, args.page),
    )
    print(_model(str(path)).provenance["removed"], path, sep="\n")
    return 0


def evaluate(args: argparse.Namespace) -> int:
    """Print Dice, IoU, F1, precision and recall of a model on a folder of images/ and masks/, by class."""
    from engine.train import card, evaluate, split
    from engine.train.config import Config
    from service.core import params

    flags.require_folders(args.csv, args.card)
    if args.pictures:
        flags.require("--pictures", "matplotlib")
    described = _model(args.model) if args.card else None
    config = Config(out="", **flags.training_of(args, "data", *flags.DATA))
    selection = params.selection(_preprocessing(args.model), config.selection)
    everything = split.samples(config, selection)
    parts = _parts(args, everything) if args.part in evaluate.DIVIDED else None
    failures: list[DataError] = []
    samples = evaluate.select(everything, args.part, config.share, config.seed, failures.append, parts)
    with flags.trained_engine_of(args.model, flags.settings_of(args)) as engine:
        _require_thresholds(args, engine.model)
        rows = evaluate.evaluate(
            engine,
            progress(samples, "image"),
            args.threshold,
            args.otsu,
            engine.class_names,
            closely=True,
            failed=failures.append,
            min_area=args.objects or 0,
        )
        if args.pictures and rows:
            from engine.train import pictures

            how = _preprocessing(args.model)
            written = pictures.write(args.pictures, engine, samples, rows, how, args.threshold)
            print(f"the {len(written)} images that it does worst on: {args.pictures}")
    for failure in failures:
        print(f"mbunet: {failure}", file=sys.stderr)
    if not rows:
        raise UserError("none of the images could be scored")
    if args.csv:
        evaluate.write_csv(rows, args.csv)
    if described:
        args.card.write_text(card.write(described, rows, args.part), encoding="utf-8")
    print(evaluate.table(rows))
    if confused := evaluate.confusion_table(rows, engine.class_names):
        print(f"\n{confused}\n")
    if salient := evaluate.salient(rows):
        print(f"as salient objects are scored: {salient}")
    print(f"expected calibration error of the probabilities: {evaluate.calibration_error(rows):.4f}")
    if args.thresholds:
        scored = {row.name for row in rows}
        print(f"\n{_thresholds(args, [sample for sample in samples if sample.name in scored])}")
    if args.objects:
        print(f"\nobjects of at least {args.objects} pixels, matched above an IoU of .5:")
        print(evaluate.object_table(rows))
    if failures:
        print(f"{len(failures)} images could not be scored")
    return 1 if failures else 0


def _require_thresholds(args: argparse.Namespace, model: Model) -> None:
    """Raise UserError for --threshold and --thresholds where the most probable of several classes is taken."""
    flags.require_threshold(model, args.threshold)
    if args.thresholds and len(model.classes) > 1:
        raise UserError(f"model {model.name} has several classes and no threshold: --thresholds is of one class")


def _thresholds(args: argparse.Namespace, samples: Sequence[Sample]) -> str:
    """The scores of many thresholds on `samples`, as text."""
    from engine.train import thresholds

    with flags.trained_engine_of(args.model, flags.settings_of(args)) as engine:
        loaded = (sample.load() for sample in progress(samples, "image"))
        scores = thresholds.dice((engine.probabilities(image)[..., 0], mask) for image, mask in loaded)
    return thresholds.table(scores, thresholds.best(scores))


def _model(name: str) -> Model:
    from engine.format import load
    from engine.runtime import resolve

    found = flags.trained(name)
    return load(resolve(found)) if isinstance(found, str) else found


def _preprocessing(name: str) -> Preprocessing:
    """Of a model file or a checkpoint."""
    if not flags.is_checkpoint(name):
        return _model(name).preprocessing
    flags.require_torch()
    from engine.train.export import config_of

    return config_of(name).preprocessing


def _parts(args: argparse.Namespace, everything: Sequence[Sample]) -> Parts | None:
    """The split that a model file or a checkpoint has kept; None where another one is asked for."""
    from engine.train import split
    from engine.train.data.dataset import VALIDATION
    from engine.train.renamed import current

    if anew := flags.training_of(args, "validation", "group", "seed"):
        if not {"validation", "seed"} <= anew.keys() and not any(sample.part == VALIDATION for sample in everything):
            raise UserError("another split than the model's own takes both --validation and --seed")
        return None
    if not flags.is_checkpoint(args.model):
        return split.kept(current(_model(args.model).provenance), everything)
    flags.require_torch()
    from engine.train import pretrained

    found = pretrained.load(args.model)
    how = {"validation": found.config.validation, "seed": found.config.seed}
    return found.parts or split.kept({"split": how, "group": found.config.group}, everything)


def _train_flags(command: argparse.ArgumentParser) -> None:
    flags.add_data(command)
    command.add_argument("-o", "--out", required=True, help="folder for report, model file and checkpoints")
    groups = flags.add_training_by_group(command)
    alone = "the bits alone, by --init and --teacher: a checkpoint, neither exported nor compared"
    groups["recipe"].add_argument("--bits-only", action="store_true", help=alone)
    masking = command.add_argument_group("choosing masked blocks", "how --masked N and --masked auto choose them")
    masking.add_argument("--cost-model", default="bmma", metavar="X", help="bmma or cpu (default: bmma)")
    weight = "equation 2's weight of"
    masking.add_argument("--w-op", type=float, default=0.5, metavar="X", help=f"{weight} operations (default: 0.5)")
    masking.add_argument("--w-param", type=float, default=0.5, metavar="X", help=f"{weight} parameters (default: 0.5)")
    masking.add_argument("--sweep-csv", type=Path, metavar="FILE", help="of auto: the table that mbunet sweep wrote")
    masking.add_argument("--within", type=float, default=0.01, metavar="X", help="Dice auto may lose (default: 0.01)")


def _export_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("checkpoint", type=Path)
    command.add_argument("out", type=Path, help="the model file to write, ending in " + SUFFIX)
    command.add_argument("--name", default="", help="name of the model; by default the file's")
    command.add_argument("--class-name", help="what the foreground shows; by default as the run was told")
    command.add_argument("--threshold", type=flags.share, help=f"{flags.THRESHOLD_HELP} by default (0.5)")
    for part in ("channel", "page"):
        meaning = f"{part} that the model takes of images that have several, from 0, or max; by default the run's own"
        command.add_argument(f"--{part}", type=flags.part, metavar="X", help=meaning)


def _evaluate_flags(command: argparse.ArgumentParser) -> None:
    from engine.train.evaluate import PARTS

    command.add_argument("model", help=flags.TRAINED_HELP)
    flags.add_data(command)
    command.add_argument("--part", choices=PARTS, default="all", help="default: all")
    flags.add_training(command, *flags.DATA)
    flags.renamed(command, "--share", "--validation")
    command.add_argument("--threshold", type=flags.share, help=flags.THRESHOLD_HELP)
    curve = "print mean Dice by thresholds from .05 to .95, the best marked: mbunet export --threshold takes it"
    command.add_argument("--thresholds", action="store_true", help=curve)
    command.add_argument("--otsu", action="store_true", help="score Otsu's threshold beside the model")
    objects = "score objects of at least N pixels too, without splitting those that touch and with it (N: 1)"
    command.add_argument("--objects", type=flags.count, nargs="?", const=1, metavar="N", help=objects)
    command.add_argument("--csv", type=Path, help="write the scores of every image to this file")
    worst = "write the images that it does worst on, with its masks, at full size to this folder"
    command.add_argument("--pictures", type=Path, metavar="FOLDER", help=worst)
    command.add_argument("--card", type=Path, help="write a model card (Markdown) to this file")
    flags.add_settings(command, *flags.ENGINE)
