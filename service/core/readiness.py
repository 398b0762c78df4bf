"""Whether requests are taken, and what those are told that are not."""

from __future__ import annotations

from typing import Literal

from service.problems import Unavailable

State = Literal["loading", "ready", "draining", "failed", "hanging"]

RETRY = {"Retry-After": "1"}


class Readiness:
    """Whether requests are taken."""

    @property
    def state(self) -> State:
        """By one word, and why not where it is not "ready"."""
        raise NotImplementedError

    def require_alive(self) -> None:
        """Raise Unavailable where the process cannot work any more, so that a supervisor should restart it."""
        if self.state in ("failed", "hanging"):
            why = "its engine failed on its first image, does not return, or has ended"
            raise Unavailable(f"the server is {self.state}: {why}")

    def require_ready(self) -> None:
        """Raise Unavailable unless the server is warmed up and not draining."""
        if self.state != "ready":
            raise Unavailable(f"the server is {self.state}", headers=RETRY)

    async def require_room(self) -> None:
        """Raise Unavailable or QueueFull if an image would be refused now: better before its upload than after."""
        raise NotImplementedError

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End."""
