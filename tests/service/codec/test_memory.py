"""Encoding never takes more memory than was counted for it: measured by the system, for the raggedest masks."""

from __future__ import annotations

import contextlib
import ctypes
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.images import WHOLE_COMPONENTS, ObjectParams
from service.codec.encoders import ENCODERS, Encoder, Result
from service.problems import TooIntricate, TooManyObjects
from tests.service.fakes import fake_model

ROOT = Path(__file__).parents[3]
SIDE = 600
NOISE = 2**21  # bytes, of what else the process does meanwhile


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
                ctypes.CDLL(None).malloc_trim(0)
                Path("/proc/self/clear_refs").write_text("5")
                before = status("VmHWM")
                pieces: list[bytes] = []
                with contextlib.suppress(TooIntricate, TooManyObjects):  # found out on the way
                    pieces += encoder.encode(result)
                counted = encoder.memory(mask.size, classes)
                counted += encoder.split_memory(mask.size, classes) if params.split else 0
                found[f"{classes} {kind} {name}"] = (status("VmHWM") - before, counted)
                del pieces
    return found


def status(key: str) -> int:
    """Bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return 1024 * int(line.split()[1])


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs /proc to see its own memory")
def test_no_answer_takes_more_than_was_counted() -> None:
    program = "import json; from tests.service.codec import test_memory; print(json.dumps(test_memory.measure()))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert len(found) == 8 * len(list(formats()))
    assert {name: (took, counted) for name, (took, counted) in found.items() if took > counted + NOISE} == {}
    assert sum(took for took, _ in found.values()) > 100 * SIDE**2  # it is seen at all
