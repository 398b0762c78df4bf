"""What a container asks its server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from service.app import create_app
from service.healthcheck import is_ready
from service.server import listen
from service.settings import Settings
from tests.service.fakes import FakeEngine, serving

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_server_that_is_ready(host: str) -> None:
    with serving(create_app(FakeEngine(), Settings())) as client:
        assert is_ready({"MBUNET_HOST": host, "MBUNET_PORT": f"{client.base_url.port}"})


def test_a_server_whose_engine_is_broken() -> None:
    with serving(create_app(FakeEngine(breaks=lambda image: True), Settings())) as client:
        assert not is_ready({"MBUNET_PORT": f"{client.base_url.port}"})


def test_no_server_is_not_ready() -> None:
    with listen(Settings(port=0)) as silent:
        port = silent.getsockname()[1]
    command = [sys.executable, "-m", "service.healthcheck"]
    assert subprocess.run(command, cwd=ROOT, env={"MBUNET_PORT": f"{port}"}, check=False).returncode == 1
