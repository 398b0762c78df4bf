"""What is seen of a run: its progress bar, its log and its pictures."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from engine import preprocess
from engine.train import figures, log, metrics
from engine.train.config import Config
from engine.train.data.dataset import Sample
from engine.train.network import Network
from engine.train.validation import engine_of, evenly

EXAMPLES = 6  # validation images, on a sheet
LINES_APART = 30.0  # seconds between two lines of a progress bar that goes to a file


class View:
    """log.csv, classes.csv, curves.png and examples.png of a run, and its progress bar unless it is `quiet`."""

    def __init__(self, config: Config, quiet: bool) -> None:
        self._config, self._quiet = config, quiet
        self._out = Path(config.out)
        self.log, self.class_log = self._out / "log.csv", self._out / "classes.csv"

    def say(self, remark: str) -> None:
        """Print a line."""
        if not self._quiet:
            print(remark)

    def bar(self, step: int, spent: float) -> Any:
        """A progress bar over the steps, or the seconds, of the run."""
        config, apart = self._config, 0.1 if sys.stderr.isatty() else LINES_APART
        look: dict[str, Any] = {"dynamic_ncols": True, "disable": self._quiet, "mininterval": apart}
        if config.minutes:
            form = "{l_bar}{bar}| {n:.0f}/{total:.0f} s{postfix}"
            return tqdm(total=60 * config.minutes, initial=spent, bar_format=form, **look)
        return tqdm(total=config.steps, initial=step, unit="step", **look)

    def move(self, bar: Any, step: int, spent: float) -> None:
        """Move `bar` to where the run is."""
        done = spent if self._config.minutes else step
        bar.update(min(done, bar.total) - bar.n)

    def forget(self, step: int) -> None:
        """Drop what was logged after `step`."""
        for path in (self.log, self.class_log):
            log.forget(path, step)

    def scores(self, step: int, found: metrics.Metrics) -> None:
        """Log a validation's scores by class."""
        for name, own in (found.by_class or {metrics.FOREGROUND: found}).items():
            log.append_class(self.class_log, step, name, own)

    def draw(self, network: Network, validation: Sequence[Sample]) -> None:
        """The run in pictures: its curves so far, and examples spread over the validation images."""
        config = self._config
        figures.curves(self.log, self._out / "curves.png", self.class_log if config.classes else None)
        chosen = evenly(validation, EXAMPLES)
        images, masks = zip(*(sample.load(len(config.classes)) for sample in chosen), strict=True)
        with engine_of(network, config) as engine:
            predictions, _ = engine.run(images)
        shown = [preprocess.in_8_bits(image, config.preprocessing) for image in images]
        figures.examples(shown, masks, predictions, self._out / "examples.png")
