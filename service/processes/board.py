"""What the engine process tells of itself at any time: a page of shared memory that it alone writes."""

from __future__ import annotations

import ctypes
import math

from service.core.readiness import State
from service.processes import memory

STATES: tuple[State, ...] = ("loading", "ready", "draining", "failed")


class Notice(ctypes.Structure):
    """What stands there: times of the monotonic clock, seconds, joules (not a number where unknown)."""

    state: int
    waiting: int
    room: int
    turn_since: float
    drain_s: float
    queue_s: float
    image_joules: float

    _fields_ = (
        ("state", ctypes.c_int64),  # of STATES
        ("waiting", ctypes.c_int64),  # images in the queue
        ("room", ctypes.c_int64),  # images that are let in without being asked
        ("turn_since", ctypes.c_double),  # when the engine's present turn has begun, 0 between two
        ("drain_s", ctypes.c_double),  # that all that waits will take
        ("queue_s", ctypes.c_double),  # that a full queue of it would
        ("image_joules", ctypes.c_double),
    )

    @property
    def joules(self) -> float | None:
        """Per image, where known."""
        return None if math.isnan(self.image_joules) else self.image_joules


class Board:
    """The engine process's side: `notice` is written in place, and `descriptor` handed on."""

    def __init__(self) -> None:
        self.descriptor = memory.create(ctypes.sizeof(Notice))
        self.notice = Notice.from_buffer(memory.attach(self.descriptor))
        self.notice.image_joules = math.nan


class BoardView:
    """The side of a front end."""

    def __init__(self, descriptor: int) -> None:
        self._map = memory.adopt(descriptor)

    def read(self) -> Notice:
        """What stands there now."""
        return Notice.from_buffer_copy(self._map)
