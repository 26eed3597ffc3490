"""Fixtures of the end-to-end tests."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.e2e.kit.bridge import Bridge, Pier, build_pier
from tests.e2e.kit.wire import Lanes, Play, Wire, dial
from tidegate.testing import Gateway


@pytest.fixture(scope="module")
def pier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pier]:
    """A gateway with the module's `ROUTES`, and `UPSTREAMS` and other `SETTINGS` if it says some."""
    more = {name: getattr(request.module, name.upper(), {}) for name in ("upstreams", "settings")}
    secure = tmp_path_factory.mktemp("pier") if "h3" in getattr(request.module, "CLIENTS", ()) else None
    with build_pier(request.module.ROUTES, more["upstreams"], secure, **more["settings"]) as built:
        yield built


@pytest.fixture
async def bridge(pier: Pier, request: pytest.FixtureRequest) -> AsyncIterator[Bridge]:
    """The gateway, and its server for one test. `CLIENTS` of the module says what `bridge.open` speaks: `["h1", "h2"]`
    runs each test over both, `"h3"` among them over HTTP/3."""
    async with Bridge(pier, getattr(request, "param", "h1")) as built:
        yield built


@pytest.fixture(scope="module")
def lanes(request: pytest.FixtureRequest) -> Iterator[Lanes]:
    """As many servers as the module's `LANES` says, for a gateway of its own."""
    lanes = Lanes(request.module.LANES)
    yield lanes
    lanes.close()


@pytest.fixture
async def upstream(lanes: Lanes) -> AsyncIterator[Play]:
    """A server for one test."""
    async with lanes.play() as upstream:
        yield upstream


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[Wire]:
    """A connection to the listener `edge` of the module's gateway."""
    async with dial(gateway.port("edge")) as client:
        yield client


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "bridge" in metafunc.fixturenames and hasattr(metafunc.module, "CLIENTS"):
        metafunc.parametrize("bridge", metafunc.module.CLIENTS, indirect=True)
