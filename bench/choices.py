"""The table of docs/websocket-or-tcp.md: what each way of carrying a message costs, from the benchmark's results."""

from __future__ import annotations

from pathlib import Path

from report import Results, number, table

PAGE = "websocket-or-tcp.md"
BEGIN = "<!-- bench/run.py writes from here -->\n\n"
END = "\n\n<!-- to here -->"

HEAD = ("", "128 B there and back", "16 KiB there and back", "open, one message, close", "p50 of 128 B, µs")
WAYS = (
    ("no gateway, TCP", "direct", ("tcp128", "tcp16k", "tcp-life")),
    ("no gateway, WebSocket", "direct", ("echo128", "echo16k", "handshake")),
    ("bare relay, TCP", "relay", ("tcp128", "tcp16k", "tcp-life")),
    ("TCP listener", "tidegate", ("tcp128", "tcp16k", "tcp-life")),
    ("WebSocket", "tidegate", ("echo128", "echo16k", "handshake")),
    ("TCP listener, TLS", "tidegate", ("tls-tcp128", "tls-tcp16k", "tls-tcp-life")),
    ("WebSocket, TLS", "tidegate", ("tls-echo128", "tls-echo16k", "tls-handshake")),
    ("WebSocket over HTTP/2, TLS", "tidegate", ("h2-echo128", "h2-echo16k")),
    ("WebSocket over HTTP/3", "tidegate", ("h3-echo128",)),
)


def write(results: Results, directory: Path) -> Path | None:
    """Puts the table in the page, where there is one. None of its other text is touched."""
    page = directory / PAGE
    if not page.exists():
        return None
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, f"{page} has no place for the table"
    page.write_text(before + begin + as_table(results) + end + after)
    return page


def as_table(results: Results) -> str:
    rows = [_row(results, *way) for way in WAYS]
    return table(HEAD, rows)


def _row(results: Results, label: str, gateway: str, works: tuple[str, ...]) -> list[str]:
    medians = [results.median(work, gateway, "cpu_us") for work in works]
    costs = [number(median, 1) for median in medians] + ["–"] * (3 - len(works))
    return [label, *costs, number(results.median(works[0], gateway, "p50_us"), 0)]
