"""The command `mbunet`. Whatever is slow to import is imported where it is needed."""

from __future__ import annotations

import argparse
import io
import os
import select
import sys
from collections.abc import Sequence
from typing import Any

from service.cli import data_commands, engine_commands, experiment_commands, serve_commands, train_commands
from service.cli.flags import UserError
from service.settings import SettingsError

STDOUT = 1  # its file descriptor
SIGPIPE_STATUS = 128 + 13  # a shell's, of what SIGPIPE has ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status: 0, 1 for work that failed, 2 for wrong usage.

    Where nobody reads its output any more, as behind `| head`, it ends without a word.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for names of files that are no text
    try:
        try:
            args = parser().parse_args(arguments)
            status: int = args.run(args)
        finally:
            print(end="", flush=True)  # here, since where Python ends it is too late for handlers
    except SettingsError as error:
        print(f"mbunet: {error}", file=sys.stderr)
        return 2
    except _user_errors() as error:
        if isinstance(error, BrokenPipeError) and _is_unread():
            return SIGPIPE_STATUS
        print(f"mbunet: {error}", file=sys.stderr)
        return 1
    except MemoryError:
        print("mbunet: there is no memory for this: choose smaller sizes, or of training --batch, --crop or --width",
              file=sys.stderr)  # fmt: skip
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def parser() -> argparse.ArgumentParser:
    """Every command with its flags. Settings keep their defaults in `Settings`, training's in `Config`."""
    top = argparse.ArgumentParser(prog="mbunet", description="Segmentation by U-Nets on single bits.")
    top.add_argument("--version", action=_Version, nargs=0, default=argparse.SUPPRESS, help="show the version and exit")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for group in (serve_commands, train_commands, data_commands, experiment_commands, engine_commands):
        group.add(commands)
    return top


class _Version(argparse.Action):
    """As argparse's own, but the version is looked up when it is asked for: sources can run without an installation."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"{parser.prog} {version('mbunet')}")
        parser.exit()


def _is_unread() -> bool:
    """Whether standard output is the pipe that is broken; what is left to be flushed then goes nowhere."""
    output = select.poll()
    output.register(STDOUT, 0)
    is_broken = bool(output.poll(0))
    if is_broken:
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
    return is_broken


def _user_errors() -> tuple[type[Exception], ...]:
    """Errors that say enough in one line. Model files, data folders and training settings raise ValueErrors."""
    from engine.runtime import EngineError

    return UserError, EngineError, OSError, ValueError
