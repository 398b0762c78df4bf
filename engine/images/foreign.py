"""What a file is that is not read here, so that its owner learns more than that it is not."""

from __future__ import annotations

from engine.images.errors import ImageError, NotAnImageError, UnsupportedImageError

SEND = "send PNG, JPEG, TIFF, WebP, BMP or GIF"

KNOWN = (  # (at byte, these bytes, what it is)
    (4, b"ftypheic", "a HEIC image"),
    (4, b"ftypheix", "a HEIC image"),
    (4, b"ftypmif1", "a HEIF image"),
    (4, b"ftypavif", "an AVIF image"),
    (4, b"ftypjp2", "a JPEG 2000 image"),
    (4, b"jP  ", "a JPEG 2000 image"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (4, b"JXL ", "a JPEG XL image"),
    (0, b"\xff\x0a", "a JPEG XL image"),
    (4, b"ftyp", "a video or an image of the ISO base media format"),
    (128, b"DICM", "a DICOM file"),
    (0, b"ZISRAWFILE", "a Zeiss CZI file"),
    (0, b"\xda\xce\xbe\x0a", "a Nikon ND2 file"),
    (0, b"\x70\x00\x00\x00", "a Leica LIF file"),
    (0, b"\x89HDF", "an HDF5 file"),
    (344, b"n+1\0", "a NIfTI file"),
    (0, b"SIMPLE  =", "a FITS file"),
    (0, b"\x93NUMPY", "a numpy array"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"v/1\x01", "an OpenEXR image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"%!PS", "a PostScript document"),
    (0, b"<svg", "an SVG drawing"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"qoif", "a QOI image"),
    (0, b"\0\0\x01\0", "an icon"),
    (0, b"DDS ", "a DDS texture"),
)


def refusal(data: bytes) -> ImageError:
    """The error for bytes that begin like none of the formats that are read."""
    if not data:
        return NotAnImageError("there are no bytes: the file is empty")
    for at, magic, name in KNOWN:
        if data.startswith(magic, at):
            return UnsupportedImageError(f"this is {name}, which is not read: {SEND}")
    if data[:1] == b"P" and data[1:2] in b"1234567" and data[2:3].isspace():
        return UnsupportedImageError(f"this is a Netpbm image, which is not read: {SEND}")
    return NotAnImageError(f"these {len(data)} bytes are no image: they begin with {data[:8]!r}; {SEND}")
