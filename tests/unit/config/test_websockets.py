"""A route's WebSocket settings over its listener's, over the defaults."""

from pathlib import Path

import pytest

from tidegate.config import Config, load
from tidegate.config.config import WebSocket
from tidegate.errors import ConfigError


def config(directory: Path, listener: str, route: str) -> Config:
    path = directory / "gateway.yaml"
    path.write_text(
        f"listeners: {{web: {{bind: 127.0.0.1:80, websocket: {listener}}}}}\n"
        f"routes: [{{respond: echo, websocket: {route}}}]\n"
    )
    return load(path)


def settings(directory: Path, listener: str, route: str) -> WebSocket:
    [found] = config(directory, listener, route).routes[0].listeners
    return found.websocket


def test_the_route_goes_over_the_listener(tmp_path: Path) -> None:
    found = settings(tmp_path, "{enabled: false, deflate: off, max_message: 1KiB}", "{enabled: true}")
    assert (found.enabled, found.deflate, found.max_message) == (True, "off", 1024)


def test_mappings_merge_key_by_key(tmp_path: Path) -> None:
    found = settings(tmp_path, "{ping: {timeout: 3s}, idle: {after: 5m}}", "{ping: {every: 5s}, idle: {counts: any}}")
    assert found.ping is not None
    assert (found.ping.every, found.ping.timeout, found.ping.to) == (5_000, 3_000, ("downstream",))
    assert (found.idle_after, found.idle_counts) == (300_000, "any")


@pytest.mark.parametrize(
    ("listener", "route", "every"),
    [
        ("{ping: never}", "{}", None),
        ("{ping: never}", "{ping: {timeout: 1s}}", 25_000),
        ("{ping: {every: 1s}}", "{ping: never}", None),
        ("{ping: {every: 1s}}", "{enabled: true}", 1_000),
    ],
)
def test_pings(tmp_path: Path, listener: str, route: str, every: int | None) -> None:
    found = settings(tmp_path, listener, route)
    assert (found.ping.every if found.ping else None) == every


def test_a_value_can_be_taken_back(tmp_path: Path) -> None:
    found = settings(
        tmp_path, "{max_lifetime: 1h, on_client_lost: 1001}", "{max_lifetime: never, on_client_lost: never}"
    )
    assert (found.max_lifetime, found.on_client_lost) == (None, None)


def test_opaque_drops_what_it_inherits(tmp_path: Path) -> None:
    found = settings(tmp_path, "{ping: {every: 1s}, max_message: 1KiB, deflate: off}", "{frames: opaque}")
    assert (found.ping, found.max_message, found.deflate, found.idle_counts) == (None, None, "pass", "any")


@pytest.mark.parametrize(
    ("listener", "route", "keys"),
    [
        ("{}", "{frames: opaque, ping: {every: 1s}}", ["routes[0].websocket.ping"]),
        ("{}", "{frames: opaque, ping: never, idle: {counts: any}}", []),
        ("{}", "{frames: opaque, idle: {counts: data}}", ["routes[0].websocket.idle.counts"]),
        ("{frames: opaque}", "{max_message: 1KiB}", ["routes[0].websocket.max_message"]),
        ("{frames: opaque, deflate: off}", "{}", ["listeners.web.websocket.deflate"]),
        ("{frames: opaque, deflate: off}", "{frames: strict}", []),
        ("{frames: opaque}", "{max_lifetime: 1h, idle: {after: 1h}}", []),
    ],
)
def test_what_needs_frames_is_refused_beside_opaque(tmp_path: Path, listener: str, route: str, keys: list[str]) -> None:
    try:
        config(tmp_path, listener, route)
        found: list[str] = []
    except ConfigError as error:
        found = [problem.key for problem in error.problems]
    assert found == keys


@pytest.mark.parametrize(
    ("listener", "route", "key"),
    [
        ("{}", "{idle: {after: 49s}}", "routes[0].websocket.idle"),
        ("{idle: {after: 49s}}", "{}", "listeners.web.websocket.idle"),
        ("{idle: {after: 1m}}", "{ping: {every: 40s}}", "routes[0].websocket.ping"),
        ("{}", "{idle: {after: 50s}}", None),
        ("{}", "{idle: {after: 1s}, ping: never}", None),
    ],
)
def test_idle_times_that_pings_cannot_keep_up_with(tmp_path: Path, listener: str, route: str, key: str | None) -> None:
    assert [problem.key for problem in config(tmp_path, listener, route).warnings] == ([key] if key else [])


def test_equal_settings_are_equal(tmp_path: Path) -> None:
    one, other = settings(tmp_path, "{}", "{}"), settings(tmp_path, "{}", "{ping: {every: 25s}, frames: strict}")
    assert one == other and hash(one) == hash(other)
