"""Decoding never takes more memory than it has claimed before: measured by the system, for every kind of file."""

from __future__ import annotations

import ctypes
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from engine import images
from engine.images.errors import TooManyPixelsError
from tests.pictures import exif, file_of

ROOT = Path(__file__).parents[3]
SIDE = 1024
NOISE = 2**21  # bytes, of what else the process does meanwhile
TURNED: dict[str, Any] = {"exif": exif(6)}


def blank(mode: str) -> Image.Image:
    return Image.new(mode, (SIDE, SIDE))


def tiff(channels: tuple[int, ...], dtype: str, **options: Any) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, np.ones((SIDE, SIDE, *channels), dtype), **options)
    return out.getvalue()


def other_primaries() -> bytes:
    """A color profile that is not sRGB's."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    at = int.from_bytes(profile[(tag := profile.find(b"rXYZ")) + 4 : tag + 8], "big")
    profile[at + 8 : at + 12] = (40000).to_bytes(4, "big")
    return bytes(profile)


def corpus() -> dict[str, tuple[bytes, dict[str, Any]]]:
    """Files, and what is selected of them."""
    icc: dict[str, Any] = {"icc_profile": other_primaries()}
    grey16 = Image.fromarray(np.ones((SIDE, SIDE), np.uint16))
    files = {
        **{f"PNG {mode}": file_of(blank(mode)) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")},
        "PNG grey 16": file_of(grey16),
        "PNG key": file_of(blank("RGB"), transparency=(0, 0, 0)),
        "PNG profile": file_of(blank("RGB"), **icc),
        "JPEG": file_of(blank("RGB"), "JPEG"),
        "JPEG turned": file_of(blank("RGB"), "JPEG", **TURNED),
        "JPEG profile": file_of(blank("RGB"), "JPEG", **icc),
        "JPEG progressive": file_of(blank("RGB"), "JPEG", progressive=True, subsampling=0),
        "JPEG inks": file_of(blank("CMYK"), "JPEG"),
        "WebP": file_of(blank("RGB"), "WEBP", lossless=True),
        "WebP alpha": file_of(blank("RGBA"), "WEBP", lossless=True),
        "GIF": file_of(blank("P"), "GIF", transparency=0),
        "BMP": file_of(blank("RGB"), "BMP"),
        "TIFF 8": tiff((3,), "u1", photometric="rgb", compression="zlib"),
        "TIFF 16": tiff((4,), "u2", photometric="rgb", extrasamples=["unassalpha"]),
        "TIFF float": tiff((3,), "f4", photometric="rgb"),
        "TIFF double": tiff((), "f8"),
    }
    return {name: (data, {}) for name, data in files.items()} | {
        "GIF projected": (
            file_of(blank("P"), "GIF", save_all=True, append_images=[Image.new("P", (SIDE, SIDE), 3)]),
            {"page": "max"},
        ),
        "TIFF projected": (pages(), {"page": "max"}),
    }


def pages() -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, np.ones((4, SIDE, SIDE), np.float32), photometric="minisblack")
    return out.getvalue()


def measure() -> dict[str, tuple[int, int]]:
    """(bytes that decoding took, bytes that it had claimed) of every file. In a process that does nothing else."""
    found = {}
    for name, (data, selected) in corpus().items():
        images.decode(data, selection=images.Selection(**selected))  # imports and caches are no cost of the file
        ctypes.CDLL(None).malloc_trim(0)  # what is free already would hide what is taken
        claims: list[int] = []
        Path("/proc/self/clear_refs").write_text("5")
        before = status("VmHWM")
        images.decode(data, selection=images.Selection(**selected), claim=claims.append)
        found[name] = (status("VmHWM") - before, max(claims) + 4 * len(data))
    return found


def status(key: str) -> int:
    """Bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return 1024 * int(line.split()[1])


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs /proc to see its own memory")
def test_no_file_takes_more_than_it_has_claimed() -> None:
    program = "import json; from tests.engine.images import test_claims; print(json.dumps(test_claims.measure()))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert len(found) == len(corpus())
    assert {name: (took, claimed) for name, (took, claimed) in found.items() if took > claimed + NOISE} == {}
    assert sum(took for took, _ in found.values()) > 100 * SIDE**2  # it is seen at all


def test_a_claim_that_cannot_be_met_is_no_fault_of_the_image() -> None:
    def refuse(size: int) -> None:
        raise MemoryError

    for name, (data, selected) in corpus().items():
        with pytest.raises(MemoryError):
            images.decode(data, selection=images.Selection(**selected), claim=refuse)
        with pytest.raises(TooManyPixelsError):  # comes first
            images.decode(data, 1000, images.Selection(**selected), claim=refuse)
        assert name
