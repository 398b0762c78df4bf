"""What goes wrong in production, one fault a test: the right status, nothing lost, and a server that goes on."""

from __future__ import annotations

import gc
import http.client
import io
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from service import logs, problems
from service.app import create_app
from service.codec.pixels import Pixels
from service.settings import Settings
from tests import memory
from tests.pictures import file_of, photo
from tests.service.cli.test_cli import model, seconds_until_ready, served
from tests.service.fakes import PATIENCE, FakeEngine, serving
from tests.service.test_app import PNG, assert_lives_on, assert_problem, connection, received

__all__ = ["model"]  # a fixture

BODY = file_of(photo())
POST = f"POST /segment HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: {len(BODY)}\r\n"


# -- the engine ------------------------------------------------------------------------------------------------------


def test_an_engine_that_hangs_is_a_504_and_then_fails_the_health_check() -> None:
    engine = FakeEngine()
    app = create_app(engine, Settings(hang_ms=1, drain_ms=1))
    with serving(app) as client:
        engine.gate.clear()
        for _ in range(2):
            answer = client.post("/segment?timeout_ms=30", content=BODY, headers=PNG)
            if answer.status_code != 503:
                assert_problem(answer, problems.DeadlinePassed)
        for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"):
            assert client.get(path).status_code == 503
        assert_problem(client.post("/segment", content=BODY, headers=PNG), problems.Unavailable)
        engine.gate.set()
        while app.state.service.batcher.running_s:
            pass
        assert_lives_on(client)


# -- clients ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/segment", "/segment/batch", "/v2/models/fake/infer"])
def test_an_upload_that_is_too_slow_is_a_408(path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n"
    head += "Content-Type: multipart/form-data; boundary=b\r\n"
    with serving(create_app(FakeEngine(), Settings(upload_ms=20))) as client:
        with connection(client) as raw:
            raw.sendall(f"{head}\r\n--b".encode())
            answer = received(raw)
        assert_lives_on(client)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"upload-too-slow" in answer


@memory.needs_proc
def test_ten_thousand_requests_leave_no_memory_behind() -> None:
    found = memory.measured("tests.service.test_faults")
    took, allowed = found["ten thousand requests"]
    assert took < allowed
    took, kept = found["an engine that keeps what it is given, 500 requests"]
    assert took > kept / 2  # so a leak is noticed


class Forgetful(list[list[Pixels]]):
    def append(self, batch: list[Pixels]) -> None:
        """Keep nothing."""


def measure() -> dict[str, tuple[int, int]]:
    """(bytes by which this process grew, bytes that it may have, or keeps), in a process that does nothing else.

    Beside other tests what these have freed would hide a leak, or look like one.
    """
    return {
        "ten thousand requests": (growth(FakeEngine(batches=Forgetful()), 10_000), 2_500_000),
        "an engine that keeps what it is given, 500 requests": (growth(FakeEngine(), 500), 500 * 128 * 128 * 3),
    }


def growth(engine: FakeEngine, requests: int) -> int:
    """Bytes by which this process grows over requests for 128 x 128 pixels, after some to warm up."""
    body = file_of(Image.new("RGB", (128, 128)))
    sizes = []
    with serving(create_app(engine, Settings())) as client:
        asking = http.client.HTTPConnection(client.base_url.host, client.base_url.port or 0, timeout=PATIENCE)
        for part in (300, requests):
            for _ in range(part):
                asking.request("POST", "/segment", body, PNG)
                answer = asking.getresponse()
                answer.read()
                assert answer.status == 200
            gc.collect()
            sizes.append(memory.resident_bytes())
        asking.close()
    return sizes[1] - sizes[0]


# -- the process -----------------------------------------------------------------------------------------------------


def test_sigterm_under_load_answers_everyone_who_was_let_in(model: Path, tmp_path: Path) -> None:
    with served(model, tmp_path / "torch") as (process, address, started), ExitStack() as stack:
        seconds_until_ready(address, started)
        host, _, port = address.removeprefix("http://").partition(":")
        clients = [stack.enter_context(socket.create_connection((host, int(port)), PATIENCE)) for _ in range(12)]
        for raw in clients:
            raw.sendall(f"{POST}Expect: 100-continue\r\n\r\n".encode())
        for raw in clients:
            assert raw.recv(1000).startswith(b"HTTP/1.1 100 ")  # the request is being handled
        process.send_signal(signal.SIGTERM)
        for raw in clients:
            raw.sendall(BODY)
        for raw in clients:
            assert raw.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert process.wait(PATIENCE) == 0


def test_a_model_file_that_breaks_during_reload_leaves_the_old_model(model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model.safetensors"
    shutil.copy(model, copy)
    with served(copy, tmp_path / "torch") as (process, address, started):
        seconds_until_ready(address, started)
        before = httpx.post(f"{address}/segment", content=BODY, headers=PNG).content
        for content, outcome in ((b"broken", "failed"), (model.read_bytes(), "ok")):
            copy.with_suffix(".new").write_bytes(content)
            copy.with_suffix(".new").rename(copy)
            process.send_signal(signal.SIGHUP)
            while f'mbunet_reloads_total{{outcome="{outcome}"}} 1.0' not in httpx.get(f"{address}/metrics").text:
                assert process.poll() is None
            assert httpx.post(f"{address}/segment", content=BODY, headers=PNG).content == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_the_log_costs_no_answer(model: Path) -> None:
    command = [sys.executable, "-m", "service.cli", "serve", "--port", "0", "--model", str(model), "--threads", "1"]
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    with (
        open("/dev/full", "w") as full,
        subprocess.Popen(command, env=environment, cwd=root, stdout=subprocess.PIPE, stderr=full, text=True) as process,
    ):
        try:
            assert process.stdout
            address = process.stdout.readline().split(" at ")[1].split()[0]
            for _ in range(3):
                while httpx.get(f"{address}/readyz").status_code != 200:
                    assert process.poll() is None
                assert httpx.post(f"{address}/segment", content=BODY, headers=PNG).status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


# -- the log ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What this program's log says meanwhile."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonLines())
    logger = logging.getLogger("mbunet")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield stream
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_one_line_of_json_a_request(written: io.StringIO) -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    with serving(create_app(FakeEngine(), Settings())) as client:
        client.post("/segment", content=BODY, headers=PNG | {"X-Request-Id": "a", "traceparent": trace})
        client.post("/segment?format=tiff", content=BODY, headers=PNG | {"X-Request-Id": "b"})
        client.get("/secret?key=secret")
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    sound, refused, lost = (line for line in lines if line["message"] == "request")
    assert (sound["request_id"], sound["route"], sound["status"]) == ("a", "/segment", 200)
    assert (sound["model"], sound["bytes"], sound["trace_id"]) == ("fake", len(BODY), "a" * 32)
    assert {"time", "level", "ms", "decode", "queue", "engine", "encode"} <= set(sound)
    assert (refused["request_id"], refused["outcome"], refused["reason"]) == ("b", "refused", "no-such-format")
    assert "secret" not in str(lost)


def test_a_failure_is_logged_with_its_cause(written: io.StringIO) -> None:
    with serving(create_app(FakeEngine(breaks=lambda image: image[0, 0, 0] == 13), Settings())) as client:
        bad = file_of(Image.fromarray(np.full((4, 4, 3), 13, np.uint8)))
        client.post("/segment", content=bad, headers=PNG | {"X-Request-Id": "c"})
    failed = next(line for line in map(json.loads, written.getvalue().splitlines()) if line["level"] == "error")
    assert failed["request_id"] == "c"
    assert "secret internals" in failed["exception"]


# -- the interface described -----------------------------------------------------------------------------------------


HOOKS = """
import hypothesis.strategies as st
import schemathesis

IMAGE = bytes.fromhex("{image}")

for kind in ("image/*", "application/octet-stream"):
    schemathesis.openapi.media_type(kind, st.just(IMAGE) | st.binary())


@schemathesis.hook
def before_call(context, case, kwargs):
    'Ask for the model that there is.'
    if "name" in (case.path_parameters or {{}}):
        case.path_parameters["name"] = "fake"


@schemathesis.check
def no_server_error(ctx, response, case):
    'Only where the client itself sets a deadline may it pass: that is a 504, and rightly.'
    asked = "timeout" in str(case.query) + str(case.body)
    assert response.status_code < 500 or (response.status_code == 504 and asked), response.status_code
"""


def schemathesis_run(client: httpx.Client, folder: Path) -> subprocess.CompletedProcess[str]:
    """Asks for all that the OpenAPI document allows, with sound images among it."""
    pytest.importorskip("schemathesis", reason="needs schemathesis")
    (folder / "hooks.py").write_text(HOOKS.format(image=BODY.hex()))
    environment = os.environ | {"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{client.base_url}/openapi.json", "--seed", "0"]
    command += ["--checks", "no_server_error", "--phases", "coverage,fuzzing", "--max-examples", "20"]
    command += ["--generation-database", "none", "--no-color"]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)


def test_nothing_that_the_description_allows_fails_the_server(client: httpx.Client, tmp_path: Path) -> None:
    done = schemathesis_run(client, tmp_path)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert re.search(r"[1-9][\d,]{2,} generated", done.stdout)
    assert_lives_on(client)


def test_a_server_that_fails_would_be_noticed(tmp_path: Path) -> None:
    engine = FakeEngine(breaks=lambda image: image.shape[:2] == photo().size[::-1])
    with serving(create_app(engine, Settings())) as client:
        done = schemathesis_run(client, tmp_path)
    assert done.returncode == 1
    assert re.search("AssertionError: 500|500", done.stdout)


def test_threads_end_with_the_server() -> None:
    before = threading.active_count()
    for _ in range(3):
        with serving(create_app(FakeEngine(), Settings())) as client:
            assert_lives_on(client)
    assert threading.active_count() <= before + 1
