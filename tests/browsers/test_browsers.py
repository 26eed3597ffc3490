"""A small part of `make browsers`, where a browser is installed."""

import contextlib
from pathlib import Path

import pytest

from tests.browsers.browser import BROWSERS, executable, launched
from tests.browsers.echoes import Missing, program, running
from tests.browsers.scenes import LISTENERS, gateway, play

SOCKETS = 3


@pytest.mark.parametrize("name", BROWSERS)
def test_a_browser_opens_websockets_over_what_the_listener_offers(name: str, tmp_path: Path) -> None:
    programs, missing = [], []
    try:
        executable(name)
    except Missing as reason:
        pytest.skip(str(reason))
    for library in ("websockets", "ws"):
        try:
            programs.append(program(library, install=False))
        except Missing as reason:
            missing.append(str(reason))
    with contextlib.ExitStack() as stack:
        echoes = [stack.enter_context(running(each)) for each in programs]
        edge = stack.enter_context(gateway(tmp_path, echoes))
        browser = stack.enter_context(launched(name, tmp_path, tmp_path / "site.pem"))
        scenes = [(echo, listener) for echo in echoes for listener in LISTENERS]
        outcomes = [play(edge, browser, listener, echo, SOCKETS) for echo, listener in scenes]
    assert [each.faults for each in outcomes] == [[]] * len(scenes)
    assert [each.protocols for each in outcomes] == [[listener.sockets] * SOCKETS for _, listener in scenes]
    if missing:
        pytest.skip(f"the other servers passed, but {', '.join(missing)}")
