"""What of an image that has several channels or pages was segmented, told to its sender."""

from __future__ import annotations

from engine.images import Taken


def taken_header(taken: Taken) -> dict[str, str]:
    """As in `X-Image-Taken: channel=0/2, page=0/12`: number and count; absent where there is nothing to choose."""
    return {"X-Image-Taken": str(taken)} if str(taken) else {}


def taken_member(taken: Taken) -> dict[str, str]:
    """The same as a member of a JSON document."""
    return {"taken": str(taken)} if str(taken) else {}
