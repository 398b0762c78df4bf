"""Encoding never takes more memory than was counted for it: measured by the system, for the raggedest masks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from engine.images import WHOLE_COMPONENTS, ObjectParams
from service.codec.encoders import ENCODERS, Encoder, Result
from service.problems import TooIntricate, TooManyObjects
from tests import memory
from tests.service.fakes import fake_model

SIDE = 600


def masks(classes: int, side: int = SIDE) -> dict[str, NDArray[np.uint8]]:
    """As many runs, corners and changes as there can be."""
    y, x = np.mgrid[:side, :side].astype(np.uint16)
    rng = np.random.default_rng(0)
    return {
        "checkers": ((x + y) % 2).astype(np.uint8),
        "dots": ((x % 2 == 0) & (y % 2 == 0)).astype(np.uint8),
        "lines": (y % 2).astype(np.uint8),
        "squares": ((x % 12 < 11) & (y % 12 < 11)).astype(np.uint8),
        "noise": rng.integers(0, max(2, classes), (side, side), dtype=np.uint8),
    }


def formats() -> Iterator[tuple[str, Encoder, ObjectParams]]:
    for name, encoder in ENCODERS.items():
        yield name, encoder, WHOLE_COMPONENTS
        if encoder.of_objects:
            yield f"{name} split", encoder, ObjectParams(split=True)


def measure() -> dict[str, tuple[int, int]]:
    """(bytes that encoding took, bytes counted for it). In a process that does nothing else."""
    found = {}
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    for classes in (1, 6):
        logits = rng.integers(-9000, 9000, (SIDE, SIDE, classes), dtype=np.int32)
        for kind, mask in list(masks(classes).items())[2 * (classes > 1) :]:
            for name, encoder, params in formats():
                result = Result(fake_model(classes), image, mask, logits, params)
                took = memory.taken(partial(encode, encoder, result))
                counted = encoder.memory(mask.size, classes)
                counted += encoder.split_memory(mask.size, classes) if params.split else 0
                found[f"{classes} {kind} {name}"] = (took, counted)
    return found


def encode(encoder: Encoder, result: Result) -> None:
    """All pieces at once, as for an answer; what is refused is found out on the way."""
    pieces: list[bytes] = []
    with contextlib.suppress(TooIntricate, TooManyObjects):
        pieces += encoder.encode(result)


@memory.needs_proc
def test_no_answer_takes_more_than_was_counted() -> None:
    found = memory.measured(__name__)
    assert len(found) == 8 * len(list(formats()))
    assert memory.exceeding(found) == {}
    assert sum(took for took, _ in found.values()) > 100 * SIDE**2  # it is seen at all
