"""Warm-up and health, without HTTP."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from engine.model import Preprocessing
from service.core.params import SegmentParams
from service.core.service import Service, assemble
from service.problems import Unavailable
from service.settings import Settings
from tests.service.fakes import PATIENCE, FakeEngine, fake_model


def require_room(service: Service) -> Callable[[], None]:
    return lambda: asyncio.run(service.lifecycle.require_room())


def test_every_engine_is_warmed_up_by_an_image_that_the_limits_allow() -> None:
    for pixels, side in ((256, 16), (48 * 48 - 1, 32), (2**20, 256)):
        engines = [FakeEngine(fake_model(name=name)) for name in ("first", "second")]
        service = assemble(engines, Settings(max_pixels=pixels, queue_images=1))
        service.lifecycle.start()
        assert service.lifecycle.settled.wait(PATIENCE)
        service.lifecycle.require_ready()
        service.lifecycle.require_alive()
        service.lifecycle.stop()
        assert [[image.shape for image in batch] for engine in engines for batch in engine.batches] == [
            [(side, side, 3)],
            [(side, side, 3)],
        ]
        with pytest.raises(Unavailable, match="draining"):
            service.lifecycle.require_ready()
        service.lifecycle.require_alive()


def test_an_engine_is_warmed_up_by_what_its_network_sees() -> None:
    engine = FakeEngine(replace(fake_model(), preprocessing=Preprocessing("aspect", 48, 32)))
    service = assemble([engine], Settings())
    service.lifecycle.start()
    assert service.lifecycle.settled.wait(PATIENCE)
    service.lifecycle.stop()
    assert [[image.shape for image in batch] for batch in engine.batches] == [[(32, 32, 3)]]


def test_a_server_whose_engines_thread_has_ended_is_neither_ready_nor_alive() -> None:
    service = assemble([FakeEngine()], Settings())
    service.lifecycle.start()
    assert service.lifecycle.settled.wait(PATIENCE)
    service.batcher._observe = lambda images, seconds: sys.exit()  # a fault of the batcher's own
    image = np.zeros((16, 16, 3), np.uint8)
    assert service.batcher.submit(image, SegmentParams(service.models.default, 0.5)).result(PATIENCE)
    service.batcher._worker.join(PATIENCE)
    for refuses in (service.lifecycle.require_alive, service.lifecycle.require_ready, require_room(service)):
        with pytest.raises(Unavailable, match="failed"):
            refuses()
    service.lifecycle.stop()


def test_an_engine_that_fails_on_its_first_image_is_neither_ready_nor_alive() -> None:
    service = assemble([FakeEngine(breaks=lambda image: True)], Settings())
    service.lifecycle.start()
    assert service.lifecycle.settled.wait(PATIENCE)
    for refuses in (service.lifecycle.require_alive, service.lifecycle.require_ready, require_room(service)):
        with pytest.raises(Unavailable, match="failed"):
            refuses()
    service.lifecycle.stop()
