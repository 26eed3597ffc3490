"""What a listener needs to speak HTTP/3."""

from tidegate.config.document import KeyPath
from tidegate.config.faults import Findings
from tidegate.config.options import ListenerOptions

__all__ = ["check_h3"]


def check_h3(options: ListenerOptions, path: KeyPath, findings: Findings) -> None:
    """QUIC is UDP, and always with TLS."""
    if "h3" not in options.http or options.tcp is not None:
        return
    at = (*path, "http", options.http.index("h3"))
    if options.tls is None:
        findings.error(at, "HTTP/3 needs TLS", "give the listener 'tls', or leave out h3")
    if any(bind.address is None for bind in options.bind):
        findings.error(at, "HTTP/3 needs a UDP port, and a unix socket has none", "leave out h3, or the socket")
