"""Why a file gives no pixels.

ImageError
├── NotAnImageError        empty, text, or bytes of no known kind
├── DamagedImageError      an image by its first bytes, but truncated or inconsistent
├── UnsupportedImageError  sound as it may be, of a kind that is not read; says what to send instead
├── TooManyPixelsError     known from the header, before anything is decoded
├── NoSuchPartError        the channel or page that was asked for is not there
├── UnusableMaskError      a sound image, but no mask
└── UnreadableFileError    the system does not give its bytes
"""

from __future__ import annotations

from pathlib import Path


class ImageError(ValueError):
    """`reason` says what is wrong; the text names `source` before it, where the image is a file."""

    def __init__(self, reason: str, limit: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.limit = limit
        self.source: Path | None = None

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}" if self.source else self.reason


class NotAnImageError(ImageError):
    pass


class DamagedImageError(ImageError):
    pass


class UnsupportedImageError(ImageError):
    pass


class TooManyPixelsError(ImageError):
    """`limit` is the number of pixels that are taken."""


class NoSuchPartError(ImageError):
    pass


class UnusableMaskError(ImageError):
    pass


class UnreadableFileError(ImageError):
    pass
