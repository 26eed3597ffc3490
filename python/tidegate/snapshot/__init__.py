"""`compile(config)`: the `Config` as the engine wants it, in the exact shape of `rust/engine/src/snapshot/`.

Names become indexes, nothing optional is left, and each part keeps its place: the engine speaks of parts by JSON
pointer, and `places` leads from there back to the line in the file. The function is pure; the PEM texts that `config`
has read travel beside the JSON, so that no key is ever in a log or a dump of it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tidegate.config.config import (
    Config,
    Forward,
    Listener,
    Pem,
    Redirect,
    Respond,
    Route,
    Tcp,
    Tls,
    TlsRule,
    Upstream,
    UpstreamTls,
    WebSocket,
)
from tidegate.config.document import Document, KeyPath
from tidegate.config.options.route import EditsOptions, HeadersOptions, HostOptions, MatchOptions
from tidegate.errors import Place, Problem, in_order
from tidegate.snapshot import parts
from tidegate.snapshot.parts import Json

__all__ = ["FORMAT", "Places", "Snapshot", "compile"]

FORMAT = 1
"""The version of this format; the engine refuses another."""


class Places(Mapping[str, Place]):
    """Places by JSON pointer of the snapshot; `""` is the file itself."""

    def __init__(self, document: Document, paths: Mapping[str, KeyPath]) -> None:
        self._document = document
        self._paths = paths

    def __getitem__(self, pointer: str) -> Place:
        if pointer == "":
            return Place(self._document.file)
        return self._document.place(self._paths[pointer])

    def __iter__(self) -> Iterator[str]:
        return iter(("", *self._paths))

    def __len__(self) -> int:
        return len(self._paths) + 1

    def __contains__(self, pointer: object) -> bool:
        return pointer == "" or pointer in self._paths

    def nearest(self, pointer: str) -> Place:
        """The place of the part at `pointer`, or of the smallest part around it that has one."""
        while pointer not in self:
            pointer = pointer.rpartition("/")[0]
        return self[pointer]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What should run."""

    data: Json
    """As the engine reads it, ready for `json.dumps`."""
    secrets: Mapping[str, bytes]
    """PEM texts by the ids that `data` has in their place."""
    places: Places

    def problem(self, pointer: str, message: str) -> Problem:
        """What the engine says of a part, at the place where that part is written."""
        return Problem(self.places.nearest(pointer), message)

    def ties(self, order: Iterable[Mapping[str, Any]]) -> list[Problem]:
        """Warnings for routes that match alike, of which the file's order decides. `order` is the engine's list."""
        return in_order(
            self._tie(min(entry["route"], other), max(entry["route"], other))
            for entry in order
            for other in entry["ties"]
        )

    def _tie(self, first: int, second: int) -> Problem:
        name, line = (self.data["routes"][first][key] for key in ("name", "place"))
        message = f"ties with the route '{name}' (line {line['line']}), which goes first because it is written first"
        return Problem(self.places[f"/routes/{second}"], message, "give one of them a priority", "warning")


def compile(config: Config) -> Snapshot:
    """The snapshot of `config`. The same configuration always gives the same one."""
    writer = _Writer(config)
    data = writer.snapshot()
    return Snapshot(data, writer.secrets, Places(config.document, writer.paths))


class _Writer:
    """Writes one snapshot, and notes where each part comes from."""

    def __init__(self, config: Config) -> None:
        self.secrets: dict[str, bytes] = {}
        self.paths: dict[str, KeyPath] = {}
        self._config = config
        self._websockets: dict[WebSocket, int] = {}
        self._listeners = {listener.name: index for index, listener in enumerate(config.listeners)}
        self._upstreams = {upstream.name: index for index, upstream in enumerate(config.upstreams)}

    def snapshot(self) -> Json:
        config = self._config
        self._note({"/listeners": ("listeners",), "/routes": ("routes",), "/upstreams": ("upstreams",)})
        self._note({"/access_log": ("access_log",), "/access_log/path": ("access_log", "path"), "/drain": ("drain",)})
        return {
            "format": FORMAT,
            "listeners": [self._listener(f"/listeners/{at}", one) for at, one in enumerate(config.listeners)],
            "routes": [self._route(f"/routes/{at}", one) for at, one in enumerate(config.routes)],
            "upstreams": [self._upstream(f"/upstreams/{at}", one) for at, one in enumerate(config.upstreams)],
            "websockets": [parts.websocket(settings) for settings in self._websockets],
            "access_log": config.access_log and config.access_log.model_dump(),
            "drain": {
                "delay": config.drain.delay,
                "window": config.drain.window,
                "timeout": config.drain.timeout,
            },
        }

    def _note(self, paths: Mapping[str, KeyPath]) -> None:
        self.paths.update(paths)

    def _place(self, path: KeyPath) -> Json:
        place = self._config.place(path)
        return {"file": place.file, "line": place.line}

    # Listeners.

    def _listener(self, at: str, listener: Listener) -> Json:
        path = listener.path
        self._note({at: path, f"{at}/proxy_protocol": (*path, "proxy_protocol"), f"{at}/limits": (*path, "limits")})
        self._note({f"{at}/binds/{index}": (*path, "bind", index) for index in range(len(listener.binds))})
        return {
            "name": listener.name,
            "place": self._place(path),
            "binds": [parts.bind(bind) for bind in listener.binds],
            "tls": self._tls(f"{at}/tls", (*path, "tls"), listener.tls) if listener.tls else None,
            "http": list(listener.http),
            "http2": parts.http2(listener.http2),
            "proxy_protocol": [str(network) for network in listener.proxy_protocol],
            "access": parts.access(listener.access),
            "tcp": self._tcp(listener.tcp) if listener.tcp else None,
            "trusted_proxies": [str(network) for network in listener.trusted_proxies],
            "liveness": parts.liveness(listener.liveness),
            "limits": {
                "connections": listener.limits.connections,
                "connection_rate": parts.rate(listener.limits.connection_rate),
                "headers": listener.limits.headers,
                "tls_handshakes": listener.limits.tls_handshakes,
            },
            "admission": parts.admission(listener.limits),
            "head_timeout": listener.timeouts.head,
            "body_timeout": listener.timeouts.body,
            "keep_alive": listener.timeouts.keep_alive,
            "tls_timeout": listener.timeouts.tls,
            "tls_queue": listener.timeouts.tls_queue,
        }

    def _tcp(self, tcp: Tcp) -> Json:
        return {
            "target": self._target(tcp),
            "idle": tcp.idle,
            "max_lifetime": tcp.max_lifetime,
            "connect_timeout": tcp.connect_timeout,
            "attempts": tcp.attempts,
        }

    def _target(self, tcp: Tcp) -> Json | str:
        if tcp.to is not None:
            return {"to": self._shares(tcp.to)}
        if tcp.sni is None:
            return "echo"
        shares = {named.name: self._shares(named.to) for named in tcp.sni}
        default = shares.pop("default", None)
        return {"sni": {"names": [list(pair) for pair in shares.items()], "default": default}}

    def _shares(self, to: tuple[tuple[str, int], ...]) -> list[Json]:
        return [{"upstream": self._upstreams[name], "weight": weight} for name, weight in to]

    def _tls(self, at: str, path: KeyPath, tls: Tls) -> Json:
        self._note({at: path, f"{at}/rule": path, f"{at}/rule/client_ca": (*path, "client_ca")})
        for index in range(len(tls.certificates)):
            pair, written = f"{at}/certificates/{index}", (*path, "certificates", index)
            self._note({pair: written, f"{pair}/cert": (*written, "cert"), f"{pair}/key": (*written, "key")})
        for index, named in enumerate(tls.by_name):
            rule = f"{at}/by_name/{index}"
            self._note({rule: named.path, f"{rule}/1/client_ca": (*named.path, "client_ca")})
        return {
            "certificates": [{"cert": self._pem(pair.cert), "key": self._pem(pair.key)} for pair in tls.certificates],
            "rule": self._rule(tls.rule),
            "by_name": [[named.name, self._rule(named.rule)] for named in tls.by_name],
            "protocols": [[name, list(versions)] for name, versions in tls.protocols],
        }

    def _rule(self, rule: TlsRule) -> Json:
        return {
            "min_version": rule.min_version,
            "client_auth": rule.client_auth,
            "client_ca": self._pem(rule.client_ca) if rule.client_ca else None,
        }

    def _pem(self, pem: Pem) -> str:
        self.secrets[pem.id] = pem.content
        return pem.id

    # Routes.

    def _route(self, at: str, route: Route) -> Json:
        self._note({at: route.path, f"{at}/name": (*route.path, "name")})
        self._note({f"{at}/listeners": (*route.path, "listeners")})
        return {
            "name": route.name,
            "place": self._place(route.path),
            "listeners": [
                {
                    "listener": self._listeners[on.listener],
                    "websocket": self._settings(on.websocket),
                    "body_limit": on.body_limit,
                }
                for on in route.listeners
            ],
            "match": self._match(f"{at}/match", (*route.path, "match"), route.match),
            "priority": route.priority,
            "fall_through": route.fall_through,
            "action": self._action(f"{at}/action", route),
            "on_change": route.on_change,
            "admission": parts.admission(route.limits),
        }

    def _settings(self, websocket: WebSocket) -> int:
        return self._websockets.setdefault(websocket, len(self._websockets))

    def _match(self, at: str, path: KeyPath, match: MatchOptions) -> Json:
        self._note({at: path})
        self._note({f"{at}/hosts/{index}": (*path, "host", index) for index in range(len(match.host))})
        if match.path is not None:
            self._note({f"{at}/path": (*path, "path", match.path.chosen[0])})
        for kind, tests in (("headers", match.headers), ("query", match.query)):
            self._note({f"{at}/{kind}/{index}": (*path, kind, name) for index, name in enumerate(tests)})
        return {
            "hosts": [parts.host(pattern) for pattern in match.host],
            "path": parts.path(match.path),
            "methods": list(match.method),
            "headers": [{"name": name, "test": parts.value_test(test)} for name, test in match.headers.items()],
            "query": [{"name": name, "test": parts.value_test(test)} for name, test in match.query.items()],
        }

    def _action(self, at: str, route: Route) -> Json:
        match route.action:
            case Forward() as forward:
                return {"forward": self._forward(f"{at}/forward", route.path, forward)}
            case Redirect() as redirect:
                self._note(
                    {f"{at}/redirect": (*route.path, "redirect"), f"{at}/redirect/to": (*route.path, "redirect", "to")}
                )
                headers = self._edits(f"{at}/redirect/headers", (*route.path, "headers", "response"), redirect.headers)
                return {"redirect": {"to": redirect.to, "status": redirect.status, "headers": headers}}
            case Respond() as respond:
                return {"respond": self._respond(f"{at}/respond", route.path, respond)}

    def _forward(self, at: str, path: KeyPath, forward: Forward) -> Json:
        self._note({at: (*path, "to"), f"{at}/rewrite": (*path, "rewrite"), f"{at}/host": (*path, "host")})
        self._note(
            {f"{at}/rewrite/regex": (*path, "rewrite", "regex"), f"{at}/rewrite/regex/to": (*path, "rewrite", "to")}
        )
        self._note({f"{at}/host/set": (*path, "host", "set")} if isinstance(forward.host, HostOptions) else {})
        self._note({f"{at}/to/{index}": (*path, "to", name) for index, (name, _) in enumerate(forward.to)})
        return {
            "to": self._shares(forward.to),
            "rewrite": parts.rewrite(forward.rewrite) if forward.rewrite else None,
            "host": {"set": forward.host.set} if isinstance(forward.host, HostOptions) else forward.host,
            **self._both_edits(at, (*path, "headers"), forward.headers),
            "handshake_timeout": forward.timeouts.handshake,
            "request_timeout": forward.timeouts.request,
            "retry": parts.retry(forward.retry),
            "grpc_web": self._translates(forward),
            "tunnels": parts.tunnels(forward.tunnels) if forward.tunnels else None,
        }

    def _translates(self, forward: Forward) -> bool:
        """Where a server is known to speak what gRPC goes over, its calls come as such."""
        if forward.grpc_web is not None:
            return forward.grpc_web
        spoken = (self._config.upstreams[self._upstreams[name]].protocol for name, _ in forward.to)
        return all(protocol in ("h2", "h3") for protocol in spoken)

    def _both_edits(self, at: str, path: KeyPath, headers: HeadersOptions) -> Json:
        return {
            "request_headers": self._edits(f"{at}/request_headers", (*path, "request"), headers.request),
            "response_headers": self._edits(f"{at}/response_headers", (*path, "response"), headers.response),
        }

    def _edits(self, at: str, path: KeyPath, edits: EditsOptions) -> Json:
        if edits.written:
            self._note({at: path})
            self._note({f"{at}/set/{index}": (*path, "set", name) for index, name in enumerate(edits.set)})
            self._note({f"{at}/add/{index}": (*path, "add", name) for index, name in enumerate(edits.add)})
            self._note({f"{at}/remove/{index}": (*path, "remove", index) for index in range(len(edits.remove))})
        return {
            "set": [[name, value] for name, value in edits.set.items()],
            "add": [[name, value] for name, value in edits.add.items()],
            "remove": list(edits.remove),
        }

    def _respond(self, at: str, path: KeyPath, respond: Respond) -> Json | str:
        self._note({at: (*path, "respond")})
        if isinstance(respond.answer, str):
            return respond.answer
        headers = self._edits(f"{at}/fixed/headers", (*path, "headers", "response"), respond.headers)
        self._note({f"{at}/fixed/content_type": (*path, "respond", "content_type")})
        return {"fixed": {**respond.answer.model_dump(), "headers": headers}}

    # Upstreams.

    def _upstream(self, at: str, upstream: Upstream) -> Json:
        path = upstream.path
        written: KeyPath = (*path, "discover" if upstream.discover else "endpoints")
        self._note({at: path, f"{at}/endpoints": written})
        self._note({f"{at}/endpoints/{index}": (*written, index) for index in range(len(upstream.endpoints))})
        return {
            "name": upstream.name,
            "place": self._place(path),
            "protocol": upstream.protocol,
            "http2": parts.http2(upstream.http2),
            "balance": parts.balance(upstream.balance),
            "endpoints": [parts.endpoint(endpoint) for endpoint in upstream.endpoints],
            "limits": {"connections": upstream.limits.connections, "pending": upstream.limits.pending},
            "proxy_protocol": upstream.proxy_protocol,
            "connect_timeout": upstream.connect_timeout,
            "liveness": parts.liveness(upstream.liveness),
            "pool": {
                "idle": upstream.pool.idle,
                "idle_timeout": upstream.pool.idle_timeout,
                "ready": upstream.pool.ready,
            },
            "eject": parts.eject(upstream.eject) if upstream.eject else None,
            "health": parts.health(upstream.health, upstream.panic) if upstream.health else None,
            "slow_start": upstream.slow_start or None,
            "tls": self._upstream_tls(f"{at}/tls", (*path, "tls"), upstream.tls) if upstream.tls else None,
            "zone": self._config.zone,
            "on_remove": upstream.on_remove,
        }

    def _upstream_tls(self, at: str, path: KeyPath, tls: UpstreamTls) -> Json:
        self._note({at: path, f"{at}/server_name": (*path, "server_name"), f"{at}/trust": (*path, "ca")})
        self._note({f"{at}/certificate/cert": (*path, "cert"), f"{at}/certificate/key": (*path, "key")})
        trust = {"system" if tls.is_system else "ca": self._pem(tls.trust)} if tls.trust else "anything"
        pair = tls.certificate
        return {
            "server_name": tls.server_name.strip("[]") if tls.server_name else None,
            "trust": trust,
            "certificate": {"cert": self._pem(pair.cert), "key": self._pem(pair.key)} if pair else None,
        }
