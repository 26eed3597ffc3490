"""What the judge makes of reports."""

from typing import Any

import pytest

from tests.conformance.judge import ABSENT, Difference, Verdict, chosen, differences, read, table
from tests.conformance.report import Leg, page, text

OK, LOOSE, BAD = Verdict("OK", "OK"), Verdict("NON-STRICT", "OK"), Verdict("FAILED", "WRONG CODE")


def result(behavior: str, close: str) -> dict[str, Any]:
    """As the suite writes it."""
    return {
        "behavior": behavior,
        "behaviorClose": close,
        "duration": 7,
        "remoteCloseCode": 1000,
        "reportfile": "x.json",
    }


def test_a_report_is_read_by_behaviour_and_close() -> None:
    index = {"agent": {"1.1.1": result("OK", "OK"), "7.5.1": result("FAILED", "WRONG CODE")}}
    assert read(index) == {"1.1.1": OK, "7.5.1": BAD}


def test_a_case_that_two_agents_have_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"1\.1\.1 was judged twice"):
        read({"one": {"1.1.1": result("OK", "OK")}, "other": {"1.1.1": result("OK", "OK")}})


def test_equal_verdicts_are_no_difference_whatever_they_are() -> None:
    verdicts = {"1.1": OK, "6.4": LOOSE, "7.1": BAD}
    assert differences(verdicts, verdicts, dict(verdicts)) == []


@pytest.mark.parametrize(("alone", "through"), [(OK, LOOSE), (LOOSE, OK), (OK, BAD), (OK, Verdict("OK", "UNCLEAN"))])
def test_any_other_verdict_is_a_difference(alone: Verdict, through: Verdict) -> None:
    assert differences(["1.1"], {"1.1": alone}, {"1.1": through}) == [Difference("1.1", alone, through)]


def test_a_case_that_either_report_does_not_have_is_a_difference() -> None:
    assert differences(["1"], {"1": OK}, {}) == [Difference("1", OK, ABSENT)]
    assert differences(["1"], {}, {"1": OK}) == [Difference("1", ABSENT, OK)]
    assert differences(["1"], {}, {}) == [Difference("1", ABSENT, ABSENT)]


def test_cases_that_nobody_asked_for_do_not_count() -> None:
    assert differences(["1"], {"1": OK, "2": OK}, {"1": OK, "2": BAD}) == []


def test_patterns_name_whole_ids() -> None:
    cases = ["1.1.1", "1.1.10", "10.1.1", "12.1.1", "12.1.11", "12.2.5"]
    assert chosen(cases, ["1.*"]) == ["1.1.1", "1.1.10"]
    assert chosen(cases, ["12.*.1", "12.*.5"]) == ["12.1.1", "12.2.5"]
    assert chosen(cases, ["*"]) == cases
    assert chosen(cases, ["11.*"]) == []


def test_the_table_counts_each_section_and_shows_what_is_absent() -> None:
    cases = ["1.1", "1.2", "10.1"]
    alone = {"1.1": OK, "1.2": LOOSE, "10.1": OK}
    rows = table(cases, alone, {"ws": {"1.1": OK, "1.2": BAD}})
    assert rows[0] == "| section | cases | without the gateway | ws |"
    assert rows[2:] == [
        "| 1 | 2 | 1 OK, 1 NON-STRICT, close OK | 1 OK, 1 FAILED, close WRONG CODE |",
        "| 10 | 1 | 1 OK | 1 absent |",
    ]


def test_the_page_tells_every_difference_by_its_way_in() -> None:
    leg = Leg("servers", {"1.1": OK}, {"ws": {"1.1": OK}, "wss": {"1.1": BAD}})
    assert list(leg.differences(["1.1"])) == ["wss"]
    assert "- wss 1.1: FAILED, close WRONG CODE through the gateway, OK without it" in text(["1.1"], [leg])
    good = Leg("servers", {"1.1": OK}, {"ws": {"1.1": OK}})
    assert "All 1 verdicts through the gateway equal those without it." in page(["1.1"], [good], 517)
