"""The endpoints of the admin address.

| request | answer |
|---|---|
| `GET /ready` | 200 while this gateway takes connections, 503 before that and from the first moment of a drain |
| `GET /live` | 200: the process answers |
| `GET /metrics` | Prometheus 0.0.4, or OpenMetrics 1.0 for those who accept it |
| `GET /connections` | the live WebSockets and TCP connections |
| `GET /config/status` | what runs since when, where it listens, and why the last reload failed |
| `POST /reload` | reads the configuration again: 200, or 422 with what is wrong |
| `POST /drain` | 202: as SIGTERM does |
"""

from collections.abc import Mapping
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tidegate.admin.guard import Guard
from tidegate.errors import ConfigError, TidegateError
from tidegate.telemetry import OPENMETRICS, PROMETHEUS, Family, render

__all__ = ["Control", "admin_app"]


class Control(Protocol):
    """What the admin address shows and commands. `metrics` and `connections` are called from worker threads."""

    @property
    def ready(self) -> bool: ...
    def metrics(self) -> list[Family]: ...
    def connections(self) -> str: ...
    def status(self) -> Mapping[str, Any]: ...
    async def reload(self) -> int: ...
    def drain(self) -> None: ...


def admin_app(control: Control, token: str | None) -> Guard:
    """The application, behind its guard."""
    endpoints = _Endpoints(control)
    routes = [
        Route("/ready", endpoints.ready),
        Route("/live", endpoints.live),
        Route("/metrics", endpoints.metrics),
        Route("/connections", endpoints.connections),
        Route("/config/status", endpoints.status),
        Route("/reload", endpoints.reload, methods=["POST"]),
        Route("/drain", endpoints.drain, methods=["POST"]),
    ]
    return Guard(Starlette(routes=routes), token)


class _Endpoints:
    def __init__(self, control: Control) -> None:
        self._control = control

    async def ready(self, _: Request) -> Response:
        ready = self._control.ready
        return PlainTextResponse("ready\n" if ready else "not ready\n", 200 if ready else 503)

    async def live(self, _: Request) -> Response:
        return PlainTextResponse("live\n")

    # Not a coroutine: starlette runs it in a thread, because a big gateway has many samples to render.
    def metrics(self, request: Request) -> Response:
        openmetrics = "application/openmetrics-text" in request.headers.get("accept", "")
        text = render(self._control.metrics(), openmetrics)
        return Response(text, headers={"content-type": OPENMETRICS if openmetrics else PROMETHEUS})

    def connections(self, _: Request) -> Response:
        return Response(self._control.connections(), media_type="application/json")

    async def status(self, _: Request) -> Response:
        return JSONResponse(self._control.status())

    async def reload(self, _: Request) -> Response:
        try:
            return JSONResponse({"generation": await self._control.reload()})
        except TidegateError as error:
            problems = [problem.as_json() for problem in error.problems] if isinstance(error, ConfigError) else []
            return JSONResponse({"error": "reload_failed", "reason": str(error), "problems": problems}, 422)

    async def drain(self, _: Request) -> Response:
        self._control.drain()
        return JSONResponse({"draining": True}, 202)
