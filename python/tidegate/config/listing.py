"""Lists of endpoints that are no part of the configuration: files that are watched, answers of HTTP servers.

They have the syntax of `endpoints`, and their errors are told in the same way, with file, line, column and key. What a
list may hold is decided by the configuration beforehand: an upstream is HTTP or TCP, and has TLS or has none.
"""

import re

from tidegate.config.addresses import KINDS
from tidegate.config.config import ListTerms
from tidegate.config.document import Document, KeyPath
from tidegate.config.faults import Findings
from tidegate.config.options.upstream import EndpointOptions
from tidegate.errors import ConfigError

__all__ = ["read_endpoints"]

EXPECTED_LIST = 'expected a list such as ["http://10.0.0.5:9000", {url: "http://10.0.0.6:9000", weight: 2}]'
AT: KeyPath = ("upstreams", "any", "endpoints")
"""What a list stands for, so that a misspelt key is told which one was meant."""
MOST_ENDPOINTS = 10_000
MOST_FAULTS = 20
"""A list comes from others: what one that is wrong or huge costs us, in time and in the log, has an end."""
_HAS_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|unix:|/")


def read_endpoints(file: str, content: bytes, terms: ListTerms) -> tuple[EndpointOptions, ...]:
    """The endpoints of a list, none for an empty one. Raises ConfigError with the first things that are wrong with it.

    A long one takes seconds.
    """
    document = Document.of_list(file, content, AT, EXPECTED_LIST)
    findings = Findings(document)
    endpoints: dict[str, EndpointOptions] = {}
    if len(document.values) > MOST_ENDPOINTS:
        findings.error((*AT, MOST_ENDPOINTS), f"a list has at most {MOST_ENDPOINTS} endpoints", "shorten it")
        raise ConfigError(findings.errors)
    for index, value in enumerate(document.values):
        if len(findings.errors) >= MOST_FAULTS:
            break
        endpoint = _endpoint(value, (*AT, index), terms, findings)
        if endpoint is not None and endpoints.setdefault(endpoint.url.spelling, endpoint) is not endpoint:
            message = f"the endpoint '{endpoint.url}' is given twice"
            findings.error((*AT, index), message, "give it a weight instead")
    if findings.errors:
        raise ConfigError(findings.errors)
    return tuple(endpoints.values())


def _endpoint(value: object, path: KeyPath, terms: ListTerms, findings: Findings) -> EndpointOptions | None:
    if not isinstance(value, str | dict):
        findings.error(path, f"expected an endpoint, found {value!r}", EXPECTED_LIST)
        return None
    written = {"url": value} if isinstance(value, str) else value
    if isinstance(url := written.get("url"), str) and not _HAS_SCHEME.match(url):
        written = {**written, "url": f"{terms.scheme}://{url}"}
    endpoint = findings.validated(EndpointOptions, written, path)
    if endpoint is not None:
        _check(endpoint, path if isinstance(value, str) else (*path, "url"), terms, findings)
    return endpoint


def _check(endpoint: EndpointOptions, at: KeyPath, terms: ListTerms, findings: Findings) -> None:
    url, kind = endpoint.url, KINDS[terms.scheme]
    if url.kind not in ("", kind):
        schemes = " or ".join(f"{scheme}://" for scheme, spoken in KINDS.items() if spoken == kind)
        findings.error(at, f"'{url}' is not for an upstream that speaks {kind.upper()}", f"expected {schemes}")
    elif url.tls and not terms.tls:
        findings.error(at, f"'{url}' needs TLS, and the upstream has none", "give the upstream 'tls', or scheme: https")
    elif terms.only_tls and not url.tls:
        findings.error(at, f"'{url}' has no TLS, and the upstream speaks HTTP/3", "write it as https://host:port")
