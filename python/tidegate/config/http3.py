"""What listeners and upstreams need to speak HTTP/3."""

from collections.abc import Iterable

from tidegate.config.config import Forward, Route, Upstream
from tidegate.config.document import KeyPath
from tidegate.config.faults import Findings
from tidegate.config.options import ListenerOptions
from tidegate.config.tcp import share_path

__all__ = ["check_h3", "check_h3_upstreams"]


def check_h3(options: ListenerOptions, path: KeyPath, findings: Findings) -> None:
    """QUIC is UDP, and always with TLS."""
    if "h3" not in options.http or options.tcp is not None:
        return
    at = (*path, "http", options.http.index("h3"))
    if options.tls is None:
        findings.error(at, "HTTP/3 needs TLS", "give the listener 'tls', or leave out h3")
    if any(bind.address is None for bind in options.bind):
        findings.error(at, "HTTP/3 needs a UDP port, and a unix socket has none", "leave out h3, or the socket")


def check_h3_upstreams(routes: Iterable[Route], upstreams: Iterable[Upstream], findings: Findings) -> None:
    """The same towards endpoints: what an upstream asks of all of them, and a route for its WebSockets."""
    by_name = {upstream.name: upstream for upstream in upstreams}
    for upstream in by_name.values():
        if upstream.protocol == "h3":
            if upstream.proxy_protocol:
                message = "the PROXY protocol begins a TCP connection, and HTTP/3 has none"
                findings.error((*upstream.path, "proxy_protocol"), message, "leave out one of them")
            if upstream.discover is not None and not upstream.is_secure:
                message = "HTTP/3 needs TLS, and the endpoints that are found have none"
                findings.error((*upstream.path, "discover"), message, "add scheme: https", at_key=True)
            for index in _without_tls(upstream) if upstream.discover is None else ():
                message = f"HTTP/3 needs TLS, and '{upstream.endpoints[index].url}' has none"
                findings.error((*upstream.path, "endpoints", index), message, EXPECTED)
    for route in routes:
        over_h3 = any(on.websocket.upstream_protocol == "h3" for on in route.listeners)
        for name, _ in route.action.to if over_h3 and isinstance(route.action, Forward) else ():
            if (found := by_name.get(name)) and found.protocol != "h3" and not found.is_secure:
                at = share_path(findings, (*route.path, "to"), name)
                message = f"its WebSockets go over HTTP/3, which needs TLS, and not all endpoints of '{name}' have it"
                findings.error(at, message, EXPECTED, at_key=at[-1] == name)


EXPECTED = "write it as https://host:port"


def _without_tls(upstream: Upstream) -> list[int]:
    return [index for index, endpoint in enumerate(upstream.endpoints) if not endpoint.url.tls]
