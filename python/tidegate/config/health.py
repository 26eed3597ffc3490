"""What health checks need, and what needs health checks."""

from collections.abc import Iterable

from tidegate.config.config import Upstream
from tidegate.config.document import KeyPath
from tidegate.config.faults import Findings
from tidegate.config.options import UpstreamOptions

__all__ = ["check_health", "check_panic"]


def check_panic(options: UpstreamOptions, path: KeyPath, findings: Findings) -> None:
    """A guard against nothing would be taken for one against something."""
    if "panic" in options.written and options.health is None:
        message = "panic is about endpoints whose health checks fail, and there are none"
        findings.error((*path, "panic"), message, "give the upstream 'health', or leave it out", at_key=True)


def check_health(upstreams: Iterable[Upstream], findings: Findings) -> None:
    """What can be asked over what is spoken."""
    for upstream in upstreams:
        health, path = upstream.health, (*upstream.path, "health")
        if health is None:
            continue
        if health.kind == "grpc" and upstream.protocol == "h1":
            message = "gRPC needs HTTP/2, and 'protocol' says h1"
            findings.error((*path, "grpc"), message, "add protocol: h2 to the upstream", at_key=True)
        if health.kind == "tcp" and upstream.protocol == "h3":
            message = "HTTP/3 is UDP: a server that speaks it need not accept TCP"
            findings.error((*path, "tcp"), message, "expected http, grpc or websocket", at_key=True)
        if health.port is not None and any(endpoint.url.path for endpoint in upstream.endpoints):
            findings.error((*path, "port"), "unix sockets have no ports", "leave it out", at_key=True)
