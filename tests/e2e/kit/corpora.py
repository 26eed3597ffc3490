"""The corpora of hostile HTTP/1.1 in tests/corpora, and mutations of one line, which are made rather than written."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

__all__ = ["Case", "cases", "doubles", "exhaustive", "load", "named_mutations"]

FOLDER = Path(__file__).parents[2] / "corpora"

SMUGGLED = b"GET {path}/smuggled HTTP/1.1\r\nHost: h\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Case:
    """Bytes of a client and, where they are written down, what must come of them. See tests/corpora/README.md."""

    name: str
    raw: bytes
    seen: tuple[bytes, ...] | None = None
    refused: str = ""
    status: int = 400
    closes: bool = False
    unfinished: bool = False

    def sent(self, path: bytes) -> bytes:
        """What goes over the wire when the case's own path is `path`."""
        raw = self.raw.replace(b"{smuggled}", SMUGGLED).replace(b"{path}", path)
        body = raw.partition(b"\r\n\r\n")[2]
        return raw.replace(b"{length}", str(len(body)).encode())


def load(name: str) -> list[dict[str, Any]]:
    """The cases of a file, with the template around them."""
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    file = yaml.load(text, yaml.CSafeLoader)
    template = file.get("template", "{case}")
    return [{**each, "raw": template.replace("{case}", each["raw"])} for each in file["cases"]]


def cases(name: str) -> list[Case]:
    """A file of requests."""
    return [_case(each) for each in load(name)]


def _case(written: dict[str, Any]) -> Case:
    known = dict(written)
    seen = tuple(body.encode("latin-1") for body in known.pop("seen", ()))
    return Case(name=str(known.pop("name")), raw=known.pop("raw").encode("latin-1"), seen=seen, **known)


# ---- mutations of `Transfer-Encoding: chunked` -------------------------------------------------------------------

NAME, VALUE = b"Transfer-Encoding", b"chunked"

SINGLE = {
    "space before the name": b" Transfer-Encoding: chunked",
    "tab for the space": b"Transfer-Encoding:\tchunked",
    "tabs around the colon": b"Transfer-Encoding\t:\tchunked",
    "space for the hyphen": b"Transfer Encoding: chunked",
    "underscore for the hyphen": b"Transfer_Encoding: chunked",
    "space for the hyphen and none behind the colon": b"Transfer Encoding:chunked",
    "space before the colon": b"Transfer-Encoding : chunked",
    "two spaces": b"Transfer-Encoding:  chunked",
    "vertical tab for the space": b"Transfer-Encoding:\x0bchunked",
    "something behind it": b"Transfer-Encoding: chunked, cow",
    "something before it": b"Transfer-Encoding: cow, chunked",
    "another field": b"Content-Encoding: chunked",
    "folded by LF": b"Transfer-Encoding:\n chunked",
    "folded": b"Transfer-Encoding:\r\n chunked",
    "quoted": b'Transfer-Encoding: "chunked"',
    "in apostrophes": b"Transfer-Encoding: 'chunked'",
    "cut short": b"Transfer-Encoding: chunk",
    "mixed case": b"TrAnSFer-EnCODinG: cHuNkeD",
    "upper case": b"TRANSFER-ENCODING: CHUNKED",
    "CR behind": b"Transfer-Encoding: chunked\r",
    "tab behind": b"Transfer-Encoding: chunked\t",
    "another one first": b"Transfer-Encoding: cow\r\nTransfer-Encoding: chunked",
    "another one behind": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: cow",
    "CR in the name": b"Transfer\r-Encoding: chunked",
    "a word among others": b"Transfer-Encoding: cow chunked bar",
    "byte 255 for the space": b"Transfer-Encoding:\xffchunked",
    "an accent in the value": b"Transfer-Encoding: ch\x96nked",
    "an accent in the name": b"Transf\x82r-Encoding: chunked",
    "behind a bare CR": b"X:X\rTransfer-Encoding: chunked",
    "behind a bare LF": b"X:X\nTransfer-Encoding: chunked",
}
"""Bends with a name of their own."""

PLACES = {
    "behind the colon": b"Transfer-Encoding:%cchunked",
    "before the colon": b"Transfer-Encoding%c: chunked",
    "before the name": b"%cTransfer-Encoding: chunked",
    "behind the value": b"Transfer-Encoding: chunked%c",
    "for a line end before": b"X: X%cTransfer-Encoding: chunked",
    "for a line end behind": b"Transfer-Encoding: chunked%cX: X",
    "behind CR before": b"X: X\r%cTransfer-Encoding: chunked",
    "before LF before": b"X: X%c\nTransfer-Encoding: chunked",
    "behind CR behind": b"Transfer-Encoding: chunked\r%cX: X",
    "before LF behind": b"Transfer-Encoding: chunked%c\nX: X",
    "within the name": b"Transfer%cEncoding: chunked",
    "within the value": b"Transfer-Encoding: chun%cked",
    "for the colon": b"Transfer-Encoding%c chunked",
}
"""Where one byte goes."""

USUAL = (0x01, 0x04, 0x08, 0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x1F, 0x20, 0x7F, 0xA0, 0xFF)
"""The bytes that smuggling tools try first."""


def named_mutations() -> Iterator[Case]:
    """What such tools try by default: the named bends, and the usual bytes in the first ten places."""
    for name, line in SINGLE.items():
        yield from _both_ways(name, line)
    for (place, line), byte in itertools.product(list(PLACES.items())[:10], USUAL):
        yield from _both_ways(f"{byte:#04x} {place}", line % byte)


def doubles() -> Iterator[Case]:
    """Two of the usual bytes in every place."""
    for (place, line), pair in itertools.product(PLACES.items(), itertools.product(USUAL, USUAL)):
        yield from _both_ways(f"{bytes(pair).hex(' ')} {place}", line.replace(b"%c", bytes(pair)))


def exhaustive() -> Iterator[Case]:
    """Every byte in every place."""
    for (place, line), byte in itertools.product(PLACES.items(), range(256)):
        yield from _both_ways(f"{byte:#04x} {place}", line % byte)


def _both_ways(name: str, line: bytes) -> Iterator[Case]:
    """Beside a length that covers what follows, and alone."""
    end = b"\r\n\r\n0\r\n\r\n{smuggled}"
    start = b"POST {path} HTTP/1.1\r\nHost: h\r\n"
    yield Case(f"{name}, with a length", start + b"Content-Length: {length}\r\n" + line + end)
    yield Case(f"{name}, alone", start + line + end)
