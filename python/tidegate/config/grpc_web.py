"""`grpc_web:` of routes."""

from collections.abc import Iterable

from tidegate.config.config import Forward, Route, Upstream
from tidegate.config.faults import Findings

__all__ = ["check_grpc_web"]


def check_grpc_web(routes: Iterable[Route], upstreams: Iterable[Upstream], findings: Findings) -> None:
    """Calls of gRPC need HTTP/2 or HTTP/3 towards the upstream: no other has trailers for all of their answers."""
    without = {upstream.name for upstream in upstreams if not _carries_grpc(upstream)}
    for route in routes:
        if isinstance(route.action, Forward) and route.action.grpc_web:
            for name in (name for name, _ in route.action.to if name in without):
                message = f"gRPC needs HTTP/2, which is not spoken to the upstream '{name}'"
                findings.error((*route.path, "grpc_web"), message, "add protocol: h2 to the upstream", at_key=True)


def _carries_grpc(upstream: Upstream) -> bool:
    """Where ALPN decides it is to be seen."""
    by_alpn = upstream.protocol == "auto" and upstream.is_secure
    return by_alpn or upstream.protocol in ("h2", "h3")
