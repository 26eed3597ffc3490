"""Fixtures of the end-to-end tests."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.e2e.kit.bridge import Bridge, Pier, build_pier


@pytest.fixture(scope="module")
def pier(request: pytest.FixtureRequest) -> Iterator[Pier]:
    """A gateway with the module's `ROUTES`, and `UPSTREAMS` and other `SETTINGS` if it says some."""
    more = {name: getattr(request.module, name.upper(), {}) for name in ("upstreams", "settings")}
    with build_pier(request.module.ROUTES, more["upstreams"], **more["settings"]) as built:
        yield built


@pytest.fixture
async def bridge(pier: Pier, request: pytest.FixtureRequest) -> AsyncIterator[Bridge]:
    """The gateway, and its server for one test. `CLIENTS` of the module says what `bridge.open` speaks: `["h1", "h2"]`
    runs each test over both."""
    async with Bridge(pier, getattr(request, "param", "h1")) as built:
        yield built


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "bridge" in metafunc.fixturenames and hasattr(metafunc.module, "CLIENTS"):
        metafunc.parametrize("bridge", metafunc.module.CLIENTS, indirect=True)
