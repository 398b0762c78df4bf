"""The models that are served, by name, and how they are replaced while the server runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from engine import preprocess
from engine.model import Model
from service.codec.pixels import Fitted
from service.core.engine import Engine
from service.logs import log
from service.problems import NotFound
from service.telemetry.metrics import Metrics

WARM_UP_SIDE = 256  # pixels


class Models:
    """The engines by their models' names, the default one first. Raises ValueError where two have one name."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.serve(engines)

    def serve(self, engines: Sequence[Engine]) -> None:
        """These from now on."""
        named = {engine.model.name: engine for engine in engines}
        if len(named) < len(engines):
            raise ValueError(f"two of the models have one name: {', '.join(engine.model.name for engine in engines)}")
        self._engines = named

    @property
    def engines(self) -> list[Engine]:
        """All engines."""
        return list(self._engines.values())

    @property
    def default(self) -> Engine:
        """The engine that is meant where no model is named."""
        return self.engines[0]

    def engine(self, name: str | None) -> Engine:
        """The engine of the model `name`, or the default one; raises NotFound."""
        engines = self._engines
        if name is None:
            return self.default
        if name not in engines:
            raise NotFound(f"there is no model of this name; there is {', '.join(engines)}")
        return engines[name]


class ModelRegistry(Models):
    """Those of this process, which `load` gives anew. `changed` is called with them then."""

    def __init__(
        self,
        engines: Sequence[Engine],
        metrics: Metrics,
        load: Callable[[], Sequence[Engine]] | None = None,
        changed: Callable[[Sequence[Engine]], None] = lambda engines: None,
    ) -> None:
        super().__init__(engines)
        self._metrics = metrics
        self._load = load
        self._changed = changed

    def reload(self) -> bool:
        """Load the models anew and serve them; what is queued runs on the old ones. On failure those stay: False."""
        try:
            engines = self._load() if self._load else self.engines
            for engine in engines:
                engine.start([warm_up_image(engine.model)]).finish()
            self.serve(engines)
            self._changed(engines)
        except Exception:  # a broken model file must not end a working server
            log.exception("the models could not be loaded anew; the old ones stay")
            self._metrics.reloads.labels("failed").inc()
            return False
        self._metrics.reloads.labels("ok").inc()
        log.info("serving %s", ", ".join(self._engines))
        return True


def warm_up_image(model: Model, max_pixels: int = WARM_UP_SIDE**2) -> Fitted:
    """What a black image of at most `max_pixels` pixels becomes, for an engine's first run."""
    side = max(1, min(WARM_UP_SIDE, math.isqrt(max_pixels)) // model.stride * model.stride)
    return np.zeros((*preprocess.size(side, side, model.preprocessing), 3), np.uint8)
