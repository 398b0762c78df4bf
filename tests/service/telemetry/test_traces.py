"""OpenTelemetry: spans of requests and stages, in memory and to a collector; nothing of it where nobody asks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.problems import EngineFailure
from service.settings import Settings
from service.telemetry import traces
from tests.pictures import file_of, photo
from tests.service.cli.test_cli import ROOT, model, seconds_until_ready, served
from tests.service.fakes import PATIENCE, FakeEngine, serving
from tests.service.test_app import PNG

__all__ = ["model"]  # a fixture

sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="needs the extra otel")
export = pytest.importorskip("opentelemetry.sdk.trace.export")
in_memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")

TRACE, PARENT = "a" * 32, "b" * 16
STAGES = ["decode", "queue", "engine", "encode"]


@pytest.fixture
def kept() -> Any:
    """Where the spans of `traced` are kept."""
    return in_memory.InMemorySpanExporter()


def traced(kept: Any) -> traces.Traces:
    provider = sdk.TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(export.SimpleSpanProcessor(kept))
    return traces.Traces(provider)


def test_a_request_is_a_span_with_one_for_every_stage(kept: Any) -> None:
    with serving(create_app(FakeEngine(), Settings(), traces=traced(kept))) as client:
        headers = PNG | {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-Id": "r"}
        assert client.post("/segment", content=file_of(photo()), headers=headers).status_code == 200
    *stages, request = kept.get_finished_spans()
    assert [span.name for span in stages] == STAGES
    assert {span.parent.span_id for span in stages} == {request.context.span_id}
    assert all(before.end_time <= after.start_time for before, after in pairwise(stages))
    assert stages[-1].end_time <= request.end_time
    assert (request.name, request.kind.name) == ("POST /segment", "SERVER")
    assert (f"{request.context.trace_id:032x}", f"{request.parent.span_id:016x}") == (TRACE, PARENT)
    assert dict(request.attributes) == {
        "http.request.method": "POST",
        "http.route": "/segment",
        "http.response.status_code": 200,
        "mbunet.request_id": "r",
    }


def test_every_image_of_a_request_has_its_stages(kept: Any) -> None:
    with serving(create_app(FakeEngine(), Settings(), traces=traced(kept))) as client:
        form = [("image", ("x", file_of(photo())))] * 2
        assert client.post("/segment/batch", files=form).status_code == 200
        tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [255, 0, 0]}
        assert client.post("/v2/models/fake/infer", json={"inputs": [tensor]}).status_code == 200
    names = [span.name for span in kept.get_finished_spans()]
    assert sorted(names[:8]) == sorted(2 * STAGES)
    assert names[8:] == ["POST /segment/batch", *STAGES, "POST /v2/models/{name}/infer"]


def test_failures_are_marked_and_probes_leave_nothing(kept: Any) -> None:
    engine = FakeEngine(breaks=lambda image: image.shape == (13, 21, 3))
    with serving(create_app(engine, Settings(), traces=traced(kept))) as client:
        for path in ("/healthz", "/readyz", "/metrics", "/v2/health/ready"):
            client.get(path)
        assert client.post("/segment", content=file_of(photo()), headers=PNG).status_code == EngineFailure.status
        client.get("/secret?key=secret")
    failed, lost = kept.get_finished_spans()
    assert (failed.status.status_code.name, lost.status.status_code.name) == ("ERROR", "UNSET")
    assert (lost.name, "secret" in str(lost.to_json())) == ("GET", False)


def test_the_trace_is_named_in_the_log(kept: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "mbunet")
    with serving(create_app(FakeEngine(), Settings(), traces=traced(kept))) as client:
        client.get("/models")
    (span,) = kept.get_finished_spans()
    (line,) = (record for record in caplog.records if record.message == "request")
    assert vars(line)["fields"]["trace_id"] == f"{span.context.trace_id:032x}"


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """Address and bodies of what takes spans over HTTP."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", bodies
        server.shutdown()


def test_serve_sends_its_spans_before_it_ends(
    model: Path, tmp_path: Path, collector: tuple[str, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(traces.ENDPOINTS[0], collector[0])
    with served(model, tmp_path / "torch") as (process, address, started):
        seconds_until_ready(address, started)
        assert httpx.post(f"{address}/segment", content=file_of(photo()), headers=PNG).status_code == 200
        process.terminate()
        assert process.wait(PATIENCE) == 0
    sent = b"".join(collector[1])
    assert all(name in sent for name in (b"POST /segment", b"engine", b"service.name", b"mbunet"))


def test_a_collector_that_is_gone_keeps_nobody_waiting(kept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the one who asks, and the server that stops only for so long."""
    forever = threading.Event()
    monkeypatch.setattr(kept, "shutdown", forever.wait)
    monkeypatch.setattr(traces, "FLUSH_S", 0.01)
    provider = traced(kept)
    started = time.monotonic()
    provider.stop()
    assert time.monotonic() - started < PATIENCE
    forever.set()


def test_nothing_is_imported_unless_it_is_asked_for() -> None:
    code = "import json, sys, service.app, service.server, service.telemetry.traces as t; made = t.from_environment(); "
    code += "print(json.dumps([made is None, [name for name in sys.modules if name.startswith(SDK)]]))"
    code = f"SDK = ('opentelemetry.sdk', 'opentelemetry.exporter'); {code}"  # (FastAPI itself imports the API)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [True, []]


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv(traces.ENDPOINTS[0], "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    assert traces.from_environment() is None
    assert "pip install -e '.[otel]'" in caplog.text
