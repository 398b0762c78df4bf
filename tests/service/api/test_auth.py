"""API key and origin: 401 and 403 before anything of the body is read."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from service import problems
from service.app import create_app
from service.settings import Settings
from tests.pictures import file_of, photo
from tests.service.fakes import FakeEngine, serving
from tests.service.test_app import PNG, assert_problem

KEY = "s3cret"


@pytest.fixture(scope="module")
def protected() -> Iterator[httpx.Client]:
    settings = Settings(api_key=KEY, origins="https://friend.example, https://other.example")
    with serving(create_app(FakeEngine(), settings)) as client:
        yield client


@pytest.mark.parametrize("headers", [{"Authorization": f"Bearer {KEY}"}, {"X-API-Key": KEY}])
def test_the_key_is_taken_from_two_headers(protected: httpx.Client, headers: dict[str, str]) -> None:
    assert protected.post("/segment", content=file_of(photo()), headers=PNG | headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"X-API-Key": KEY + "x"},
        {"Authorization": f"Basic {KEY}"},
        {b"X-API-Key": b"\xff"},
    ],
)
@pytest.mark.parametrize("path", ["/segment", "/segment/batch", "/models", "/models/fake", "/v2/models/fake/infer"])
def test_without_the_key_nothing_is_served(protected: httpx.Client, path: str, headers: dict[str, str]) -> None:
    answer = protected.post(path, content=b"", headers=headers)
    document = assert_problem(answer, problems.WrongKey)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert KEY not in str(document)


def test_refusals_count_under_the_route_that_was_asked_for() -> None:
    with serving(create_app(FakeEngine(), Settings(api_key=KEY))) as client:
        for path in ("/segment", "/models/fake", "/models/of/nobody"):
            client.get(path)
        counted = client.get("/metrics").text
    for route in ("/segment", "/models/{name}", "none"):
        assert f'mbunet_requests_total{{outcome="refused",route="{route}"}} 1.0' in counted


def test_a_key_may_hold_any_character() -> None:
    key = "schlüssel"
    with serving(create_app(FakeEngine(), Settings(api_key=key))) as client:
        for sent, status in ((key.encode(), 200), (b"schl\xfcssel", 401)):
            headers = {b"X-API-Key": sent}
            assert client.post("/segment", content=file_of(photo()), headers=headers).status_code == status


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/docs", "/", "/v2/health/live", "/openapi.json"])
def test_health_metrics_and_pages_need_no_key(protected: httpx.Client, path: str) -> None:
    assert protected.get(path).status_code == 200


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://friend.example", 200),
        ("https://evil.example", 403),
        ("null", 403),
        ("http://friend.example", 403),
        ("http://[", 403),
    ],
)
def test_pages_of_other_origins_are_refused_unless_named(protected: httpx.Client, origin: str, status: int) -> None:
    answer = protected.post("/segment", content=file_of(photo()), headers=PNG | {"X-API-Key": KEY, "Origin": origin})
    assert answer.status_code == status


def test_the_servers_own_page_may_ask(client: httpx.Client) -> None:
    origin = str(client.base_url).rstrip("/")
    assert client.post("/segment", content=file_of(photo()), headers=PNG | {"Origin": origin}).status_code == 200


@pytest.mark.parametrize(
    "name", ["localhost", "LOCALHOST:1", "mbunet.localhost", "127.1.2.3", "[::1]:8080", "friend.example"]
)
def test_a_local_server_is_asked_by_its_own_names(protected: httpx.Client, name: str) -> None:
    headers = {"X-API-Key": KEY, "Host": name, "Origin": f"http://{name}"}
    assert protected.get("/models", headers=headers).status_code == 200


@pytest.mark.parametrize("name", ["evil.example", "evil.example:8080", "localhost.evil.example", "192.168.1.1", "["])
def test_a_name_that_was_made_to_lead_here_is_refused(protected: httpx.Client, name: str) -> None:
    for origin in ({}, {"Origin": f"http://{name}"}):  # a page's own GET has no Origin
        answer = protected.get("/models", headers={"X-API-Key": KEY, "Host": name} | origin)
        assert_problem(answer, problems.ForeignOrigin)


def test_a_server_for_others_is_asked_by_any_name() -> None:
    with serving(create_app(FakeEngine(), Settings(host="0.0.0.0"))) as client:
        headers = {"Host": "segment.example", "Origin": "http://segment.example"}
        assert client.get("/models", headers=headers).status_code == 200


def test_pages_that_are_named_may_read_the_answer(protected: httpx.Client, client: httpx.Client) -> None:
    asks = {"Origin": "https://friend.example", "Access-Control-Request-Method": "POST"}
    first = protected.options("/segment", headers=asks | {"Access-Control-Request-Headers": "x-api-key, content-type"})
    assert (first.status_code, first.headers["access-control-allow-origin"]) == (200, "https://friend.example")
    answer = protected.post(
        "/segment", content=file_of(photo()), headers=PNG | {"X-API-Key": KEY, "Origin": "https://friend.example"}
    )
    assert answer.headers["access-control-allow-origin"] == "https://friend.example"
    assert "Server-Timing" in answer.headers["access-control-expose-headers"]
    assert "access-control-allow-origin" not in client.options("/segment", headers=asks).headers
