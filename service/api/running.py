"""How a route finds the service of its application."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from service.core.service import Service


async def running_service(connection: HTTPConnection) -> Service:
    """The service of the application that the request or websocket has come to."""
    service: Service = connection.app.state.service
    return service


Running = Annotated[Service, Depends(running_service)]
