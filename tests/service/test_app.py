"""The service over real HTTP: masks, problem documents for every kind of bad input, and a server that lives on."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image

from engine.runtime import Engine
from service import problems
from service.api import pages
from service.app import application, create_app
from service.codec.decode import decode
from service.core.params import SegmentParams
from service.core.queue import InferenceResult
from service.core.service import assemble
from service.settings import Settings
from tests.models import random_model
from tests.pictures import damaged, file_of, giant, images, photo
from tests.service.fakes import PATIENCE, FakeEngine, fake_model, serving

PNG = {"Content-Type": "image/png"}


def mask_of(answer: httpx.Response) -> np.ndarray[Any, np.dtype[np.uint8]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.mode in ("1", "P", "L")
        return np.asarray(image.convert("L"))


def assert_problem(answer: httpx.Response, problem: type[problems.Problem]) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert (answer.status_code, document["status"]) == (problem.status, problem.status)
    assert (document["type"], document["title"]) == (f"/docs#{problem.reason()}", problem.title)
    assert document["detail"]
    assert document["request_id"] == answer.headers["x-request-id"]
    return document


def assert_lives_on(client: httpx.Client) -> None:
    assert mask_of(client.post("/segment", content=file_of(photo()), headers=PNG)).shape == (13, 21)


# -- masks ---------------------------------------------------------------------------------------------------------


def test_segments_a_raw_body(client: httpx.Client) -> None:
    answer = client.post("/segment", content=file_of(photo()), headers=PNG)
    np.testing.assert_array_equal(mask_of(answer), np.where(np.asarray(photo())[:, :, 0] == 255, 255, 0))
    stages = re.findall(r"(\w+);dur=\d+\.\d+", answer.headers["server-timing"])
    assert stages == ["decode", "queue", "engine", "encode", "total"]


@pytest.mark.parametrize("kind", ["image/jpeg", "application/octet-stream", "IMAGE/PNG; a=b", None])
def test_the_type_is_sniffed_not_believed(client: httpx.Client, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    assert mask_of(client.post("/segment", content=file_of(photo()), headers=headers)).any()


def test_segments_a_form(client: httpx.Client) -> None:
    answer = client.post("/segment", files={"image": ("x", file_of(photo()))})
    assert mask_of(answer).shape == (13, 21)


@pytest.mark.parametrize("kind", images())
def test_odd_images_get_a_mask_of_their_displayed_size(client: httpx.Client, kind: str) -> None:
    data, (width, height) = images()[kind]
    assert mask_of(client.post("/segment", content=data, headers=PNG)).shape == (height, width)
    assert_lives_on(client)


def test_the_threshold_is_used(client: httpx.Client) -> None:
    grey = file_of(Image.new("RGB", (4, 4), (100, 100, 100)))
    for threshold, expected in (("0.3", 255), ("0.5", 0)):
        answer = client.post("/segment", params={"threshold": threshold}, content=grey, headers=PNG)
        assert (mask_of(answer) == expected).all()


def test_several_classes_are_indices_and_take_no_threshold() -> None:
    with serving(create_app(FakeEngine(fake_model(classes=3)), Settings())) as client:
        body = file_of(Image.new("RGB", (4, 4), (2, 0, 0)))
        assert (mask_of(client.post("/segment", content=body, headers=PNG)) == 2).all()
        refused = client.post("/segment?threshold=0.5", content=body, headers=PNG)
        assert_problem(refused, problems.BadParameter)


@pytest.mark.parametrize(
    ("query", "accept", "expected"),
    [
        ("", "*/*", "image/png"),
        ("", "image/*", "image/png"),
        ("", "application/json", "application/json"),
        ("", "application/x-npy;q=0.5, application/json;q=0.4", "application/x-npy"),
        ("", "text/html, application/*;q=0.9, image/png;q=0", "application/x-npy"),
        ("?format=npy", "image/png", "application/x-npy"),
        ("?format=png", "text/html", "image/png"),
    ],
)
def test_the_format_is_negotiated(client: httpx.Client, query: str, accept: str, expected: str) -> None:
    answer = client.post(f"/segment{query}", content=file_of(photo()), headers=PNG | {"Accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (200, expected)


def test_npy_and_json_bodies(client: httpx.Client) -> None:
    array = client.post("/segment?format=npy", content=file_of(photo()), headers=PNG).content
    mask = np.load(io.BytesIO(array))
    assert (mask.shape, mask.max()) == ((13, 21), 1)
    document = client.post("/segment?format=json", content=file_of(photo()), headers=PNG).json()
    assert document["classes"][1]["pixels"] == mask.sum()


# -- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", damaged())
def test_damaged_bodies(client: httpx.Client, kind: str) -> None:
    assert_problem(client.post("/segment", content=damaged()[kind], headers=PNG), problems.NotAnImage)
    assert_lives_on(client)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # pytest undoes what the codec has set
def test_mutated_images_never_fail_the_server(client: httpx.Client) -> None:
    rng = np.random.default_rng(0)
    corpus = list(images().values())
    for number in range(40 * len(corpus)):
        data, _ = corpus[number % len(corpus)]
        body = bytearray(data)
        for place in rng.integers(0, len(body), 4):
            body[place] = rng.integers(0, 256)
        if number % 3 == 0:
            del body[rng.integers(0, len(body)) :]
        if number % 5 == 0:
            start, end = sorted(rng.integers(0, len(body) + 1, 2))
            body[start:start] = body[start:end]
        assert client.post("/segment", content=bytes(body), headers=PNG).status_code in (200, 400, 413, 415)
    assert_lives_on(client)


def test_a_small_file_that_decodes_to_a_giant_image(client: httpx.Client) -> None:
    bomb = file_of(Image.new("1", (8000, 8000)))
    assert len(bomb) < 20_000
    for body in (bomb, giant(50_000)):
        document = assert_problem(client.post("/segment", content=body, headers=PNG), problems.TooManyPixels)
        assert document["limit"] == 2**20
    assert_lives_on(client)


@pytest.mark.parametrize("form", [False, True])
def test_an_image_over_the_byte_limit(client: httpx.Client, form: bool) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    body = file_of(Image.fromarray(noise))
    sent: dict[str, Any] = {"files": {"image": ("x", body)}} if form else {"content": body, "headers": PNG}
    document = assert_problem(client.post("/segment", **sent), problems.BodyTooLarge)
    assert document["limit"] == 200_000
    assert_lives_on(client)


@pytest.mark.parametrize(
    ("headers", "begun"),
    [("Content-Length: 1000000000", b""), ("Transfer-Encoding: chunked", b"30d41\r\n" + bytes(200_001) + b"\r\n")],
    ids=["declared", "streamed"],
)
def test_too_much_is_refused_before_all_of_it_is_sent(client: httpx.Client, headers: str, begun: bytes) -> None:
    with connection(client) as raw:
        raw.sendall(
            f"POST /segment HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n{headers}\r\n\r\n".encode()
            + begun
        )
        head = received(raw)
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in head.lower()
    assert_lives_on(client)


def connection(client: httpx.Client) -> socket.socket:
    assert client.base_url.port
    return socket.create_connection((client.base_url.host, client.base_url.port), PATIENCE)


def received(raw: socket.socket) -> bytes:
    """Everything until the server closes."""
    parts = []
    while part := raw.recv(65536):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "text/plain"},
    ],
)
def test_other_types_get_a_hint(client: httpx.Client, headers: dict[str, str]) -> None:
    answer = client.post("/segment", content=file_of(photo()), headers=headers)
    assert "-H 'Content-Type: image/png'" in assert_problem(answer, problems.UnsupportedType)["detail"]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b""),
        ("multipart/form-data; boundary=b", b"junk"),
        (
            "multipart/form-data; boundary=b; charset=idna",
            b'--b\r\nContent-Disposition: form-data; name="\xff"\r\n\r\n',
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\nx\r\n--b--\r\n',
        ),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\nx',
        ),
        ("multipart/form-data; boundary=" + "b" * 999, b""),
    ],
    ids=["no boundary", "junk", "odd charset", "text field", "no name", "cut short", "giant boundary"],
)
def test_bad_forms(client: httpx.Client, kind: str, body: bytes) -> None:
    assert_problem(client.post("/segment", content=body, headers={"Content-Type": kind}), problems.BadForm)
    assert_lives_on(client)


def test_a_form_of_many_fields_is_refused_before_all_are_read(client: httpx.Client) -> None:
    field = b'--b\r\nContent-Disposition: form-data; name="note"\r\n\r\nx\r\n'
    image = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n' + file_of(photo()) + b"\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    for fields, status in ((0, 200), (100, 422), (101, 400)):
        body = fields * field + image + b"--b--\r\n"
        assert client.post("/segment", content=body, headers=headers).status_code == status


@pytest.mark.parametrize("path", ["/segment", "/segment/batch"])
@pytest.mark.parametrize("field", ["threshold", "mask"])
def test_a_form_has_no_parameters(client: httpx.Client, path: str, field: str) -> None:
    other = {"threshold": "0.9"} if field == "threshold" else {"mask": ("y", b"")}
    answer = client.post(path, files={"image": ("x", file_of(photo())), field: other[field]})
    detail = assert_problem(answer, problems.BadParameter)["detail"]
    assert detail.startswith(f"{field}: ")
    assert "belong into the query" in detail


@pytest.mark.parametrize("name", ["picture", "Image"])
def test_a_form_without_the_field(client: httpx.Client, name: str) -> None:
    assert_problem(client.post("/segment", files={name: ("x", file_of(photo()))}), problems.BadForm)


@pytest.mark.parametrize(
    "query",
    [
        "threshold=2",
        "threshold=-0.1",
        "threshold=nan",
        "threshold=x",
        "timeout_ms=0",
        "timeout_ms=99999999",
        "treshold=1",
        "threshold=0.4&threshold=0.6",
    ],
)
def test_bad_parameters(client: httpx.Client, query: str) -> None:
    answer = client.post(f"/segment?{query}", content=file_of(photo()), headers=PNG)
    assert query.partition("=")[0] in assert_problem(answer, problems.BadParameter)["detail"]


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("page=x", "page: a number from 0, or max"),
        ("treshold=1", "treshold: no such parameter; there are model, threshold, format, "),
    ],
)
def test_parameters_are_refused_in_plain_words(client: httpx.Client, query: str, detail: str) -> None:
    answer = client.post(f"/segment?{query}", content=file_of(photo()), headers=PNG)
    assert assert_problem(answer, problems.BadParameter)["detail"].startswith(detail)


def test_one_image_is_taken_where_there_is_a_way_for_several(client: httpx.Client) -> None:
    answer = client.post("/segment", files=[("image", ("x", file_of(photo())))] * 2)
    document = assert_problem(answer, problems.TooManyImages)
    assert (document["limit"], "/segment/batch" in document["detail"]) == (1, True)


@pytest.mark.parametrize(("query", "accept"), [("?format=tiff", "*/*"), ("?format=", "*/*"), ("", "text/html")])
def test_formats_that_are_not_offered(client: httpx.Client, query: str, accept: str) -> None:
    answer = client.post(f"/segment{query}", content=file_of(photo()), headers=PNG | {"Accept": accept})
    assert "application/x-npy" in assert_problem(answer, problems.NoSuchFormat)["detail"]


def test_unknown_paths_and_methods_are_problems_too(client: httpx.Client) -> None:
    for path in ("/nothing", "/segment/", "/models/nothing"):
        assert_problem(client.get(path), problems.NotFound)
    answer = client.get("/segment")
    assert_problem(answer, problems.MethodNotAllowed)
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/metrics", "/models", "/segment"])
def test_head_is_get_without_the_body(client: httpx.Client, path: str) -> None:
    head, get = client.head(path), client.get(path)
    assert (head.status_code, head.headers["content-type"]) == (get.status_code, get.headers["content-type"])
    assert head.content == b""


# -- engine, queue, deadline, leaving --------------------------------------------------------------------------------


def test_an_engine_failure_tells_the_client_nothing_but_its_request_id() -> None:
    engine = FakeEngine(breaks=lambda image: image[0, 0, 0] == 13)
    with serving(create_app(engine, Settings())) as client:
        bad = file_of(Image.new("RGB", (4, 4), (13, 0, 0)))
        answer = client.post("/segment", content=bad, headers=PNG | {"X-Request-Id": "abc-1"})
        assert assert_problem(answer, problems.EngineFailure)["request_id"] == "abc-1"
        assert "secret" not in answer.text
        assert_lives_on(client)


def test_an_unforeseen_error_is_a_problem_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("secret internals")

    app = create_app(FakeEngine(), Settings())
    with serving(app) as client:
        monkeypatch.setattr(app.state.service.models, "engine", broken)
        answer = client.post("/segment", content=b"", headers=PNG)
        assert_problem(answer, problems.EngineFailure)
        assert "secret" not in answer.text


@pytest.fixture
def held() -> Iterator[tuple[FastAPI, FakeEngine, httpx.Client]]:
    """A server whose engine is busy with an image until its gate opens; one more image may wait."""
    engine = FakeEngine()
    app = create_app(engine, Settings(queue_images=1))
    with serving(app) as client:
        engine.gate.clear()
        engine.entered.clear()
        app.state.service.batcher.submit(np.zeros((16, 16, 3), np.uint8), SegmentParams(engine, 0.5))
        assert engine.entered.wait(PATIENCE)
        yield app, engine, client
        engine.gate.set()


def test_a_full_queue_answers_429_with_retry_after(held: tuple[FastAPI, FakeEngine, httpx.Client]) -> None:
    app, engine, client = held
    waiting = app.state.service.batcher.submit(np.zeros((16, 16, 3), np.uint8), SegmentParams(engine, 0.5))
    answer = client.post("/segment", content=file_of(photo()), headers=PNG)
    assert_problem(answer, problems.QueueFull)
    assert int(answer.headers["retry-after"]) >= 1
    engine.gate.set()
    waiting.result(PATIENCE)
    assert_lives_on(client)


def test_the_deadline_fires_while_the_engine_is_busy(held: tuple[FastAPI, FakeEngine, httpx.Client]) -> None:
    app, engine, client = held
    answer = client.post("/segment?timeout_ms=20", content=file_of(photo()), headers=PNG)
    assert_problem(answer, problems.DeadlinePassed)
    assert app.state.service.batcher.running_s > 0  # still
    engine.gate.set()
    assert_lives_on(client)
    assert [len(batch) for batch in engine.batches] == [1, 1, 1]  # warm-up, the long one, the last: the late never ran


def test_a_client_that_leaves_withdraws_its_image(
    held: tuple[FastAPI, FakeEngine, httpx.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    app, engine, client = held
    batcher = app.state.service.batcher
    submit, queued, done = batcher.submit, threading.Event(), threading.Event()
    replies: list[Future[InferenceResult]] = []

    def observed(*args: Any) -> Future[InferenceResult]:
        replies.append(submit(*args))
        replies[0].add_done_callback(lambda _: done.set())
        queued.set()
        return replies[0]

    monkeypatch.setattr(batcher, "submit", observed)
    body = file_of(photo())
    with connection(client) as raw:
        head = "POST /segment HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        raw.sendall(head.encode() + body)
        assert queued.wait(PATIENCE)
    assert done.wait(PATIENCE)
    assert replies[0].cancelled()
    monkeypatch.undo()
    engine.gate.set()
    assert_lives_on(client)


def test_a_client_that_leaves_in_the_middle_of_its_upload_is_counted_as_cancelled() -> None:
    app = create_app(FakeEngine(), Settings())
    with serving(app) as client:
        with connection(client) as raw:
            raw.sendall(
                b"POST /segment HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 99\r\n\r\nabc"
            )
        assert_lives_on(client)
    cancelled = {"route": "/segment", "outcome": "cancelled"}
    assert app.state.service.metrics.registry.get_sample_value("mbunet_requests_total", cancelled) == 1


def test_not_ready_until_warmed_up() -> None:
    engine = FakeEngine()
    engine.gate.clear()
    app = create_app(engine, Settings())
    with serving(app, wait=False) as client:
        assert_problem(client.get("/readyz"), problems.Unavailable)
        answer = client.post("/segment", content=file_of(photo()), headers=PNG)
        assert_problem(answer, problems.Unavailable)
        assert answer.headers["retry-after"] == "1"
        assert client.get("/healthz").status_code == 200
        engine.gate.set()
        assert app.state.service.lifecycle.settled.wait(PATIENCE)
        assert client.get("/readyz").json() == {"status": "ready"}


def test_an_engine_that_fails_its_warm_up_is_neither_ready_nor_healthy() -> None:
    with serving(create_app(FakeEngine(breaks=lambda image: True), Settings())) as client:
        assert_problem(client.get("/readyz"), problems.Unavailable)
        assert_problem(client.get("/healthz"), problems.Unavailable)


def test_what_is_queued_is_answered_when_the_server_stops(held: tuple[FastAPI, FakeEngine, httpx.Client]) -> None:
    app, engine, _ = held
    waiting = app.state.service.batcher.submit(np.zeros((16, 16, 3), np.uint8), SegmentParams(engine, 0.5))
    stopping = threading.Thread(target=app.state.service.lifecycle.stop)
    stopping.start()
    engine.gate.set()
    stopping.join(PATIENCE)
    assert waiting.result(0).mask.shape == (16, 16)


# -- round every request ---------------------------------------------------------------------------------------------


def test_request_ids_are_echoed_or_made(client: httpx.Client) -> None:
    assert client.get("/healthz", headers={"X-Request-Id": "my-id/7"}).headers["x-request-id"] == "my-id/7"
    for bad in (b"", b"a b", b"x" * 129, b"\xe9"):
        made = client.get("/healthz", headers={b"X-Request-Id": bad}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", made)


def test_metrics_count_outcomes_reasons_images_and_stages() -> None:
    app = create_app(FakeEngine(), Settings())
    with serving(app) as client:
        assert_lives_on(client)
        client.post("/segment", content=b"", headers=PNG)
        client.get("/some/path/of/the/client")
        answer = client.get("/metrics")
    assert "_created" not in answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")
    for line in (
        'mbunet_requests_total{outcome="ok",route="/segment"} 1.0',
        'mbunet_requests_total{outcome="refused",route="/segment"} 1.0',
        'mbunet_requests_total{outcome="refused",route="none"} 1.0',
        'mbunet_refusals_total{reason="not-an-image"} 1.0',
        'mbunet_refusals_total{reason="engine-failure"} 0.0',  # so that the first one is an increase
        "mbunet_images_total 1.0",
        'mbunet_stage_seconds_count{stage="engine"} 1.0',
        'mbunet_stage_seconds_bucket{le="0.001",stage="engine"} 0.0',
        'mbunet_stage_seconds_bucket{le="10.0",stage="engine"} 1.0',
        'mbunet_model_info{device="fake",family="mbu-net",kernel="fake",name="fake"} 1.0',
    ):
        assert line in answer.text.splitlines()
    assert "some" not in answer.text


def test_models_are_described(client: httpx.Client) -> None:
    listed = client.get("/models").json()
    assert [entry["name"] for entry in listed] == ["fake"]
    assert client.get("/models/fake").json() == listed[0]


# -- pages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_load_nothing_from_another_host(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert not re.findall(r"""(?:src|href|url|import|fetch)\s*[=(]?\s*["']?\s*(?:https?:)?//""", answer.text)


def test_pages_are_parts_of_the_package() -> None:
    assert {page.name for page in pages.FOLDER.glob("*.html")} == {"index.html", "docs.html"}


def test_samples_come_with_the_package_and_need_no_key() -> None:
    kinds = {"png": "image/png", "jpg": "image/jpeg"}
    with serving(create_app(FakeEngine(fake_model()), Settings(api_key="k"))) as client:
        for name in pages.SAMPLES:
            answer = client.get(f"/samples/{name}")
            assert (answer.status_code, answer.headers["content-type"]) == (200, kinds[name[-3:]])
            assert name in client.get("/").text
        assert_problem(client.get("/samples/README.md"), problems.NotFound)
    assert len(pages.SAMPLES) == 3
    text = (pages.FOLDER / "index.html").read_text()
    tried = dict(re.findall(r'"([\w.]+)": "([\w-]+)"', text[text.index("SAMPLES = {") :].splitlines()[0]))
    assert tried.keys() == pages.SAMPLES.keys()
    assert set(tried.values()) == set(Settings().models)


def test_the_api_describes_segment_and_every_problem(client: httpx.Client) -> None:
    api = client.get("/openapi.json").json()
    described = api["paths"]["/segment"]["post"]
    assert {entry["name"] for entry in described["parameters"]} == {
        *("model", "threshold", "format", "channel", "page", "split", "min_area", "timeout_ms", "priority")
    }
    assert set(described["requestBody"]["content"]) == {"image/*", "application/octet-stream", "multipart/form-data"}
    statuses = {str(problem.status) for problem in problems.tree()}
    assert set(described["responses"]) == {"200"} | statuses
    assert {entry["reason"] for entry in api["x-problems"]} == {problem.reason() for problem in problems.tree()}
    assert "HTTPValidationError" not in json.dumps(api)


# -- the real engine ---------------------------------------------------------------------------------------------------


def test_the_whole_way_gives_the_engines_own_bits() -> None:
    with Engine.load(random_model(width=4), threads=1) as engine, serving(create_app(engine, Settings())) as client:
        for kind, (data, _) in images().items():
            (expected,), _ = engine.run([decode(data, 2**20).pixels])
            mask = mask_of(client.post("/segment", content=data, headers=PNG))
            np.testing.assert_array_equal(mask, expected * 255, err_msg=kind)


# -- threads -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="no scheduling classes here")
def test_decoders_do_not_preempt_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []

    def spy(*given: Any) -> Any:
        found.append(os.sched_getscheduler(0))
        return decode(*given)

    monkeypatch.setattr("service.codec.decode.decode", spy)
    with serving(create_app(FakeEngine(fake_model()), Settings())) as client:
        assert_lives_on(client)
    assert set(found) == {os.SCHED_BATCH}


def test_a_system_that_forbids_scheduling_classes_is_served_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", forbidden, raising=False)
    with serving(create_app(FakeEngine(fake_model()), Settings())) as client:
        assert_lives_on(client)


# -- pages of other origins ------------------------------------------------------------------------------------------

READABLE = {"cache-control", "content-language", "content-length", "content-type", "expires", "last-modified", "pragma"}
OF_THE_CONNECTION = {"connection", "date", "server", "transfer-encoding", "vary"}


def test_pages_of_other_origins_may_read_every_header_that_is_sent() -> None:
    engine = FakeEngine()
    settings = Settings(api_key="key", origins="https://friend.example")
    app = application(replace(assemble([engine], settings), image_joules=lambda: 1.0))
    frames, pixels = io.BytesIO(), photo().convert("RGB")
    pixels.save(frames, "TIFF", save_all=True, append_images=[pixels])
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [0, 0, 0]}
    infer = {"inputs": [tensor], "outputs": [{"name": "mask", "parameters": {"binary_data": True}}]}
    engine.gate.clear()  # it is loading
    with serving(app, wait=False) as client:
        client.headers.update({"Origin": "https://friend.example", "X-API-Key": "key"})
        answers = [client.post("/segment", content=frames.getvalue())]
        engine.gate.set()
        assert app.state.service.lifecycle.settled.wait(PATIENCE)
        answers += [
            client.post("/segment", content=frames.getvalue()),
            client.post("/segment", headers={"X-API-Key": "another"}),
            client.post("/segment", headers={"Content-Encoding": "br"}),
            client.get("/segment"),
            client.post("/v2/models/fake/infer", json=infer),
            client.get("/models"),
        ]
    assert [answer.status_code for answer in answers] == [503, 200, 401, 415, 405, 200, 200]
    exposed = {name.strip().lower() for name in answers[0].headers["access-control-expose-headers"].split(",")}
    sent = {name for answer in answers for name in answer.headers if not name.startswith("access-control-")}
    assert sent - READABLE - OF_THE_CONNECTION == exposed
