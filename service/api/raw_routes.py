"""Routes that FastAPI documents but does not run. Why: see the package's docstring."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.access_log import Handler
from service.problems import Problem


class RawRoutes:
    """ASGI middleware, within all others: runs these `routes` itself, and passes on to FastAPI what is for others.

    Their endpoints take the request and give the response, or raise a problem, whose response `problem` gives.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute], problem: Handler) -> None:
        self._app = app
        self._routes = [route for route in routes if isinstance(route, APIRoute)]
        self._problem = problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for route in self._routes if scope["type"] == "http" else ():
            found = route.path_regex.match(scope["path"])
            if found and scope["method"] in (route.methods or ()):
                scope.update(route=route, path_params=found.groupdict())
                response = await self._response(route, Request(scope, receive, send))
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _response(self, route: APIRoute, request: Request) -> Response:
        try:
            response: Response = await route.endpoint(request)
        except Problem as problem:
            return await self._problem(request, problem)
        return response
