"""One server for all tests that do not disturb it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from service.app import create_app
from service.settings import Settings
from tests.service.fakes import FakeEngine, serving


@pytest.fixture(scope="session")
def client() -> Iterator[httpx.Client]:
    """A client of a server with small limits: 200 kB and 2^20 pixels."""
    settings = Settings(max_body_bytes=200_000, max_pixels=2**20)
    with serving(create_app(FakeEngine(), settings)) as client:
        yield client
