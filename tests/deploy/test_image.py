"""The images, built on a plain Debian and run: what they hold, what they answer, how they end. `make test-image`."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image as Picture

from engine.runtime import Engine
from tests.deploy import containers
from tests.deploy.containers import ROOT, Container, Image, Store

pytestmark = pytest.mark.slow

ADDED_AT_MOST = 300e6  # bytes
NUCLEI = sorted((ROOT / "tests/data/nuclei/images").glob("*.png"))
IMAGES = {
    "cpu": ("Dockerfile", "cpu", "BASE_IMAGE"),
    "jetson": ("deploy/jetson.Dockerfile", "jetson", "BASE_IMAGE", "BUILD_IMAGE"),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    if reason := containers.missing():
        pytest.fail(reason)
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module", params=IMAGES.values(), ids=list(IMAGES))
def image(store: Store, request: pytest.FixtureRequest) -> Image:
    return store.build(*request.param)


@pytest.fixture(scope="module")
def container(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    with containers.running(image, tmp_path_factory.mktemp("bundle")) as running:
        yield running


def test_it_is_small(image: Image, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f" adds {image.added_bytes / 1e6:.0f} MB to its base ", end="")
    assert image.added_bytes < ADDED_AT_MOST


def test_it_holds_no_torch_no_compiler_and_no_installer(image: Image) -> None:
    installed = {path.name for path in (image.root / "opt/mbunet").glob("lib/python3*/site-packages/*")}
    assert "numpy" in installed
    assert installed.isdisjoint({"torch", "pip", "scikit_build_core"})
    programs = {path.name for folder in ("usr/bin", "opt/mbunet/bin") for path in (image.root / folder).iterdir()}
    assert "mbunet" in programs
    assert not any(name.startswith(("gcc", "g++", "cc", "pip")) for name in programs)


def test_it_says_what_it_is_and_how_it_ends(image: Image) -> None:
    assert image.config["Labels"]["org.opencontainers.image.title"] == "mbunet"
    assert image.config["StopSignal"] == "SIGTERM"
    assert "8080/tcp" in image.config["ExposedPorts"]


def test_it_serves_a_real_image_as_an_ordinary_user(container: Container) -> None:
    assert container.owner() == 10001
    body = NUCLEI[0].read_bytes()
    answer = httpx.post(f"{container.address}/segment", content=body, headers={"Content-Type": "image/png"})
    assert answer.status_code == 200
    with Picture.open(NUCLEI[0]) as file, Engine.load("nuclei-small") as engine:
        (expected,), _ = engine.run([np.asarray(file.convert("RGB"))])
    with Picture.open(io.BytesIO(answer.content)) as mask:
        np.testing.assert_array_equal(np.asarray(mask.convert("L")), 255 * expected)
    assert 0 < expected.mean() < 1


def test_its_root_is_read_only(container: Container) -> None:
    tried = container.execute("python3", "-c", "open('/tmp/file', 'w')")
    assert "Read-only file system" in tried.stderr


def test_its_health_check_passes_and_can_fail(container: Container, image: Image) -> None:
    kind, *command = image.config["Healthcheck"]["Test"]
    assert kind == "CMD"
    assert container.execute(*command).returncode == 0
    assert container.execute("env", "MBUNET_PORT=9", *command).returncode != 0


def test_sigterm_answers_what_is_under_way(image: Image, tmp_path: Path) -> None:
    body = NUCLEI[0].read_bytes()
    head = f"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(body)}\r\n"
    with containers.running(image, tmp_path) as container:
        host, _, port = container.address.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), containers.PATIENCE) as raw:
            raw.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
            assert raw.recv(1000).startswith(b"HTTP/1.1 100 ")  # the request is being handled
            container.terminate()
            raw.sendall(body)
            assert raw.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert container.wait() == 0
