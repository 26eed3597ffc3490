"""Judges reports of the Autobahn test suite, whose program ends with 0 whatever they say.

A report's index has for each agent and case how it behaved (`behavior`) and how it closed (`behaviorClose`). A run
through the gateway is as good as the same run without it when both are equal for each case that was asked for.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

__all__ = ["Difference", "Verdict", "Verdicts", "chosen", "differences", "read", "table"]

Index = Mapping[str, Mapping[str, Mapping[str, Any]]]

ORDER = ("OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED", "FAILED", "absent")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one case."""

    behavior: str
    close: str

    def __str__(self) -> str:
        return self.behavior if self.behavior == self.close else f"{self.behavior}, close {self.close}"


ABSENT = Verdict("absent", "absent")
"""The report does not have the case: the connection never opened, or the program ended early."""

Verdicts = Mapping[str, Verdict]


@dataclass(frozen=True, slots=True)
class Difference:
    case: str
    alone: Verdict
    through: Verdict

    def __str__(self) -> str:
        return f"{self.case}: {self.through} through the gateway, {self.alone} without it"


def chosen(cases: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """The cases that some pattern names whole: `7.*`, `12.*.1`."""
    wanted = list(patterns)
    return [case for case in cases if any(fnmatchcase(case, pattern) for pattern in wanted)]


def read(index: Index) -> dict[str, Verdict]:
    """The verdicts in a report's index. The cases of several agents must not overlap."""
    verdicts: dict[str, Verdict] = {}
    for results in index.values():
        for case, result in results.items():
            if case in verdicts:
                raise ValueError(f"case {case} was judged twice")
            verdicts[case] = Verdict(str(result["behavior"]), str(result["behaviorClose"]))
    return verdicts


def differences(cases: Iterable[str], alone: Verdicts, through: Verdicts) -> list[Difference]:
    """Where the verdict through the gateway is another one than without it. A case that the run without the gateway
    could not judge proves nothing, and counts as a difference as well."""
    found = []
    for case in cases:
        pair = alone.get(case, ABSENT), through.get(case, ABSENT)
        if pair[0] != pair[1] or ABSENT in pair:
            found.append(Difference(case, *pair))
    return found


def table(cases: Iterable[str], alone: Verdicts, runs: Mapping[str, Verdicts]) -> list[str]:
    """Rows of Markdown: a row a section, a column a run."""
    sections: dict[str, list[str]] = {}
    for case in cases:
        sections.setdefault(case.partition(".")[0], []).append(case)
    columns = {"without the gateway": alone, **runs}
    rows = [f"| section | cases | {' | '.join(columns)} |", "|---|---|" + "---|" * len(columns)]
    for section, members in sections.items():
        cells = [tally(verdicts.get(case, ABSENT) for case in members) for verdicts in columns.values()]
        rows.append(f"| {section} | {len(members)} | {' | '.join(cells)} |")
    return rows


def tally(verdicts: Iterable[Verdict]) -> str:
    counts = Counter(map(str, verdicts))
    ranked = sorted(counts, key=lambda text: (ORDER.index(text.partition(",")[0]), text))
    return ", ".join(f"{counts[text]} {text}" for text in ranked)
