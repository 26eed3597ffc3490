"""A strict reader of what a scrape gets: Prometheus 0.0.4 and OpenMetrics 1.0, as far as both are used here.

What real scrapers forgive is an error: a family in two parts, a sample twice, a type without samples of that type,
buckets that are not cumulative, an escape that does not exist.
"""

import math
import re
from dataclasses import dataclass, field

__all__ = ["Family", "Labels", "parse"]

Labels = tuple[tuple[str, str], ...]

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\n"])*)"(,|$)')
_SAMPLE = re.compile(rf"({_NAME})(?:\{{(.+)\}})? (\S+)")
_META = re.compile(rf"# (HELP|TYPE) ({_NAME}) (.+)")
_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "gauge": ("",)}


@dataclass
class Family:
    name: str
    kind: str = ""
    help: str = ""
    samples: dict[tuple[str, Labels], float] = field(default_factory=dict)

    def value(self, suffix: str = "", **labels: str) -> float:
        """The sum of the samples with this suffix that have these labels."""
        wanted = labels.items()
        return sum(
            value
            for (name, each), value in self.samples.items()
            if name == self.name + suffix and wanted <= dict(each).items()
        )

    def label_names(self) -> set[frozenset[str]]:
        """Which labels its samples have, `le` aside: one set, if all is well."""
        return {frozenset(dict(labels)) - {"le"} for _, labels in self.samples}


def parse(text: str, openmetrics: bool = False) -> dict[str, Family]:
    """The families by name; a counter's name ends in `_total` in either format."""
    assert text.endswith("\n") and "\r" not in text
    lines = text.removesuffix("\n").split("\n")
    if openmetrics:
        assert lines.pop() == "# EOF"
    families: dict[str, Family] = {}
    current: Family | None = None
    for line in lines:
        if meta := _META.fullmatch(line):
            current = _describe(families, current, meta[1], meta[2], meta[3])
        else:
            assert current, f"a sample before every type: {line}"
            _take(current, line, openmetrics)
    for family in families.values():
        _check(family)
    return {_title(family, openmetrics): family for family in families.values()}


def _title(family: Family, openmetrics: bool) -> str:
    return f"{family.name}_total" if openmetrics and family.kind == "counter" else family.name


def _describe(families: dict[str, Family], current: Family | None, what: str, name: str, text: str) -> Family:
    if current is None or current.name != name:
        assert name not in families, f"{name} comes in two parts"
        current = families[name] = Family(name)
    if what == "HELP":
        assert not current.help and not current.samples
        current.help = text
    else:
        assert not current.kind and not current.samples
        assert text in _SUFFIXES, text
        current.kind = text
    return current


def _take(family: Family, line: str, openmetrics: bool) -> None:
    match = _SAMPLE.fullmatch(line)
    assert match, line
    name, labels, value = match[1], _labels(match[2] or "", line), float(match[3])
    base = family.name if openmetrics or family.kind != "counter" else family.name.removesuffix("_total")
    assert name in [base + suffix for suffix in _SUFFIXES[family.kind]], f"{name} in {family}"
    assert (name, labels) not in family.samples, f"twice: {line}"
    assert not math.isnan(value)
    family.samples[name, labels] = value


def _labels(text: str, line: str) -> Labels:
    labels: list[tuple[str, str]] = []
    while text:
        match = _LABEL.match(text)
        assert match, line
        labels.append((match[1], re.sub(r"\\(.)", lambda escape: {"n": "\n"}.get(escape[1], escape[1]), match[2])))
        text = text[match.end() :]
    assert len(dict(labels)) == len(labels), f"a label twice: {line}"
    return tuple(sorted(labels))


def _check(family: Family) -> None:
    assert family.kind and family.samples, family
    assert len(family.label_names()) == 1, f"{family.name} has samples with different labels"
    if family.kind != "gauge":
        assert all(value >= 0 for value in family.samples.values()), family
    if family.kind == "histogram":
        _check_histogram(family)


def _check_histogram(family: Family) -> None:
    series: dict[Labels, list[tuple[float, float]]] = {}
    for (name, labels), value in family.samples.items():
        if name.endswith("_bucket"):
            rest = tuple(pair for pair in labels if pair[0] != "le")
            series.setdefault(rest, []).append((float(dict(labels)["le"]), value))
    assert series, family
    for labels, buckets in series.items():
        bounds, counts = [bound for bound, _ in buckets], [count for _, count in buckets]
        assert bounds == sorted(set(bounds)) and bounds[-1] == math.inf, family
        assert counts == sorted(counts), family
        assert family.samples[f"{family.name}_count", labels] == counts[-1]
        assert f"{family.name}_sum" in {name for name, each in family.samples if each == labels}
