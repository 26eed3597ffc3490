"""The small parts of a snapshot, each from what the configuration has of it."""

from typing import Any

from tidegate.config.addresses import Bind, Target
from tidegate.config.config import Liveness, Tunnels, WebSocket
from tidegate.config.options.admission import AdmissionOptions
from tidegate.config.options.health import HealthOptions
from tidegate.config.options.http import Http2Options
from tidegate.config.options.listener import AccessOptions
from tidegate.config.options.route import PathOptions, RetryOptions, RewriteOptions, TestOptions
from tidegate.config.options.upstream import BalanceOptions, EjectOptions, EndpointOptions
from tidegate.config.options.websocket import MessagesOptions, PingOptions
from tidegate.config.origins import ANY_PORT, Origin, OriginRule
from tidegate.config.units import Rate

Json = dict[str, Any]


def bind(bind: Bind) -> Json:
    return {"unix": bind.path} if bind.address is None else {"tcp": str(bind)}


def access(access: AccessOptions) -> Json:
    return {
        "allow": None if access.allow is None else [str(network) for network in access.allow],
        "deny": [str(network) for network in access.deny],
    }


def liveness(liveness: Liveness) -> Json:
    keepalive = liveness.keepalive
    return {
        "keepalive": {"idle": keepalive.idle, "every": keepalive.every, "probes": keepalive.probes}
        if keepalive
        else None,
        "user_timeout": liveness.user_timeout,
    }


def admission(limits: AdmissionOptions) -> Json:
    return {
        "websockets": limits.websockets,
        "connections_per_ip": limits.connections_per_ip,
        "handshakes": rate(limits.handshakes),
        "handshakes_per_ip": rate(limits.handshakes_per_ip),
        "over": limits.over,
        "ipv6_prefix": limits.ipv6_prefix,
    }


def rate(rate: Rate | None, burst: int | None = None) -> Json | None:
    """A burst that is not said is what the rate's time brings."""
    return None if rate is None else {"count": rate.count, "per": rate.per, "burst": burst or rate.count}


def messages(messages: MessagesOptions) -> Json:
    return {
        "rate": rate(messages.rate, messages.burst),
        "bytes": rate(messages.bytes, messages.bytes_burst),
        "control": rate(messages.control),
        "over": messages.over,
    }


def http2(http2: Http2Options) -> Json:
    return {"streams": http2.streams, "window": http2.window, "connection_window": http2.whole_window}


def host(pattern: str) -> Json | str:
    if pattern == "*":
        return "any"
    if pattern.startswith("*."):
        return {"suffix": pattern[1:]}
    if pattern.endswith(".*"):
        return {"prefix": pattern[:-1]}
    return {"exact": pattern}


def path(path: PathOptions | None) -> Json | str:
    if path is None:
        return "any"
    kind, value = path.chosen
    return {kind: value}


def value_test(test: TestOptions) -> Json:
    kind, value = test.chosen
    return {kind: value_test(value) if kind == "not" else value}


def rewrite(rewrite: RewriteOptions) -> Json:
    if rewrite.prefix is not None:
        return {"prefix": rewrite.prefix}
    return {"regex": {"pattern": rewrite.regex, "to": rewrite.to}}


def websocket(settings: WebSocket) -> Json:
    return {
        "enabled": settings.enabled,
        "over": list(settings.over),
        "upstream_protocol": settings.upstream_protocol,
        "frames": settings.frames,
        "deflate": settings.deflate,
        "origins": {
            "allow": None if settings.origins is None else origins(settings.origins),
            "missing": settings.missing_origin == "allow",
        },
        "subprotocols": None if settings.subprotocols is None else list(settings.subprotocols),
        "idle_after": settings.idle_after,
        "idle_counts": settings.idle_counts,
        "ping": ping(settings.ping) if settings.ping else None,
        "max_lifetime": settings.max_lifetime,
        "max_message": settings.max_message,
        "max_frame": settings.max_frame,
        "max_fragments": settings.max_fragments,
        "messages": settings.messages and messages(settings.messages),
        "close_codes": {
            "upstream_lost": settings.close_codes.upstream_lost,
            "drain": settings.close_codes.drain,
            "rate": settings.close_codes.rate,
            "idle": settings.close_codes.idle,
            "lifetime": settings.close_codes.lifetime,
        },
        "on_client_lost": settings.on_client_lost,
        "close_timeout": settings.close_timeout,
    }


def origins(rules: tuple[OriginRule, ...]) -> Json:
    return {
        "same": "same" in rules,
        "null": "null" in rules,
        "patterns": [origin(rule) for rule in rules if isinstance(rule, Origin)],
    }


def origin(origin: Origin) -> Json:
    port = "any" if origin.port == ANY_PORT else {"is": origin.port}
    return {"scheme": origin.scheme, "host": host(origin.host), "port": port}


def ping(ping: PingOptions) -> Json:
    return {
        "every": ping.every,
        "timeout": ping.timeout,
        "downstream": "downstream" in ping.to,
        "upstream": "upstream" in ping.to,
    }


def tunnels(tunnels: Tunnels) -> Json:
    return {
        "upgrades": list(tunnels.upgrades),
        "connect": tunnels.connect,
        "idle": tunnels.idle,
        "max_lifetime": tunnels.max_lifetime,
    }


def retry(retry: RetryOptions) -> Json:
    statuses = [cause for cause in retry.on if cause != "connect"]
    return {"attempts": retry.attempts, "connect": "connect" in retry.on, "statuses": statuses}


def balance(balance: str | BalanceOptions) -> Json | str:
    if isinstance(balance, str):
        return balance
    if isinstance(balance.hash, str):
        return {"hash": balance.hash}
    kind, name = balance.hash.chosen
    return {"hash": {kind: name}}


def eject(eject: EjectOptions) -> Json:
    return {"failures": eject.failures, "for": eject.for_, "at_most": eject.at_most}


def endpoint(endpoint: EndpointOptions) -> Json:
    return {
        "name": endpoint.url.spelling,
        "host": endpoint.url.authority,
        "target": target(endpoint.url),
        "weight": endpoint.weight,
        "priority": endpoint.priority,
        "zone": endpoint.zone,
        "tls": endpoint.url.host if endpoint.url.tls else None,
    }


def health(health: HealthOptions, panic: int) -> Json:
    return {
        "check": check(health),
        "port": health.port,
        "timeout": health.timeout,
        "schedule": {
            "every": health.every,
            "jitter": health.jitter,
            "healthy": health.healthy,
            "unhealthy": health.unhealthy,
        },
        "panic": panic,
    }


def check(health: HealthOptions) -> Json | str:
    if http := health.http:
        statuses = [list(each) for each in http.status]
        headers = [list(each) for each in http.headers.items()]
        return {
            "http": {
                "method": http.method,
                "path": http.path,
                "host": http.host,
                "headers": headers,
                "statuses": statuses,
            }
        }
    if grpc := health.grpc:
        return {"grpc": {"service": grpc.service, "host": grpc.host}}
    if websocket := health.websocket:
        headers = [list(each) for each in websocket.headers.items()]
        return {
            "websocket": {
                "path": websocket.path,
                "host": websocket.host,
                "headers": headers,
                "subprotocols": list(websocket.subprotocols),
            }
        }
    return "tcp"


def target(target: Target) -> Json:
    if target.path:
        return {"unix": target.path}
    if target.address is not None:
        return {"tcp": [str(target.address), target.port]}
    return {"name": [target.name, target.port]}
