"""The trainer's checkpoints on disk: written whole or not at all, read with a sentence for those that are cut short."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from engine import whole
from engine.train.config import Config
from engine.train.renamed import current

NEEDED = ("network", "config", "step")


class CheckpointError(ValueError):
    """A file that is no whole checkpoint; the message names it and says what to do."""


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state` to `path` in one move: whoever reads it finds the file of before or the new one, whole.

    Raises OSError.
    """
    with whole.written(path) as file:
        try:
            torch.save(dict(state), file)
        except RuntimeError as error:  # of torch's own writer, that of a full disk too
            raise OSError(f"{path} cannot be written ({_first_line(error)}): is the disk full?") from error


def read(path: str | Path) -> dict[str, Any]:
    """The state in the checkpoint at `path`, on the CPU; raises CheckpointError and OSError."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch has no error of its own for what it cannot read
        raise CheckpointError(f"{path} is no whole checkpoint ({_first_line(error)}); {ADVICE}") from error
    if not isinstance(state, dict) or any(name not in state for name in NEEDED):
        raise CheckpointError(f"{path} is no checkpoint of a training run: it lacks one of {', '.join(NEEDED)}")
    return state


def config_of(state: Mapping[str, Any]) -> Config:
    """The configuration in a checkpoint's state; raises CheckpointError for one of another version."""
    told = current(state["config"])
    if strange := sorted(told.keys() - {field.name for field in fields(Config)}):
        raise CheckpointError(f"the checkpoint is of another version: this one has no setting {', '.join(strange)}")
    return Config(**told)


ADVICE = "remove it to begin anew, or put another in its place"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
