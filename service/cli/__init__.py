"""The command `mbunet`. Whatever is slow to import is imported where it is needed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from service.cli import data_commands, engine_commands, experiment_commands, serve_commands, train_commands
from service.cli.flags import UserError
from service.settings import SettingsError


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


def _user_errors() -> tuple[type[Exception], ...]:
    """Errors that say enough in one line. Model files, data folders and training settings raise ValueErrors."""
    from engine.runtime import EngineError

    return UserError, EngineError, OSError, ValueError
