"""The samples of a run, and which part each belongs to by its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from engine.images import Selection
from engine.train.config import Config
from engine.train.data import dataset, layouts
from engine.train.data.dataset import TEST, TRAINING, VALIDATION, Sample
from engine.train.data.files import DataError


def samples(config: Config, selection: Selection | None = None) -> list[Sample]:
    """Every sample of a run, in its split group; those of a folder given for validation are held. Raises DataError.

    Of images with several channels or pages `selection` chooses, by default the run's own.
    """
    selection = selection or config.selection
    return with_held(dataset.grouped(layouts.samples(config.data, selection), config.group), config, selection)


def with_held(own: list[Sample], config: Config, selection: Selection) -> list[Sample]:
    """The samples `own` of a run's folder, and those that it holds from another; raises DataError.

    A test part of the other stays one: nothing is chosen by it.
    """
    if not isinstance(config.validation, str):
        return own
    taken = {sample.name for sample in own}
    others = layouts.samples(config.validation, selection)
    if not dataset.usable(others):
        raise DataError(
            f"{config.validation} is a test part: nothing is chosen by it; hold other images for validation"
        )
    held = [
        replace(
            sample,
            part=sample.part if sample.part == TEST else VALIDATION,
            name=f"validation/{sample.name}" if sample.name in taken else sample.name,
        )
        for sample in others
    ]
    learned = [replace(sample, part=sample.part or TRAINING) for sample in own if sample.part != VALIDATION]
    return learned + held


def kept(story: Mapping[str, Any], everything: Sequence[Sample]) -> dataset.Parts:
    """The split of a run, of which a model file tells in its provenance `story`.

    By digests, else drawn again from `everything` in its folder. Raises DataError where it is not told how, or where
    that gives other parts than the run had.
    """
    if parts := dataset.Parts.told(story.get("parts", {})):
        return parts
    how = {"validation": "", "seed": 0, **story.get("split", {})}
    if any(sample.part == VALIDATION for sample in everything):
        how["validation"] = 0.0  # by the folder's own parts
    if not isinstance(how["validation"], str):
        grouped = dataset.grouped(everything, story.get("group", ""))
        drawn = dataset.Parts.of(*dataset.split(grouped, how["validation"], how["seed"]))
        told = {"images": story.get("images", len(everything)), **story.get("parts", {})}
        if told.items() <= {"images": len(everything), **drawn.tell()}.items():
            return drawn
    raise DataError(
        f"it is not known which of these {len(everything)} samples the model was trained on: give the --validation and "
        "--seed of its training, with its --group where it had one, or try the part all"
    )
