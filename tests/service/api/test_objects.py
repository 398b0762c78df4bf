"""Objects over HTTP: the same words on every route, and refused where they mean nothing."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import httpx
import numpy as np
import pytest
import websockets
from PIL import Image

from service import problems
from tests.pictures import file_of
from tests.service.test_app import PNG, assert_problem

RED = np.zeros((40, 90, 3), np.uint8)
RED[5, 5, 0] = 255
_y, _x = np.mgrid[:40, :90]
for center in (30, 52):
    RED[(_x - center) ** 2 + (_y - 20) ** 2 < 144, 0] = 255
FILE = file_of(Image.fromarray(RED))


@pytest.mark.parametrize(
    ("query", "count"), [("", 2), ("&min_area=2", 1), ("&split=distance", 3), ("&split=distance&min_area=2", 2)]
)
def test_split_and_min_area_say_what_is_an_object(client: httpx.Client, query: str, count: int) -> None:
    answer = client.post(f"/segment?format=objects{query}", content=FILE, headers=PNG)
    assert answer.headers["content-type"] == "application/vnd.mbunet.objects+json"
    document = answer.json()
    assert len(document["annotations"]) == count
    (item,) = client.post(f"/segment/batch?format=objects{query}", files=[("image", FILE)]).json()["items"]
    assert item["result"] == document == streamed(client, query)
    labels = client.post(f"/segment?format=labels{query}", content=FILE, headers=PNG)
    with Image.open(io.BytesIO(labels.content)) as image:
        assert image.getextrema() == (0, count)


def streamed(client: httpx.Client, query: str) -> Any:
    async def ask() -> Any:
        address = f"ws://{client.base_url.host}:{client.base_url.port}/stream?format=objects{query}"
        async with websockets.connect(address) as socket:
            await socket.send(FILE)
            assert json.loads(await socket.recv())["status"] == 200
            return json.loads(await socket.recv())

    return asyncio.run(ask())


def test_the_threshold_counts_for_objects_too(client: httpx.Client) -> None:
    half = file_of(Image.new("RGB", (8, 8), (128, 0, 0)))
    for threshold, count in ((0.4, 1), (0.6, 0)):
        url = f"/segment?format=objects&threshold={threshold}"
        assert len(client.post(url, content=half, headers=PNG).json()["annotations"]) == count


def test_the_accept_header_asks_for_objects(client: httpx.Client) -> None:
    accept = {"Accept": "application/vnd.mbunet.objects+json"}
    assert len(client.post("/segment", content=FILE, headers=PNG | accept).json()["annotations"]) == 2


@pytest.mark.parametrize("query", ["split=distance", "min_area=3&format=rle", "format=objects&split=color"])
def test_words_that_mean_nothing_are_refused(client: httpx.Client, query: str) -> None:
    answer = client.post(f"/segment?{query}", content=FILE, headers=PNG)
    assert_problem(answer, problems.BadParameter)
    assert "objects" in answer.json()["detail"] or "distance" in answer.json()["detail"]
