"""A fault of the server is counted and its cause is logged under the request's id, by whatever way an image came."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from service.app import create_app
from service.settings import Settings
from tests.service.api.test_batch import form, red
from tests.service.api.test_stream import head, streaming
from tests.service.fakes import FakeEngine, serving
from tests.service.test_app import PNG

ID = {"X-Request-Id": "the-one"}


def ask(client: httpx.Client) -> None:
    assert client.post("/segment", content=red(13), headers=PNG | ID).status_code == 500


def ask_for_many(client: httpx.Client) -> None:
    items = client.post("/segment/batch", files=form(red(), red(13), b"no image"), headers=ID).json()["items"]
    assert [item["status"] for item in items] == [200, 500, 400]


def ask_for_frames(client: httpx.Client) -> None:
    with streaming(client, additional_headers=ID) as socket:
        for body, status in ((red(13), 500), (b"no image", 400)):
            socket.send(body)
            assert head(socket)["status"] == status


@pytest.mark.parametrize(("ask", "others"), [(ask, 0), (ask_for_many, 1), (ask_for_frames, 1)])
def test_it_is_counted_and_its_cause_logged(
    caplog: pytest.LogCaptureFixture, ask: Callable[[httpx.Client], None], others: int
) -> None:
    app = create_app(FakeEngine(breaks=lambda image: image[0, 0, 0] == 13), Settings())
    with serving(app) as client:
        ask(client)
    value = app.state.service.metrics.registry.get_sample_value
    assert value("mbunet_refusals_total", {"reason": "engine-failure"}) == 1
    assert (value("mbunet_refusals_total", {"reason": "not-an-image"}) or 0) == others
    (failed,) = (record for record in caplog.records if record.message == "request failed")
    assert getattr(failed, "fields", None) == {"request_id": "the-one"}
    assert failed.exc_info
    assert str(failed.exc_info[1]) == "secret internals"
