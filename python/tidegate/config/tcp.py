"""`tcp:` of listeners: where connections go, and what must not stand beside it.

An upstream speaks HTTP or TCP, as its endpoints are written; `unix:` endpoints alone can be either.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tidegate.config.config import Forward, Listener, NamedShares, Route, Tcp, Upstream
from tidegate.config.document import KeyPath
from tidegate.config.faults import Findings, suggestion
from tidegate.config.options import ListenerOptions
from tidegate.config.options.tcp import TcpOptions
from tidegate.config.options.upstream import BalanceOptions

__all__ = ["check_kinds", "tcp"]

_HTTP_ONLY: tuple[KeyPath, ...] = (
    ("http",),
    ("http2",),
    ("websocket",),
    ("trusted_proxies",),
    ("limits", "body"),
    ("limits", "headers"),
    ("limits", "websockets"),
    ("limits", "handshakes"),
    ("limits", "handshakes_per_ip"),
    ("limits", "over"),
    ("timeouts", "head"),
    ("timeouts", "body"),
    ("timeouts", "keep_alive"),
)
"""Keys of a listener that concern nothing but HTTP."""

_UPSTREAM_HTTP_ONLY: tuple[KeyPath, ...] = (("protocol",), ("http2",), ("pool", "idle"), ("pool", "idle_timeout"))
"""And of an upstream."""

Share = tuple[str, KeyPath]
"""An upstream's name, and where it is written."""


def tcp(options: ListenerOptions, path: KeyPath, known_upstreams: Iterable[str], findings: Findings) -> Tcp | None:
    """What a listener's connections are for; None where it speaks HTTP."""
    written = options.tcp
    if written is None:
        return None
    _refuse_http_keys(options, path, findings)
    if written.sni is not None and options.tls is not None:
        message = "'sni' passes TLS on as it is, and 'tls' beside it would decrypt it"
        findings.error((*path, "tcp", "sni"), message, "leave out one of them", at_key=True)
    to = tuple(written.to.items()) if written.to is not None else None
    sni = _named(written, (*path, "tcp", "sni"), findings) if written.sni is not None else None
    found = Tcp(to, sni, written.idle, written.max_lifetime, written.connect_timeout, written.attempts)
    _check_names(_shares(found, (*path, "tcp"), findings), list(known_upstreams), findings)
    return found


def _refuse_http_keys(options: ListenerOptions, path: KeyPath, findings: Findings) -> None:
    for key in _HTTP_ONLY:
        part = getattr(options, str(key[0])) if len(key) > 1 else options
        if key[0] in options.written and key[-1] in part.written:
            message = f"'{'.'.join(map(str, key))}' does nothing on a listener with 'tcp'"
            findings.error((*path, *key), message, "leave it out", at_key=True)


def _shares(tcp: Tcp, path: KeyPath, findings: Findings) -> list[Share]:
    places = [(tcp.to or (), (*path, "to")), *((named.to, named.path) for named in tcp.sni or ())]
    return [(name, share_path(findings, place, name)) for to, place in places for name, _ in to]


def _named(options: TcpOptions, path: KeyPath, findings: Findings) -> tuple[NamedShares, ...]:
    """The file may spell a name in upper case; its place is found by that."""
    written = value_at(findings, path)
    spellings = {spelling.lower().rstrip("."): spelling for spelling in written} if isinstance(written, dict) else {}
    return tuple(
        NamedShares(name, (*path, spellings.get(name, name)), tuple(to.items()))
        for name, to in (options.sni or {}).items()
    )


def share_path(findings: Findings, path: KeyPath, name: str) -> KeyPath:
    """Where a share of a split is written: below `path`, unless there is one name alone."""
    return (*path, name) if isinstance(value_at(findings, path), dict) else path


def value_at(findings: Findings, path: KeyPath) -> object:
    """What is written at `path`."""
    value: Any = findings.document.values
    for step in path:
        value = value[step]
    return value


def _check_names(shares: list[Share], known: list[str], findings: Findings) -> None:
    for name, at in shares:
        if name not in known and not findings.explained(at):
            names = f"the upstreams are {', '.join(sorted(known)[:10])}" if known else "the file has no upstreams"
            hint = suggestion(name, known) or names
            findings.error(at, f"there is no upstream '{name}'", hint, at_key=at[-1] == name)


def check_kinds(
    listeners: Iterable[Listener], routes: Iterable[Route], upstreams: Iterable[Upstream], findings: Findings
) -> None:
    """Whether each upstream speaks what those want who send connections to it."""
    by_name = {upstream.name: upstream for upstream in upstreams}
    for upstream in by_name.values():
        _check_upstream(upstream, findings)
    for listener in listeners:
        for name, at in _shares(listener.tcp, (*listener.path, "tcp"), findings) if listener.tcp else ():
            _check_tcp(listener, by_name.get(name), at, findings)
    for route, forward in _forwards(routes):
        for name, _ in forward.to:
            if found := by_name.get(name):
                _check_route(route, forward, found, findings)


def _check_route(route: Route, forward: Forward, upstream: Upstream, findings: Findings) -> None:
    at = share_path(findings, (*route.path, "to"), upstream.name)
    if forward.kind == "tcp" and "http" in upstream.kinds:
        message = f"the upstream '{upstream.name}' speaks HTTP, and tunnels that end here need TCP"
        findings.error(at, message, "write its endpoints as tcp://host:port", at_key=at[-1] == upstream.name)
    elif forward.kind == "http" and "tcp" in upstream.kinds:
        message = f"the upstream '{upstream.name}' speaks TCP, and a route needs HTTP"
        findings.error(at, message, "write its endpoints as http://host:port", at_key=at[-1] == upstream.name)


def _forwards(routes: Iterable[Route]) -> Iterator[tuple[Route, Forward]]:
    return ((route, route.action) for route in routes if isinstance(route.action, Forward))


def _check_upstream(upstream: Upstream, findings: Findings) -> None:
    if upstream.kinds == {"http", "tcp"}:
        message = "some endpoints speak HTTP and some TCP: an upstream has one kind"
        findings.error((*upstream.path, "endpoints"), message, "make two upstreams of it", at_key=True)
    if upstream.kinds != {"tcp"}:
        _check_ready(upstream, findings)
        return
    written: Any = findings.document.values["upstreams"][upstream.name]
    for key in _UPSTREAM_HTTP_ONLY:
        part = written.get(key[0])
        if part is not None if len(key) == 1 else isinstance(part, Mapping) and key[1] in part:
            message = f"'{'.'.join(map(str, key))}' does nothing where the endpoints speak TCP"
            findings.error((*upstream.path, *key), message, "leave it out", at_key=True)


def _check_ready(upstream: Upstream, findings: Findings) -> None:
    """Whether what is dialled ahead for requests can serve one."""
    pool, at = upstream.pool, (*upstream.path, "pool", "ready")
    if pool.ready == 0 or (not upstream.kinds and pool.ready <= pool.idle):
        return
    if pool.ready > pool.idle:
        findings.error(at, f"{pool.ready} are more than the {pool.idle} that 'pool.idle' keeps", "expected less")
    elif upstream.proxy_protocol:
        message = "with 'proxy_protocol' a connection belongs to one client, and cannot be dialled before it comes"
        findings.error(at, message, "leave it out")
    elif upstream.protocol in ("h2", "h3"):
        message = f"connections of HTTP/{upstream.protocol[1]} are shared, and are not dialled ahead"
        findings.error(at, message, "leave it out, or expected protocol: h1")


def _check_tcp(listener: Listener, upstream: Upstream | None, at: KeyPath, findings: Findings) -> None:
    if upstream is None:
        return
    if "http" in upstream.kinds:
        message = f"the upstream '{upstream.name}' speaks HTTP, and a listener with 'tcp' needs TCP"
        findings.error(
            at, message, "write its endpoints as tcp://host:port or tls://host:port", at_key=at[-1] == upstream.name
        )
    balance = upstream.balance
    if isinstance(balance, BalanceOptions) and not isinstance(balance.hash, str):
        what = balance.hash.chosen[0]
        message = f"the listener '{listener.name}' carries TCP, where there is no {what} to hash by"
        findings.error((*upstream.path, "balance", "hash"), message, "expected client_ip, or another balance")
