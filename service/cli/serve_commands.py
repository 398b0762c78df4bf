"""Commands that serve a model and segment images: `serve`, `segment`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import whole
from engine.images import SUFFIXES, ObjectParams, Selection, is_named_image
from service.cli import flags
from service.cli.flags import UserError
from service.cli.terminal import progress
from service.settings import Settings

if TYPE_CHECKING:
    from service.cli.bulk import Outcome


HERE = ("max_pixels", *flags.ENGINE)
"""Settings of what computes on this machine."""
ASKED = ("api_key", "parallel", "retry_deadline")
"""Flags of how a server is asked."""
FILES = (".safetensors", ".pt")
SHOWN = 3  # folders that a line names


def add(commands: Any) -> None:
    """Add them to the parser's commands."""
    flags.add_all_settings(flags.command(commands, serve))
    _segment_flags(flags.command(commands, segment))


def serve(args: argparse.Namespace) -> int:
    """Serve a model over HTTP."""
    settings = flags.settings_of(args)
    if settings.front_ends > 1:
        from service.processes import supervisor

        return supervisor.serve(settings)
    from service import server

    return server.serve(settings)


def segment(args: argparse.Namespace) -> int:
    """Write masks of images, or a table of objects, computed here, by a server or by Ray; masks that are there stay."""
    from service.cli import bulk, object_table

    _objects(args)
    _require_used(args)
    flags.require_folders(args.table)
    images = _images(args.images, args.out)
    targets = _targets(images, args.out, args.overlay) if args.out else {}
    for folder in {target.parent for target in targets.values()}:
        whole.remove_abandoned(folder)
    kept = set() if args.overwrite else {s for s, target in targets.items() if bulk.is_done(target, args.overlay)}
    if kept:
        there = f"{len(kept)} of {len(targets)} masks are there already"
        print(f"mbunet: {there}; --overwrite makes them anew", file=sys.stderr)
    todo = images if args.table else [source for source in images if source not in kept]
    failures: list[Outcome] = []
    rows: list[list[Any]] = []
    remarks: list[str] = []
    done = 0
    try:
        for _, outcome in zip(progress(todo, "image"), _outcomes(args, todo), strict=True):
            if outcome.failure:
                failures.append(outcome)
                continue
            if outcome.mask and outcome.source not in kept:
                bulk.write(outcome, targets[outcome.source])
            found = object_table.rows_of(outcome.source, outcome.objects) if args.table else []
            rows += found
            remarks += _remarks(outcome, bool(args.table and not found))
            done += 1
    finally:
        for remark in remarks:
            print(remark, file=sys.stderr)
        if failures or done < len(todo):
            print(_summary(failures, done, len(todo)), file=sys.stderr)
    if args.table:
        whole.write(args.table, object_table.csv_of(rows))
    return 1 if failures else 0


def _remarks(outcome: Outcome, is_empty: bool) -> list[str]:
    """What neither masks nor table show: that a file has more than what was taken, and that an image has no objects."""
    told = [f"{outcome.taken} was taken"] if outcome.taken else []
    told += ["no objects"] if is_empty else []
    return [f"mbunet: {outcome.source}: {'; '.join(told)}"] if told else []


def _summary(failures: Sequence[Outcome], done: int, wanted: int) -> str:
    """What failed and why, and how much of what was wanted is done."""
    lines = [f"mbunet: {failure.source}: {failure.failure}" for failure in failures]
    untried = wanted - done - len(failures)
    rest = f", {untried} were not tried" if untried else ""
    return "\n".join([*lines, f"mbunet: {done} of {wanted} images segmented, {len(failures)} failed{rest}"])


def _outcomes(args: argparse.Namespace, sources: Sequence[Path]) -> Iterator[Outcome]:
    """What becomes of the images, from where the flags want it."""
    from service.cli import bulk

    model = "" if args.url else flags.one_model(args)
    selection = Selection(args.channel, args.page)
    settings, masks = flags.settings_of(args), bool(args.out)
    job = bulk.Job(model, settings, args.threshold, args.overlay, selection, masks, _objects(args))
    if not sources:
        return iter(())
    if args.url:
        given = {"parallel": args.parallel, "retry_deadline_s": args.retry_deadline}
        how = {name: value for name, value in given.items() if value is not None}
        return bulk.by_server(job, sources, bulk.Server(args.url, args.model, **how))
    if not args.ray:
        return bulk.here(job, sources)
    from service.cli import cluster

    try:
        return cluster.segment(job, sources)
    except ImportError:
        raise UserError("--ray needs Ray: pip install -e '.[ray]'") from None


def _require_used(args: argparse.Namespace) -> None:
    """Raise UserError for flags of what computes here beside --url, for those of a server without it."""
    idle = HERE if args.url else ASKED
    given = [f"--{name.replace('_', '-')}" for name in idle if getattr(args, name) is not None]
    if given:
        where = "of this machine's engine: --url has a server's compute" if args.url else "of asking a server: --url"
        raise UserError(f"{', '.join(given)}: {where}")
    if args.url and args.model and ("/" in args.model or Path(args.model).suffix in FILES):
        raise UserError(f"--model {args.model}: beside --url it is the name of one of the server's models")


def _objects(args: argparse.Namespace) -> ObjectParams | None:
    """What counts as an object, where they are wanted; raises UserError for flags that go nowhere."""
    if not (args.out or args.table):
        raise UserError("say where to: -o FOLDER for masks, --table FILE.csv for objects")
    if args.overlay and not args.out:
        raise UserError("--overlay needs -o FOLDER")
    if args.table:
        return ObjectParams(args.split == "distance", args.min_area or 1)
    if args.split or args.min_area:
        raise UserError("--split and --min-area say what is an object: they need --table FILE.csv")
    return None


def _segment_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("images", nargs="+", type=Path, metavar="IN", help="image files, or folders of them")
    command.add_argument("-o", "--out", type=Path, help="folder for NAME.png, or one .png file")
    command.add_argument("--overlay", action="store_true", help="write NAME.overlay.png as well")
    command.add_argument("--table", type=Path, metavar="FILE.csv", help="write a row for every object of all images")
    flags.add_objects(command)
    command.add_argument("--threshold", type=flags.share, help=flags.THRESHOLD_HELP)
    default = "the model's, or the first; colors are taken whole"
    several = f"of images that have several: a number from 0, or max for the maximum of all (default: {default})"
    command.add_argument("--channel", type=flags.part, metavar="C", help=several)
    command.add_argument("--page", type=flags.part, metavar="P", help=several)
    command.add_argument("--overwrite", action="store_true", help="make masks anew that are there already")
    where = command.add_mutually_exclusive_group()
    where.add_argument(
        "--url",
        help="ask this server instead of computing here, as in http://localhost:8080",
    )
    where.add_argument("--ray", action="store_true", help="compute on a Ray cluster: RAY_ADDRESS, or this machine's")
    command.add_argument("--parallel", type=flags.count, metavar="N", help="requests at a time, to --url (8)")
    seconds = "seconds for which a server that is lost or full is asked again (60)"
    command.add_argument("--retry-deadline", type=float, metavar="S", help=seconds)
    flags.renamed(command, "--patience", "--retry-deadline")
    model = f"{flags.TRAINED_HELP} (default: {Settings().models[0]}); with --url, one of the server's models"
    command.add_argument("--model", metavar="X", help=model)
    flags.add_settings(command, "max_pixels", "api_key", *flags.ENGINE)


def _images(given: Sequence[Path], out: Path | None) -> list[Path]:
    """Files, and what folders hold; what lies deeper is told. Raises UserError where there is none."""
    found: list[Path] = []
    known = {path.resolve() for path in (*given, *([out] if out else []))}
    for path in given:
        if path.is_dir():
            _say_passed_over(path, known)
            found += sorted(file for file in path.iterdir() if is_named_image(file) and not file.is_dir())
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"{path}: no such file or folder")
    if not found:
        raise UserError(f"no images ({', '.join(SUFFIXES)}) in {', '.join(map(str, given))}")
    return found


def _say_passed_over(folder: Path, known: Collection[Path]) -> None:
    """One line on the folders in `folder` but for those that are `known`."""
    inside = [f.name for f in sorted(folder.iterdir()) if f.is_dir() and f.name[0] != "." and f.resolve() not in known]
    if inside:
        names = ", ".join([*inside[:SHOWN], *(["…"] if len(inside) > SHOWN else [])])
        print(f"mbunet: {folder}: folders in it are passed over ({names}); name them too for theirs", file=sys.stderr)


def _targets(images: Sequence[Path], out: Path, overlay: bool) -> dict[Path, Path]:
    """Where every image's mask goes; raises UserError rather than write two files to one place, over an image,
    or to a folder that is called as a file.
    """
    from service.cli import bulk

    one_file = len(images) == 1 and out.suffix.lower() == ".png" and not out.is_dir()
    if not one_file:
        _require_folder(out, len(images))
    targets = {image: out if one_file else out / f"{image.stem}.png" for image in images}
    own = {image.resolve(): f"{image} itself" for image in images}
    taken = dict(own)
    for image, target in targets.items():
        for what, file in (("mask", target), ("overlay", bulk.overlay_of(target)))[: 1 + overlay]:
            place = file.resolve()
            if bulk.is_other(what, file):
                other = "an overlay" if what == "mask" else "a mask"
                raise UserError(f"{image}: its {what} would be written over {file}, {other}; choose another folder")
            if place in taken:
                way_out = "choose another folder" if place in own else "rename one, or segment them separately"
                raise UserError(f"{image}: its {what} would be written over {taken[place]}; {way_out}")
            taken[place] = f"the {what} of {image}"
    return targets


def _require_folder(out: Path, images: int) -> None:
    """Raise UserError where `out`, for the masks of so many images, is a file, or is called as if it were one."""
    if out.is_dir():
        return
    if out.suffix.lower() == ".png":
        raise UserError(f"{out}: one file for the masks of {images} images; name a folder")
    if out.suffix.lower() in SUFFIXES or out.exists():
        raise UserError(f"{out}: masks are written as PNG, to a folder or to one .png file; name one of these")
