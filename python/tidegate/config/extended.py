"""WebSockets over HTTP/2 and HTTP/3, which are offered to a whole server name, and taken by each route for itself.

The settings of a connection go out before any request: extended CONNECT (RFC 8441 §3) is there for a server name or it
is not. A route that does not take it then resets what comes, and not every browser tries HTTP/1.1 after that.
"""

from collections.abc import Iterable, Sequence

from tidegate.config.config import Forward, Listener, Respond, Route, WebSocket
from tidegate.config.document import KeyPath
from tidegate.config.faults import Findings
from tidegate.config.options.http import HttpVersion

__all__ = ["doubt_over"]


def doubt_over(listeners: Iterable[Listener], routes: Sequence[Route], findings: Findings) -> None:
    """Warns of routes that reset what other routes of their server names have clients try.

    In clear text nobody asks for a name, and no browser speaks HTTP/2.
    """
    doubted: set[KeyPath] = set()
    for listener in listeners:
        taking = [(route, settings) for route in routes if (settings := _websocket(route, listener.name))]
        for route, settings in taking if listener.tls else ():
            for rival, theirs in taking:
                offered = [version for version in theirs.over if version not in settings.over]
                spoken = [version for version in offered if _speaks(listener, version, rival, route)]
                if spoken and route.path not in doubted:
                    doubted.add(route.path)
                    _doubt(route, settings, rival, spoken, findings)


def _websocket(route: Route, listener: str) -> WebSocket | None:
    """The settings of a route that opens WebSockets on this listener."""
    opens = isinstance(route.action, Forward) or (isinstance(route.action, Respond) and route.action.answer == "echo")
    found = next((on.websocket for on in route.listeners if on.listener == listener), None)
    return found if found and found.enabled and opens else None


def _speaks(listener: Listener, version: HttpVersion, rival: Route, route: Route) -> bool:
    """Whether clients speak it with some server name that both routes are for."""
    both = [host for host in route.match.host if any(_covers(wider, host) for wider in rival.match.host)]
    return version != "h1" and any(version in _spoken(listener, host) for host in both)


def _covers(wider: str, host: str) -> bool:
    """Whether the server names of `wider` include those of `host`: both are patterns of hosts."""
    if wider.startswith("*."):
        return host.endswith(wider[1:])
    if wider.endswith(".*"):
        return host.startswith(wider[:-1])
    return wider in ("*", host)


def _spoken(listener: Listener, host: str) -> Sequence[HttpVersion]:
    named = dict(listener.tls.protocols) if listener.tls else {}
    return named.get(host) or named.get("*." + host.partition(".")[2]) or listener.http


def _doubt(route: Route, settings: WebSocket, rival: Route, spoken: Sequence[str], findings: Findings) -> None:
    written = findings.document.values["routes"][route.path[1]].get("websocket")
    key = next((key for key in ("over", "frames") if isinstance(written, dict) and key in written), None)
    at: KeyPath = (*route.path, "websocket", key) if key else route.path
    line = findings.document.place(rival.path).line
    message = (
        f"the route '{rival.name}' (line {line}) has clients of this host open WebSockets over {' and '.join(spoken)}, "
        f"and this one takes them over {' and '.join(settings.over)} alone"
    )
    hint = "not every browser tries again: give both the same websocket.over, or hosts of their own"
    findings.warning(at, message, hint, at_key=bool(key))
