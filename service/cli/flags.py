"""What commands have in common: their errors, settings by flag or environment, and values that are checked."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.util
import os
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.images import Choice, read_choice
from service.settings import GONE, Settings, load

if TYPE_CHECKING:
    from engine.model import Model
    from engine.runtime import Engine
    from engine.train.network_engine import NetworkEngine

ENGINE = ("device", "kernel", "threads")
DATA = ("validation", "group", "seed", "channel", "page")
"""Training's flags that say which samples of a folder are for what."""
TRAINING = {"torch": "PyTorch", "matplotlib": "matplotlib", "tqdm": "tqdm"}
"""What the extra `train` installs, by its import's name."""
MODEL_HELP = "model file, or the name of a shipped model"
TRAINED_HELP = "model file, checkpoint, or the name of a shipped model"
THRESHOLD_HELP = "probability at which a pixel is foreground"

_HOW: dict[str, dict[str, Any]] = {
    "int": {"type": int, "metavar": "X"},
    "float": {"type": float, "metavar": "X"},
    "str": {"metavar": "X"},
    "float | str": {"type": lambda text: _number_or_text(text), "metavar": "X"},
    "bool": {"action": "store_true"},
    "tuple[str, ...]": {"nargs": "*", "metavar": "X"},
}
"""How a flag of a setting's type is read."""


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
    _of_before(command, old, f"is now called {new}")


def _of_before(command: argparse.ArgumentParser, old: str, answer: str) -> None:
    command.add_argument(
        old, nargs="?", action=_OfBefore, const=answer, default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )


class _OfBefore(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        parser.error(f"{self.option_strings[0]} {self.const}")


def add_settings(command: argparse.ArgumentParser, *names: str) -> None:
    """Add a flag for each of the settings `names`."""
    for field in fields(Settings):
        if field.name in names:
            meaning = f"{field.metadata['meaning']} (default: {field.default})"
            command.add_argument(_flag(field.name), metavar="X", help=meaning)


def add_all_settings(command: argparse.ArgumentParser) -> None:
    """Add a flag for each of the settings; those of before answer what does their work now."""
    add_settings(command, *(field.name for field in fields(Settings)))
    for name, now in GONE.items():
        _of_before(command, _flag(name), f"is gone: {now}")


def add_objects(command: argparse.ArgumentParser) -> None:
    """Add the flags that say what counts as an object."""
    split = "of objects: cut those that touch at their necks, by the distance to their edges"
    command.add_argument("--split", choices=["distance"], help=split)
    command.add_argument("--min-area", type=count, metavar="N", help="of objects: pixels of the smallest that counts")


def add_data(command: argparse.ArgumentParser, kind: type = str) -> None:
    """Add a data folder, in any layout that is read."""
    from engine.train.data.layouts import LAYOUTS

    downloaded = ", ".join(layout.name for layout in LAYOUTS[1:])
    command.add_argument("data", type=kind, help=f"folder of images/ and masks/, or as it is downloaded: {downloaded}")


def add_training(command: argparse.ArgumentParser, *names: str) -> None:
    """Add a flag for each of the settings `names` of a training run, whose defaults are the command's.

    What is not given stays out of the namespace, so that the defaults in `engine.train.config` hold.
    """
    from engine.train.config import Config

    for setting in fields(Config):
        if setting.name in names:
            _add_setting(command, command, setting, setting.metadata["meaning"])


def add_training_by_group(command: argparse.ArgumentParser) -> dict[str, argparse._ArgumentGroup]:
    """Add a flag for each setting of a training run, in groups, which are returned by name."""
    from engine.train.config import GROUPS, Config

    groups = {name: command.add_argument_group(name, about) for name, about in GROUPS.items()}
    for setting in fields(Config):
        if "group" in setting.metadata:
            meaning, default = setting.metadata["meaning"], setting.metadata["default"]
            told = f"{meaning} (default: {default})" if default else meaning
            _add_setting(command, groups[setting.metadata["group"]], setting, told)
    return groups


def _add_setting(
    command: argparse.ArgumentParser, group: argparse._ActionsContainer, setting: dataclasses.Field[Any], told: str
) -> None:
    from engine.train.renamed import RENAMED

    group.add_argument(_flag(setting.name), default=argparse.SUPPRESS, help=told, **_HOW[str(setting.type)])
    for old, new in RENAMED.items():
        if new == setting.name:
            renamed(command, _flag(old), _flag(new))


def training_of(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Those of the settings `names` of a training run that were given, by default of all."""
    from engine.train.config import Config

    wanted = names or [field.name for field in fields(Config)]
    given = {name: value for name, value in vars(args).items() if name in wanted}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def settings_of(args: argparse.Namespace) -> Settings:
    """Settings from the environment and from those flags that the command has."""
    return load(os.environ, {field.name: vars(args).get(field.name) for field in fields(Settings)})


def one_model(args: argparse.Namespace) -> str:
    """The model of a command that runs one: the one given, else the first of the settings. Raises UserError."""
    given: str | None = args.model
    if given is None:
        return settings_of(args).models[0]
    if "," in given and not Path(given).is_file():
        raise UserError(f"--model {given}: one model is taken here, not several; serve takes several")
    return given


def require_threshold(model: Model, given: float | None) -> None:
    """Raise UserError, in a server's words, for a threshold that `model` has no use for."""
    from service.core import params
    from service.problems import BadParameter

    try:
        params.threshold(model, given)
    except BadParameter as refusal:
        raise UserError(refusal.detail) from None


def trained_engine_of(model: str, settings: Settings) -> Engine | NetworkEngine:
    """The engine of `model`, a checkpoint too; where no kernel runs that, as in full precision, its network itself.

    Raises EngineError, and UserError where there is no PyTorch.
    """
    from service.core import engine

    if not is_checkpoint(model):
        return engine.load(model, settings)
    require_torch()
    from engine.train import export, network_engine

    network, config, _ = export.restore(model)
    name = Path(model).stem
    if not export.exportable(config):
        return network_engine.NetworkEngine(network, config, name)
    return engine.load(export.bare_model(network, config, name), settings)


def is_checkpoint(model: str) -> bool:
    """Whether `model` names a checkpoint of training, not a model file."""
    return model.endswith(".pt")


def trained(model: str) -> str | Model:
    """The model of a checkpoint; what names a model file or a shipped model stays. Raises UserError and ValueError."""
    if not is_checkpoint(model):
        return model
    require_torch()
    from engine.train.export import model_of

    return model_of(model)


def require_torch() -> None:
    """Raise UserError where what training is made of is not installed; a checkpoint is read by the same."""
    require("this command", *TRAINING)


def require(what: str, *packages: str) -> None:
    """Raise UserError where one of the `packages` of the extra `train`, which `what` needs, is not installed."""
    missing = [TRAINING[package] for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise UserError(f"{what} needs {' and '.join(missing)}: make trainer, or pip install -e '.[train]'")


def require_folders(*files: Path | None) -> None:
    """Raise UserError where a file that is to be written at the end would have no folder to lie in."""
    for file in files:
        if file and not file.parent.is_dir():
            raise UserError(f"{file} cannot be written: there is no folder {file.parent}")


def with_torch(command: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """`command`, which raises UserError where what training is made of is not installed."""

    @functools.wraps(command)
    def run(args: argparse.Namespace) -> int:
        require_torch()
        try:
            return command(args)
        except RuntimeError as error:
            if not re.search("not enough memory|out of memory", str(error)):
                raise
            raise MemoryError from error

    return run


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must lie between 0 and 1, not {text}")
    return value


def _number_or_text(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def part(text: str) -> Choice:
    """A channel or page: a number from 0, or max."""
    try:
        return read_choice(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}, not {text!r}") from None


def count(text: str) -> int:
    """A whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return value


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
