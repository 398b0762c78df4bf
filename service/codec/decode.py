"""Bytes to pixels. Trusts nothing that a client sends; every refusal is a problem with its reason.

Decisions: transparency is laid on white, as a page shows it. 16-bit grey is divided by 257 and rounded, never clipped.
Of animations and multi-page files the first frame counts. EXIF orientation is applied where it can be read. Colour
profiles are ignored.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, UnidentifiedImageError

from service.codec.pixels import Pixels, fitted_pixels
from service.problems import NotAnImage, Problem, TooManyPixels, UnsupportedType

IMAGE_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")  # Pillow reads many more, some by starting programs
JPEG = ("JPEG", "MPO")  # MPO is several JPEG images in one file, of which the first counts
START_OF_JPEG = b"\xff\xd8\xff"  # and of its first segment
START_OF_SCAN = b"\xff\xda"
APPLICATION_1 = b"\xff\xe1"  # the segment of EXIF and of XMP
SEGMENTS = 100  # looked through for it; ordinary files have ten
SCANS = 100  # of a JPEG image; ordinary ones have ten at most, and each of a few bytes is a walk over the whole image
TILES = 2**17  # or strips, of a TIFF image: each is a call of the decoder
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Image.MAX_IMAGE_PIXELS = None  # Pillow warns at a limit of its own and refuses at twice that; ours stands in `decode`
warnings.filterwarnings("ignore", module=r"PIL\.")  # damaged metadata in a client's file is not this server's news


def decode(data: bytes, max_pixels: int) -> Pixels:
    """Pixels of the image in `data` as it is displayed: uint8 [h, w, 3], C-contiguous, RGB.

    Raises TooManyPixels by the header alone, before anything is decoded; NotAnImage for what is empty, damaged or no
    image; UnsupportedType for samples that have no plain 8-bit meaning (floats, integers beyond 16 bits).
    """
    if not data:
        raise NotAnImage("the body is empty: send the image file itself, or a form with a file in the field `image`")
    pixels = _plain_jpeg(data, max_pixels)
    return _by_pillow(data, max_pixels) if pixels is None else pixels


def _plain_jpeg(data: bytes, max_pixels: int) -> Pixels | None:
    """The pixels of a JPEG image straight from libjpeg-turbo, in half of Pillow's time and the same; most are such.

    None for what Pillow is to judge: other formats and colours, images to be turned, and whatever is damaged.
    """
    if not data.startswith(START_OF_JPEG) or (_has_metadata(data) and _is_turned(data)):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in ("YCbCr", "RGB", "Gray"):
            return None
        _check_size("JPEG", width, height, max_pixels)
        _check_scans(data)
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:
        return None
    return pixels


def _has_metadata(data: bytes) -> bool:
    """Whether a JPEG file has a segment of EXIF or XMP before its first scan, or one cannot easily tell."""
    at = len(START_OF_JPEG) - 1
    for _ in range(SEGMENTS):
        marker, size = data[at : at + 2], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == START_OF_SCAN:
            return False
        if marker == APPLICATION_1 or marker[:1] != b"\xff":
            return True
        at += 2 + size
    return True


def _is_turned(data: bytes) -> bool:
    """Whether a JPEG file is not to be shown as it lies, or Pillow cannot tell."""
    try:
        with Image.open(io.BytesIO(data), formats=JPEG) as image:
            return _turn(image) is not None
    except Exception:  # as below
        return True


def _by_pillow(data: bytes, max_pixels: int) -> Pixels:
    try:
        image = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS)
    except UnidentifiedImageError:
        raise NotAnImage(f"these {len(data)} bytes are none of {', '.join(IMAGE_FORMATS)}") from None
    except Exception as error:  # foreign bytes make Pillow raise OSError, SyntaxError, ValueError, struct.error, ...
        raise NotAnImage(f"the image's header is damaged: {error}") from error
    with image:
        _check_size(image.format, *image.size, max_pixels)
        if image.format in JPEG:
            _check_scans(data)
        if len(getattr(image, "tile", ())) > TILES:
            raise NotAnImage(f"the {image.format} image is cut into more than {TILES} tiles")
        try:
            image.load()
            return _rgb(_upright(image))
        except Problem:
            raise
        except Exception as error:  # as above
            raise NotAnImage(f"the {image.format} image is truncated, damaged or of an odd kind: {error}") from error


def _check_size(kind: str | None, width: int, height: int, max_pixels: int) -> None:
    if not width or not height:
        raise NotAnImage(f"the {kind} image has no pixels: it is {width} x {height}")
    pixels = fitted_pixels(height, width)
    if pixels > max_pixels:
        raise TooManyPixels(
            f"{width} x {height}, sides rounded up to multiples of 16, is {pixels} pixels; the limit is {max_pixels}",
            limit=max_pixels,
        )


def _check_scans(data: bytes) -> None:
    """Raise NotAnImage for a JPEG file whose few bytes would keep a decoder busy for minutes."""
    if data.count(START_OF_SCAN) > SCANS:
        raise NotAnImage(f"the JPEG image has more than {SCANS} scans")


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says. (Pillow's exif_transpose also rewrites the EXIF, needlessly.)"""
    method = _turn(image)
    return image if method is None else image.transpose(method)


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata say nothing about the pixels, which are sound: they are shown as they lie
        return None


def _rgb(image: Image.Image) -> Pixels:
    if image.mode.startswith("I"):
        return _from_16_bits(image)
    if image.mode == "F":
        raise UnsupportedType("the samples are floating-point numbers: send 8-bit, or 16-bit grey")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        image = white
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _from_16_bits(image: Image.Image) -> Pixels:
    samples = np.asarray(image).astype(np.int64)
    if samples.min() < 0 or samples.max() > 65535:
        raise UnsupportedType("the samples do not fit 16 bits: send 8-bit, or 16-bit grey")
    grey = ((samples + 128) // 257).astype(np.uint8)  # exactly round(sample / 257): 257 is odd, so there are no ties
    return np.repeat(grey[:, :, None], 3, axis=2)
