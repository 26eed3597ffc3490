"""Names of every kind: hosts, headers, methods, and those that people give to parts of the configuration.

Hosts are in lower case, without port and trailing dot, in their ASCII form. Those that are not ASCII become Punycode
(`xn--…`), as browsers send them. Python's own codec follows IDNA 2003; where IDNA 2008 and the browsers differ from it
(ß, ς and the joiners) the name is refused rather than guessed.
"""

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from tidegate.config.units import UnitError

__all__ = [
    "cookie_name",
    "header_name",
    "header_value",
    "host_name",
    "host_pattern",
    "method",
    "part_name",
    "route_name",
    "server_name",
    "subprotocol",
    "upgrade",
    "zone_name",
]

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_PART_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
# RFC 9110 §5.6.2.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
_DEVIATIONS = re.compile("[ßẞς\u200c\u200d]")
EXPECTED_HOST = "expected a host such as chat.example.com, without scheme and port"
EXPECTED_PATTERN = "expected a host such as chat.example.com, *.example.com, www.* or *"


def host_name(text: str) -> str:
    """A host name or address as the engine compares it. IPv6 addresses keep their brackets."""
    return _address(text) or _domain(text, EXPECTED_HOST)


def host_pattern(text: str) -> str:
    """`chat.example.com`, `*.example.com`, `www.*` or `*`, in the engine's spelling."""
    if text == "*":
        return text
    if text.startswith("*."):
        return "*." + _domain(text[2:], EXPECTED_PATTERN)
    if text.endswith(".*"):
        return _domain(text[:-2], EXPECTED_PATTERN) + ".*"
    return _address(text) or _domain(text, EXPECTED_PATTERN)


def server_name(text: str) -> str:
    """A TLS server name: exact, or with one leading wildcard label. Addresses are never sent as one (RFC 6066 §3)."""
    expected = "expected a server name such as admin.example.com or *.example.com"
    if _address(text):
        raise UnitError(f"'{text}' is an address, and clients send none as server name", expected)
    if text.startswith("*."):
        return "*." + _domain(text[2:], expected)
    return _domain(text, expected)


def _address(text: str) -> str | None:
    try:
        if text.startswith("[") and text.endswith("]") and "%" not in text:
            return f"[{IPv6Address(text[1:-1])}]"
        return str(IPv4Address(text))
    except AddressValueError:
        return None


def _domain(text: str, expected: str) -> str:
    name = _ascii(text.lower().removesuffix("."), expected)
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels) or labels[-1].isdigit():
        raise UnitError(f"'{text}' is not a host name", _domain_hint(text, expected))
    return name


def _ascii(text: str, expected: str) -> str:
    if text.isascii():
        return text
    if _DEVIATIONS.search(text):
        raise UnitError(f"'{text}' has letters that old and new clients encode differently", "write its xn-- form")
    try:
        return text.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise UnitError(f"'{text}' is not a host name", expected) from error


def _domain_hint(text: str, expected: str) -> str:
    bare = re.sub(r"^[a-z]+://", "", text).split("/")[0].rsplit(":", 1)[0]
    return f"{expected}; did you mean '{bare}'?" if bare != text and _LABEL.match(bare) else expected


def part_name(text: str, what: str) -> str:
    """The name of a listener or an upstream: short and safe in metrics, logs and paths."""
    if not _PART_NAME.fullmatch(text):
        raise UnitError(f"'{text}' is not a name for {what}", "expected letters, digits, '_', '-' and '.', at most 63")
    return text


def zone_name(text: str) -> str:
    """A zone, as clouds and Kubernetes name theirs: `eu-central-1a`."""
    if not text or len(text) > 200 or not text.isprintable():
        raise UnitError(f"'{text}' is not the name of a zone", "expected 1 to 200 printable characters")
    return text


def route_name(text: str) -> str:
    """The name of a route: anything that fits a line of a log."""
    if not text or len(text) > 200 or not text.isprintable():
        raise UnitError(f"'{text}' is not a name for a route", "expected 1 to 200 printable characters")
    return text


def header_name(text: str) -> str:
    """A header's name, as written."""
    if not _TOKEN.fullmatch(text):
        raise UnitError(f"'{text}' is not a header's name", "expected letters, digits and '-'")
    return text


def cookie_name(text: str) -> str:
    """A cookie's name (RFC 6265 §4.1.1): a token, compared with case."""
    if not _TOKEN.fullmatch(text):
        raise UnitError(f"'{text}' is not a cookie's name", "expected a name without spaces and separators")
    return text


def header_value(text: str) -> str:
    """A header's value (RFC 9110 §5.5): a line break in it would be a second header."""
    if _CONTROL.search(text):
        raise UnitError("a header's value cannot have line breaks and control characters", "")
    return text


def method(text: str) -> str:
    """A request method. They tell upper from lower case (RFC 9110 §9.1), so `get` would never match."""
    if text not in _METHODS and text.upper() in _METHODS:
        raise UnitError(f"'{text}' is not a method", f"methods are in capitals; did you mean '{text.upper()}'?")
    if not _TOKEN.fullmatch(text):
        raise UnitError(f"'{text}' is not a method", "expected a method such as GET")
    return text


def subprotocol(text: str) -> str:
    """A WebSocket subprotocol (RFC 6455 §4.1): a token."""
    if not _TOKEN.fullmatch(text):
        raise UnitError(f"'{text}' is not a subprotocol", "expected a name without spaces and separators")
    return text


def upgrade(text: str) -> str:
    """`connect`, or a protocol as `Upgrade` names it (RFC 9110 §7.8), in small letters: it is compared without case."""
    token, slash, version = text.lower().partition("/")
    if not _TOKEN.fullmatch(token) or (slash and not _TOKEN.fullmatch(version)):
        raise UnitError(f"'{text}' is not a protocol to upgrade to", "expected connect, or a token such as spdy/3.1")
    if token == "websocket":
        raise UnitError("WebSockets are no tunnels: their handshake is checked", "leave it out, and see 'websocket'")
    if token in ("h2c", "http", "tls"):
        raise UnitError(f"'{text}' would carry requests past all routes", "leave it out")
    return text.lower()
