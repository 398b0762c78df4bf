"""What commands have in common: their errors, settings by flag or environment, and values that are checked."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from service.settings import Settings, load

if TYPE_CHECKING:
    from engine.runtime import Engine

ENGINE = ("device", "kernel", "threads")
MODEL_HELP = "model file, or the name of a shipped model"
THRESHOLD_HELP = "probability at which a pixel is foreground"


class UserError(Exception):
    """Something that the person at the terminal can put right; the message says what."""


def command(commands: Any, run: Callable[[argparse.Namespace], int], name: str = "") -> argparse.ArgumentParser:
    """A new command that runs `run`, by its name and docstring."""
    made: argparse.ArgumentParser = commands.add_parser(
        name or run.__name__, help=run.__doc__, description=run.__doc__, allow_abbrev=False
    )
    made.set_defaults(run=run)
    return made


def renamed(command: argparse.ArgumentParser, old: str, new: str) -> None:
    """Answer a flag of before with what it is called now; it is not taken any more."""
    command.add_argument(old, nargs="?", action=_Renamed, const=new, default=argparse.SUPPRESS, help=argparse.SUPPRESS)


class _Renamed(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        parser.error(f"{self.option_strings[0]} is now called {self.const}")


def add_settings(command: argparse.ArgumentParser, *names: str) -> None:
    """Add a flag for each of the settings `names`."""
    for field in fields(Settings):
        if field.name in names:
            flag = "--" + field.name.replace("_", "-")
            command.add_argument(flag, metavar="X", help=f"{field.metadata['meaning']} (default: {field.default})")


def settings_of(args: argparse.Namespace) -> Settings:
    """Settings from the environment and from those flags that the command has."""
    return load(os.environ, {field.name: vars(args).get(field.name) for field in fields(Settings)})


def engine_of(settings: Settings) -> Engine:
    """The engine that the settings name. Raises EngineError."""
    from service.core import engine

    return engine.load(settings.model, settings)


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must lie between 0 and 1, not {text}")
    return value


def count(text: str) -> int:
    """A whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return value
