"""What browsers are asked to do through a gateway, and what must come of it.

A scene is one browser with one server on one listener. The page comes from the same origin as its WebSockets, because a
browser opens them over HTTP/2 only on a connection that it has. Each scene has a context of its own in the browser, so
that nothing is known from the one before.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.browsers.browser import Browser, Failed
from tests.browsers.echoes import Echo
from tests.e2e.kit.certificates import Authority
from tidegate.testing import Gateway, GatewayError, Record

__all__ = ["ATTEMPTS", "LISTENERS", "Fallback", "Listener", "Outcome", "fall_back", "gateway", "play"]

PAGE = Path(__file__).with_name("page.js")
SIZE = 256 << 10
"""Bytes of the large message: more than a window of HTTP/2."""
ATTEMPTS = 3
"""How often a page tries a route that HTTP/2 may not have."""
ESTABLISHED = "01"


@dataclass(frozen=True, slots=True)
class Listener:
    """A way in."""

    name: str
    says: str
    """The configuration, as a person writes it."""
    settings: Mapping[str, Any]
    page: str
    """The protocol that the page comes by, and `sockets` what WebSockets have to come by."""
    sockets: str


LISTENERS = (
    Listener("h1", "`http: [h1]`", {"http": ["h1"]}, "h1", "h1"),
    Listener("h2", "`http: [h1, h2]`", {"http": ["h1", "h2"]}, "h2", "h2"),
    Listener(
        "narrow",
        "`http: [h1, h2]`, `websocket: {over: [h1]}`",
        {"http": ["h1", "h2"], "websocket": {"over": ["h1"]}},
        "h2",
        "h1",
    ),
)


@dataclass(slots=True)
class Outcome:
    """What became of a scene; `faults` is empty when all of it is as it must be."""

    browser: str
    listener: Listener
    server: str
    sockets: int = 0
    connections: int = 0
    """That the browser opened for them, beside those that the page came by."""
    protocols: list[str] = field(default_factory=list)
    """By the access log, in the order of opening."""
    extensions: str = ""
    faults: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Fallback:
    """What a browser did with WebSockets of a route that takes none over HTTP/2, on a connection that has others."""

    browser: str
    attempts: list[str] = field(default_factory=list)
    """For each what the page saw, and what the access log says of it."""


@contextlib.contextmanager
def gateway(directory: Path, echoes: Sequence[Echo]) -> Iterator[Gateway]:
    """Every listener has `NAME.localhost` for every server, and a certificate for all of them.

    On `h2` there is `/only-h1` beside `/echo`, whose WebSockets come over HTTP/1.1 only."""
    names = [host(echo.library) for echo in echoes]
    certificate = Authority(directory).issue("site", *names)
    tls = {"certificates": [certificate]}
    page: dict[str, Any] = {
        "name": "page",
        "match": {"host": names, "path": {"exact": "/"}},
        "respond": {"status": 200, "body": "<!doctype html><title>Tidegate</title>"},
        "headers": {"response": {"set": {"content-type": "text/html"}}},
    }
    routes = [page]
    for echo in echoes:
        match = {"host": host(echo.library), "path": {"prefix": "/echo"}}
        routes.append({"name": echo.library, "match": match, "to": echo.library})
        only = match | {"path": {"prefix": "/only-h1"}}
        routes.append({"name": f"{echo.library}-h1", "match": only, "to": echo.library, "websocket": {"over": ["h1"]}})
    config = {
        "listeners": {each.name: {"bind": "127.0.0.1:0", "tls": tls, **each.settings} for each in LISTENERS},
        "routes": routes,
        "upstreams": {echo.library: {"endpoints": [f"http://127.0.0.1:{echo.port}"]} for echo in echoes},
    }
    with Gateway(config, directory=directory) as running:
        yield running


def host(library: str) -> str:
    return f"{library}.localhost"


def play(gateway: Gateway, browser: Browser, listener: Listener, echo: Echo, sockets: int) -> Outcome:
    """One scene: `sockets` WebSockets, opened one after another, open together, echoing, and closed from either end."""
    outcome = Outcome(browser.version, listener, echo.name, sockets)
    try:
        outcome.faults += acted(outcome, gateway, browser, echo)
    except (Failed, TimeoutError, GatewayError) as problem:
        outcome.faults.append(str(problem).partition("\n")[0] or repr(problem))
    return outcome


def acted(outcome: Outcome, gateway: Gateway, browser: Browser, echo: Echo) -> list[str]:
    """Plays the scene, writes down what happened, and returns what should not have."""
    listener, port = outcome.listener, gateway.port(outcome.listener.name)
    path = f"/echo/{browser.version.split()[0].lower()}-{listener.name}"
    began = len(gateway.access_log())
    with browser.page() as page:
        page.visit(f"https://{host(echo.library)}:{port}/")
        before = connections(gateway.pid, port)
        page.run(script(path, outcome.sockets))
        outcome.connections = len(connections(gateway.pid, port) - before)
        seen = page.run("ended()")
    if faults := page_faults(seen, outcome.sockets):
        return faults
    outcome.extensions = ", ".join(sorted({each["extensions"] for each in seen}))
    outcome.protocols = [carried(gateway, began, f"{path}/{number + 1}") for number in range(outcome.sockets)]
    return protocol_faults(outcome, gateway, host(echo.library), began) + server_faults(echo, path, outcome.sockets)


def script(path: str, count: int) -> str:
    settings = json.dumps({"path": path, "count": count, "size": SIZE})
    return f"({PAGE.read_text()})({settings})"


def page_faults(seen: Sequence[Mapping[str, Any]], sockets: int) -> list[str]:
    """What the browser saw that is not as it must be: the first of it, and how much there is."""
    faults = [f"the page saw {json.dumps(each)}" for each in seen if not as_wanted(each)]
    if len(seen) != sockets:
        faults.append(f"{len(seen)} sockets of {sockets}")
    return [*faults[:1], f"{len(faults)} such"] if len(faults) > 1 else faults


def as_wanted(seen: Mapping[str, Any]) -> bool:
    number, close = seen["number"], seen["close"]
    # Not every library answers a Close with its reason; that it came is seen at the server.
    reasons = (f"page {number}", "") if number % 2 else (f"server {number}",)
    went = all(seen[each] for each in ("opened", "text", "binary")) and seen["subprotocol"] == "tide"
    return went and close["clean"] and close["code"] == 4000 + number and close["reason"] in reasons


def carried(gateway: Gateway, began: int, path: str) -> str:
    """The protocol that the access log names for the WebSocket with this path; its close must be a clean one."""
    opened = gateway.access_log().wait_for(after=began, event="open", path=path)
    closed = gateway.access_log().wait_for(after=began, event="close", connection=opened["connection"], path=path)
    code = 4000 + int(path.rpartition("/")[2])
    return str(opened["protocol"]) if closed["code"] == code else f"{opened['protocol']}, but closed: {closed}"


def protocol_faults(outcome: Outcome, gateway: Gateway, name: str, began: int) -> list[str]:
    listener = outcome.listener
    page = gateway.access_log().wait_for(
        lambda record: str(record["host"]).startswith(name),
        after=began,
        event="request",
        listener=listener.name,
        path="/",
    )
    faults = [] if page["protocol"] == listener.page else [f"the page came over {page['protocol']}"]
    if set(outcome.protocols) != {listener.sockets}:
        faults.append(f"sockets over {dict(Counter(outcome.protocols))}, not {listener.sockets}")
    if listener.sockets == "h2" and outcome.connections:
        faults.append(f"{outcome.connections} more connections where the page's carries all")
    return faults


def server_faults(echo: Echo, path: str, sockets: int) -> list[str]:
    """The server must have had the code and the reason of each Close: the page's own, or the answer to its own."""
    faults = []
    for number in range(1, sockets + 1, 2):
        came = echo.said.wait_for(event="closed", path=f"{path}/{number}")
        if (came["code"], came["reason"]) != (4000 + number, f"page {number}"):
            faults.append(f"the server saw {came}")
    return faults


def fall_back(gateway: Gateway, browser: Browser, echo: Echo) -> Fallback:
    """Tries `/only-h1` from a page that came over HTTP/2, again and again."""
    told = Fallback(browser.version)
    path = f"/only-h1/{browser.version.split()[0].lower()}"
    with browser.page() as page:
        page.visit(f"https://{host(echo.library)}:{gateway.port('h2')}/")
        for number in range(1, ATTEMPTS + 1):
            began = len(gateway.access_log())
            page.run(script(f"{path}-{number}", 1))
            [seen] = page.run("ended()")
            told.attempts.append(f"{sight(seen)}; {logged(gateway, began, f'{path}-{number}/1', seen['opened'])}")
    return told


def sight(seen: Mapping[str, Any]) -> str:
    if seen["opened"] and seen["text"] and seen["binary"]:
        return f"opened, echoed, closed with {seen['close']['code']}"
    return f"failed with {seen['close']['code']}"


def logged(gateway: Gateway, began: int, path: str, opened: bool) -> str:
    """What the access log has for this path."""
    last = "close" if opened else "refusal"
    gateway.access_log().wait_for(after=began, event=last, path=path)
    records = [each for each in list(gateway.access_log())[began:] if each.get("path") == path]
    return ", ".join(line(each) for each in records if each["event"] != "close")


def line(record: Record) -> str:
    return " ".join(str(record[key]) for key in ("event", "protocol", "status", "reason") if key in record)


def connections(pid: int, port: int) -> set[str]:
    """The ends of the connections to this port that the process has."""
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {row[2] for row in rows if row[1].endswith(f":{port:04X}") and row[3] == ESTABLISHED}
