"""Many image files by a Ray cluster: Ray Data hands them to actors on all machines, one resident engine each.

The only module here that imports Ray, which is an extra and slow to import: nothing imports this one at its start.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from engine.format import load
from engine.runtime import resolve
from service.cli import flags
from service.cli.bulk import Job, Outcome, Segmenter

FILES_PER_TASK = 16
"""What is handed out at a time, and done again where a machine dies."""


class Actor:
    """An engine in a process of its own, somewhere in the cluster."""

    def __init__(self, job: Job) -> None:
        self._segmenter = Segmenter(job)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The outcome of the file at `row["source"]`, as a row."""
        return asdict(self._segmenter(Path(row["source"]))) | row


def segment(job: Job, sources: Sequence[Path]) -> Iterator[Outcome]:
    """The outcomes as they come, from the cluster at RAY_ADDRESS, else this machine's, else one made for this call.

    An actor has as many threads as the settings say, and one where they leave it open: images side by side keep more
    cores busy than layers do. Raises ImportError without Ray, EngineError where there is no such model, UserError for
    a threshold where it takes none, and OSError where the cluster fails as a whole.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    job = _for_all_machines(job)
    threads = job.settings.threads
    if job.threshold is not None:  # only then is the model of use here
        flags.require_threshold(load(resolve(job.model)), job.threshold)
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    DataContext.get_current().enable_progress_bars = False
    actors = max(1, int(ray.cluster_resources().get("CPU", 1)) // threads)
    tasks = math.ceil(len(sources) / FILES_PER_TASK)
    files = ray.data.from_items([{"source": str(path.absolute())} for path in sources], override_num_blocks=tasks)
    rows = files.map(
        Actor,
        fn_constructor_args=(job,),
        compute=ActorPoolStrategy(min_size=1, max_size=min(actors, tasks)),
        num_cpus=threads,
    ).iter_rows()
    return _outcomes(rows, {str(path.absolute()): path for path in sources})


def _outcomes(rows: Iterable[dict[str, Any]], sources: dict[str, Path]) -> Iterator[Outcome]:
    from ray.exceptions import RayError

    try:
        for row in rows:
            yield Outcome(**row | {"source": sources[row["source"]]})
    except RayError as error:
        reason = str(error).strip().splitlines()[-1]  # of the actor's traceback
        raise OSError(f"the Ray cluster gave up: {reason}") from error


def _for_all_machines(job: Job) -> Job:
    """The same job, but with threads that are counted and the whole path of a model file; raises EngineError."""
    path = resolve(job.model)
    is_shipped = path != Path(job.model)  # each machine has its own
    model = job.model if is_shipped else str(path.absolute())
    return replace(job, model=model, settings=replace(job.settings, threads=job.settings.threads or 1))
