"""Refusals of the one decoder as problems: by the status that says whose fault it is."""

from __future__ import annotations

from typing import NoReturn

import numpy as np
import pytest

from engine import images
from engine.images import Selection
from service.codec.decode import decode
from service.problems import BadParameter, NotAnImage, Problem, TooManyPixels, Unavailable, UnsupportedType
from tests.pictures import damaged, file_of, giant, photo, tiff_of

LIMIT = 2**20


@pytest.mark.parametrize("kind", damaged())
def test_what_is_damaged_is_the_senders_fault(kind: str) -> None:
    with pytest.raises(NotAnImage):
        decode(damaged()[kind], LIMIT)


@pytest.mark.parametrize(
    ("data", "selection", "problem", "says"),
    [
        (b"", Selection(), NotAnImage, "the body is empty: send the image file itself"),
        (giant(60000), Selection(), TooManyPixels, "60000 x 60000"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", Selection(), UnsupportedType, "PostScript"),
        (tiff_of(np.zeros((4, 4), np.complex64)), Selection(), UnsupportedType, "complex"),
        (file_of(photo()), Selection(page=1), BadParameter, "page 1 is not there"),
        (file_of(photo()), Selection(channel=3), BadParameter, "channel 3 is not there"),
    ],
)
def test_each_refusal_is_its_own_problem(data: bytes, selection: Selection, problem: type[Problem], says: str) -> None:
    with pytest.raises(problem, match=says) as caught:
        decode(data, LIMIT, selection)
    assert caught.value.extra == ({"limit": LIMIT} if problem is TooManyPixels else {})


def test_no_memory_is_the_servers_fault(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def full(*_: object) -> NoReturn:
        raise MemoryError

    monkeypatch.setattr(images, "decode", full)
    with pytest.raises(Unavailable) as caught:
        decode(file_of(photo()), LIMIT)
    assert caught.value.headers == {"Retry-After": "1"}
    assert "no memory" in caplog.text
