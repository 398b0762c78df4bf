"""Channels and pages over HTTP: chosen by the same words on every route, and told which they were."""

from __future__ import annotations

import asyncio
import io
import json
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
import websockets
from PIL import Image

from engine.model import Preprocessing
from service import problems
from service.app import create_app
from service.settings import Settings
from tests.pictures import file_of, photo, tiff_of
from tests.service.fakes import FakeEngine, fake_model, serving
from tests.service.test_app import assert_problem

STACK = np.zeros((3, 2, 8, 12), np.uint8)  # [page, channel, h, w]
for page in range(3):
    for channel in range(2):
        STACK[page, channel, page, channel] = 255
FILE = tiff_of(STACK, ome=True, metadata={"axes": "ZCYX"})
TIFF = {"Content-Type": "image/tiff"}


def foreground(png: bytes) -> list[list[int]]:
    with Image.open(io.BytesIO(png)) as mask:
        return np.argwhere(np.asarray(mask.convert("L"))).tolist()


@pytest.mark.parametrize(
    ("query", "found", "taken"),
    [
        ("", [[0, 0]], "channel=0/2, page=0/3"),
        ("?channel=1", [[0, 1]], "channel=1/2, page=0/3"),
        ("?page=2", [[2, 0]], "channel=0/2, page=2/3"),
        ("?channel=1&page=1", [[1, 1]], "channel=1/2, page=1/3"),
        ("?page=max", [[0, 0], [1, 0], [2, 0]], "channel=0/2, page=max/3"),
    ],
)
def test_the_answer_says_what_was_taken(client: httpx.Client, query: str, found: list[list[int]], taken: str) -> None:
    answer = client.post(f"/segment{query}", content=FILE, headers=TIFF)
    assert foreground(answer.content) == found
    assert answer.headers["x-image-taken"] == taken
    items = client.post(f"/segment/batch{query}", files=[("image", FILE), ("image", FILE)]).json()["items"]
    assert [item["taken"] for item in items] == [taken, taken]
    assert streamed(client, query)["taken"] == taken


@pytest.mark.parametrize(
    ("query", "found", "taken"),
    [
        ("", [[2, 1]], "channel=1/2, page=2/3"),
        ("?page=0", [[0, 1]], "channel=1/2, page=0/3"),
        ("?channel=0", [[2, 0]], "channel=0/2, page=2/3"),
    ],
)
def test_what_a_model_names_is_taken_and_a_request_goes_before_it(
    query: str, found: list[list[int]], taken: str
) -> None:
    model = replace(fake_model(), preprocessing=Preprocessing(channel="1", page="2"))
    with serving(create_app(FakeEngine(model), Settings())) as client:
        answer = client.post(f"/segment{query}", content=FILE, headers=TIFF)
        assert (foreground(answer.content), answer.headers["x-image-taken"]) == (found, taken)
        assert streamed(client, query)["taken"] == taken
        of_one_page = client.post("/segment", content=file_of(photo()), headers=TIFF)
        assert_problem(of_one_page, problems.BadParameter)
        tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [255, 0, 0]}
        answer = client.post("/v2/models/fake/infer", json={"inputs": [tensor]})
        assert answer.json()["outputs"][0]["data"] == [255]  # of a tensor all has been taken


def streamed(client: httpx.Client, query: str) -> dict[str, Any]:
    async def ask() -> dict[str, Any]:
        async with websockets.connect(f"ws://{client.base_url.host}:{client.base_url.port}/stream{query}") as socket:
            await socket.send(FILE)
            head: dict[str, Any] = json.loads(await socket.recv())
            return head

    return asyncio.run(ask())


def test_where_there_is_nothing_to_choose_nothing_is_said(client: httpx.Client) -> None:
    answer = client.post("/segment", content=file_of(photo()), headers=TIFF)
    assert "x-image-taken" not in answer.headers
    item = client.post("/segment/batch", files=[("image", file_of(photo()))]).json()["items"][0]
    assert "taken" not in item


@pytest.mark.parametrize("query", ["channel=2", "page=3", "channel=-1", "page=first", "page=1.5", "channel="])
def test_a_part_that_is_not_there_is_a_422(client: httpx.Client, query: str) -> None:
    assert_problem(client.post(f"/segment?{query}", content=FILE, headers=TIFF), problems.BadParameter)


@pytest.mark.parametrize(
    ("parameters", "found"),
    [({"channel": 0}, 255), ({"channel": 2}, 0), ({"channel": "max", "page": 0}, 255)],
)
def test_tensors_have_channels_too(client: httpx.Client, parameters: dict[str, Any], found: int) -> None:
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [255, 0, 0]}
    answer = client.post("/v2/models/fake/infer", json={"parameters": parameters, "inputs": [tensor]})
    assert answer.json()["outputs"][0]["data"] == [found]


@pytest.mark.parametrize("parameters", [{"channel": 3}, {"page": 1}, {"channel": "red"}, {"page": -1}])
def test_tensors_have_one_page_and_three_channels(client: httpx.Client, parameters: dict[str, Any]) -> None:
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [255, 0, 0]}
    answer = client.post("/v2/models/fake/infer", json={"parameters": parameters, "inputs": [tensor]})
    assert_problem(answer, problems.BadParameter)
