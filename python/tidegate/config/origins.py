"""Origins as browsers send them (RFC 6454 §7), and patterns of them: `https://*.example.com:8443`."""

import re
from dataclasses import dataclass

from tidegate.config.names import host_pattern
from tidegate.config.units import UnitError

__all__ = ["ANY_PORT", "Origin", "OriginRule", "origin_rule"]

ANY_PORT = "*"
DEFAULT_PORTS = {"http": 80, "https": 443}
EXPECTED = "expected same, null, any or an origin such as https://www.example.com or https://*.example.com:8443"

_ORIGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(\[[^\]]*\]|[^:\[\]/@?#\s]+)(?::([0-9]{1,5}|\*))?(/?)")
_SOCKET_SCHEMES = {"ws": "http", "wss": "https"}


@dataclass(frozen=True, slots=True)
class Origin:
    """Pages of a host. `port` is the scheme's where none is written; None where the scheme has none."""

    scheme: str
    host: str
    port: int | str | None

    def __str__(self) -> str:
        implied = self.port == DEFAULT_PORTS.get(self.scheme)
        return f"{self.scheme}://{self.host}" + ("" if implied else f":{self.port}")


OriginRule = Origin | str
"""A pattern, or one of the words `same` and `null`."""


def origin_rule(text: str) -> OriginRule:
    """`same`, `null`, or a pattern."""
    if text == "any":
        raise UnitError("'any' stands alone, not in a list", "write any without brackets")
    return text if text in ("same", "null") else _origin(text)


def _origin(text: str) -> Origin:
    match = _ORIGIN.fullmatch(text)
    if match is None:
        raise UnitError(f"'{text}' is not an origin", _hint(text))
    scheme, host, port = match[1].lower(), match[2], match[3]
    if scheme in _SOCKET_SCHEMES or match[4]:
        plain = f"{_SOCKET_SCHEMES.get(scheme, scheme)}://{host}" + (f":{port}" if port else "")
        raise UnitError(f"'{text}' is not an origin", f"it is that of a page, without a path; did you mean '{plain}'?")
    if port == ANY_PORT:
        return Origin(scheme, host_pattern(host), ANY_PORT)
    if port is not None and not 0 < int(port) < 1 << 16:
        raise UnitError(f"'{text}' has no valid port", "expected a port from 1 to 65535, or *")
    return Origin(scheme, host_pattern(host), int(port) if port else DEFAULT_PORTS.get(scheme))


def _hint(text: str) -> str:
    bare = f"https://{text}"
    if text in ("*", "https://*:*"):
        return f"{EXPECTED}; did you mean 'any'?"
    return f"{EXPECTED}; did you mean '{bare}'?" if _ORIGIN.fullmatch(bare) else EXPECTED
