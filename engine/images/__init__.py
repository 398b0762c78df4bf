"""THE decoder: an image file's bytes become pixels as they are displayed, by one set of rules for serving, training and
evaluation; the reader of masks, which has rules of its own; and the objects of a mask (`components`).

What counts, whatever the format:

- **Orientation** as EXIF (in JPEG, XMP too) or the TIFF tag says.
- **Transparency** is laid on white, as a page shows it.
- **Depth**: up to 8 bits become uint8; 9 to 16 bits become uint16 and keep their range, so that a model's own contrast
  stretch sees it. Fewer bits than 8 or 16 are spread over the whole range. Wider integers and floating-point samples
  become uint16: integers that fit as they are, floats within 0 … 1 as shares of 65535, and others by mapping the
  image's own least and greatest value to 0 and 65535. Not-a-number is the least value.
- **Polarity**: white is the greatest value, in files that say the opposite too.
- **Channels and pages**: the first, unless a `Selection` says otherwise; `Decoded.taken` says which of how many.
  Colours count as one picture; their channels are red, green and blue.
- **Color profiles**: of 8-bit RGB images, one with other primaries than sRGB's is converted to sRGB; all others are
  passed over.
- **Comments and other ancillary data** are passed over, however large.
- **Damage**: a JPEG file that lacks no more than its end marker is read; every file cut short elsewhere is refused.

Every refusal is an `ImageError` that names the file, where there is one, and the reason. Nothing is decoded before
what a file says of itself has been counted: pixels, bytes of samples, and the parts that a decoder would walk through.
"""

from engine.images.bands import BAND, row_bands
from engine.images.components import MOST_PEAKS, WHOLE_COMPONENTS, Labels, ObjectParams, TooManyObjectsError, label
from engine.images.decoder import SUFFIXES, Decoded, decode, is_named_image, of_colors, size
from engine.images.errors import (
    DamagedImageError,
    ImageError,
    NoSuchPartError,
    NotAnImageError,
    TooManyPixelsError,
    UnreadableFileError,
    UnsupportedImageError,
    UnusableMaskError,
)
from engine.images.limits import MAX_PIXELS, fresh, unlimited
from engine.images.mask import read_mask
from engine.images.samples import Pixels
from engine.images.selection import FIRST, WHOLE, Choice, Selection, Taken, indices, read_choice, read_selection

__all__ = [
    "BAND",
    "FIRST",
    "MAX_PIXELS",
    "MOST_PEAKS",
    "SUFFIXES",
    "WHOLE",
    "WHOLE_COMPONENTS",
    "Choice",
    "DamagedImageError",
    "Decoded",
    "ImageError",
    "Labels",
    "NoSuchPartError",
    "NotAnImageError",
    "ObjectParams",
    "Pixels",
    "Selection",
    "Taken",
    "TooManyObjectsError",
    "TooManyPixelsError",
    "UnreadableFileError",
    "UnsupportedImageError",
    "UnusableMaskError",
    "decode",
    "fresh",
    "indices",
    "is_named_image",
    "label",
    "of_colors",
    "read_choice",
    "read_mask",
    "read_selection",
    "row_bands",
    "size",
    "unlimited",
]
