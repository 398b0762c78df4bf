"""`python -m tests.bench.service`: what HTTP, decoding, queueing and encoding cost, beside other servers of one engine.

Every contender is a process of its own with the same model and the same threads, measured in turn by one process that
sends ready-made requests over raw sockets. Only answers with status 200 count. Printed:

* one client: median request, median of the engine's own time (Server-Timing), and what is between them, with what is
  published of Triton beside it;
* closed loop of 16 clients: images per second, p50/p95/p99, how busy the machine's cores were;
* CPU milliseconds per image with an engine that does nothing: all that is not engine, in one process and in several,
  by process; and the rate that follows from them for more cores (`Cost.rate`). `--nothing` prints these alone;
* open loop: arrivals at random (Poisson) at a share of the measured capacity, p50/p95/p99 from the time of arrival;
* four sizes interleaved by 16 clients against the same four sizes one after the other.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import io
import json
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from engine import format
from engine.model import CONTRASTS, Preprocessing
from tests.models import random_model

ROOT = Path(__file__).parents[2]
CLIENTS = 16
PATIENCE = 10  # seconds in which a contender may end by itself
SIZES = (256, 384, 512, 640)
HEADING = f"{'':<12}{'one client':>12}{'engine':>9}{'between':>9}{'16 clients':>13}" + "     p50     p95     p99   busy"
TRITON = f"""\
{"triton *":<12}{0.708:>9.2f} ms{0.257:>9.2f}{0.451:>9.2f}
* not measured here: what NVIDIA publishes in the quick start of Triton's Perf Analyzer, for two tensors of 16 integers,
  one client on the server's machine: .382 ms within the server, of which .124 are not the model's, and HTTP round it"""
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Load:
    """What was measured: seconds of every answered request, failures, and the time it all took."""

    seconds: list[float] = field(default_factory=list)
    engine_ms: list[float] = field(default_factory=list)
    failed: int = 0
    took: float = 0.0
    busy: float = 0.0  # share of all cores
    cpu_s: float = 0.0  # of the server and its children

    @property
    def rate(self) -> float:
        return len(self.seconds) / self.took

    def percentile(self, share: float) -> float:
        """Milliseconds."""
        return 1e3 * float(np.quantile(self.seconds, share))


def main() -> None:
    """Measure, print tables."""
    args = arguments()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.safetensors"
        model = random_model(width=args.width, zeros=0.9)
        format.save(replace(model, preprocessing=Preprocessing(contrast=args.contrast)), path)
        if args.nothing:
            print_costs(path, args)
            return
        contenders = [("mbunet", 1), ("mbunet", args.workers), ("fastapi", 1)]
        if importlib.util.find_spec("litserve"):
            contenders.append(("litserve", 1))
        else:
            print("(litserve is not installed, so it is left out)")
        body = photo(args.size)
        what = f"{args.size} x {args.size} JPEG of {len(body)} bytes, width {args.width}, 90 % zeros"
        print(f"{what}, {os.cpu_count()} cores\n\n{HEADING}")
        for name, workers in contenders:
            sent = request(body, name == "litserve")
            with served(name, path, workers) as (port, pid):
                alone = asyncio.run(closed(port, pid, [sent], 1, args.seconds))
                many = asyncio.run(closed(port, pid, [sent], CLIENTS, args.seconds))
                print(row(f"{name} x {workers}" if workers > 1 else name, alone, many), flush=True)
                if (name, workers) == contenders[0]:
                    mixed = mixed_sizes(port, pid, args.seconds)
                rates = [share * many.rate for share in (0.5, 0.8)]
                for rate in rates:
                    arrived = asyncio.run(opened(port, pid, sent, rate, args.seconds))
                    print(f"{'':<12}{rate:>6.0f} /s arriving: {quantiles(arrived)}{failures(arrived)}", flush=True)
        print(TRITON)
        print(f"\nfour sizes {SIZES}, mixed: {mixed:.1%} of the rate of one size at a time")
        print_costs(path, args)


@dataclass(frozen=True)
class Cost:
    """CPU milliseconds per image: of all processes, and of the engine's where it has one of its own."""

    whole: float
    engine: float = 0.0

    def rate(self, cores: int) -> float:
        """Images a second: as many as all cores have time for, and no more than the engine's process has.

        Front ends share nothing else, so they scale with cores; the engine's process is what does not.
        """
        return min(1e3 * cores / self.whole, 1e3 / self.engine if self.engine else 1e3 / self.whole)


def print_costs(model: Path, args: argparse.Namespace) -> None:
    """CPU per image with an engine that does nothing."""
    bodies = {
        f"JPEG {args.size}": [request(photo(args.size))],
        "JPEG, four sizes": [request(photo(size)) for size in SIZES],
        f"v2 binary {args.size}": [tensor_request(args.size)],
    }
    print(f"\nan engine that does nothing{'':<8}ms CPU per image   of it the engine's   /s here   16 cores")
    for workers in (1, args.workers):
        with served("nothing", model, workers) as (port, pid):
            for what, sent in bodies.items():
                cost, rate = cost_of(port, pid, sent, args.seconds)
                name = f"{what}, {workers} process{'es for HTTP' if workers > 1 else ''}"
                print(
                    f"{name:<36}{cost.whole:>17.3f}{cost.engine:>20.3f}{rate:>10.0f}{cost.rate(16):>11.0f}", flush=True
                )


def cost_of(port: int, pid: int, requests: Sequence[bytes], seconds: float) -> tuple[Cost, float]:
    """CPU per image, and images per second."""
    asyncio.run(closed(port, pid, requests, CLIENTS, 1))  # until buffers and caches are warm
    engine = engine_pid(pid)
    before = process_seconds(engine) if engine else 0.0
    load = asyncio.run(closed(port, pid, requests, CLIENTS, seconds))
    its = process_seconds(engine) - before if engine else 0.0
    return Cost(1e3 * load.cpu_s / len(load.seconds), 1e3 * its / len(load.seconds)), load.rate


def engine_pid(pid: int) -> int | None:
    """The engine's process below a supervisor; None where there is none."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if Path(f"/proc/{child}/comm").read_text().strip() == "mbunet-engine":
            return int(child)
    return None


def tensor_request(size: int) -> bytes:
    """A whole request of the Open Inference Protocol, tensors as bytes both ways."""
    pixels = np.random.default_rng(size).integers(0, 256, (1, size, size, 3), dtype=np.uint8).tobytes()
    parameters = {"binary_data_size": len(pixels)}
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, size, size, 3], "parameters": parameters}
    document = {"inputs": [tensor], "outputs": [{"name": "mask", "parameters": {"binary_data": True}}]}
    head = json.dumps(document).encode()
    lines = (
        "POST /v2/models/random/infer HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/octet-stream",
        f"Inference-Header-Content-Length: {len(head)}",
        f"Content-Length: {len(head) + len(pixels)}",
    )
    return "\r\n".join([*lines, "", ""]).encode() + head + pixels


def mixed_sizes(port: int, pid: int, seconds: float) -> float:
    """Rate of four sizes interleaved, as a share of the rate at which they go one size at a time."""
    bodies = [request(photo(size)) for size in SIZES]
    alone = [asyncio.run(closed(port, pid, [body], CLIENTS, seconds / 2)).rate for body in bodies]
    together = asyncio.run(closed(port, pid, bodies, CLIENTS, seconds))
    return together.rate * statistics.mean(1 / rate for rate in alone)


def photo(size: int) -> bytes:
    """A JPEG with blobs and some noise, as large as a photograph's."""
    rng = np.random.default_rng(size)
    small = Image.fromarray(rng.integers(0, 256, (size // 16, size // 16, 3), dtype=np.uint8))
    pixels = np.asarray(small.resize((size, size), Image.Resampling.BICUBIC)).astype(int) + rng.integers(
        -8, 9, (size, size, 1)
    )
    out = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(out, "JPEG", quality=85)
    return out.getvalue()


def request(image: bytes, form: bool = False) -> bytes:
    """A whole request: the image as its body, or as a form, the only way that LitServe takes a file."""
    kind = "image/jpeg"
    if form:
        kind = "multipart/form-data; boundary=b"
        part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\nContent-Type: image/jpeg\r\n\r\n'
        image = part + image + b"\r\n--b--\r\n"
    head = f"POST /segment HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(image)}\r\n\r\n"
    return head.encode() + image


def row(name: str, alone: Load, many: Load) -> str:
    request, engine = alone.percentile(0.5), statistics.median(alone.engine_ms or [float("nan")])
    return (
        f"{name:<12}{request:>9.2f} ms{engine:>9.2f}{request - engine:>9.2f}{many.rate:>11.1f}/s"
        f"{many.percentile(0.5):>8.1f}{many.percentile(0.95):>8.1f}{many.percentile(0.99):>8.1f}{many.busy:>7.0%}{failures(many)}"
    )


def quantiles(load: Load) -> str:
    return ", ".join(f"p{round(100 * share)} {load.percentile(share):.1f} ms" for share in (0.5, 0.95, 0.99))


def failures(load: Load) -> str:
    return f"  ({load.failed} failed)" if load.failed else ""


# -- load ----------------------------------------------------------------------------------------------------------


async def closed(port: int, pid: int, requests: Sequence[bytes], clients: int, seconds: float) -> Load:
    """Each client sends its next request when the last is answered."""
    load = Load()

    async def client(number: int) -> None:
        connection = await asyncio.open_connection("127.0.0.1", port)
        until, turn = time.perf_counter() + seconds, number
        while time.perf_counter() < until:
            await ask(connection, requests[turn % len(requests)], time.perf_counter(), load)
            turn += 1
        connection[1].close()

    await measured(load, pid, [client(number) for number in range(clients)])
    return load


async def opened(port: int, pid: int, request: bytes, rate: float, seconds: float) -> Load:
    """Requests arrive at random, whether or not the last ones are answered; waiting for a connection counts."""
    load, rng = Load(), random.Random(0)
    free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for _ in range(4 * CLIENTS):
        free.put_nowait(await asyncio.open_connection("127.0.0.1", port))

    async def arrival(at: float) -> None:
        await asyncio.sleep(at - time.perf_counter())
        connection = await free.get()
        await ask(connection, request, at, load)
        free.put_nowait(connection)

    times: list[float] = []
    now = time.perf_counter()
    while not times or times[-1] < now + seconds:
        times.append((times[-1] if times else now) + rng.expovariate(rate))
    await measured(load, pid, [arrival(at) for at in times])
    return load


async def measured(load: Load, pid: int, work: Sequence[Coroutine[Any, Any, None]]) -> None:
    idle, total, cpu, started = *machine(), process_seconds(pid), time.perf_counter()
    await asyncio.gather(*work)
    load.took = time.perf_counter() - started
    idle, total = (after - before for after, before in zip(machine(), (idle, total), strict=True))
    load.busy, load.cpu_s = 1 - idle / total, process_seconds(pid) - cpu


async def ask(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], request: bytes, since: float, load: Load
) -> None:
    reader, writer = connection
    writer.write(request)
    answer = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", answer)
    assert length
    await reader.readexactly(int(length[1]))
    if answer.startswith(b"HTTP/1.1 200"):
        load.seconds.append(time.perf_counter() - since)
        engine = re.search(rb"engine;dur=([\d.]+)", answer)
        load.engine_ms += [float(engine[1])] if engine else []
    else:
        load.failed += 1


def machine() -> tuple[float, float]:
    """(idle, all) ticks of the machine so far."""
    values = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return values[3] + values[4], sum(values)


def process_seconds(pid: int) -> float:
    """CPU seconds of a process and of its children so far."""
    children = [int(name) for name in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS + sum(map(process_seconds, children))


# -- contenders ----------------------------------------------------------------------------------------------------


@contextmanager
def served(name: str, model: Path, workers: int = 1) -> Iterator[tuple[int, int]]:
    """(port, process) of a contender that answers."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tests.bench.servers", name, str(model), str(port), str(workers)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True
    ) as process:  # from where its own modules are found
        try:
            for _ in range(3):
                asyncio.run(answering(port, name == "litserve"))
            yield port, process.pid
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # it and its workers, whom not every one takes along


async def answering(port: int, form: bool) -> None:
    """Return when an image has been segmented."""
    for _ in range(300):
        try:
            load, connection = Load(), await asyncio.open_connection("127.0.0.1", port)
            await ask(connection, request(photo(256), form), time.perf_counter(), load)
            connection[1].close()
            if load.seconds:
                return
        except (OSError, asyncio.IncompleteReadError):
            pass
        await asyncio.sleep(0.1)
    raise TimeoutError(f"nothing answers on port {port}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=32, help="channels of the first layer (default: 32)")
    parser.add_argument("--size", type=int, default=512, help="side of the image (default: 512)")
    parser.add_argument("--seconds", type=float, default=6, help="of every measurement (default: 6)")
    parser.add_argument("--workers", type=int, default=2, help="processes for HTTP of the second row (default: 2)")
    parser.add_argument("--contrast", choices=CONTRASTS, default="none", help="what the model makes of images first")
    parser.add_argument("--nothing", action="store_true", help="only with an engine that does nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
