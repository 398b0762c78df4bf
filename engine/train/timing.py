"""Milliseconds of models side by side on one image."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from engine.preprocess import Image
from engine.runtime import Engine


def fastest(engines: Sequence[Engine], image: Image, rounds: Iterable[object]) -> list[float]:
    """Milliseconds of each engine's fastest call on `image`; in each of `rounds` they take turns.

    The minimum is what a quiet machine would give: whatever else runs only adds time.
    """
    found = [float("inf")] * len(engines)
    for _ in rounds:
        for i, engine in enumerate(engines):
            started = time.perf_counter()
            engine.run([image])
            found[i] = min(found[i], time.perf_counter() - started)
    return [1e3 * seconds for seconds in found]
