"""What the browsers did, as text for a terminal and as a page of the documentation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from tests.browsers.scenes import ATTEMPTS, LISTENERS, Fallback, Outcome

__all__ = ["Report", "page", "text"]

HEAD = """\
# Browsers

`make browsers` opens WebSockets in real headless browsers, through the gateway over TLS, to servers made with several
libraries: {sockets} from one page of the same origin, one after another, all open together. Each echoes a text at once
and {size} KiB of binary data when all are open; then the odd ones are closed by the page and the even ones by the
server, each with a code and a reason of its own, which both ends must see. Which protocol carried a WebSocket is what
the [access log](observability.md#access-log) says. Connections are those that the browser opened for the WebSockets,
beside those that the page came by. A browser or a server that is not installed is named at the end; anything that is
not as it must be ends the command with 1.

`make test` does the same with fewer sockets where a browser is installed.

This page was written by a run of {date}, by Tidegate {version}.
"""

LISTENER_TEXT = """\
## What carries a WebSocket

| listener | WebSockets |
|---|---|
"""

FALLBACK_TEXT = """
## A stream that comes anyway

Extended CONNECT is advertised for a server name, not for a path. Where one route of it takes WebSockets over HTTP/2 and
another says `websocket: {{over: [h1]}}`, a browser that has a connection of HTTP/2 uses it, and the gateway resets the
stream with HTTP_1_1_REQUIRED. What the page saw of {attempts} attempts, one after another, and the records of each in
the access log:

| browser | attempt | page | access log |
|---|---|---|---|
"""

ADVICE = """
For the sake of browsers that fail here, let all WebSockets of such a server name say `over: [h1]`, or give those routes
a name of their own: then nothing is advertised, and every browser opens HTTP/1.1 by itself, as the tables above show.
"""


@dataclass(slots=True)
class Report:
    """All that a run has found."""

    date: str
    version: str
    sockets: int
    size: int
    outcomes: list[Outcome] = field(default_factory=list)
    fallbacks: list[Fallback] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    """What was not run, and why."""

    @property
    def faults(self) -> list[str]:
        """Each with its scene."""
        scenes = [(f"{each.browser}, {each.listener.name}, {each.server}", each.faults) for each in self.outcomes]
        return [f"{scene}: {fault}" for scene, faults in scenes for fault in faults]


def page(report: Report) -> str:
    head = HEAD.format(sockets=report.sockets, size=report.size >> 10, date=report.date, version=report.version)
    return head + "\n" + "\n".join(text(report)) + "\n"


def text(report: Report) -> list[str]:
    return [
        *LISTENER_TEXT.splitlines(),
        *(f"| {each.says} | come over {each.sockets} |" for each in LISTENERS),
        *(line for outcomes in by_browser(report.outcomes).values() for line in table(outcomes)),
        *FALLBACK_TEXT.format(attempts=ATTEMPTS).splitlines(),
        *(row for each in report.fallbacks for row in fallback_rows(each)),
        *ADVICE.splitlines(),
        *missing(report.missing),
    ]


def by_browser(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    return {name: list(each) for name, each in groupby(outcomes, key=lambda outcome: outcome.browser)}


def table(outcomes: Sequence[Outcome]) -> list[str]:
    return [
        "",
        f"### {outcomes[0].browser}",
        "",
        f"| listener | server | sockets 1, 2, {outcomes[0].sockets} | connections | extensions | result |",
        "|---|---|---|---|---|---|",
        *map(row, outcomes),
    ]


def row(outcome: Outcome) -> str:
    protocols = outcome.protocols
    shown = ", ".join([*protocols[:2], protocols[-1]]) if protocols else "–"
    cells = [
        *(outcome.listener.says, outcome.server, shown),
        *(str(outcome.connections), f"`{outcome.extensions}`" if outcome.extensions else "–"),
        "; ".join(outcome.faults) or f"all {outcome.sockets} as they must be",
    ]
    return f"| {' | '.join(cells)} |"


def fallback_rows(fallback: Fallback) -> list[str]:
    rows = [attempt.split("; ") for attempt in fallback.attempts]
    return [f"| {fallback.browser} | {number} | {' | '.join(cells)} |" for number, cells in enumerate(rows, 1)]


def missing(reasons: Mapping[str, str]) -> list[str]:
    if not reasons:
        return []
    return [
        "",
        "## Not run",
        "",
        "| what | why |",
        "|---|---|",
        *(f"| {what} | {why} |" for what, why in reasons.items()),
    ]
