"""Many image files and their masks: computed here or by a server; each written whole, or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

from engine import images
from engine.images import FIRST, ImageError, Selection
from service.cli import client
from service.codec import encoders
from service.core import engine
from service.settings import Settings

PART = re.compile(r".+\.[0-9a-f]{32}\.part")


@dataclass(frozen=True)
class Job:
    """What is wanted of every image. It holds no engine, so it can travel to other machines."""

    settings: Settings
    threshold: float | None = None
    overlay: bool = False
    selection: Selection = FIRST


@dataclass(frozen=True)
class Outcome:
    """What became of an image file: mask and overlay (empty where none is wanted), both PNG; or why it failed."""

    source: Path
    mask: bytes = b""
    overlay: bytes = b""
    failure: str = ""


class Segmenter:
    """One resident engine that turns image files into outcomes. Raises EngineError where it cannot be loaded."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._engine = engine.load(job.settings.model, job.settings)

    def __call__(self, source: Path) -> Outcome:
        """The outcome of one file; a file that cannot be read, or is no image, is a failure of its own."""
        try:
            image = images.decode(source, self._job.settings.max_pixels, self._job.selection).pixels
        except ImageError as error:
            return Outcome(source, failure=error.reason)
        except MemoryError:
            return Outcome(source, failure="there is no memory for it")
        (mask,), _ = self._engine.run([image], self._job.threshold)
        overlay = encoders.overlay(image, mask, self._engine.model) if self._job.overlay else b""
        return Outcome(source, encoders.to_png(mask, self._engine.model), overlay)

    def close(self) -> None:
        """Give the engine's memory and threads back."""
        self._engine.close()


def here(job: Job, sources: Iterable[Path]) -> Iterator[Outcome]:
    """Outcomes from an engine in this process, in order."""
    segmenter = Segmenter(job)
    try:
        yield from map(segmenter, sources)
    finally:
        segmenter.close()


def by_server(job: Job, sources: Iterable[Path], url: str, parallel: int, retry_deadline_s: float) -> Iterator[Outcome]:
    """Outcomes from the server at `url`, in order; `parallel` requests are on their way at the same time.

    Raises OSError where no server answers for `retry_deadline_s` seconds.
    """
    formats = ("png", "overlay") if job.overlay else ("png",)

    query = client.query_of(job.threshold, job.selection)

    @cache  # says each thing once
    def say(line: str) -> None:
        print(line, file=sys.stderr)

    def failed(error: Exception) -> None:
        if isinstance(error, OSError):
            say(f"mbunet: {error}; trying again for up to {retry_deadline_s:g} s")

    def one(source: Path) -> Outcome:
        try:
            data = source.read_bytes()
        except OSError as error:
            return Outcome(source, failure=str(error))
        key = job.settings.api_key
        try:
            mask, *overlay = (
                client.segment(url, data, retry_deadline_s, query | {"format": name}, key, failed) for name in formats
            )
        except client.Refused as refusal:
            return Outcome(source, failure=str(refusal))
        return Outcome(source, mask, b"".join(overlay))

    yield from _in_order(one, list(sources), parallel)


def _in_order(work: Callable[[Path], Outcome], sources: Sequence[Path], parallel: int) -> Iterator[Outcome]:
    """What `work` makes of each, in order, by threads for which nobody waits: an interrupt ends the program at once."""
    results = [Future[Outcome]() for _ in sources]
    left, lock, stopped = iter(zip(sources, results, strict=True)), threading.Lock(), threading.Event()

    def run() -> None:
        while not stopped.is_set():
            with lock:
                source, result = next(left, (None, None))
            if source is None or result is None:
                return
            try:
                result.set_result(work(source))
            except BaseException as error:
                result.set_exception(error)

    for _ in range(min(parallel, len(sources))):
        threading.Thread(target=run, daemon=True).start()
    try:
        for result in results:
            yield result.result()
    finally:
        stopped.set()


def overlay_of(target: Path) -> Path:
    """Where the overlay stands that belongs to a mask."""
    return target.with_suffix(".overlay.png")


def is_done(target: Path, overlay: bool) -> bool:
    """Whether an earlier run has written this mask, and its overlay where one is wanted."""
    return target.exists() and (not overlay or overlay_of(target).exists())


def write(outcome: Outcome, target: Path) -> None:
    """Write what an outcome holds: the mask last, since it says that all is done."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if outcome.overlay:
        _write_whole(overlay_of(target), outcome.overlay)
    _write_whole(target, outcome.mask)


def remove_abandoned(folders: Iterable[Path]) -> None:
    """Remove what runs that were killed have left half written in `folders`; what another run is writing stays."""
    for part in (part for folder in folders for part in folder.glob("*.part") if PART.fullmatch(part.name)):
        with contextlib.suppress(OSError), part.open("rb") as file:  # who holds it may end it meanwhile
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()


def _write_whole(target: Path, data: bytes) -> None:
    """Write a file so that, whenever the machine stops, it is there with all of `data` or not at all."""
    part, file = _held_part(target)
    try:
        with file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _held_part(target: Path) -> tuple[Path, BinaryIO]:
    """A new file beside `target`, locked: so it is not abandoned."""
    while True:
        part = target.with_name(f"{target.name}.{uuid.uuid4().hex}.part")
        file = part.open("xb")
        with contextlib.suppress(OSError):  # a file system without locks, on which nothing counts as abandoned
            fcntl.flock(file, fcntl.LOCK_EX)
        if part.exists():
            return part, file
        file.close()  # it was taken for an abandoned one before it was locked
