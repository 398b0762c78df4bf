"""POST /segment/batch, priorities, several models, and reloading them."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service import problems
from service.api.multipart import FormFiles
from service.app import create_app
from service.core.engine import Engine
from service.core.params import SegmentParams
from service.problems import BadForm
from service.settings import Settings
from tests.pictures import file_of
from tests.service.fakes import PATIENCE, FakeEngine, fake_model, serving
from tests.service.test_app import PNG, assert_problem, mask_of


def form(*bodies: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("image", ("x", body)) for body in bodies]


def red(value: int = 255, side: int = 4) -> bytes:
    return file_of(Image.new("RGB", (side, side), (value, 0, 0)))


def test_every_image_has_its_own_status(client: httpx.Client) -> None:
    answer = client.post("/segment/batch", files=form(red(), b"no image", red(0, side=40)))
    assert answer.status_code == 200
    first, bad, last = answer.json()["items"]
    assert [first["status"], bad["status"], last["status"]] == [200, 400, 200]
    assert (bad["title"], bad["type"]) == (problems.NotAnImage.title, "/docs#not-an-image")
    for item, expected in ((first, (4, 255)), (last, (40, 0))):
        assert item["media_type"] == "image/png"
        assert set(item["ms"]) == {"decode", "queue", "engine", "encode"}
        with Image.open(io.BytesIO(base64.b64decode(item["data"]))) as mask:
            assert (mask.size[0], mask.getextrema()[0]) == expected


def test_formats_that_are_json_stand_in_the_item_as_they_are(client: httpx.Client) -> None:
    answer = client.post("/segment/batch?format=rle", files=form(red()))
    (item,) = answer.json()["items"]
    assert item["result"]["masks"][0]["size"] == [4, 4]


def test_an_engine_failure_harms_only_its_own_item() -> None:
    with serving(create_app(FakeEngine(breaks=lambda image: image[0, 0, 0] == 13), Settings())) as client:
        items = client.post("/segment/batch", files=form(red(), red(13), red())).json()["items"]
    assert [item["status"] for item in items] == [200, 500, 200]
    assert "secret" not in str(items)


def test_what_does_not_fit_the_queue_as_a_whole_is_refused_whole() -> None:
    engine = FakeEngine()
    app = create_app(engine, Settings(queue_images=3))
    with serving(app) as client:
        engine.gate.clear()
        engine.entered.clear()
        batcher, one = app.state.service.batcher, np.zeros((16, 16, 3), np.uint8)
        batcher.submit(one, SegmentParams(engine, 0.5))
        assert engine.entered.wait(PATIENCE)
        waiting = batcher.submit(one, SegmentParams(engine, 0.5))
        answer = client.post("/segment/batch", files=form(red(), red(), red()))
        assert_problem(answer, problems.QueueFull)
        assert int(answer.headers["retry-after"]) >= 1
        assert batcher.waiting == 1
        engine.gate.set()
        waiting.result(PATIENCE)
        assert client.post("/segment/batch", files=form(red(), red(), red())).status_code == 200


def test_too_many_images() -> None:
    with serving(create_app(FakeEngine(), Settings(request_images=2))) as client:
        answer = client.post("/segment/batch", files=form(red(), red(), red()))
        assert assert_problem(answer, problems.TooManyImages)["limit"] == 2


def test_a_batch_is_a_form(client: httpx.Client) -> None:
    assert_problem(client.post("/segment/batch", content=red(), headers=PNG), problems.UnsupportedType)
    assert_problem(client.post("/segment/batch", files=[("other", ("x", red()))]), problems.BadForm)


# -- models --------------------------------------------------------------------------------------------------------


def two_models() -> list[Engine]:
    return [FakeEngine(fake_model(name="first")), FakeEngine(fake_model(classes=3, name="second"))]


def test_models_are_chosen_by_name() -> None:
    with serving(create_app(two_models(), Settings())) as client:
        assert [entry["name"] for entry in client.get("/models").json()] == ["first", "second"]
        assert client.get("/models/second").json()["preprocessing"]["resize_mode"] == "pad"
        assert (mask_of(client.post("/segment", content=red(2), headers=PNG)) == 0).all()
        answer = client.post("/segment?model=second", content=red(2), headers=PNG)
        assert (mask_of(answer) == 2).all()
        assert_problem(client.post("/segment?model=third", content=red(), headers=PNG), problems.NotFound)


def test_two_models_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="one name"):
        create_app([FakeEngine(), FakeEngine()], Settings())


def metrics_of(client: httpx.Client) -> str:
    return client.get("/metrics").text


def test_a_reload_loses_no_request_and_a_broken_file_changes_nothing() -> None:
    old, new = FakeEngine(), FakeEngine(fake_model(name="new"))
    broken = FakeEngine(breaks=lambda image: True)
    loads: list[Sequence[Engine] | Exception] = [[broken], OSError("broken"), [new, new], [new]]

    def load() -> Sequence[Engine]:
        loaded = loads.pop(0)
        if isinstance(loaded, Exception):
            raise loaded
        return loaded

    app = create_app(old, Settings(), load=load)
    with serving(app) as client:
        service: Any = app.state.service
        for _ in range(3):
            assert not service.models.reload()
            assert re.search(r'mbunet_model_info{.*name="fake"} 1.0', metrics_of(client))
            assert [entry["name"] for entry in client.get("/models").json()] == ["fake"]
        old.gate.clear()
        old.entered.clear()
        queued = [service.batcher.submit(np.zeros((16, 16, 3), np.uint8), SegmentParams(old, 0.5)) for _ in range(2)]
        assert old.entered.wait(PATIENCE)
        assert service.models.reload()
        old.gate.set()
        assert all(reply.result(PATIENCE).mask is not None for reply in queued)
        assert (mask_of(client.post("/segment?model=new", content=red(), headers=PNG)) == 255).all()
        metrics = metrics_of(client)
    assert 'mbunet_reloads_total{outcome="failed"} 3.0' in metrics
    assert 'name="fake"' not in metrics


def test_a_long_content_type_is_not_taken_apart() -> None:
    with pytest.raises(BadForm, match="1024"):
        FormFiles('multipart/form-data; boundary=x; a="' + ";" * 1024, "image", 1)
