"""From a file to a `Config`, or to everything that is wrong with it."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tidegate.config.addresses import Bind
from tidegate.config.certificates import PemFiles
from tidegate.config.config import Config, Discover, Listener, Liveness, Route, Tls, Upstream, UpstreamTls
from tidegate.config.discover import check_presence, discover, named_endpoint, wants_tls
from tidegate.config.document import Document, KeyPath
from tidegate.config.extended import doubt_over
from tidegate.config.faults import Findings
from tidegate.config.grpc_web import check_grpc_web
from tidegate.config.health import check_health, check_panic
from tidegate.config.http3 import check_h3, check_h3_upstreams
from tidegate.config.later import refuse_later
from tidegate.config.names import part_name
from tidegate.config.options import GatewayOptions, ListenerOptions, RouteOptions, UpstreamOptions
from tidegate.config.options.gateway import AccessLogOptions, AdminOptions
from tidegate.config.routes import RouteTable
from tidegate.config.tcp import check_kinds, tcp
from tidegate.config.units import UnitError, show_duration
from tidegate.errors import ConfigError, in_order

__all__ = ["load"]

SHORTEST_TOKEN = 16
"""Characters of an admin token below which guessing it is no longer out of the question."""


def load(path: str | Path, regex_fault: Callable[[str], str | None] | None = None) -> Config:
    """What the file at `path` means. Raises ConfigError with all that is wrong with it.

    `regex_fault` tells what the engine has against a regular expression. A good file is checked by the engine whole;
    in a file with other errors this is how those of its regular expressions show beside them.
    """
    document = Document(str(path), Path(path))
    findings = Findings(document)
    refuse_later(findings)
    config = _Loading(document, findings, Path(path)).config()
    if config is None or findings.errors:
        if regex_fault is not None:
            _check_regexes(document.values, (), regex_fault, findings)
        raise ConfigError(findings.errors)
    return config


def _check_regexes(value: object, path: KeyPath, fault: Callable[[str], str | None], findings: Findings) -> None:
    """Every text under a key `regex`: in a path, a header or query test, a rewrite."""
    parts: Iterable[tuple[str | int, object]] = ()
    if isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, list):
        parts = enumerate(value)
    for key, part in parts:
        wrong = fault(part) if key == "regex" and isinstance(part, str) else None
        if wrong:
            findings.error((*path, key), wrong)
        _check_regexes(part, (*path, key), fault, findings)


class _Loading:
    """One file on its way. Sections are validated part by part, so that an error in one hides none in another."""

    def __init__(self, document: Document, findings: Findings, path: Path) -> None:
        self._document = document
        self._findings = findings
        self._path = path
        self._pem = PemFiles(path.parent, findings)

    def config(self) -> Config | None:
        """None when there are errors that leave nothing to go on with."""
        top = self._top()
        listener_options = self._listener_options()
        upstreams = self._upstreams()
        listeners = tuple(self._listener(name, options) for name, options in listener_options.items())
        routes = self._routes(listener_options)
        check_kinds(listeners, routes, upstreams, self._findings)
        check_h3_upstreams(routes, upstreams, self._findings)
        check_grpc_web(routes, upstreams, self._findings)
        check_health(upstreams, self._findings)
        doubt_over(listeners, routes, self._findings)
        self._check_binds(listeners, top)
        if top is None:
            return None
        self._check_admin(top.admin)
        self._check_drain(top)
        return Config(
            file=self._document.file,
            files=(self._path, *dict.fromkeys([*self._document.files, *self._pem.files])),
            listeners=listeners,
            routes=routes,
            upstreams=upstreams,
            admin=top.admin,
            access_log=self._access_log(top.access_log),
            drain=top.drain,
            name_servers=top.dns.servers,
            zone=top.zone,
            workers=top.workers,
            warnings=tuple(in_order(self._findings.warnings)),
            document=self._document,
        )

    # The sections.

    def _top(self) -> GatewayOptions | None:
        sections = ("listeners", "routes", "upstreams")
        rest = {key: value for key, value in self._document.values.items() if key not in sections}
        return self._findings.validated(GatewayOptions, {**rest, "listeners": {}}, ())

    def _listener_options(self) -> dict[str, ListenerOptions]:
        written = self._mapping("listeners", "a listener")
        if not written and not self._findings.explained(("listeners",)):
            self._findings.error(("listeners",), "there is no listener", "expected a name with at least a bind")
        validated = {
            name: self._findings.validated(ListenerOptions, value, ("listeners", name))
            for name, value in written.items()
        }
        return {name: options for name, options in validated.items() if options is not None}

    def _upstreams(self) -> tuple[Upstream, ...]:
        written = self._mapping("upstreams", "an upstream")
        upstreams = []
        for name, value in written.items():
            path: KeyPath = ("upstreams", name)
            options = self._findings.validated(UpstreamOptions, value, path)
            check_presence(value, path, self._findings)
            if options is not None:
                check_panic(options, path, self._findings)
            if options is not None and (options.endpoints or options.discover):
                upstreams.append(self._upstream(name, path, options))
        return tuple(upstreams)

    def _upstream(self, name: str, path: KeyPath, options: UpstreamOptions) -> Upstream:
        found = discover(options, path, self._path.parent, self._pem, self._findings)
        return _upstream(name, path, options, found, self._upstream_tls(options, path))

    def _mapping(self, section: str, what: str) -> Mapping[str, Any]:
        written = self._document.values.get(section, {})
        if not isinstance(written, dict):
            if not self._findings.explained((section,)):
                self._findings.final((section,), "expected a mapping of names")
            return {}
        for name in written:
            try:
                part_name(name, what)
            except UnitError as error:
                self._findings.error((section, name), str(error), error.hint, at_key=True)
        return written

    def _listener(self, name: str, options: ListenerOptions) -> Listener:
        path: KeyPath = ("listeners", name)
        check_h3(options, path, self._findings)
        return Listener(
            name=name,
            path=path,
            binds=options.bind,
            tls=self._tls(options, path),
            tcp=tcp(options, path, _names(self._document.values.get("upstreams")), self._findings),
            access=options.access,
            http=options.http,
            http2=options.http2,
            proxy_protocol=options.proxy_protocol.from_ if options.proxy_protocol else (),
            trusted_proxies=options.trusted_proxies,
            liveness=Liveness(options.keepalive, options.user_timeout),
            limits=options.limits,
            timeouts=options.timeouts,
        )

    def _tls(self, options: ListenerOptions, path: KeyPath) -> Tls | None:
        return self._pem.tls(options.tls, (*path, "tls")) if options.tls else None

    def _upstream_tls(self, options: UpstreamOptions, path: KeyPath) -> UpstreamTls | None:
        if wants_tls(options):
            return self._pem.upstream_tls(options.tls, (*path, "tls"))
        if "tls" in options.written:
            message = "no endpoint of this upstream speaks TLS"
            instead = "write them as https://host:port or tls://host:port"
            if options.discover is not None:
                instead = "add 'scheme: https' or 'scheme: tls' to 'discover'"
            self._findings.error((*path, "tls"), message, instead, at_key=True)
        return None

    def _routes(self, listeners: Mapping[str, ListenerOptions]) -> tuple[Route, ...]:
        known_listeners = _names(self._document.values.get("listeners"))
        known_upstreams = _names(self._document.values.get("upstreams"))
        http = {name: options for name, options in listeners.items() if options.tcp is None}
        table = RouteTable(http, known_listeners, listeners.keys() - http.keys(), known_upstreams, self._findings)
        found = [self._route(table, index, value) for index, value in enumerate(self._route_list())]
        self._report_unused(table, listeners, known_upstreams)
        return tuple(route for route in found if route is not None)

    def _route_list(self) -> list[Any]:
        written = self._document.values.get("routes", [])
        if isinstance(written, list):
            return written
        if not self._findings.explained(("routes",)):
            self._findings.final(("routes",), "expected a list", "begin each route with '- '")
        return []

    def _route(self, table: RouteTable, index: int, value: object) -> Route | None:
        path: KeyPath = ("routes", index)
        options = self._findings.validated(RouteOptions, value, path)
        if options is None or not isinstance(value, dict):
            return None
        return table.route(options, value, path)

    # What concerns several parts.

    def _report_unused(self, table: RouteTable, listeners: Mapping[str, ListenerOptions], upstreams: list[str]) -> None:
        carriers = [options.tcp for options in listeners.values() if options.tcp is not None]
        if not self._route_list() and len(carriers) < len(listeners):
            self._findings.warning(("routes",), "there are no routes", "every request is answered with 404")
            return
        if self._route_list() and listeners and len(carriers) == len(listeners):
            self._findings.warning(("routes",), "no listener speaks HTTP, so no request comes", at_key=True)
        used = table.used_upstreams.union(*(carrier.upstreams for carrier in carriers))
        for name in upstreams:
            if name not in used:
                users = "no route or listener" if carriers else "no route"
                self._findings.warning(("upstreams", name), f"{users} uses the upstream '{name}'", at_key=True)
        for name in _names(self._document.values.get("listeners")):
            is_http = name not in listeners or listeners[name].tcp is None
            if is_http and name not in table.used_listeners:
                message = f"no route is on the listener '{name}'"
                self._findings.warning(("listeners", name), message, "its requests get 404", at_key=True)

    def _check_binds(self, listeners: tuple[Listener, ...], top: GatewayOptions | None) -> None:
        taken: list[tuple[Bind, KeyPath]] = []
        for path, bind in self._binds(listeners, top):
            first = next((other for other in taken if other[0].overlaps(bind)), None)
            if first is not None:
                where = self._document.place(first[1])
                message = f"'{bind}' cannot be bound beside '{first[0]}' ({where.key}, line {where.line})"
                self._findings.error(path, message)
            taken.append((bind, path))

    def _binds(self, listeners: tuple[Listener, ...], top: GatewayOptions | None) -> list[tuple[KeyPath, Bind]]:
        binds: list[tuple[KeyPath, Bind]] = [
            ((*listener.path, "bind", index), bind)
            for listener in listeners
            for index, bind in enumerate(listener.binds)
        ]
        if top is not None and top.admin is not None:
            binds.append((("admin", "bind"), top.admin.bind))
        return binds

    def _check_admin(self, admin: AdminOptions | None) -> None:
        if admin is None:
            return
        if admin.token is not None and len(admin.token) < SHORTEST_TOKEN:
            at: KeyPath = ("admin", "token")
            if not admin.token:
                self._findings.error(at, "the token is empty", "leave it out for none")
            else:
                self._findings.warning(
                    at, f"the token is shorter than {SHORTEST_TOKEN} characters", "it can be guessed"
                )
        elif admin.token is None and not admin.bind.loopback:
            message = f"'{admin.bind}' can be reached from other machines, and there is no token"
            self._findings.error(("admin", "bind"), message, "give admin.token, or bind to 127.0.0.1")

    def _check_drain(self, top: GatewayOptions) -> None:
        drain = top.drain
        if drain.window > drain.timeout:
            message = (
                f"drain.window {show_duration(drain.window)} is longer than timeout {show_duration(drain.timeout)}"
            )
            self._findings.warning(("drain",), message, "clients that are not told by then are cut", at_key=True)

    def _access_log(self, options: AccessLogOptions | None) -> AccessLogOptions | None:
        if options is None or options.path in ("stdout", "stderr"):
            return options
        return options.model_copy(update={"path": str((self._path.parent / options.path).absolute())})


def _names(section: object) -> list[str]:
    return list(section) if isinstance(section, dict) else []


def _upstream(
    name: str, path: KeyPath, options: UpstreamOptions, found: Discover | None, tls: UpstreamTls | None
) -> Upstream:
    named = named_endpoint(options.discover) if options.discover else None
    return Upstream(
        name=name,
        path=path,
        endpoints=(named,) if named else options.endpoints,
        discover=found,
        warm=options.warm,
        on_remove=options.on_remove,
        protocol=options.protocol,
        http2=options.http2,
        balance=options.balance,
        eject=options.eject,
        health=options.health,
        panic=options.panic,
        slow_start=options.slow_start,
        limits=options.limits,
        pool=options.pool,
        proxy_protocol=options.proxy_protocol,
        connect_timeout=options.connect_timeout,
        liveness=Liveness(options.keepalive, options.user_timeout),
        tls=tls,
    )
