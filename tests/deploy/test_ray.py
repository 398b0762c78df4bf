"""A real Ray cluster of two nodes segments folders, serves, grows, and loses nothing when one dies. `make test-ray`."""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from engine import format
from engine.runtime import Engine
from service import cli
from service.cli import client
from tests.models import random_model

ray = pytest.importorskip("ray", reason="needs Ray: pip install -e '.[ray]'")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PATIENCE = 120  # seconds
CLIENTS = 8
SIDE = 1024  # pixels: most of a request's time is the engine's
WARM_UP, MEASURED = 6, 40  # requests
MANY_CLIENTS = 24  # more than one replica is meant to have at a time
FILES = 60
UNDER_LOAD = 80  # requests while a node dies
QUICK_TO_NOTICE = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 1000,
    "health_check_failure_threshold": 3,
}


@dataclass(frozen=True)
class Running:
    """Two nodes, and the address of the proxy on the first."""

    nodes: Any
    second: Any
    address: str


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "random.safetensors"
    format.save(random_model(width=64, zeros=0.9), path)
    return path


@pytest.fixture(scope="module")
def image() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (SIDE // 16, SIDE // 16, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture(scope="module")
def cluster(model: Path) -> Iterator[Running]:
    from ray import serve
    from ray.cluster_utils import Cluster

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("MBUNET_MODEL", str(model))
        patch.setenv("RAY_SERVE_PROXY_PREFER_LOCAL_NODE_ROUTING", "0")  # see deploy/ray/app.py
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")  # else it depends on whether this user has a token
        small = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
        first = {**small, "include_dashboard": False, "_system_config": QUICK_TO_NOTICE}
        nodes = Cluster(initialize_head=True, head_node_args=first)
        try:
            second = nodes.add_node(**small)
            ray.init(address=nodes.address, log_to_driver=False)
            serve.start(proxy_location="HeadOnly", http_options=serve.HTTPOptions(host="127.0.0.1", port=port))
            yield Running(nodes, second, f"http://127.0.0.1:{port}")
        finally:
            ray.shutdown()
            nodes.shutdown()


def deploy(least: int, most: int | None = None) -> None:
    from ray import serve

    from deploy.ray.app import Arguments, build

    serve.run(build(Arguments(cpus=1, min_replicas=least, max_replicas=most or least)))


def images_per_second(address: str, image: bytes) -> float:
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda _: client.segment(address, image, PATIENCE), range(WARM_UP)))
        started = time.monotonic()
        list(pool.map(lambda _: client.segment(address, image, PATIENCE), range(MEASURED)))
        return MEASURED / (time.monotonic() - started)


def replicas_told(address: str) -> dict[str, float]:
    """The images that every replica has answered, from one scrape."""
    text = httpx.get(f"{address}/metrics", timeout=PATIENCE).text
    lines = [line for line in text.splitlines() if line.startswith("mbunet_images_total{")]
    return {line.partition('replica="')[2].partition('"')[0]: float(line.split()[-1]) for line in lines}


def kill(cluster: Running) -> None:
    """All processes of the second node at once, as when its power fails."""
    raylet = cluster.second.all_processes["raylet"][0].process.pid
    for pid in [raylet, *(int(path.name) for path in Path("/proc").glob("[0-9]*") if parent(path) == raylet)]:
        os.kill(pid, signal.SIGKILL)
    cluster.nodes.remove_node(cluster.second, allow_graceful=False)


def parent(process: Path) -> int:
    """The parent of a process by its folder in /proc; 0 where it has ended."""
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


# -- a folder, without a server --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(image: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FILES images, all different."""
    path = tmp_path_factory.mktemp("folder")
    with Image.open(io.BytesIO(image)) as large:
        for number in range(FILES):
            large.crop((number, 0, number + 500, 400)).save(path / f"{number:03}.png")
    return path


@pytest.fixture(scope="module")
def expected(folder: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The masks as they are computed without Ray, by name."""
    out = tmp_path_factory.mktemp("expected")
    assert cli.main(["segment", str(folder), "-o", str(out), "--model", str(model)]) == 0
    return contents(out)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def segmenting(cluster: Running, model: Path, *paths: Path) -> subprocess.Popen[str]:
    """`mbunet segment --ray`, in the first of `paths`, into the second."""
    source, out = map(str, paths)
    command = [sys.executable, "-m", "service.cli", "segment", "--ray", source, "-o", out, "--model", str(model)]
    environment = os.environ | {"RAY_ADDRESS": cluster.nodes.address}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def test_a_folder_is_segmented_as_it_is_without_ray(
    cluster: Running, model: Path, folder: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(folder, source)
    (source / "damaged.png").write_bytes((source / "000.png").read_bytes()[:500])
    with segmenting(cluster, model, source, out) as process:
        _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert f"{FILES + 1}/{FILES + 1} images" in told
    failed, summary = (line for line in told.splitlines() if line.startswith("mbunet:"))
    assert failed.startswith(f"mbunet: {source / 'damaged.png'}: ")
    assert summary == told.splitlines()[-1] == f"mbunet: {FILES} of {FILES + 1} images segmented, 1 failed"
    assert contents(out) == expected


def test_an_interrupted_folder_goes_on_where_it_stopped(
    cluster: Running, model: Path, folder: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    with segmenting(cluster, model, folder, tmp_path) as process:
        while not contents(tmp_path):
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.01)
        process.kill()
    first = contents(tmp_path)
    assert 0 < len(first) < FILES
    assert first.items() <= expected.items()  # no mask by halves
    written = {name: (tmp_path / name).stat().st_mtime_ns for name in first}
    with segmenting(cluster, model, folder, tmp_path) as process:
        _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, told
    assert f"{len(first)} of {FILES} masks are there already" in told
    assert contents(tmp_path) == expected
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in first} == written


# -- a server ----------------------------------------------------------------------------------------------------------


def test_two_replicas_are_faster_than_one(cluster: Running, image: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    deploy(1)
    one = images_per_second(cluster.address, image)
    assert len(replicas_told(cluster.address)) == 1
    deploy(2)
    two = images_per_second(cluster.address, image)
    with capsys.disabled():
        cores = os.cpu_count()
        print(
            f" {SIDE}x{SIDE} on {cores} cores: one replica {one:.2f}/s, two {two:.2f}/s: {two / one:.2f} times ", end=""
        )
    assert two > 1.2 * one


def test_a_second_replica_starts_under_load(cluster: Running, image: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    from ray import serve

    serve.delete("default")
    deploy(1, 2)
    assert len(replicas_told(cluster.address)) == 1
    enough = threading.Event()

    def load() -> None:
        while not enough.is_set():
            client.segment(cluster.address, image, PATIENCE)

    started = time.monotonic()
    with ThreadPoolExecutor(MANY_CLIENTS) as pool:
        clients = [pool.submit(load) for _ in range(MANY_CLIENTS)]
        try:
            while min((served := replicas_told(cluster.address)).values()) == 0 or len(served) < 2:
                assert time.monotonic() - started < PATIENCE
        finally:
            enough.set()
    for some in clients:
        some.result()
    with capsys.disabled():
        print(
            f" {MANY_CLIENTS} clients: the second of two replicas answers after {time.monotonic() - started:.0f} s ",
            end="",
        )


def test_the_same_endpoints_are_there(cluster: Running, model: Path, image: bytes) -> None:
    deploy(2)
    for path in ("/healthz", "/readyz", "/docs", "/", "/openapi.json"):
        assert httpx.get(cluster.address + path).status_code == 200, path
    answer = httpx.post(f"{cluster.address}/segment", content=b"text", headers={"Content-Type": "image/png"})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    with Image.open(io.BytesIO(image)) as file, Engine.load(model) as engine:
        (expected,), _ = engine.run([np.asarray(file)])
    with Image.open(io.BytesIO(client.segment(cluster.address, image, PATIENCE).body)) as mask:
        np.testing.assert_array_equal(np.asarray(mask.convert("L")), 255 * expected)


def test_one_scrape_tells_of_every_replica(cluster: Running) -> None:
    deploy(2)
    assert len(replicas_told(cluster.address)) == 2


def test_nothing_is_lost_when_a_node_dies_under_load(
    cluster: Running, image: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    deploy(2)
    failures: list[Exception] = []
    answered = threading.Semaphore(0)

    def one(_: int) -> bytes:
        mask = client.segment(cluster.address, image, PATIENCE, failed=failures.append).body
        answered.release()
        return mask

    with ThreadPoolExecutor(CLIENTS) as pool:
        masks = [pool.submit(one, number) for number in range(UNDER_LOAD)]
        for _ in range(UNDER_LOAD // 4):
            answered.acquire()
        served = replicas_told(cluster.address)
        kill(cluster)
        alive = len(pending) if (pending := [mask for mask in masks if not mask.done()]) else 0
        different = {mask.result() for mask in masks}
    with capsys.disabled():
        print(f" {alive} of {UNDER_LOAD} unanswered at its death, {len(failures)} tries failed, 0 lost ", end="")
    assert len(served) == 2
    assert min(served.values()) > 0, "the node that died had nothing to do"
    assert alive > CLIENTS
    assert len(different) == 1
    assert len(failures) <= CLIENTS
    assert len(replicas_told(cluster.address)) == 1
