"""Which channel and page of an image that has several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.images.errors import NoSuchPartError

Choice = int | Literal["max"] | None


@dataclass(frozen=True)
class Selection:
    """`channel` and `page` count from 0; "max" is the maximum projection over all of them; None is the first.

    Pages are the planes of a stack, the frames of a series, or the pages of a file. Without a channel, an image in
    colours stays in colours.
    """

    channel: Choice = None
    page: Choice = None

    def before(self, default: Selection) -> Selection:
        """What this says and, where it says nothing, what `default` does."""
        channel = default.channel if self.channel is None else self.channel
        return Selection(channel, default.page if self.page is None else self.page)


FIRST = Selection()


@dataclass(frozen=True)
class Taken:
    """What of an image became pixels: `channel` of `channels` (None: all, as colours), `page` of `pages`."""

    channel: Choice = None
    channels: int = 1
    page: Choice = 0
    pages: int = 1

    def __str__(self) -> str:
        """As in "channel=0/2, page=0/12": only where there are several, or none but one in colours was taken."""
        parts = []
        if self.channel is not None and self.channels > 1:
            parts.append(f"channel={self.channel}/{self.channels}")
        if self.pages > 1:
            parts.append(f"page={self.page}/{self.pages}")
        return ", ".join(parts)


WHOLE = Taken()
"""All of an image that has nothing to choose from."""


def read_choice(text: str) -> Choice:
    """A channel or page as people write it: a number from 0, or "max"; raises ValueError."""
    if text == "max":
        return "max"
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ValueError("a number from 0, or max")
    return int(text)


def read_selection(channel: str, page: str) -> Selection:
    """Of both as people write them, nothing meaning the first; raises ValueError, which names the one."""
    choices = []
    for what, text in (("channel", channel), ("page", page)):
        try:
            choices.append(read_choice(text) if text else None)
        except ValueError as error:
            raise ValueError(f"{what}: {error}, not {text!r}") from None
    return Selection(*choices)


def indices(what: str, choice: Choice, count: int) -> list[int]:
    """The numbers that `choice` of `count` means, in order; raises NoSuchPartError."""
    if choice == "max":
        return list(range(count))
    number = choice or 0
    if not 0 <= number < count:
        are = f"are the {what}s 0 to {count - 1}" if count > 1 else f"is one {what}, number 0"
        raise NoSuchPartError(f"{what} {number} is not there: there {are}")
    return [number]
