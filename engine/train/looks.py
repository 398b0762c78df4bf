"""When a run looks at its validation images and when it saves, and what was best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.train.config import Config
from engine.train.metrics import Metrics
from engine.train.pace import Pace

EARLY = 0.05  # of the run: the first look at the validation images
LOOKS = 20  # at most so many more of them in a run by the clock, and never more than a tenth of its time
SAVED_EVERY = 60.0  # seconds, by the clock


class Looks:
    """A run's looks at its validation images; seconds are those of `pace`."""

    def __init__(self, config: Config, pace: Pace) -> None:
        self.best = 0.0
        self.last = 0.0  # what the last one gave
        self.stale = 0  # looks since the best
        self.never_found: tuple[str, ...] = ()  # classes, in the last one
        self.seconds = 0.0  # that it took
        self._config, self._pace = config, pace
        self._at = -1.0  # when the last one was
        self._saved = 0.0  # when the run was saved
        self._settled = False  # whether the best is of the network as it will be

    @property
    def any(self) -> bool:
        """Whether there was one."""
        return self._at >= 0

    @property
    def stops_early(self) -> bool:
        """Whether the best is so long ago that the run is to end."""
        return 0 < self._config.early_stopping <= self.stale

    def due(self, step: int, progress: float, refreshed: bool) -> bool:
        """Whether to look now; the first time where the masking thresholds are `refreshed`."""
        early = not self.any and progress >= EARLY and refreshed
        if not self._config.minutes:
            return early or step % self._config.validate_every == 0
        since = self._pace.spent - self._at
        return early or (self.any and since > max(10 * self.seconds, 60 * self._config.minutes / LOOKS))

    def save_due(self, step: int) -> bool:
        """Whether to save now."""
        if not self._config.minutes:
            return step % self._config.save_every == 0
        return self._pace.spent - self._saved > SAVED_EVERY

    def note(self, found: Metrics, progress: float) -> bool:
        """Keep what a look has found; whether it is the best of the network as it will be.

        Before there is one of that, the best is the best of any. A run that has ended and goes on may anneal anew: what
        it gives meanwhile is no rival of the best.
        """
        self.last, self.never_found = found.headline, found.never_found
        settled = self._config.settled_at(progress)
        better = self.last > self.best if settled == self._settled else settled
        self.stale = 0 if better or not settled else self.stale + 1
        self._settled |= settled
        self.best = self.last if better else self.best
        return better and settled

    def looked(self) -> None:
        """Count the time since the last step as that of a look, which is over."""
        self.seconds = self._pace.advance()
        self._at = self._pace.spent

    def saved(self) -> None:
        """The run has been saved now."""
        self._saved = self._pace.spent

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        kept = {"best": self.best, "last": self.last, "looked": self._at, "look_seconds": self.seconds}
        return kept | {"settled": self._settled, "stale": self.stale, "spent": self._pace.spent}

    def resume(self, state: Mapping[str, Any], more: bool = False) -> None:
        """Go on from what a checkpoint has kept, earlier versions less; a run that gets `more` is not stale."""
        self.best = state["best"]
        self.last, self.seconds = state.get("last", self.best), state.get("look_seconds", 0.0)
        self._settled, self.stale = state.get("settled", False), 0 if more else state.get("stale", 0)
        self._at, self._saved = state.get("looked", -1.0), state.get("spent", 0.0)
