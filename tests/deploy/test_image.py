"""The images, built on a plain Debian and run: what they hold, what they answer, how they end.

`make test-image`; with ARCH=arm64 those of arm64, in emulation, and the one for Jetson with its CUDA engine.
"""

from __future__ import annotations

import io
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image as Picture

from engine.runtime import Engine
from service.app import create_app
from service.settings import Settings
from tests.deploy import containers, cross
from tests.deploy.containers import ROOT, Container, Image, Store
from tests.native import sass
from tests.service.fakes import serving
from tests.service.telemetry.test_energy import ORIN_NANO, ina3221
from tests.service.test_app import PNG

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
    folder = tmp_path_factory.mktemp("bundle")
    ina3221(folder / "hwmon", 1, ORIN_NANO)
    with containers.running(image, folder) as running:
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
    with Engine.load("nuclei-small") as engine, serving(create_app(engine, Settings())) as here:
        for name in ("png", "npy", "probability", "objects"):
            path = f"/segment?format={name}"
            expected = here.post(path, content=body, headers=PNG)
            answer = httpx.post(f"{container.address}{path}", content=body, headers=PNG, timeout=containers.PATIENCE)
            assert answer.status_code == 200
            assert content(answer) == content(expected)
            assert len(set(content(expected))) > 1


def content(answer: httpx.Response) -> bytes:
    """What an answer says: of a PNG its pixels, as each architecture has its own way to deflate them."""
    if answer.headers["Content-Type"] != "image/png":
        return answer.content
    with Picture.open(io.BytesIO(answer.content)) as mask:
        return mask.convert("L").tobytes()


def test_without_a_gpu_it_counts_on_the_cpu_and_says_why(container: Container, image: Image, store: Store) -> None:
    models = httpx.get(f"{container.address}/models", timeout=containers.PATIENCE).json()
    assert [model["name"] for model in models] == Settings().models
    for model in models:
        assert model["device"] == "cpu"
        assert model["kernel"] == "neon" or cross.WANTED != "arm64"
    has_cuda = store.has_cuda and "jetson" in image.config["Labels"]["org.opencontainers.image.description"].lower()
    said = container.execute("mbunet", "info", "nuclei-small")
    assert ("there is no NVIDIA driver" if has_cuda else "built without CUDA") in said.stdout, said.stderr
    if has_cuda:
        assert multiplies_bits_for_orin(image)


def multiplies_bits_for_orin(image: Image) -> bool:
    """Whether the module's machine code for GPUs is that of sm_87, with its product of bits."""
    (module,) = image.root.glob("opt/mbunet/lib/python3*/site-packages/engine/_native*.so")
    said = sass.dump(module)
    return set(re.findall(r"arch = (\w+)", said)) == {"sm_87"} and "BMMA.168256.XOR.POPC" in said


def test_the_rails_of_a_jetson_are_read(container: Container) -> None:
    assert 'boundary="VDD_IN"' in httpx.get(f"{container.address}/metrics", timeout=containers.PATIENCE).text
    read = "m = energy.choose('auto', 'cuda:0'); m.read(0.0); print(m.source, sorted(m.read(2.0).items()))"
    said = container.execute("python3", "-c", f"from service.telemetry import energy; {read}")
    assert said.stdout == "ina3221 [('VDD_CPU_GPU_CV', 2.032), ('VDD_IN', 10.16), ('VDD_SOC', 3.048)]\n", said.stderr


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
