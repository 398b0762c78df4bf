"""Compressed bodies: the same answers, within the limits of what they unpack to."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import httpx
import numpy as np
import pytest

from service import problems
from service.api import coding
from service.api.coding import unpacked
from service.app import create_app
from service.core.budget import Budget
from service.problems import MemoryFull, Problem
from service.settings import Settings
from tests.pictures import file_of, photo
from tests.service.fakes import FakeEngine, serving
from tests.service.test_app import PNG, assert_problem

LIMIT = 200_000  # bytes, of the common server
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
}


@pytest.mark.parametrize("name", [*PACKERS, "GZIP"])
@pytest.mark.parametrize("as_form", [False, True])
def test_a_packed_body_gets_the_answer_of_the_plain_one(client: httpx.Client, name: str, as_form: bool) -> None:
    plain = client.post("/segment", content=file_of(photo()), headers=PNG)
    body, headers = file_of(photo()), PNG
    if as_form:
        form = httpx.Request("POST", client.base_url, files=[("image", body)])
        body, headers = form.read(), {"Content-Type": form.headers["content-type"]}
    packed = PACKERS[name.lower()](body)
    answer = client.post("/segment", content=packed, headers=headers | {"Content-Encoding": name})
    assert (answer.status_code, answer.content) == (200, plain.content)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("gzip", b""),
        ("gzip", file_of(photo())),
        ("gzip", gzip.compress(file_of(photo()))[:-9]),
        ("gzip", gzip.compress(file_of(photo()))[:-8] + bytes(8)),  # another checksum
        ("gzip", gzip.compress(file_of(photo())) + b"x"),
        ("gzip", gzip.compress(file_of(photo())) + gzip.compress(b"x")[:-1]),
        ("gzip", gzip.compress(file_of(photo())) + bytes(8)),
        ("deflate", 2 * zlib.compress(file_of(photo()))),
        ("deflate", gzip.compress(file_of(photo()))),
        ("deflate", zlib.compress(file_of(photo()))[2:-4]),  # without zlib's frame, as some send it
    ],
)
def test_what_is_not_what_it_says_is_refused(client: httpx.Client, name: str, body: bytes) -> None:
    answer = client.post("/segment", content=body, headers=PNG | {"Content-Encoding": name})
    assert name in assert_problem(answer, problems.BadEncoding)["detail"]


@pytest.mark.parametrize("size", [1, 100, 10_000], ids="members of {} bytes".format)
def test_members_of_gzip_are_one_body(client: httpx.Client, size: int) -> None:
    body = file_of(photo())
    members = [gzip.compress(body[first : first + size]) for first in range(0, len(body), size)]
    packed = b"".join([*members, gzip.compress(b"")])  # which bgzip writes at the end
    answer = client.post("/segment", content=packed, headers=PNG | {"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.content) == (200, client.post("/segment", content=body, headers=PNG).content)


def test_members_are_unpacked_in_the_same_limits() -> None:
    member = gzip.compress(bytes(1000))
    for budget, most, problem in ((1 << 20, 99_999, problems.BodyTooLarge), (700_000, 1 << 20, problems.TooCostly)):
        with Budget(budget).holding() as memory, pytest.raises(problem):
            unpacked(100 * member, "gzip", most, memory)
    with Budget(1 << 20).holding() as memory:
        assert b"".join(unpacked(100 * member, "gzip", 100_000, memory)) == bytes(100_000)


def test_members_are_counted() -> None:
    empty = gzip.compress(b"")
    with Budget(1 << 22).holding() as memory:
        assert unpacked(coding.MAX_MEMBERS * empty, "gzip", 1, memory) == []
        with pytest.raises(problems.BadEncoding, match="16384 members"):
            unpacked((coding.MAX_MEMBERS + 1) * empty, "gzip", 1, memory)


@pytest.mark.parametrize("name", ["br", "zstd", "gzip, gzip", "deflate, gzip"])
def test_other_codings_are_refused_with_those_that_are_taken(client: httpx.Client, name: str) -> None:
    answer = client.post("/segment", content=b"x", headers=PNG | {"Content-Encoding": name})
    assert "as gzip or deflate" in assert_problem(answer, problems.UnsupportedType)["detail"]
    assert answer.headers["accept-encoding"] == "gzip, deflate, identity"


@pytest.mark.parametrize("name", ["gzip", "deflate"])
def test_the_limit_of_bytes_is_that_of_the_unpacked_body(client: httpx.Client, name: str) -> None:
    for size, problem in ((LIMIT, problems.NotAnImage), (LIMIT + 1, problems.BodyTooLarge)):
        packed = PACKERS[name](bytes(size))
        assert len(packed) < 1000
        answer = client.post("/segment", content=packed, headers=PNG | {"Content-Encoding": name})
        assert_problem(answer, problem)


def test_a_bomb_is_given_up_at_the_limit_and_everything_is_counted() -> None:
    budget = Budget(1 << 24)
    bomb = zlib.compress(bytes(1 << 28))
    with budget.holding() as memory, pytest.raises(problems.BodyTooLarge):
        unpacked(bomb, "deflate", 1 << 20, memory)
    assert 2 << 20 <= budget._most <= (2 << 20) + 4 * coding.PIECE
    with budget.holding() as others, budget.holding() as memory:
        others.hold(12 << 20)
        with pytest.raises(MemoryFull):
            unpacked(bomb, "deflate", 1 << 30, memory)
    assert budget.held == 0


def test_random_bytes_are_unpacked_or_refused() -> None:
    random, refused = np.random.default_rng(0), set()
    sound = gzip.compress(random.bytes(1000))
    for _ in range(500):
        body = bytearray(sound)
        for place in random.integers(0, len(body), 2):
            body[place] = random.integers(256)
        with Budget(1 << 24).holding() as memory:
            try:
                unpacked(bytes(body), "gzip", 10_000, memory)
            except Problem as problem:
                refused.add(problem.status)
    assert refused <= {400, 413}


def test_tritons_client_may_compress() -> None:
    triton = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")
    pixels = np.asarray(photo())[None]
    given = triton.InferInput("image", list(pixels.shape), "UINT8")
    given.set_data_from_numpy(pixels)
    with serving(create_app(FakeEngine(), Settings())) as client:
        asked = triton.InferenceServerClient(f"{client.base_url.host}:{client.base_url.port}")
        plain, *packed = (
            asked.infer("fake", [given], request_compression_algorithm=name, response_compression_algorithm=name)
            for name in (None, "gzip", "deflate")
        )
        asked.close()
    for answer in packed:
        np.testing.assert_array_equal(answer.as_numpy("mask"), plain.as_numpy("mask"))
