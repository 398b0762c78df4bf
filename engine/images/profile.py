"""Color profiles (ICC): images of wide gamuts as sRGB.

Most files carry the profile of sRGB itself, in one of a hundred versions, so a profile is judged by its primaries
alone: with those of sRGB nothing is done. Profiles without primaries (tables of scanners and printers) and damaged ones
are passed over, and so are those with processing elements, of which a small file can name a million.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageCms

from engine.images.samples import Pixels

MAX_BYTES = 4 * 2**20  # of a profile
PRIMARIES = (b"rXYZ", b"gXYZ", b"bXYZ")
SRGB = np.array([[0.4360, 0.2225, 0.0139], [0.3851, 0.7169, 0.0971], [0.1431, 0.0606, 0.7141]])  # XYZ under D50
NEAR = 0.01  # of XYZ: profiles of sRGB differ by thousandths, Display P3 by eight hundredths
TAGS = 100  # of a profile that are looked through
ELEMENTS = b"mpet"  # the type of tags with processing elements


def to_srgb(pixels: Pixels, profile: bytes) -> Pixels:
    """`pixels` [h, w, 3] in sRGB, by relative colorimetry: the same array where they are, and where they are uint16."""
    if pixels.dtype != np.uint8 or not has_other_primaries(profile):
        return pixels
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(
            Image.fromarray(pixels),
            source,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return pixels
    return np.asarray(converted)


def has_other_primaries(profile: bytes) -> bool:
    """Whether this is the profile of an RGB space with other primaries than sRGB's."""
    if not 132 <= len(profile) <= MAX_BYTES or profile[16:20] != b"RGB " or ELEMENTS in profile:
        return False
    found = [_xyz(profile, name) for name in PRIMARIES]
    if any(xyz is None for xyz in found):
        return False
    return bool((np.abs(np.array(found, np.float64) - SRGB) > NEAR).any())


def _xyz(profile: bytes, name: bytes) -> tuple[float, ...] | None:
    """The tag `name`, of type XYZ: three numbers of 16.16 bits."""
    count = min(int.from_bytes(profile[128:132], "big"), TAGS)
    for at in range(132, 132 + 12 * count, 12):
        if profile[at : at + 4] == name:
            offset = int.from_bytes(profile[at + 4 : at + 8], "big")
            numbers = np.frombuffer(profile[offset + 8 : offset + 20], ">i4")
            if profile[offset : offset + 4] != b"XYZ " or len(numbers) < 3:
                return None
            return tuple((numbers / 65536).tolist())
    return None
