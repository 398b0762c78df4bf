"""What a recipe has decided and done so far: recipe.json in its folder, by which the same command goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engine import whole
from engine.train.config import PLACE
from engine.train.recipe.plan import Choice
from engine.train.resume import ResumeError, differing

FILE = "recipe.json"
"""In the folder of a recipe."""

FREE = (*PLACE, "minutes", "samples")  # of a command's settings: what may differ when it is given again


@dataclass
class Record:
    """The command's settings as `given`, what the folder and the machine added, and the seconds `spent` on it all.

    `stages` are those that have begun, with the seconds each was given; `finished` once the report is written.
    """

    given: dict[str, Any]
    choices: list[Choice] = field(default_factory=list)
    speed: dict[str, float] = field(default_factory=dict)
    spent: float = 0.0
    added: list[float] = field(default_factory=list)  # budget, each time more was asked of a finished recipe
    finished: bool = False
    warnings: list[str] = field(default_factory=list)  # of what flatters the scores, as said at the start

    @classmethod
    def read(cls, path: Path, given: Mapping[str, Any]) -> Record:
        """That of `path`, or a new one; raises ResumeError where it is of another command, naming what differs."""
        now = json.loads(json.dumps(dict(given)))
        if not path.is_file():
            return cls(now)
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            found = cls(**(kept | {"choices": [Choice(**choice) for choice in kept["choices"]]}))
        except (ValueError, TypeError, KeyError) as error:
            raise ResumeError(f"{path} cannot be read ({error}); choose another output folder") from error
        there = found.given
        if unlike := differing(there, now, FREE):
            said = ", ".join(f"{name} ({there.get(name, '-')} there, {now.get(name, '-')} here)" for name in unlike)
            raise ResumeError(f"{path.parent} is of another command: {said}; give the same one, or another folder")
        if ("samples" in now) != ("samples" in there):
            raise ResumeError(f"{path.parent} began with a budget of {_unit(there)}; go on with one of that kind")
        return found

    def write(self, path: Path) -> None:
        """Write it in one move."""
        whole.write(path, json.dumps(asdict(self), indent=2).encode())


def _unit(given: Mapping[str, Any]) -> str:
    return "samples" if "samples" in given else "minutes"
