"""Addresses as people write them: what to listen on, where endpoints are, which networks are trusted."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from tidegate.config.names import host_name
from tidegate.config.units import UnitError

__all__ = [
    "KINDS",
    "SECURE",
    "Bind",
    "NameServer",
    "Network",
    "Target",
    "bind",
    "list_url",
    "looked_up_name",
    "name_and_port",
    "name_server",
    "network",
    "target",
]

Network = IPv4Network | IPv6Network

# sun_path holds 108 bytes, the last of them NUL (unix(7)).
LONGEST_UNIX_PATH = 107
EXPECTED_BIND = "expected address:port such as 0.0.0.0:8080, [::]:8443 (IPv4 too) or unix:/run/gateway.sock"
EXPECTED_ENDPOINT = "expected http://host:port, https://host:port, tcp://host:port, tls://host:port or unix:/path"
EXPECTED_NAME = "expected host:port such as chat.internal:9000"
EXPECTED_SERVER = "expected the address of a name server, such as 10.0.0.2, 127.0.0.1:5353 or [::1]:53"
KINDS = {"http": "http", "https": "http", "tcp": "tcp", "tls": "tcp"}
"""What is spoken to endpoints of each scheme."""
SECURE = ("https", "tls")
_PORTS = {"http": "80", "https": "443", "tcp": "", "tls": ""}
_HOST_PORT = re.compile(r"(\[[^\]]*\]|[^:\[\]/@?#\s]*):([0-9]{1,5})")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Bind:
    """A socket to listen on: an address and a port, or a unix socket's path."""

    address: IPv4Address | IPv6Address | None
    port: int
    path: str = ""

    def __str__(self) -> str:
        if self.address is None:
            return f"unix:{self.path}"
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.address is None or self.address.is_loopback

    def overlaps(self, other: "Bind") -> bool:
        """Whether both cannot be bound at once. Port 0 asks for any free one."""
        if self.address is None or other.address is None:
            return self.path == other.path and self.address is other.address
        if self.port != other.port or self.port == 0:
            return False
        return (
            self.address == other.address
            or _covers(self.address, other.address)
            or _covers(other.address, self.address)
        )


def _covers(wide: IPv4Address | IPv6Address, narrow: IPv4Address | IPv6Address) -> bool:
    """`[::]` is dual stack, so it takes IPv4 addresses too."""
    return wide.is_unspecified and (wide.version == 6 or narrow.version == 4)


def bind(text: str) -> Bind:
    """`0.0.0.0:80`, `[::]:8443`, `127.0.0.1:0`, `unix:/run/x.sock`."""
    if text.startswith("unix:"):
        return Bind(None, 0, _unix_path(text))
    match = _HOST_PORT.fullmatch(text)
    if match is None:
        raise UnitError(f"'{text}' is not an address to listen on", _bind_hint(text))
    return Bind(_bind_address(text, match[1], match[2]), _port(match[2], text, lowest=0))


def _bind_hint(text: str) -> str:
    if text.isdigit():
        return f"{EXPECTED_BIND}; did you mean '0.0.0.0:{text}'?"
    if re.fullmatch(r"[0-9.]+|\[[0-9a-fA-F:]+\]", text):
        return f"{EXPECTED_BIND}; the port is missing"
    if match := _URL.fullmatch(text):
        return f"{EXPECTED_BIND}; did you mean '{match[2]}'?"
    return EXPECTED_BIND


def _bind_address(text: str, host: str, port: str) -> IPv4Address | IPv6Address:
    if host in ("localhost", "", "*"):
        instead = f"127.0.0.1:{port}" if host == "localhost" else f"[::]:{port}"
        raise UnitError(f"'{text}' names no address", f"{EXPECTED_BIND}; did you mean '{instead}'?")
    if "%" in host:
        raise UnitError(f"'{host}' has a zone", "expected an address without one, such as [::]")
    try:
        return IPv6Address(host[1:-1]) if host.startswith("[") else IPv4Address(host)
    except ValueError as error:
        raise UnitError(f"'{host}' is not an IP address", EXPECTED_BIND) from error


def _port(digits: str, text: str, lowest: int = 1) -> int:
    if not lowest <= int(digits) <= 65535:
        raise UnitError(f"'{text}' has no valid port", f"expected a port from {lowest} to 65535")
    return int(digits)


def _unix_path(text: str) -> str:
    path = text.removeprefix("unix:").removeprefix("//")
    if not path.startswith("/") or "\0" in path or path.endswith("/"):
        raise UnitError(f"'{text}' is not a unix socket", "expected unix: and an absolute path, unix:/run/x.sock")
    if (length := len(path.encode())) > LONGEST_UNIX_PATH:
        raise UnitError(f"the path has {length} bytes", f"unix sockets take at most {LONGEST_UNIX_PATH}")
    return path


@dataclass(frozen=True, slots=True)
class Target:
    """Where an endpoint is: an IP address, a DNS name, or a unix socket's path."""

    address: IPv4Address | IPv6Address | None
    name: str
    port: int
    path: str
    authority: str
    """Host and port: the Host header for `host: upstream`."""
    spelling: str
    """As written."""
    tls: bool = False
    kind: str = ""
    """What is spoken there: `http` or `tcp`; nothing is said of it where it is a unix socket."""

    def __str__(self) -> str:
        return self.spelling

    @property
    def host(self) -> str:
        """The address, without brackets, or the name: what a certificate must be made for."""
        return str(self.address) if self.address else self.name


def target(text: str) -> Target:
    """`http://10.0.0.5:9000`, `https://chat.internal`, `tls://10.0.0.9:5432`, `unix:/run/chat.sock`."""
    if text.startswith("unix:"):
        return Target(None, "", 0, _unix_path(text), "localhost", text)
    match = _URL.fullmatch(text)
    if match is None or match[1] not in _PORTS:
        raise UnitError(f"'{text}' is not an endpoint", _endpoint_hint(text, match))
    if match[3] not in ("", "/"):
        hint = "leave it out; a route's rewrite changes paths"
        raise UnitError(f"an endpoint has no path, and '{text}' has '{match[3]}'", hint)
    return _tcp_target(text, match[1], match[2])


def _endpoint_hint(text: str, match: re.Match[str] | None) -> str:
    meant = {"ws": "http", "http": "http", "wss": "https", "https": "https"}
    if match is not None and match[1].lower() in meant:
        return f"{EXPECTED_ENDPOINT}; did you mean '{meant[match[1].lower()]}://{match[2]}'?"
    if _HOST_PORT.fullmatch(text):
        return f"{EXPECTED_ENDPOINT}; did you mean 'http://{text}'?"
    return f"{EXPECTED_ENDPOINT}; did you mean 'unix:{text}'?" if text.startswith("/") else EXPECTED_ENDPOINT


def _tcp_target(text: str, scheme: str, authority: str) -> Target:
    host, port = authority, _PORTS[scheme]
    if match := _HOST_PORT.fullmatch(authority):
        host, port = match[1], match[2]
    if "@" in authority:
        raise UnitError("an endpoint has no user and password", EXPECTED_ENDPOINT)
    try:
        name = host_name(host)
    except UnitError as error:
        raise UnitError(f"'{text}' is not an endpoint: {error}", EXPECTED_ENDPOINT) from error
    address = ip_address(name.strip("[]")) if _is_address(name) else None
    shown = f"{name}:{int(port)}" if authority != host else name
    if not port:
        raise UnitError(f"'{text}' has no port", f"TCP has no port of its own: expected {scheme}://host:port")
    place = ("" if address else name, _port(port, text), "")
    return Target(address, *place, shown, text, scheme in SECURE, KINDS[scheme])


def name_and_port(text: str) -> str:
    """`chat.internal:9000`, where the host is a name that is looked up."""
    match = _HOST_PORT.fullmatch(text)
    if match is None:
        bare = text.partition("://")[2].partition("/")[0]
        hint = f"{EXPECTED_NAME}; did you mean '{bare}'? what is spoken there says 'scheme'" if bare else EXPECTED_NAME
        raise UnitError(f"'{text}' is not a name and a port", hint)
    return f"{_name(match[1], text, EXPECTED_NAME)}:{_port(match[2], text)}"


def looked_up_name(text: str) -> str:
    """`_chat._tcp.example.com`: a name that is looked up."""
    if match := _HOST_PORT.fullmatch(text):
        hint = f"its records say the ports; did you mean '{match[1]}'?"
        raise UnitError(f"'{text}' has a port", hint)
    return _name(text, text, "expected a name such as _chat._tcp.example.com")


def _name(host: str, text: str, expected: str) -> str:
    try:
        name = host_name(host)
    except UnitError as error:
        raise UnitError(str(error), expected) from error
    if _is_address(name):
        raise UnitError(f"'{text}' is an address: there is nothing to look up", "write it under 'endpoints'")
    return name


def _is_address(name: str) -> bool:
    return name.startswith("[") or name.replace(".", "").isdigit()


@dataclass(frozen=True, slots=True)
class NameServer:
    """Where names are asked for."""

    address: IPv4Address | IPv6Address
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"


def name_server(text: str) -> NameServer:
    """`10.0.0.2`, `127.0.0.1:5353`, `[::1]:53`, `::1`."""
    match = _HOST_PORT.fullmatch(text)
    host, port = (match[1], match[2]) if match else (text, "53")
    try:
        return NameServer(ip_address(host.strip("[]")), _port(port, text))
    except ValueError as error:
        raise UnitError(f"'{text}' is not the address of a name server", EXPECTED_SERVER) from error


def list_url(text: str) -> str:
    """`https://registry.internal/endpoints`: where a list of endpoints is."""
    expected = "expected a URL such as https://registry.internal/endpoints"
    match = _URL.fullmatch(text)
    if match is None or match[1] not in ("http", "https") or not text.isprintable() or " " in text:
        raise UnitError(f"'{text}' is not a URL", expected)
    if "@" in match[2]:
        raise UnitError("the URL has a user and password, which logs would show", "write them in 'headers'")
    if "#" in match[3]:
        raise UnitError(f"'{text}' has a fragment, which no server ever sees", expected)
    _tcp_target(f"{match[1]}://{match[2]}", match[1], match[2])
    return text


def network(text: str) -> Network:
    """`10.0.0.0/8`, or one address."""
    try:
        return ip_network(text)
    except ValueError as error:
        raise UnitError(f"'{text}' is not a network", _network_hint(text)) from error


def _network_hint(text: str) -> str:
    expected = "expected a network such as 10.0.0.0/8 or fd00::/8, or one address"
    try:
        return f"{expected}; did you mean '{ip_network(text, strict=False)}'?"
    except ValueError:
        return expected
