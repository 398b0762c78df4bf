"""What must hold for a run to go on from its checkpoint, and what it takes from there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.train import checkpoint, split
from engine.train.config import PLACE, Config
from engine.train.data import dataset

FREE_FIELDS = (*PLACE, "minutes")  # a run may move to another place, or get another time, and go on


PATHS = ("data", "init", "teacher", "validation")
"""Settings that may be paths."""


class ResumeError(ValueError):
    """The checkpoint in the output folder belongs to another run; the message names the fields that differ."""


def check(path: Path, state: Mapping[str, Any], config: Config) -> None:
    """Raise ResumeError unless the checkpoint `state` at `path` is of the run `config`, or of less of it."""
    here, there = asdict(config), asdict(checkpoint.config_of(state))
    free = {*FREE_FIELDS, *(["samples"] if here["samples"] > there["samples"] else [])}
    if found := differing(there, here, free):
        fields = ", ".join(f"{name} ({there[name]!r} there, {here[name]!r} here)" for name in found)
        raise ResumeError(f"{path} is of another run: {fields}; choose another output folder")


def differing(there: Mapping[str, Any], here: Mapping[str, Any], free: Collection[str]) -> list[str]:
    """Names of settings, but for the `free` ones, in which two runs, or two commands, differ.

    Paths differ where they lead to different places, unless these have moved together with the output folders.
    """
    names = sorted({*there, *here} - set(free))
    folders = tuple(Path(settings["out"]).resolve().parent for settings in (there, here))
    unlike = [name for name in names if there.get(name) != here.get(name)]
    return [n for n in unlike if n not in PATHS or not _same_place((there.get(n), here.get(n)), folders)]


def _same_place(paths: tuple[Any, Any], folders: tuple[Path, ...]) -> bool:
    """Whether both `paths` lead to one place, or to the same one below each one's own of `folders`."""
    if not all(isinstance(path, str) and path for path in paths):
        return False
    there, here = (Path(path).resolve() for path in paths)
    inside = there.is_relative_to(folders[0]) and here.is_relative_to(folders[1])
    return there == here or (inside and there.relative_to(folders[0]) == here.relative_to(folders[1]))


def divide(
    path: Path, config: Config, kept: dataset.Parts | None
) -> tuple[list[dataset.Sample], list[dataset.Sample], str]:
    """(training, validation, what to say of new samples): as `kept` by the checkpoint at `path`, else anew.

    What came to the folder since joins training, unless it is marked or given for validation. Raises ResumeError.
    """
    everything = split.samples(config)
    if kept is None:
        return *dataset.split(everything, config.share, config.seed), ""
    if missing := kept.missing(everything):
        raise ResumeError(
            f"{path} is of another split: {len(missing)} of its samples are not in {config.data} "
            f"({missing[0]}{', …' if len(missing) > 1 else ''}); put them back, or choose another output folder"
        )
    training, validation, new = kept.divide(everything)
    if seen := [sample.name for sample in training if sample.part == dataset.VALIDATION]:
        raise ResumeError(
            f"{path} is of another split: it has learned from {len(seen)} samples that are for validation now "
            f"({seen[0]}{', …' if len(seen) > 1 else ''}); choose another output folder"
        )
    held = [sample for sample in new if sample.part == dataset.VALIDATION]
    validated = {sample.name for sample in (*validation, *held)}
    said = f"{len(new) - len(held)} new samples join training, {len(held)} are held for validation" if new else ""
    usable = dataset.usable(everything)
    return [s for s in usable if s.name not in validated], [s for s in usable if s.name in validated], said


def more(state: Mapping[str, Any], config: Config) -> bool:
    """Whether a run's budget is more than it was in its checkpoint."""
    there = checkpoint.config_of(state)
    return config.minutes > there.minutes if config.minutes else config.samples > there.samples


def by_clock(state: Mapping[str, Any], config: Config) -> float:
    """The progress in a checkpoint; of a run that has ended and gets more minutes, the share of them it has had."""
    kept: float = state.get("progress", 0.0)
    ended = kept >= 1 and config.minutes and more(state, config)
    return float(state.get("spent", 0.0)) / (60 * config.minutes) if ended else kept
