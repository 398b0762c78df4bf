"""`mbunet serve --workers`: the same answers, exact counts, and nothing lost but what a dead process had in hand."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from engine import format
from engine.runtime import Engine
from service.cli import client
from service.processes.supervisor import SHARED
from service.telemetry.metrics import STAGES
from tests.models import random_model
from tests.pictures import file_of, photo
from tests.service.fakes import PATIENCE

ROOT = Path(__file__).parents[3]
PNG = {"Content-Type": "image/png"}
SIZES = ((40, 56), (56, 40), (24, 24), (64, 80))
BODIES = [file_of(photo().resize(size)) for size in SIZES]
STREAMS = 3
LONG = 120.0  # seconds in which a client of a server that dies and dies gets its answer


@dataclass
class Server:
    process: subprocess.Popen[bytes]
    address: str

    def pids(self, name: str = "") -> dict[int, str]:
        """Processes below the supervisor whose name begins so."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        found = {}
        for pid in children:
            with contextlib.suppress(OSError):  # it has just ended
                found[int(pid)] = Path(f"/proc/{pid}/comm").read_text().strip()
        return {pid: text for pid, text in found.items() if text.startswith(f"mbunet-{name}")}

    def ready(self) -> None:
        """Wait until it is."""
        limit = time.monotonic() + PATIENCE
        while self.status("/readyz") != 200:
            assert time.monotonic() < limit

    def status(self, path: str) -> int:
        try:
            return httpx.get(self.address + path, timeout=PATIENCE).status_code
        except httpx.TransportError:
            return 0

    def counted(self, series: str) -> float:
        """What /metrics says of it."""
        found = re.search(rf"^{re.escape(series)} (\S+)$", httpx.get(f"{self.address}/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0


@contextmanager
def serving(model: Path, *more: str) -> Iterator[Server]:
    """A server with two front ends, ready."""
    command = [sys.executable, "-m", "service.cli", "serve", "--port", "0", "--model", str(model), "--threads", "1"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MBUNET_")}
    before = set(SHARED.glob("mbunet-*"))
    with (
        open(os.devnull, "wb") as nowhere,
        subprocess.Popen(
            [*command, "--workers", "2", *more],
            env=environment | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=nowhere,
            start_new_session=True,
        ) as process,
    ):
        try:
            assert process.stdout
            found = re.search(rb"http://[\d.:]+", process.stdout.readline())
            assert found
            server = Server(process, found[0].decode())
            server.ready()
            yield server
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
            assert set(SHARED.glob("mbunet-*")) <= before
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "random.safetensors"
    format.save(random_model(width=4), path)
    return path


@pytest.fixture(scope="module")
def masks(model: Path) -> list[bytes]:
    """What every one of BODIES must give, as pixels."""
    with Engine.load(str(model), threads=1) as engine:
        images = [np.asarray(Image.open(io.BytesIO(body)).convert("RGB")) for body in BODIES]
        return [(mask * 255).tobytes() for mask in engine.run(images)[0]]


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Server]:
    with serving(model, "--streams", str(STREAMS)) as running:
        yield running


@contextmanager
def posting(server: Server) -> Iterator[socket.socket]:
    """A connection whose request for the first of BODIES is being handled, but for its body."""
    host, _, port = server.address.removeprefix("http://").partition(":")
    head = "POST /segment HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nExpect: 100-continue\r\n"
    with socket.create_connection((host, int(port)), PATIENCE) as raw:
        raw.sendall(f"{head}Content-Length: {len(BODIES[0])}\r\n\r\n".encode())
        assert raw.recv(1000).startswith(b"HTTP/1.1 100 ")
        yield raw


def pixels(png: bytes) -> bytes:
    with Image.open(io.BytesIO(png)) as image:
        return image.convert("L").tobytes()


# -- what is answered ------------------------------------------------------------------------------------------------


def test_every_route_answers_as_one_process_does(server: Server, masks: list[bytes], model: Path) -> None:
    for body, mask in zip(BODIES, masks, strict=True):
        answer = httpx.post(f"{server.address}/segment", content=body, headers=PNG)
        assert pixels(answer.content) == mask
        assert {"decode", "queue", "engine", "encode", "total"} <= set(
            re.findall(r"(\w+);", answer.headers["server-timing"])
        )
    files = [("image", ("x", body, "image/png")) for body in [*BODIES, b"no image"]]
    items = httpx.post(f"{server.address}/segment/batch?format=npy", files=files).json()["items"]
    assert [item["status"] for item in items] == [200] * 4 + [400]
    found = [np.load(io.BytesIO(base64.b64decode(item["data"]))) for item in items[:4]]
    assert [(mask * 255).tobytes() for mask in found] == masks
    with connect(f"{server.address.replace('http', 'ws')}/stream") as frames:
        frames.send(BODIES[0])
        assert json.loads(frames.recv(PATIENCE))["status"] == 200
        assert pixels(frames.recv(PATIENCE)) == masks[0]  # type: ignore[arg-type]
    data = np.asarray(Image.open(io.BytesIO(BODIES[0])).convert("RGB"))
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, *data.shape], "data": data.ravel().tolist()}
    inferred = httpx.post(f"{server.address}/v2/models/random/infer", json={"inputs": [tensor]}).json()
    assert bytes(inferred["outputs"][0]["data"]) == masks[0]
    logits = httpx.post(f"{server.address}/segment?format=probability", content=BODIES[0], headers=PNG).content
    with Engine.load(str(model), threads=1) as engine:
        expected = engine.probabilities(data)[:, :, 0].astype(np.float32)
    np.testing.assert_array_equal(np.load(io.BytesIO(logits)), expected)


def test_both_front_ends_serve_and_all_processes_are_told_of(server: Server) -> None:
    told = httpx.get(f"{server.address}/metrics").text
    processes = set(re.findall(r'process_resident_memory_bytes{process="([^"]+)"} [1-9]', told))
    assert processes == {"supervisor", "engine", "front-0", "front-1"}
    assert re.search(r'mbunet_model_info{.*name="random"} 1.0', told)
    assert server.counted("mbunet_memory_bytes") == 0
    for name in ("mbunet_queue_images", "mbunet_streams", "mbunet_memory_bytes"):
        assert len(re.findall(rf"^{name}\b", told, re.MULTILINE)) == 1


def test_one_limit_of_streams_holds_for_all(server: Server) -> None:
    with ExitStack() as stack:
        statuses = [stack.enter_context(upgrading(server)) for _ in range(8)]
        assert Counter(statuses) == {101: STREAMS, 503: 8 - STREAMS}
        assert server.counted("mbunet_streams") == STREAMS
    while server.counted("mbunet_streams"):
        pass


@contextmanager
def upgrading(server: Server) -> Iterator[int]:
    """Status of a request for a websocket, which stays open."""
    try:
        with connect(f"{server.address.replace('http', 'ws')}/stream"):
            yield 101
    except InvalidStatus as error:
        yield error.response.status_code


# -- counts ----------------------------------------------------------------------------------------------------------


def ask_often(server: Server, masks: list[bytes], requests: int, clients: int = 8) -> Counter[int]:
    """Statuses of so many requests; every mask is looked at."""
    ask = client_of(server, masks)
    with ThreadPoolExecutor(clients) as pool:
        return sum(pool.map(lambda number: ask(requests // clients, number), range(clients)), Counter[int]())


def client_of(server: Server, masks: list[bytes]) -> Callable[[int, int], Counter[int]]:
    def ask(count: int, number: int) -> Counter[int]:
        statuses: Counter[int] = Counter()
        with httpx.Client(timeout=PATIENCE) as asking:
            for turn in range(count):
                which = (turn + number) % len(BODIES)
                answer = asking.post(f"{server.address}/segment", content=BODIES[which], headers=PNG)
                statuses[answer.status_code] += 1
                assert answer.status_code != 200 or pixels(answer.content) == masks[which]
        return statuses

    return ask


def resident_bytes(server: Server) -> dict[str, int]:
    page = os.sysconf("SC_PAGE_SIZE")
    return {name: int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page for pid, name in server.pids().items()}


def assert_counts_and_memory(server: Server, masks: list[bytes], requests: int, growth: float) -> None:
    """That so many requests are counted exactly, and leave no memory behind, after some to warm up."""
    ask_often(server, masks, 200)
    series = [
        "mbunet_images_total",
        "mbunet_batch_images_sum",
        'mbunet_requests_total{outcome="ok",route="/segment"}',
        *(f'mbunet_stage_seconds_count{{stage="{stage}"}}' for stage in STAGES),
        *(f'mbunet_stage_seconds_bucket{{le="+Inf",stage="{stage}"}}' for stage in STAGES),
    ]
    before, counts = resident_bytes(server), {name: server.counted(name) for name in series}
    assert ask_often(server, masks, requests) == {200: requests}
    assert {name: server.counted(name) - count for name, count in counts.items()} == dict.fromkeys(series, requests)
    assert server.counted("mbunet_memory_bytes") == server.counted("mbunet_queue_images") == 0
    after = resident_bytes(server)
    assert max(after[name] - before[name] for name in after) < growth


def test_a_thousand_requests_are_counted_exactly_and_leave_no_memory_behind(server: Server, masks: list[bytes]) -> None:
    assert_counts_and_memory(server, masks, 1000, growth=8e6)


@pytest.mark.slow
def test_a_hundred_thousand_requests_through_four_front_ends(model: Path, masks: list[bytes]) -> None:
    with serving(model, "--workers", "4") as server:
        assert_counts_and_memory(server, masks, 100_000, growth=8e6)


# -- deaths ----------------------------------------------------------------------------------------------------------


def kill(server: Server, name: str) -> None:
    """One process of this name, when all are there; returns when all are there again."""
    pid = next(iter(server.pids(name)))
    os.kill(pid, signal.SIGKILL)
    limit = time.monotonic() + PATIENCE
    while pid in server.pids() or len(server.pids()) < 3:
        assert time.monotonic() < limit
    server.ready()


def open_files(server: Server) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def assert_survives(server: Server, masks: list[bytes], kills: list[str]) -> None:
    """That the shipped client loses nothing while these processes are killed one after the other."""
    ended, answered = threading.Event(), Counter[int]()
    kill(server, "front")  # so that what a restart leaves is there already
    files = open_files(server)

    def work(number: int) -> None:
        while not ended.is_set():
            which = (answered[number] + number) % len(BODIES)
            assert pixels(client.segment(server.address, BODIES[which], LONG).body) == masks[which]
            answered[number] += 1

    with ThreadPoolExecutor(6) as pool:
        clients = [pool.submit(work, number) for number in range(6)]
        try:
            for name in kills:
                seen = answered.total()
                kill(server, name)
                limit = time.monotonic() + LONG
                while answered.total() < seen + 12:
                    assert time.monotonic() < limit
                    assert not any(each.done() for each in clients)
        finally:
            ended.set()
        for each in clients:
            each.result(LONG)
    assert open_files(server) == files
    assert server.counted("mbunet_memory_bytes") == server.counted("mbunet_queue_images") == 0
    assert server.counted("mbunet_images_total") >= answered.total()


def test_killed_processes_cost_nothing_but_what_they_had_in_hand(server: Server, masks: list[bytes]) -> None:
    assert_survives(server, masks, ["engine", "front", "engine"])


@pytest.mark.slow
def test_a_hundred_kills(model: Path, masks: list[bytes]) -> None:
    with serving(model) as server:
        assert_survives(server, masks, ["front", "engine"] * 50)


def test_while_the_engine_is_away_the_answer_is_503_at_once(server: Server) -> None:
    (pid,) = server.pids("engine")
    os.kill(pid, signal.SIGSTOP)
    with ExitStack() as stack:
        asked = [stack.enter_context(posting(server)) for _ in range(4)]
        for raw in asked:
            raw.sendall(BODIES[0])
        os.kill(pid, signal.SIGKILL)
        for raw in asked:
            answer = raw.recv(1 << 16)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 1" in answer
    server.ready()


def test_an_open_stream_outlives_the_engines_process_and_holds_nothing_of_it(server: Server) -> None:
    with ExitStack() as stack:
        address = f"{server.address.replace('http', 'ws')}/stream"
        streams = [stack.enter_context(connect(address)) for _ in range(STREAMS)]
        for stream in streams:
            assert answered(stream) == 200
        shared = shared_memories(server)
        kill(server, "engine")
        limit = time.monotonic() + PATIENCE
        while shared_memories(server) != shared:  # though no frame has come since
            assert time.monotonic() < limit
        for stream in streams:
            assert answered(stream) == 200


def answered(stream: ClientConnection) -> int:
    """Status of a frame."""
    stream.send(BODIES[0])
    status: int = json.loads(stream.recv(PATIENCE))["status"]
    if status == 200:
        stream.recv(PATIENCE)
    return status


def shared_memories(server: Server) -> dict[str, int]:
    """How many every front end has mapped."""
    return {name: Path(f"/proc/{pid}/maps").read_text().count("memfd:") for pid, name in server.pids("front").items()}


def test_a_supervisor_that_is_killed_takes_all_with_it(model: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(serving(model))
        pids = server.pids()
        folder = max(SHARED.glob("mbunet-*"), key=lambda path: path.stat().st_mtime)
        server.process.kill()
        limit = time.monotonic() + PATIENCE
        while any(Path(f"/proc/{pid}").exists() for pid in pids) or folder.exists():
            assert time.monotonic() < limit
        stack.pop_all()


# -- signals ---------------------------------------------------------------------------------------------------------


def test_sigterm_answers_everyone_who_was_let_in(model: Path) -> None:
    with serving(model) as server, ExitStack() as stack:
        asked = [stack.enter_context(posting(server)) for _ in range(12)]
        os.killpg(server.process.pid, signal.SIGTERM)  # to all at once, as service managers do
        for raw in asked:
            raw.sendall(BODIES[0])
        for raw in asked:
            assert raw.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert server.process.wait(PATIENCE) == 0


def test_sighup_loads_the_models_anew(server: Server, masks: list[bytes]) -> None:
    before = server.counted('mbunet_reloads_total{outcome="ok"}')
    server.process.send_signal(signal.SIGHUP)
    limit = time.monotonic() + PATIENCE
    while server.counted('mbunet_reloads_total{outcome="ok"}') == before:
        assert time.monotonic() < limit
    assert ask_often(server, masks, 8) == {200: 8}


# -- what cannot start -----------------------------------------------------------------------------------------------


def start(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service.cli", "serve", "--workers", "2", *flags]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_a_model_that_is_not_there_ends_it_with_one_line() -> None:
    done = start("--port", "0", "--model", "nothing")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("no model 'nothing'") == 1


def test_a_port_that_another_has_ends_it(server: Server) -> None:
    done = start("--port", server.address.rpartition(":")[2])
    assert done.returncode == 1
    assert "cannot listen on" in done.stderr
