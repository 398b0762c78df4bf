"""The same file, served, evaluated, trained on and segmented as a folder: the same pixels, or the same refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine import images
from engine.images import Selection
from engine.runtime import Engine
from engine.train import evaluate, metrics
from engine.train.data import files, layouts
from engine.train.data.files import DataError
from service.codec.decode import decode
from service.problems import Problem
from tests import pictures
from tests.pictures import exif, file_of, packed_tiff, photo, png_of, tiff_of

NUCLEI = Path(__file__).parents[3] / "data" / "nuclei"


def everything() -> dict[str, bytes]:
    """Sound files of every kind, and files that are refused."""
    rng = np.random.default_rng(0)
    deep = rng.integers(0, 65536, (9, 14, 4), dtype=np.uint16)
    found = {kind: data for kind, (data, _) in pictures.images().items()}
    found |= {f"orientation {k}": file_of(photo(), "JPEG", exif=exif(k)) for k in range(1, 9)}
    found |= {f"TIFF orientation {k}": file_of(photo(), "TIFF", tiffinfo={274: k}) for k in range(1, 9)}
    found |= {f"{bits} bits": packed_tiff(deep[:, :, 0] >> max(0, 16 - bits), bits) for bits in range(1, 33)}
    found |= {"deep PNG": png_of(deep, 6, 16), "float": tiff_of(deep[:, :, 0].astype(np.float32))}
    found |= {"channels": tiff_of(deep, photometric="minisblack", metadata=None), "inverted": tiff_of(deep[:, :, 0])}
    found |= {"complex": tiff_of(np.zeros((4, 4), np.complex64)), "HEIC": b"\0\0\0\x18ftypheic" + bytes(99)}
    return found | {"giant": pictures.giant(60000)} | pictures.damaged()


@pytest.mark.parametrize("kind", everything())
def test_one_decoder_reads_or_refuses(kind: str, tmp_path: Path) -> None:
    data = everything()[kind]
    path = tmp_path / "image.png"
    path.write_bytes(data)
    served = outcome(lambda: decode(data, images.MAX_PIXELS).pixels) if data else None
    trained = outcome(lambda: files.read_image(path))
    if isinstance(trained, str):
        assert trained.startswith(f"{path}: ")
        assert served is None or trained == f"{path}: {served}"
    else:
        assert served is not None
        assert (served.dtype, served.shape) == (trained.dtype, trained.shape)
        np.testing.assert_array_equal(served, trained)
        assert files.read_size(path) == trained.shape[1::-1]


def outcome(read: Any) -> Any:
    """What is read, or the words of the refusal."""
    try:
        return read()
    except (Problem, DataError) as error:
        return str(error)


def as_file(kind: str, pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """An image of 8 bits as another instrument would have written it."""
    grey = pixels.mean(axis=2)
    return {
        "8 bits": lambda: file_of(Image.fromarray(np.rint(grey).astype(np.uint8)), "TIFF"),
        "16 bits": lambda: tiff_of(np.rint(grey * 257).astype(np.uint16)),
        "12 bits in 16": lambda: tiff_of(np.rint(grey * 4095 / 255).astype(np.uint16)),
        "10 bits in 16": lambda: tiff_of(np.rint(grey * 1023 / 255).astype(np.uint16)),
        "packed 12 bits": lambda: packed_tiff(np.rint(grey * 4095 / 255).astype(np.uint16), 12),
        "raw counts": lambda: tiff_of(np.rint(200 + grey * 5).astype(np.uint16)),
        "signed": lambda: tiff_of(np.rint(grey * 40 - 1000).astype(np.int16)),
        "float from 0 to 1": lambda: tiff_of((grey / 255).astype(np.float32)),
        "float counts": lambda: tiff_of((grey * 3.7 - 20).astype(np.float32)),
        "white is 0": lambda: tiff_of(np.rint((255 - grey) * 257).astype(np.uint16), photometric="miniswhite"),
    }[kind]()


@pytest.fixture(scope="module")
def dice(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Mean Dice of the shipped model on the grey images of tests/data/nuclei, written as `kind`."""
    engine = Engine.load("nuclei-small", threads=1)

    def of(kind: str) -> float:
        folder = tmp_path_factory.mktemp(kind.replace(" ", "-"))
        (folder / "images").mkdir()
        (folder / "masks").symlink_to(NUCLEI / "masks")
        for sample in layouts.samples(NUCLEI):
            pixels = files.read_image(sample.image)
            (folder / "images" / f"{sample.name}.tif").write_bytes(as_file(kind, pixels.astype(np.uint8)))
        rows = evaluate.evaluate(engine, layouts.samples(folder))
        return metrics.summarize([row.counts for row in rows]).dice

    return of


KINDS = ["16 bits", "12 bits in 16", "10 bits in 16", "packed 12 bits", "raw counts", "signed"]
KINDS += ["float from 0 to 1", "float counts", "white is 0"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_deep_image_is_segmented_as_well_as_in_8_bits(kind: str, dice: Any) -> None:
    assert abs(dice(kind) - dice("8 bits")) < 0.01


def test_a_channel_may_be_chosen(data: Path) -> None:
    sample = layouts.samples(data, Selection(channel=1))[0]
    image, _ = sample.load()
    np.testing.assert_array_equal(image, files.read_image(sample.image)[:, :, 1:2].repeat(3, axis=2))
