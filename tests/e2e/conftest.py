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
async def bridge(pier: Pier) -> AsyncIterator[Bridge]:
    """The gateway, and its server for one test."""
    async with Bridge(pier) as built:
        yield built
