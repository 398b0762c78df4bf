"""Many image files and their masks: computed here or by a server; each written whole, or not at all."""

from __future__ import annotations

import itertools
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from queue import SimpleQueue

from engine import images, whole
from engine.images import FIRST, ImageError, ObjectParams, Selection
from service.cli import client, flags
from service.codec.encoders import ENCODERS, Result
from service.core import params
from service.problems import Problem
from service.settings import Settings

AHEAD = 4  # outcomes of each thread that may wait for one before them


@dataclass(frozen=True)
class Job:
    """What is wanted of every image, and of which model. It holds no engine, so it can travel to other machines.

    Beside a server `model` means nothing.
    """

    model: str
    settings: Settings
    threshold: float | None = None
    overlay: bool = False
    selection: Selection = FIRST
    masks: bool = True
    objects: ObjectParams | None = None  # where they are wanted


@dataclass(frozen=True)
class Outcome:
    """What became of an image file: mask and overlay, both PNG, and objects, as the format of that name; or why it
    failed. What is not wanted is empty. `taken` says which channel and page it was, where there are several.
    """

    source: Path
    mask: bytes = b""
    overlay: bytes = b""
    objects: bytes = b""
    taken: str = ""
    failure: str = ""


class Segmenter:
    """One resident engine that turns image files into outcomes.

    Raises EngineError where it cannot be loaded, and UserError for a threshold where it takes none.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._engine = flags.trained_engine_of(job.model, job.settings)
        flags.require_threshold(self._engine.model, job.threshold)
        self._selection = params.selection(self._engine.model.preprocessing, job.selection)

    def __call__(self, source: Path) -> Outcome:
        """The outcome of one file; a file that cannot be read, or is no image, is a failure of its own."""
        try:
            decoded = images.decode(source, self._job.settings.max_pixels, self._selection)
        except ImageError as error:
            return Outcome(source, failure=error.reason)
        except MemoryError:
            return Outcome(source, failure="there is no memory for it")
        image, wanted, threshold = decoded.pixels, self._job.objects, self._job.threshold
        if wanted:
            result = Result(self._engine.model, image, *self._engine.mask_and_logits(image, threshold), wanted)
        else:
            (mask,), _ = self._engine.run([image], threshold)
            result = Result(self._engine.model, image, mask)
        try:
            outcome = _outcome(source, self._job, lambda name: b"".join(ENCODERS[name].encode(result)))
            return replace(outcome, taken=str(decoded.taken))
        except Problem as problem:
            return Outcome(source, failure=problem.detail)

    def close(self) -> None:
        """Give the engine's memory and threads back."""
        self._engine.close()


def _outcome(source: Path, job: Job, encoded: Callable[[str], bytes]) -> Outcome:
    """What `encoded` makes of the formats that are wanted."""
    mask = encoded("png") if job.masks else b""
    overlay = encoded("overlay") if job.overlay else b""
    return Outcome(source, mask, overlay, encoded("objects") if job.objects is not None else b"")


def here(job: Job, sources: Iterable[Path]) -> Iterator[Outcome]:
    """Outcomes from an engine in this process, in order. An interrupt ends them after the image under way."""
    segmenter = Segmenter(job)
    try:
        yield from map(segmenter, sources)
    finally:
        segmenter.close()


@dataclass(frozen=True)
class Server:
    """Where it is, which of its models is asked, by name, or its default; `parallel` requests are on their way at the
    same time, and one that is not answered is tried again for `retry_deadline_s` seconds.
    """

    url: str
    model: str | None = None
    parallel: int = 8
    retry_deadline_s: float = 60.0


def by_server(job: Job, sources: Iterable[Path], server: Server) -> Iterator[Outcome]:
    """Outcomes from a server, in order. Raises OSError where none answers in time."""
    url, retry_deadline_s = server.url, server.retry_deadline_s

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
        key, taken = job.settings.api_key, ""

        def encoded(name: str) -> bytes:
            nonlocal taken
            answer = client.segment(url, data, retry_deadline_s, _query(job, name, server.model), key, failed)
            taken = answer.taken
            return answer.body

        try:
            return replace(_outcome(source, job, encoded), taken=taken)
        except client.Refused as refusal:
            return Outcome(source, failure=str(refusal))

    yield from _in_order(one, list(sources), server.parallel)


def _query(job: Job, name: str, model: str | None) -> dict[str, object]:
    objects = job.objects if ENCODERS[name].of_objects else None
    return client.query_of(job.threshold, job.selection, objects, model) | {"format": name}


def _in_order(work: Callable[[Path], Outcome], sources: Sequence[Path], parallel: int) -> Iterator[Outcome]:
    """What `work` makes of each, in order, by threads for which nobody waits: an interrupt ends the program at once.

    They are `AHEAD` times `parallel` ahead of who takes the outcomes, at most: no more are held in memory.
    """
    waiting: SimpleQueue[tuple[Path, Future[Outcome]] | None] = SimpleQueue()
    stopped = threading.Event()

    def run() -> None:
        while (taken := waiting.get()) and not stopped.is_set():
            source, result = taken
            try:
                result.set_result(work(source))
            except BaseException as error:
                result.set_exception(error)

    def begun() -> Iterator[Future[Outcome]]:
        for source in sources:
            result = Future[Outcome]()
            waiting.put((source, result))
            yield result

    threads = min(parallel, len(sources))
    for _ in range(threads):
        threading.Thread(target=run, daemon=True).start()
    left = begun()
    under_way = deque(itertools.islice(left, AHEAD * threads))
    try:
        while under_way:
            yield under_way.popleft().result()
            under_way.extend(itertools.islice(left, 1))
    finally:
        stopped.set()
        for _ in range(threads):
            waiting.put(None)


def overlay_of(target: Path) -> Path:
    """Where the overlay stands that belongs to a mask."""
    return target.with_suffix(".overlay.png")


def is_other(what: str, file: Path) -> bool:
    """Whether an earlier run has written the opposite of `what` to `file`, an image being called X.overlay.png.

    Overlays are in color, masks are not; a file of another name is no overlay.
    """
    if not file.name.endswith(".overlay.png") or not file.is_file():
        return False
    with file.open("rb") as opened:
        is_color = opened.read(26)[25:] == b"\2"
    return is_color == (what == "mask")


def is_done(target: Path, overlay: bool) -> bool:
    """Whether an earlier run has written this mask, and its overlay where one is wanted."""
    return target.exists() and (not overlay or overlay_of(target).exists())


def write(outcome: Outcome, target: Path) -> None:
    """Write what an outcome holds: the mask last, since it says that all is done."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if outcome.overlay:
        whole.write(overlay_of(target), outcome.overlay)
    whole.write(target, outcome.mask)
