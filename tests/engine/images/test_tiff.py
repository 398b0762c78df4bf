"""TIFF as microscopes write it: pages, channels, compressions, and what is refused by name."""

from __future__ import annotations

import builtins
import struct
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from engine import images
from engine.images import DamagedImageError, Selection, TooManyPixelsError, UnsupportedImageError, tiff_samples
from tests.pictures import file_of, ome, packed_tiff, photo, tiff_of

LIMIT = 2**20
H, W = 12, 20
STACK = np.random.default_rng(0).integers(0, 256, (3, 2, H, W), dtype=np.uint8)  # [z, c, h, w]


def grey(data: bytes, **chosen: Any) -> NDArray[Any]:
    """[h, w]"""
    pixels = images.decode(data, LIMIT, Selection(**chosen)).pixels
    assert (pixels == pixels[:, :, :1]).all()
    return pixels[:, :, 0]


def taken(data: bytes, **chosen: Any) -> str:
    return str(images.decode(data, LIMIT, Selection(**chosen)).taken)


def stacks() -> dict[str, bytes]:
    """STACK by those who write such files."""
    by_hand = ome(2, 3, (H, W), "XYCZT")
    turned = ome(2, 3, (H, W), "XYZCT")
    placed = "".join(f'<TiffData FirstZ="{k // 2}" FirstC="{k % 2}" IFD="{5 - k}" PlaneCount="1"/>' for k in range(6))
    pages, plain = STACK.reshape(6, H, W), {"metadata": None}
    return {
        "OME": tiff_of(STACK, ome=True, metadata={"axes": "ZCYX"}),
        "OME, in the order of channels": tiff_of(pages, description=by_hand, **plain),
        "OME, in the order of planes": tiff_of(STACK.swapaxes(0, 1).reshape(6, H, W), description=turned, **plain),
        "OME, placed": tiff_of(pages[::-1], description=ome(2, 3, (H, W), placed=placed), **plain),
        "OME, placed at once": tiff_of(
            pages, description=ome(2, 3, (H, W), placed='<TiffData IFD="0" PlaneCount="6"/>'), **plain
        ),
        "ImageJ": tiff_of(STACK, imagej=True, metadata={"axes": "ZCYX"}),
        "tifffile": tiff_of(STACK, metadata={"axes": "ZCYX"}, contiguous=False),
    }


@pytest.mark.parametrize("writer", stacks())
def test_channels_and_pages_are_chosen_and_told(writer: str) -> None:
    file = stacks()[writer]
    np.testing.assert_array_equal(grey(file), STACK[0, 0])
    assert taken(file) == "channel=0/2, page=0/3"
    for page in range(3):
        for channel in range(2):
            np.testing.assert_array_equal(grey(file, page=page, channel=channel), STACK[page, channel])
    np.testing.assert_array_equal(grey(file, channel=1, page="max"), STACK[:, 1].max(axis=0))
    np.testing.assert_array_equal(grey(file, channel="max", page="max"), STACK.max(axis=(0, 1)))
    assert taken(file, channel=1, page="max") == "channel=1/2, page=max/3"
    with pytest.raises(images.NoSuchPartError, match="channel 2 is not there: there are the channels 0 to 1"):
        grey(file, channel=2)
    with pytest.raises(images.NoSuchPartError, match="page 3"):
        grey(file, page=3)


def test_pages_without_notes_are_pages() -> None:
    file = tiff_of(STACK.reshape(6, H, W), metadata=None)
    assert taken(file, page=4) == "page=4/6"
    np.testing.assert_array_equal(grey(file, page=4), STACK[2, 0])


def test_a_stack_of_imagej_behind_one_directory_is_read() -> None:
    """Above 4 GB ImageJ writes one directory, and the planes behind each other."""
    first = tiff_of(STACK[0, 0], imagej=True, metadata={"axes": "YX"})
    notes = b"ImageJ=1.53\nimages=6\nchannels=2\nslices=3\nhyperstack=true\n\0"
    data = packed_tiff(STACK[0, 0], 8)
    pixels = STACK.tobytes()
    at = 8 + len(pixels)
    tags = {256: W, 257: H, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: H, 279: W * H}
    entries = b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in tags.items() if tag < 270)
    entries += struct.pack(">HHII", 270, 2, len(notes), at)
    entries += b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in tags.items() if tag > 270)
    file = b"MM\0*" + struct.pack(">I", at + len(notes)) + pixels + notes
    file += struct.pack(">H", len(tags) + 1) + entries + bytes(4)
    assert first[:2] != file[:2] == data[:2]
    for page in range(3):
        for channel in range(2):
            np.testing.assert_array_equal(grey(file, page=page, channel=channel), STACK[page, channel])


@pytest.mark.parametrize(
    "notes",
    [
        ome(2, 5, (H, W)),
        ome(2, 3, (H, W)).replace("SizeZ", "SizeQ"),
        ome(2, 3, (H, W)).replace('"3"', '"1000000000"'),
        ome(2, 3, (H, W))[:150] + "OME>",
        "<OME></OME>",
        "ImageJ=1.53\nimages=7\nchannels=2\n",
        "ImageJ=1.53\nimages=999999999\nchannels=999999999\n",
        '{"shape": [1000000, 1000000, 12, 20], "axes": "ZCYX"}',
        '{"shape": "nonsense"',
    ],
)
def test_notes_that_do_not_fit_the_file_are_passed_over(notes: str) -> None:
    file = tiff_of(STACK.reshape(6, H, W), description=notes, metadata=None)
    assert taken(file) == "page=0/6"
    np.testing.assert_array_equal(grey(file, page=5), STACK[2, 1])


def test_a_plane_in_another_file_is_named() -> None:
    placed = (
        '<TiffData FirstC="0" IFD="0" PlaneCount="1"><UUID FileName="a.tif">urn:uuid:a</UUID></TiffData>'
        '<TiffData FirstC="1" IFD="0" PlaneCount="1"><UUID FileName="b.tif">urn:uuid:b</UUID></TiffData>'
    )
    notes = ome(2, 1, (H, W), placed=placed).replace("<OME ", '<OME UUID="urn:uuid:b" ')
    file = tiff_of(STACK[0, 1], description=notes, metadata=None)
    np.testing.assert_array_equal(grey(file, channel=1), STACK[0, 1])
    with pytest.raises(UnsupportedImageError, match="in another file"):
        grey(file)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_samples_that_are_no_colors_are_channels(planar: str) -> None:
    samples = np.random.default_rng(0).integers(0, 65536, (H, W, 5), dtype=np.uint16)
    stored = samples if planar == "contig" else np.ascontiguousarray(samples.transpose(2, 0, 1))
    file = tiff_of(stored, photometric="minisblack", planarconfig=planar, metadata=None)
    for channel in range(5):
        np.testing.assert_array_equal(grey(file, channel=channel), samples[:, :, channel])
    np.testing.assert_array_equal(grey(file, channel="max"), samples.max(axis=2))
    assert taken(file) == "channel=0/5"


def test_where_the_least_is_white_a_projection_is_of_what_is_shown() -> None:
    file = tiff_of(STACK[:, 0], photometric="miniswhite", metadata=None)
    np.testing.assert_array_equal(grey(file, page="max"), (255 - STACK[:, 0]).max(axis=0))


def test_pages_of_several_sizes_have_no_projection() -> None:
    frames = [photo(), photo(9, 9)]
    file = file_of(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(images.decode(file, selection=Selection(page=1)).pixels, np.asarray(frames[1]))
    with pytest.raises(UnsupportedImageError, match="differ in size"):
        images.decode(file, selection=Selection(page="max"))


# -- refused by name -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "says"),
    [
        ({259: 34712}, "JPEG 2000 in TIFF needs the package imagecodecs: pip install -e '\\.\\[tiff\\]'"),
        ({259: 50002}, "JPEG XL in TIFF needs"),
        ({259: 6}, "compression 6 of 8 bits is not read: save it with LZW"),
        ({259: 34676}, "compression 34676"),
        ({262: 8}, "CIELAB.* not read: send RGB or grey"),
        ({262: 32803}, "CFA.* not read"),
        ({339: 5}, "complex numbers"),
        ({339: 3}, "samples of 8 bits are not read"),
        ({32997: 3}, "volumes"),
        ({317: 7, 259: 8}, "predictor 7"),
    ],
)
def test_what_is_not_read_is_named(tags: dict[int, int], says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import_module = builtins.__import__

    def without_imagecodecs(name: str, *rest: Any) -> Any:
        if name == "imagecodecs":
            raise ImportError(name)
        return import_module(name, *rest)

    file = packed_tiff(STACK[0, 0], 8, tags)
    monkeypatch.setattr(builtins, "__import__", without_imagecodecs)
    with pytest.raises(UnsupportedImageError, match=says):
        images.decode(file, LIMIT)


def test_ycbcr_without_jpeg_and_channels_of_several_types_are_named() -> None:
    file = tiff_of(np.zeros((H, W, 3), np.uint8), photometric="rgb", metadata=None)
    colors = struct.pack("<HHII", 262, 3, 1, 2)
    with pytest.raises(UnsupportedImageError, match="YCbCr"):
        images.decode(file.replace(colors, struct.pack("<HHII", 262, 3, 1, 6)))
    with pytest.raises(UnsupportedImageError, match="differ in their types"):
        images.decode(file.replace(struct.pack("<3H", 8, 8, 8), struct.pack("<3H", 8, 8, 9)))


# -- counted before a decoder sees it --------------------------------------------------------------------------------


@pytest.mark.parametrize("larger", [(8, 17, 3), (9, 16, 3), (8, 16, 4)])
def test_a_jpeg_2000_larger_than_its_tile_is_not_decoded(
    larger: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    imagecodecs = pytest.importorskip("imagecodecs", reason="needs the extra imagecodecs")

    def file(shape: tuple[int, ...]) -> bytes:
        strip = imagecodecs.jpeg2k_encode(np.ones(shape, np.uint8), level=0)
        return tiff_samples._tiff({256: 16, 257: 8, 258: (8, 8, 8), 259: 34712, 262: 2, 277: 3, 278: 8}, [bytes(strip)])

    assert (images.decode(file((8, 16, 3)), LIMIT).pixels == 1).all()
    monkeypatch.setattr(imagecodecs, "jpeg2k_decode", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(DamagedImageError, match="larger than its place"):
        images.decode(file(larger), LIMIT)


def test_a_tiff_of_endless_strips_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = file_of(photo(), "TIFF", tiffinfo={278: 1})  # rows per strip
    images.decode(data, LIMIT)
    monkeypatch.setattr("engine.images.tiff_directory.PARTS", 12)
    for read in (images.decode, images.size):
        with pytest.raises(DamagedImageError, match="more than 12 parts"):
            read(data, LIMIT)


def test_directories_in_a_ring_or_without_an_end_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = packed_tiff(STACK[0, 0], 8)
    directory = int.from_bytes(plain[4:8], "big")
    ring = plain[:-4] + struct.pack(">I", directory)
    np.testing.assert_array_equal(grey(ring), STACK[0, 0])
    assert taken(ring) == ""
    endless = plain[:-4] + struct.pack(">I", len(plain))
    for k in range(1, 50):
        endless += struct.pack(">HI", 0, len(plain) + 6 * k)
    monkeypatch.setattr("engine.images.tiff_directory.DIRECTORY_ENTRIES", 40)
    with pytest.raises(DamagedImageError, match="more pages or tags"):
        images.decode(endless)


@pytest.mark.parametrize(
    "tags", [{322: 2**15, 323: 2**15, 324: 8, 325: 240}, {256: 2**10, 257: 2**10, 277: 99}, {258: 64, 277: 9}]
)
def test_samples_of_more_bytes_than_pixels_may_have_are_refused(tags: dict[int, int]) -> None:
    """Padding of tiles and channels count too, by the header alone."""
    limit = 2**20 if 256 in tags else 2**9
    with pytest.raises(TooManyPixelsError, match="bytes"):
        images.decode(packed_tiff(STACK[0, 0], 8, tags), limit)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "jpeg"])
def test_strips_decoded_some_at_a_time_are_those_of_the_whole(
    compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = file_of(photo(), "TIFF", compression=compression, tiffinfo={278: 8})
    expected = images.decode(data).pixels
    monkeypatch.setattr("engine.images.tiff_samples.BATCH_BYTES", 1)
    np.testing.assert_array_equal(images.decode(data).pixels, expected)


def test_samples_of_odd_bits_count_twice() -> None:
    data = packed_tiff(STACK[0, 0], 12)
    images.decode(data, STACK[0, 0].size)
    with pytest.raises(TooManyPixelsError):
        images.decode(packed_tiff(STACK[0, 0], 12, {277: 3}), STACK[0, 0].size)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "zstd", "lzma", "packbits"])
def test_what_unpacks_to_more_than_the_page_holds_takes_no_more_memory(compression: str) -> None:
    """The strip of a large black image, in a page of few pixels."""
    giant = Image.new("L", (4000, 4000))
    file = bytearray(file_of(giant, "TIFF", compression=compression, tiffinfo={278: 4000}))
    for tag, value in ((256, 20), (257, 12), (278, 12)):
        at = max(file.find(struct.pack("<HHI", tag, kind, 1)) for kind in (3, 4))
        file[at + 8 : at + 12] = struct.pack("<I", value)
    with suppress(DamagedImageError):  # some of libtiff's decoders want the strip to end where the page does
        assert not images.decode(bytes(file), 2**10).pixels.any()


@pytest.mark.parametrize("offset", [10, 60, 10**6])
def test_samples_beyond_the_end_are_refused(offset: int) -> None:
    data = packed_tiff(STACK[0, 0], 8)
    directory = int.from_bytes(data[4:8], "big")
    tags = bytearray(data)
    at = data.index(struct.pack(">HHI", 273, 4, 1), directory)
    tags[at + 8 : at + 12] = struct.pack(">I", len(data) - 240 + offset)
    with pytest.raises(DamagedImageError, match="truncated"):
        images.decode(bytes(tags))
