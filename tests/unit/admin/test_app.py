"""The endpoints of the admin address."""

import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from tidegate.admin.app import admin_app
from tidegate.errors import ConfigError, EngineFailure, Place, Problem
from tidegate.telemetry import Family


class Control:
    """A gateway as the admin sees it."""

    def __init__(self) -> None:
        self.ready = True
        self.drained = False
        self.failure: Exception | None = None

    def metrics(self) -> list[Family]:
        return [{"name": "x_total", "kind": "counter", "samples": [{"labels": {}, "value": 1}]}]

    def connections(self) -> str:
        return '[{"id": "c1"}]'

    def status(self) -> Mapping[str, Any]:
        return {"generation": 4}

    async def reload(self) -> int:
        if self.failure:
            raise self.failure
        return 5

    def drain(self) -> None:
        self.drained = True


@pytest.fixture
def control() -> Control:
    return Control()


def client(control: Control, token: str | None = None) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(admin_app(control, token))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:9900")


async def test_ready_and_live(control: Control) -> None:
    async with client(control, token="secret") as admin:
        assert (await admin.get("/ready")).status_code == 200
        control.ready = False
        assert (await admin.get("/ready")).status_code == 503
        assert (await admin.get("/live")).status_code == 200
        assert (await admin.get("/metrics")).status_code == 401


async def test_metrics_by_accept(control: Control) -> None:
    async with client(control) as admin:
        plain = await admin.get("/metrics")
        assert (plain.headers["content-type"], plain.text) == (
            "text/plain; version=0.0.4; charset=utf-8",
            "# TYPE x_total counter\nx_total 1\n",
        )
        openmetrics = await admin.get("/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0,*/*"})
        assert openmetrics.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        assert openmetrics.text.endswith("# EOF\n")


async def test_connections_and_status(control: Control) -> None:
    async with client(control) as admin:
        assert (await admin.get("/connections")).json() == [{"id": "c1"}]
        assert (await admin.get("/config/status")).json() == {"generation": 4}


async def test_reload(control: Control) -> None:
    async with client(control) as admin:
        assert (await admin.get("/reload")).status_code == 405
        answer = await admin.post("/reload")
        assert (answer.status_code, answer.json()) == (200, {"generation": 5})


async def test_a_failed_reload_says_why(control: Control) -> None:
    async with client(control) as admin:
        control.failure = ConfigError([Problem(Place("x.yaml", 3, 5, "routes[0].to"), "there is no upstream 'b'")])
        answer = await admin.post("/reload")
        assert answer.status_code == 422
        assert answer.json()["problems"][0]["line"] == 3
        control.failure = EngineFailure("127.0.0.1:80: address in use")
        assert json.loads((await admin.post("/reload")).text)["reason"] == "127.0.0.1:80: address in use"


async def test_drain(control: Control) -> None:
    async with client(control) as admin:
        assert (await admin.post("/drain")).status_code == 202
    assert control.drained
