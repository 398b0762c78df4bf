"""Nobody costs more than his share of a whole server, by the clock: `make test-cost`, on a quiet machine.

Every test prints its figures and then holds them against what is promised; ARGS="-k giants" chooses one.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from websockets.frames import Frame, Opcode

from engine import format
from service.codec.encoders import ENCODERS
from service.core.budget import LARGE_SHARE
from tests import memory
from tests.engine.images import test_claims
from tests.models import random_model
from tests.pictures import file_of
from tests.service.api.test_websocket_limits import HANDSHAKE
from tests.service.cli.test_cli import ROOT, seconds_until_ready, served
from tests.service.codec import test_memory

pytestmark = pytest.mark.slow

GIANT = 5776  # its square is nearly as many pixels as are taken
SIDES = (GIANT, 2896, 1448)  # of files that are refused, let in one by one, and let in sixteen at once
LATE_S = 0.2  # of CPU: a refusal that took so much came late
SMALL = 256
SECONDS = 30.0  # of every load
HEALTHY_S = 0.1
MEMORY = 2**30  # the default on 2 GiB
HELD = "mbunet_memory_bytes"
LITTLE = 2**20  # bytes: websockets that were told that there is no memory may go on
PAUSE_S = 0.02  # between two looks at /healthz


@dataclass
class Answers:
    """What a client has got: seconds of each answer with status 200, and how often which status came."""

    seconds: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)  # of the same, by the clock
    statuses: Counter[int] = field(default_factory=Counter)
    engine_s: float = 0.0

    def __str__(self) -> str:
        if not self.seconds:
            return f"no answer, {dict(self.statuses)}"
        p50, p99, most = (1e3 * np.quantile(self.seconds, share) for share in (0.5, 0.99, 1))
        return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, at most {most:.1f} ms, {dict(self.statuses)}"


@dataclass(frozen=True)
class Server:
    """One that is ready."""

    process: subprocess.Popen[str]
    address: str

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def memory(self, key: str) -> int:
        """Bytes, as in /proc: VmRSS now, VmHWM at most."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(re.findall(rf"{key}:\s+(\d+)", text)[0])

    def clear(self) -> int:
        """From now on VmHWM is what there is at most; bytes that there are."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        return self.memory("VmRSS")

    def cpu_s(self) -> float:
        """CPU seconds so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def gauge(self, name: str) -> int:
        """What /metrics says."""
        text = httpx.get(f"{self.address}/metrics", timeout=60).text
        return int(float(re.findall(rf"^{name} ([\d.e+]+)", text, re.MULTILINE)[0]))


@contextmanager
def serving(folder: Path, *flags: str, model: Path | str = "nuclei-small", threads: int = 0) -> Iterator[Server]:
    with served(model, folder / "torch", "--threads", str(threads), *flags) as (process, address, started):
        seconds_until_ready(address, started)
        yield Server(process, address)


def post(body: bytes, query: str = "") -> bytes:
    head = f"POST /segment{query} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def asked(port: int, requests: Iterator[bytes], until: float, pause_s: float = 0.0) -> Answers:
    """One request after the other, each once the last is answered; who is refused waits as he is told."""
    got = Answers()
    connection = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < until:
        started = time.perf_counter()
        try:
            status, head = await answer(connection, next(requests))
        except (OSError, asyncio.IncompleteReadError):
            connection = await asyncio.open_connection("127.0.0.1", port)
            continue
        got.statuses[status] += 1
        if status == 200:
            got.ends.append(time.perf_counter())
            got.seconds.append(got.ends[-1] - started)
            got.engine_s += sum(map(float, re.findall(rb"engine;dur=([\d.]+)", head))) / 1000
        again = re.search(rb"(?i)retry-after: (\d+)", head)
        await asyncio.sleep(int(again[1]) if again else pause_s)
    connection[1].close()
    return got


async def answer(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], request: bytes) -> tuple[int, bytes]:
    """Status and head."""
    reader, writer = connection
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(re.findall(rb"(?i)content-length: (\d+)", head)[0]))
    return int(head.split()[1]), head


async def together(server: Server, loads: Sequence[Sequence[bytes]]) -> tuple[list[Answers], Answers]:
    """A client for each of the loads, and one that asks for /healthz."""
    until = time.perf_counter() + SECONDS
    clients = [asked(server.port, itertools.cycle(load), until) for load in loads]
    *got, health = await asyncio.gather(*clients, asked(server.port, itertools.repeat(HEALTH), until, PAUSE_S))
    return got, health


def rate(some: Sequence[Answers]) -> float:
    """Answers a second to all of them, from the first on and while the load lasts."""
    ends = sorted(end for one in some for end in one.ends)
    ends = [end for end in ends if end < ends[0] + 0.8 * SECONDS]
    return (len(ends) - 1) / (ends[-1] - ends[0])


def picture(side: int) -> bytes:
    rng = np.random.default_rng(side)
    coarse = Image.fromarray(rng.integers(0, 256, (side // 16, side // 16, 3), dtype=np.uint8))
    return file_of(coarse.resize((side, side), Image.Resampling.BICUBIC), "JPEG", quality=85)


def test_small_images_beside_giants(tmp_path: Path) -> None:
    giants, small = [[post(picture(GIANT))]] * 8, [post(picture(SMALL))]
    with serving(tmp_path, "--memory-bytes", str(2**33)) as server:
        before, _ = asyncio.run(together(server, giants))
        (*beside, its), health = asyncio.run(together(server, [*giants, small]))
    alone, left = rate(before), rate(beside)
    share = its.engine_s / SECONDS
    print(f"\n{SMALL}² beside eight of {GIANT}²: {its}")
    print(f"giants: {alone:.3f} a second alone, {left:.3f} beside it ({left / alone:.1%})", end="; ")
    print(f"its share of the engine is {share:.1%}; /healthz {health}")
    assert np.quantile(its.seconds, 0.5) <= 0.06
    assert np.quantile(its.seconds, 0.99) <= 0.25
    assert left >= (0.9 - share) * alone
    assert max(health.seconds) <= HEALTHY_S


def candidates() -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Requests that cost more than others: every kind of file, and every answer to ragged masks, of three sizes."""
    for side in SIDES:
        for name, file in test_claims.corpus(side).items():
            page = "" if file.page is None else f"?page={file.page}"
            yield f"{name}, {side}", partial(posted, file.make, page)
        for query in (*ENCODERS, "objects&split=distance", "labels&split=distance"):
            yield f"{query}, {side}", partial(posted, partial(ragged, side), f"?format={query}")


def posted(make: Callable[[], bytes], query: str) -> bytes:
    return post(make(), query)


def ragged(side: int) -> bytes:
    """An image whose mask has as many objects, corners and runs as the network leaves."""
    noise = Image.fromarray(255 * np.random.default_rng(0).integers(0, 2, (side // 4, side // 4), dtype=np.uint8))
    return file_of(noise.resize((side, side), Image.Resampling.NEAREST))


@dataclass(frozen=True)
class Price:
    """What one request cost that came alone and was answered: bytes at the peak, CPU seconds of the server."""

    name: str
    request: Callable[[], bytes]
    memory: int
    cpu_s: float


def prices(server: Server) -> list[Price]:
    """Of all candidates that are answered: with a mask, or by a refusal that comes late."""
    found = []
    for name, request in candidates():
        body = request()
        idle, spent = server.clear(), server.cpu_s()
        status = asyncio.run(alone(server.port, body))
        price = Price(name, request, server.memory("VmHWM") - idle, server.cpu_s() - spent)
        if status == 200 or price.cpu_s > LATE_S:
            found.append(price)
    return found


async def alone(port: int, request: bytes) -> int:
    try:
        return (await answer(await asyncio.open_connection("127.0.0.1", port), request))[0]
    except (OSError, asyncio.IncompleteReadError):  # refused before its body was read
        return 0


def test_sixteen_of_the_worst_at_once(tmp_path: Path) -> None:
    """The costliest by CPU, those by memory, and the costliest by CPU of which sixteen find room."""
    failed = []
    with serving(tmp_path, "--memory-bytes", str(MEMORY)) as server:
        asyncio.run(together(server, [[post(picture(SMALL))]]))  # until all is loaded
        found = prices(server)
        by_cpu = sorted(found, key=lambda price: -price.cpu_s)
        chosen = {
            "CPU": by_cpu[:16],
            "memory": sorted(found, key=lambda price: -price.memory)[:16],
            "CPU, let in": [price for price in by_cpu if price.memory <= MEMORY * LARGE_SHARE / 16][:16],
        }
        for what, sixteen in chosen.items():
            for price in sixteen:
                print(f"\n{price.cpu_s:6.2f} s, {price.memory / 2**20:4.0f} MiB: {price.name}", end="")
            idle = server.clear()
            loads = [[price.request()] for price in sixteen]
            (*costly, normal), health = asyncio.run(together(server, [*loads, [post(picture(SMALL))]]))
            took = server.memory("VmHWM") - idle
            statuses = sum((one.statuses for one in costly), Counter[int]())
            print(f"\na normal client beside the sixteen worst by {what}, {dict(statuses)}: {normal}")
            print(f"{took / 2**20:.0f} MiB at most, of {MEMORY / 2**20:.0f} counted; /healthz {health}")
            held = {
                "answered": statuses[200] >= 16 or what != "CPU, let in",
                "normal": set(normal.statuses) == {200} and bool(np.quantile(normal.seconds, 0.99) <= 0.5),
                "memory": took <= MEMORY,
                "healthy": max(health.seconds) <= HEALTHY_S,
            }
            failed += [f"{what}: {name}" for name, good in held.items() if not good]
    assert failed == []


def test_who_takes_and_finishes_nothing(tmp_path: Path) -> None:
    flags = ("--memory-bytes", str(MEMORY), "--stall-ms", "5000", "--upload-ms", "5000", "--drain-ms", "10000")
    with serving(tmp_path, *flags) as server, ExitStack() as stack:
        idle = server.memory("VmRSS")
        body = file_of(Image.new("RGB", (1500, 1500)))
        for _ in range(2):  # the second time it is told to end meanwhile
            idlers(stack, server.port, body)
            most = server.gauge(HELD)
            print(f"\nheld {most / 2**20:.0f} MiB, resident {(server.memory('VmRSS') - idle) / 2**20:.0f} MiB more")
            assert most <= MEMORY
            if _ == 0:
                while server.gauge("mbunet_queue_images"):
                    time.sleep(0.1)
                started = time.monotonic()
                while server.gauge(HELD) > LITTLE:
                    time.sleep(0.1)
                print(f"free again after {time.monotonic() - started:.1f} s")
                assert time.monotonic() - started < 5 * 1.25 + 10
                assert httpx.get(f"{server.address}/healthz").status_code == 200
        assert server.memory("VmHWM") - idle <= MEMORY
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        print(f"SIGTERM ended it within {time.monotonic() - started:.1f} s of 10")
        assert time.monotonic() - started <= 10


def idlers(stack: ExitStack, port: int, body: bytes) -> None:
    """60 who read no answer, 16 websockets that read none, and 60 bodies that lack their end."""

    def lazy(first: bytes, websocket: bool = False) -> None:
        raw = stack.enter_context(socket.socket())
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(60)
        raw.connect(("127.0.0.1", port))
        if websocket:
            raw.sendall(HANDSHAKE.replace("/stream", "/stream?format=probability").encode())
            raw.recv(1 << 16)
        with contextlib.suppress(OSError):  # where it is refused
            raw.sendall(first)

    for _ in range(60):
        lazy(post(body, "?format=probability"))
    for _ in range(16):
        lazy(Frame(Opcode.BINARY, body).serialize(mask=True), websocket=True)
    for _ in range(60):
        lazy(post(bytes(2**22))[:-1])


def test_two_quick_hangups_serve_the_newest_file(tmp_path: Path) -> None:
    path, newest = tmp_path / "model.safetensors", 0

    def write() -> None:
        nonlocal newest
        newest += 1
        format.save(replace(random_model(), name=f"version-{newest}"), path.with_suffix(".new"))
        path.with_suffix(".new").rename(path)

    write()
    right = 0
    with serving(tmp_path, model=path, threads=1) as server:
        for _ in range(50):
            for pause in (0.05, 1.0):
                write()
                server.process.send_signal(signal.SIGHUP)
                time.sleep(pause)
            right += f'"version-{newest}"' in httpx.get(f"{server.address}/models").text
    print(f"\nthe newest of two files within 50 ms is served {right} times of 50")
    assert right == 50


def test_a_hangup_at_any_moment_of_the_start() -> None:
    survived = {}
    for delay in np.arange(0.0, 2.0, 0.1):
        with hung_up_after(float(delay)) as process:
            survived[f"{delay:.1f}"] = process.poll() is None
    print(f"\nSIGHUP so many seconds after the port is open: {survived}")
    assert all(survived.values())


@contextmanager
def hung_up_after(delay: float) -> Iterator[subprocess.Popen[str]]:
    """A server that got SIGHUP so many seconds after its port is open, a second later."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "service.cli", "serve", "--port", str(port), "--threads", "1"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
            time.sleep(delay)
            process.send_signal(signal.SIGHUP)
            time.sleep(1)
            yield process
        finally:
            process.kill()


def test_a_crowd_is_served_at_the_try_that_it_is_told(tmp_path: Path) -> None:
    request = post(picture(512))

    async def client(port: int) -> list[int]:
        """Statuses until it is served."""
        statuses = []
        while 200 not in statuses:
            connection = await asyncio.open_connection("127.0.0.1", port)
            status, head = await answer(connection, request)
            connection[1].close()
            statuses.append(status)
            if status == 429:
                await asyncio.sleep(int(re.findall(rb"(?i)retry-after: (\d+)", head)[0]))
        return statuses

    async def crowd(port: int) -> list[list[int]]:
        return await asyncio.gather(*(client(port) for _ in range(100)))

    with serving(tmp_path, "--queue-images", "16") as server:
        asyncio.run(crowd(server.port))  # until the speed of the engine is known
        refused = [statuses for statuses in asyncio.run(crowd(server.port)) if len(statuses) > 1]
    served = sum(len(statuses) == 2 for statuses in refused)
    print(f"\nof 100 clients on a queue of 16 {len(refused)} were refused, {served} of them served at the next try")
    assert len(refused) > 10
    assert served >= 0.9 * len(refused)


def test_memory_of_every_file_and_answer() -> None:
    """What was taken, as a share of what was counted."""
    for module in (test_claims, test_memory):
        found = memory.measured(module.__name__)
        for name, (took, counted) in found.items():
            print(f"{took / 1e6:7.1f} MB of {counted / 1e6:7.1f} counted, {took / counted:4.0%}: {name}")
        assert memory.exceeding(found, 1.2) == {}
