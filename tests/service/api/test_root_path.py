"""Below a path of a proxy's, taken off by the proxy or not: the same answers, and addresses that lead back there."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from service import problems
from service.app import create_app
from service.settings import Settings
from tests.pictures import file_of, photo
from tests.service.fakes import PATIENCE, FakeEngine, serving
from tests.service.test_app import PNG

KEY = {"X-API-Key": "s3cret"}
ROOT_PATHS = pytest.mark.parametrize("root_path", ["", "/shown/here"])


@pytest.fixture(scope="module")
def proxied() -> Iterator[httpx.Client]:
    with serving(create_app(FakeEngine(), Settings(root_path="/shown/here", api_key="s3cret"))) as client:
        yield client


@ROOT_PATHS
@pytest.mark.parametrize("path", ["/", "/docs", "/samples/histology.png", "/healthz", "/v2/health/ready", "/models"])
def test_what_is_there_is_there(proxied: httpx.Client, root_path: str, path: str) -> None:
    assert proxied.get(f"{root_path}{path}", headers=KEY).status_code == 200


@ROOT_PATHS
def test_images_and_frames_are_segmented(proxied: httpx.Client, root_path: str) -> None:
    assert proxied.post(f"{root_path}/segment", content=file_of(photo()), headers=PNG | KEY).status_code == 200
    address = str(proxied.base_url).replace("http", "ws").rstrip("/")
    with connect(f"{address}{root_path}/stream", subprotocols=[Subprotocol("key.s3cret")]) as socket:
        socket.send(file_of(photo()))
        assert '"status":200' in str(socket.recv(PATIENCE)).replace(" ", "")


@ROOT_PATHS
def test_problems_lead_to_the_docs_where_the_proxy_shows_them(proxied: httpx.Client, root_path: str) -> None:
    documents = [
        proxied.get(f"{root_path}/nowhere").json(),
        proxied.post(f"{root_path}/segment").json(),
        proxied.post(f"{root_path}/segment", headers=PNG | KEY).json(),
        proxied.post(f"{root_path}/segment/batch", files=[("image", b"no image")], headers=KEY).json()["items"][0],
    ]
    kinds = [problems.NotFound, problems.WrongKey, problems.NotAnImage, problems.NotAnImage]
    assert [document["type"] for document in documents] == [f"/shown/here/docs#{kind.reason()}" for kind in kinds]


@ROOT_PATHS
def test_v2_is_told_its_error(proxied: httpx.Client, root_path: str) -> None:
    assert "error" in proxied.get(f"{root_path}/v2/models/none", headers=KEY).json()


def test_the_description_of_the_api_says_where_it_is(proxied: httpx.Client, client: httpx.Client) -> None:
    assert proxied.get("/openapi.json").json()["servers"] == [{"url": "/shown/here"}]
    assert "servers" not in client.get("/openapi.json").json()


@pytest.mark.parametrize(
    "path", ["/segment", "/shown/here/segment", "/shown/here/shown/here/segment", "/shown/heresegment"]
)
def test_no_path_leads_past_the_key(proxied: httpx.Client, path: str) -> None:
    assert proxied.post(path, content=file_of(photo()), headers=PNG).status_code in (401, 404)
