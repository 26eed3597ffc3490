"""`upgrades:` and `tunnel:` of routes."""

from tidegate.config.config import Tunnels
from tidegate.config.document import KeyPath
from tidegate.config.faults import Findings
from tidegate.config.options import RouteOptions

__all__ = ["tunnels"]


def tunnels(options: RouteOptions, path: KeyPath, findings: Findings) -> Tunnels | None:
    """Which tunnels a route takes; None when it takes none."""
    for index, token in enumerate(options.upgrades):
        if token in options.upgrades[:index]:
            findings.error((*path, "upgrades", index), f"'{token}' is given twice")
    serves_connect = "connect" in options.upgrades
    if not options.upgrades and "tunnel" in options.written:
        message = "'tunnel' does nothing without 'upgrades'"
        findings.error((*path, "tunnel"), message, "say which tunnels may be opened: upgrades: [connect]", at_key=True)
    elif "connect" in options.tunnel.written and not serves_connect:
        message = "'tunnel.connect' does nothing where 'upgrades' has no connect"
        findings.error((*path, "tunnel", "connect"), message, "add it there, or leave this out", at_key=True)
    elif options.tunnel.connect == "terminate":
        _check_terminated(options, path, findings)
    if not options.upgrades:
        return None
    others = tuple(token for token in options.upgrades if token != "connect")
    connect = options.tunnel.connect if serves_connect else None
    return Tunnels(others, connect, options.tunnel.idle, options.tunnel.max_lifetime)


def _check_terminated(options: RouteOptions, path: KeyPath, findings: Findings) -> None:
    """Its upstream speaks no HTTP, so nothing else may come to it."""
    at = (*path, "tunnel", "connect")
    if options.upgrades != ("connect",):
        findings.error(
            at, "tunnels that end here go to TCP, where no other upgrade can", "expected upgrades: [connect]"
        )
    if options.match.method != ("CONNECT",):
        message = "tunnels that end here go to TCP, where no other request can"
        findings.error(at, message, "add method: CONNECT to the route's match")
