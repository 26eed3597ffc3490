"""`discover:` of upstreams: which source is meant, and what must not stand beside it."""

from collections.abc import Mapping
from pathlib import Path

from tidegate.config.addresses import SECURE
from tidegate.config.certificates import PemFiles
from tidegate.config.config import Discover, ListFile, ListTerms, ListUrl, Name, Service
from tidegate.config.document import KeyPath
from tidegate.config.faults import Findings, near
from tidegate.config.options.discover import SOURCES, DiscoverOptions
from tidegate.config.options.upstream import EndpointOptions, UpstreamOptions

__all__ = ["check_presence", "discover", "named_endpoint", "wants_tls"]

SHORTEST_EVERY = 100
"""Milliseconds: what asks more often than that is meant as an attack, or as seconds."""
HTTP_EVERY = 5_000

_BESIDE = {
    "every": ("dns", "srv", "http"),
    "timeout": ("http",),
    "max_size": ("http",),
    "ca": ("http",),
    "headers": ("http",),
}
"""Which keys mean something beside which source."""


def check_presence(value: object, path: KeyPath, findings: Findings) -> None:
    """An upstream has its endpoints from one place."""
    if not isinstance(value, Mapping):
        return
    given = [key for key in ("endpoints", "discover") if key in value]
    if len(given) == 2:
        message = "'endpoints' and 'discover' exclude each other"
        findings.error((*path, "discover"), message, "leave out one of them", at_key=True)
    elif not given and near("endpoints", value) is None:
        findings.error(path, "the key 'endpoints' is missing", "expected it, or 'discover'", at_key=True)


def wants_tls(options: UpstreamOptions) -> bool:
    """Whether TLS may be spoken to an endpoint. A list may have some with and some without, so `tls` says it there."""
    found = options.discover
    if found is None:
        return any(endpoint.url.tls for endpoint in options.endpoints)
    return found.scheme in SECURE or (_is_list(found) and "tls" in options.written)


def named_endpoint(options: DiscoverOptions) -> EndpointOptions | None:
    """`discover: {dns: …}` is an endpoint that is written as a name."""
    return EndpointOptions.model_validate({"url": f"{options.scheme}://{options.dns}"}) if options.dns else None


def discover(
    options: UpstreamOptions, path: KeyPath, directory: Path, pem: PemFiles, findings: Findings
) -> Discover | None:
    """Where the endpoints of an upstream are found; None where they are written."""
    found, at = options.discover, (*path, "discover")
    if found is None:
        return None
    _refuse_what_does_nothing(found, at, findings)
    terms = ListTerms(found.scheme, wants_tls(options), options.protocol == "h3")
    if found.dns is not None:
        return Name(found.scheme, found.every)
    if found.srv is not None:
        return Service(found.srv, found.scheme, found.every)
    if found.file is not None:
        return ListFile((directory / found.file).absolute(), terms)
    return _list_url(found, terms, at, pem, findings)


def _list_url(found: DiscoverOptions, terms: ListTerms, at: KeyPath, pem: PemFiles, findings: Findings) -> ListUrl:
    url = found.http or ""
    is_secure = url.startswith("https:")
    if found.ca is not None and not is_secure:
        findings.error((*at, "ca"), "'http' begins with http://, so there is no certificate to check", "leave it out")
    trust = pem.trust(found.ca, at) if is_secure else None
    headers = tuple(found.headers.items())
    return ListUrl(url, terms, found.every or HTTP_EVERY, found.timeout, found.max_size, trust, headers)


def _refuse_what_does_nothing(found: DiscoverOptions, at: KeyPath, findings: Findings) -> None:
    source = next(source for source in SOURCES if source in found.written)
    for key, sources in _BESIDE.items():
        if key in found.written and source not in sources:
            hint = "a file is watched" if (key, source) == ("every", "file") else "leave it out"
            findings.error((*at, key), f"'{key}' does nothing beside '{source}'", hint, at_key=True)
    if found.every is not None and found.every < SHORTEST_EVERY:
        findings.error((*at, "every"), f"expected at least {SHORTEST_EVERY}ms")


def _is_list(found: DiscoverOptions) -> bool:
    return found.file is not None or found.http is not None
