"""The same application on many machines: Ray Serve runs it as replicas, one engine each, behind its own proxies.

    ray start --head                        # on the first machine
    ray start --address=FIRST:6379          # on every other one
    serve start --http-host 0.0.0.0         # from here on the first again, in the folder of this file
    serve run --working-dir . app:build cpus=4 min_replicas=2 max_replicas=8

Whoever reaches Ray's ports can run code: before `ray start`, set RAY_AUTH_MODE=token on every machine and give all of
them the same ~/.ray/auth_token (`ray get-auth-token --generate` makes one). RAY_SERVE_PROXY_PREFER_LOCAL_NODE_ROUTING=0
in the environment of every `ray start` lets a proxy share its requests among all replicas; without it they go to the
replica of the proxy's own machine first.

Every machine needs the project installed with its extra: pip install '.[ray]'. Every proxy (port 8000) leads to every
replica, and its /metrics tells of all of them: let Prometheus ask one. Settings are the MBUNET_* variables of whoever
says `serve run`; host and port are Ray's affair, and a model file must lie at the same path on every machine. Ray
chooses the replica; queue, batches and refusals are the replica's own.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from pydantic import BaseModel, ConfigDict
from ray import serve
from starlette.routing import Route

from service.logs import log
from service.settings import Settings, load

WARM_UP_S = 60.0
SCRAPE_S = 3.0  # how long a scrape waits for other replicas


class Arguments(BaseModel):
    """What `serve run` takes: cores of one replica, which are its engine's threads, and how many replicas."""

    model_config = ConfigDict(extra="forbid")

    cpus: int = 2
    min_replicas: int = 1
    max_replicas: int = 8


@serve.deployment(name="mbunet", graceful_shutdown_timeout_s=40, health_check_period_s=5)
@serve.ingress()
class Replica:
    """One engine and the whole application round it."""

    def __init__(self, settings: Settings) -> None:
        from service.app import create_app
        from service.core.engine import load_all

        self._application = create_app(load_all(settings), settings)
        self._service = self._application.state.service
        self._application.router.routes.insert(0, Route("/metrics", self._metrics))

    def __serve_build_asgi_app__(self) -> FastAPI:
        return self._application

    async def check_health(self) -> None:
        """Raises where the engine cannot work. Ray sends requests only after the first time, so it waits for it."""
        await asyncio.to_thread(self._service.lifecycle.settled.wait, WARM_UP_S)
        if self._service.lifecycle.state not in ("ready", "draining"):
            raise RuntimeError(f"the server is {self._service.lifecycle.state}")

    async def exposition(self) -> tuple[str, str]:
        """This replica's name and its series, in Prometheus' text format."""
        return serve.get_replica_context().replica_id.unique_id, self._service.metrics.text().decode()

    async def _metrics(self, _: Request) -> Response:
        """The series of every replica, each with the label `replica`: a scrape reaches only one of them."""
        context = serve.get_replica_context()
        handle = serve.get_deployment_handle(context.deployment, context.app_name)
        told = dict([await self.exposition()])
        try:
            answers = await handle.broadcast("exposition").results_async(timeout_s=SCRAPE_S, return_exceptions=True)
            told |= dict(answer for answer in answers if not isinstance(answer, BaseException))
        except TimeoutError:
            log.warning("not every replica told its series within %g s; this one tells its own", SCRAPE_S)
        registry = CollectorRegistry()
        registry.register(Told(told))
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


class Told(Collector):
    """The expositions of many replicas, by name, as one."""

    def __init__(self, expositions: dict[str, str]) -> None:
        self._expositions = expositions

    def collect(self) -> Iterator[Metric]:
        """Every family once, its samples told apart by the label `replica`."""
        merged: dict[str, Metric] = {}
        for name, text in self._expositions.items():
            for family in text_string_to_metric_families(text):
                whole = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    whole.samples.append(sample._replace(labels={**sample.labels, "replica": name}))
        yield from merged.values()


def build(arguments: Arguments) -> Any:
    """The Ray Serve application."""
    settings = replace(load(os.environ), threads=arguments.cpus)
    scaling = {
        "min_replicas": arguments.min_replicas,
        "max_replicas": arguments.max_replicas,
        "target_ongoing_requests": settings.batch_images,
        # a full queue refuses after seconds, so seconds count; Ray's own 30 would come too late
        "look_back_period_s": 10,
        "upscale_delay_s": 5,
        "metrics_interval_s": 2,
    }
    deployment: Any = Replica  # what Ray's decorators have made of the class
    return deployment.options(
        autoscaling_config=scaling,
        # more than a replica's own queue holds, so that it is the replica that refuses, with its Retry-After
        max_ongoing_requests=2 * (settings.queue_images + settings.batch_images),
        ray_actor_options={"num_cpus": arguments.cpus},
    ).bind(settings)
