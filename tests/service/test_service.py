"""The four stages of an image's way, without HTTP."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from service import codec
from service.codec import Encoder, Pixels
from service.service import Service, Wish
from service.settings import Settings
from tests.service.fakes import PATIENCE, FakeEngine


def test_an_image_whose_client_leaves_while_it_is_decoded_never_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    entered, gate = threading.Event(), threading.Event()

    def decode(*_: object) -> Pixels:
        entered.set()
        assert gate.wait(PATIENCE)
        return np.zeros((16, 16, 3), np.uint8)

    async def leave() -> None:
        asking = asyncio.create_task(service.segment(b"", Wish(engine, 0.5, Encoder("", lambda _: b""), PATIENCE)))
        await asyncio.to_thread(entered.wait, PATIENCE)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    monkeypatch.setattr(codec, "decode", decode)
    engine = FakeEngine()
    service = Service([engine], Settings())  # whose worker is not started: what is queued stays there
    asyncio.run(leave())
    gate.set()
    service._pool.shutdown(wait=True)
    assert service.batcher.waiting == 1
    assert service.batcher.step() == 0
    assert not engine.batches
