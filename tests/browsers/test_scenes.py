"""What is made of the things that a browser saw."""

from typing import Any

import pytest

from tests.browsers.report import Report, page
from tests.browsers.scenes import LISTENERS, Fallback, Outcome, page_faults

H1, H2, _ = LISTENERS


def seen(number: int = 1, **other: Any) -> dict[str, Any]:
    """As page.js tells it of a socket that did as it should."""
    side = "page" if number % 2 else "server"
    close = {"code": 4000 + number, "reason": f"{side} {number}", "clean": True}
    went = {"number": number, "opened": True, "text": True, "binary": True, "subprotocol": "tide", "extensions": ""}
    return {**went, "close": close, **other}


def test_sockets_that_did_as_they_should() -> None:
    assert page_faults([seen(1), seen(2)], 2) == []


def test_the_server_may_answer_a_close_without_its_reason_but_not_send_one_without() -> None:
    silent = {"reason": "", "clean": True}
    assert page_faults([seen(1, close={"code": 4001, **silent})], 1) == []
    assert len(page_faults([seen(2, close={"code": 4002, **silent})], 1)) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"opened": False},
        {"text": False},
        {"binary": False},
        {"subprotocol": ""},
        {"close": {"code": 1006, "reason": "page 1", "clean": True}},
        {"close": {"code": 4001, "reason": "server 1", "clean": True}},
        {"close": {"code": 4001, "reason": "page 1", "clean": False}},
    ],
)
def test_anything_else_is_a_fault(other: dict[str, Any]) -> None:
    [fault] = page_faults([seen(1, **other), seen(2)], 2)
    assert fault.startswith("the page saw {")


def test_a_missing_socket_is_a_fault() -> None:
    assert page_faults([seen(1)], 2) == ["1 sockets of 2"]


def test_many_faults_are_counted() -> None:
    first, count = page_faults([seen(number, text=False) for number in (1, 2, 3)], 3)
    assert '"number": 1' in first and count == "3 such"


def test_the_page_has_outcomes_faults_and_what_was_not_run() -> None:
    good = Outcome("Net 1", H2, "echo 2", 3, 0, ["h2"] * 3, "permessage-deflate")
    bad = Outcome("Net 1", H1, "echo 2", 3, 3, faults=["it stalled"])
    fallback = Fallback("Net 1", ["failed with 1006; refusal h2 505"])
    report = Report("2026-01-02", "9.9", 3, 1 << 18, [good, bad], [fallback], {"a browser": "it is not installed"})
    lines = page(report).splitlines()
    assert "| `http: [h1, h2]` | echo 2 | h2, h2, h2 | 0 | `permessage-deflate` | all 3 as they must be |" in lines
    assert "| `http: [h1]` | echo 2 | – | 3 | – | it stalled |" in lines
    assert "| Net 1 | 1 | failed with 1006 | refusal h2 505 |" in lines
    assert "| a browser | it is not installed |" in lines
    assert report.faults == ["Net 1, h1, echo 2: it stalled"]
