"""Files of every kind, broken at random: pixels or a refusal by name, soon, and in bounded memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator

import numpy as np
import pytest

from engine import images
from engine.images import Selection
from tests import pictures
from tests.pictures import ome, packed_tiff, photo, tiff_of

MAX_PIXELS = 2**16
LONGEST_S = 5.0  # of one file; the machine may be busy
MEMORY = 600 * 2**20  # bytes that the process may grow by


def sound() -> list[bytes]:
    """What is broken: every format and every reader of it."""
    rng = np.random.default_rng(0)
    stack = rng.integers(0, 65536, (3, 2, 16, 24), dtype=np.uint16)
    colors = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
    kinds = [data for data, _ in pictures.images().values()]
    kinds += [pictures.file_of(photo(), "TIFF", compression=name) for name in ("tiff_lzw", "jpeg", "packbits", "zstd")]
    kinds += [pictures.file_of(photo().convert("1"), "TIFF", compression=name) for name in ("group3", "group4")]
    kinds += [
        tiff_of(stack, ome=True, metadata={"axes": "ZCYX"}),
        tiff_of(stack, imagej=True, metadata={"axes": "ZCYX"}),
        tiff_of(stack, metadata={"axes": "ZCYX"}, contiguous=False),
        tiff_of(stack.reshape(6, 16, 24)[:2], description=ome(2, 1, (16, 24)), metadata=None),
        tiff_of(colors, tile=(16, 16), compression="deflate", predictor=True, bigtiff=True, byteorder=">"),
        tiff_of(colors, planarconfig="separate", rowsperstrip=3, photometric="rgb"),
        tiff_of(colors[:, :, 0].astype(np.float32), rowsperstrip=3),
        packed_tiff(colors[:, :, 0] >> 2, 6),
        pictures.png_of(stack[0, 0][:, :, None].repeat(4, axis=2), 6, 16),
        pictures.png_of(stack[0, 0][:, :, None].repeat(2, axis=2), 4, 16),
    ]
    return kinds


def broken(count: int, seed: int) -> Iterator[bytes]:
    """Files with bytes changed, cut off, taken out, doubled, or replaced by numbers that matter."""
    rng = np.random.default_rng(seed)
    kinds = sound()
    numbers = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\1\0\0\0", b"\0\1\0\0")
    for k in range(count):
        data = bytearray(kinds[k % len(kinds)])
        for _ in range(rng.integers(1, 5)):
            at, length = int(rng.integers(max(len(data), 1))), int(rng.integers(1, 60))
            way = rng.integers(6)
            if way == 0:
                data[at : at + 1] = bytes([rng.integers(256)])
            elif way == 1:
                data[at : at + 4] = numbers[rng.integers(len(numbers))]
            elif way == 2:
                del data[at : at + length]
            elif way == 3:
                data[at:at] = data[at : at + length]
            elif way == 4:
                data[at : at + length] = rng.bytes(length)
            elif len(data) > 40:
                del data[max(at, 40) :]
        yield bytes(data)


def run(count: int, seed: int) -> tuple[int, int]:
    """(read, refused) of so many."""
    read = refused = 0
    choices = (Selection(), Selection(channel=1), Selection(page=1), Selection("max", "max"))
    for k, data in enumerate(broken(count, seed)):
        started = time.monotonic()
        for work in (
            lambda data=data, k=k: images.decode(data, MAX_PIXELS, choices[k % len(choices)]),
            lambda data=data: images.size(data, MAX_PIXELS),
            lambda data=data: images.read_mask(data, 0, MAX_PIXELS),
        ):
            try:
                work()
                read += 1
            except images.ImageError:
                refused += 1
        assert time.monotonic() - started < LONGEST_S, k
    return read, refused


def test_broken_files_are_read_or_refused() -> None:
    read, refused = run(400, seed=1)
    assert read > 100
    assert refused > 100


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 7))
def test_thousands_of_broken_files(seed: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read, refused = run(2000, seed)
    assert min(read, refused) > 500
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY
