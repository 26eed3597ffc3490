"""The result as text for a terminal and as a page of the documentation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.conformance.judge import Difference, Verdicts, differences, table

__all__ = ["Leg", "page", "text"]

TITLES = {
    "servers": "Fuzzing client, gateway, the suite's echo server",
    "clients": "The suite's echo client, gateway, fuzzing server",
}
HEAD = """\
# Conformance

`make conformance` runs the [Autobahn test suite](https://github.com/crossbario/autobahn-testsuite) through the gateway,
in clear text and over TLS, with routes that are strict about frames (the default), and through two gateways in a row
with HTTP/2 between them (column `h2`: RFC 8441 on both sides of that leg). The suite judges its own echo
server and its own echo client first alone and then through the gateway: each case must get the same verdict, for how it
behaved and for how it closed, or the command fails. `INFORMATIONAL` tells what a peer does where the specification
leaves it free.

The suite needs Python 2.7: one that is installed is taken, or else Debian's is unpacked beside it in `.cache`.
`make conformance CASES='7.* 12.*' LEGS=servers` runs a part; `CASES='*'` runs all {total} cases, of which the default
leaves out most of the long ones about permessage-deflate (sections 12 and 13).

What follows was printed by the run that this page was written from.
"""


@dataclass(frozen=True, slots=True)
class Leg:
    """What the suite said of one end: alone, and through the gateway by each way in."""

    name: str
    alone: Verdicts
    through: Mapping[str, Verdicts]

    def differences(self, cases: Sequence[str]) -> dict[str, list[Difference]]:
        found = {way: differences(cases, self.alone, verdicts) for way, verdicts in self.through.items()}
        return {way: each for way, each in found.items() if each}


def text(cases: Sequence[str], legs: Sequence[Leg]) -> list[str]:
    lines = []
    for leg in legs:
        lines += [f"## {TITLES[leg.name]}", "", *table(cases, leg.alone, leg.through), ""]
        found = leg.differences(cases)
        lines += [f"- {way} {each}" for way, each in found.items() for each in each]
        if not found:
            judged = sum(map(len, leg.through.values()))
            lines.append(f"All {judged} verdicts through the gateway equal those without it.")
        lines.append("")
    return lines


def page(cases: Sequence[str], legs: Sequence[Leg], total: int) -> str:
    return "\n".join([HEAD.format(total=total), *text(cases, legs)])
