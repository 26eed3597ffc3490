"""Durations, sizes and rates."""

import pytest

from tidegate.config.units import Rate, UnitError, duration, rate, show_duration, show_rate, show_size, size


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("0s", 0),
        ("250ms", 250),
        ("10s", 10_000),
        ("5m", 300_000),
        ("1h", 3_600_000),
        ("1h30m", 5_400_000),
        ("1d2h3m4s5ms", 93_784_005),
        ("90m", 5_400_000),
    ],
)
def test_durations(text: str, milliseconds: int) -> None:
    assert duration(text) == milliseconds
    assert duration(show_duration(milliseconds)) == milliseconds


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (10, "did you mean '10s'?"),
        ("10", "did you mean '10s'?"),
        ("2 s", "did you mean '2s'?"),
        ("5M", "did you mean '5m'?"),
        ("", "expected a duration"),
        ("-1s", "expected a duration"),
        ("1.5h", "expected a duration"),
        ("30m1h", "larger units come first"),
        ("1s1s", "larger units come first"),
        ("101d999999d", "larger units come first"),
        ("999999d", "expected a shorter duration"),
        (True, "expected a duration"),
        (None, "expected a duration"),
        (["1s"], "expected a duration"),
        ("１s", "expected a duration"),
    ],
)
def test_what_is_no_duration(value: object, hint: str) -> None:
    with pytest.raises(UnitError) as caught:
        duration(value)
    assert hint in caught.value.hint


def test_a_truth_value_gets_no_suggestion() -> None:
    with pytest.raises(UnitError) as caught:
        duration(True)
    assert str(caught.value) == "true is not a duration"
    assert "did you mean" not in caught.value.hint


@pytest.mark.parametrize(
    ("value", "count"),
    [(0, 0), (512, 512), ("512", 512), ("512B", 512), ("64KiB", 65_536), ("1MiB", 1 << 20), ("2GiB", 2 << 30)],
)
def test_sizes(value: object, count: int) -> None:
    assert size(value) == count
    assert size(show_size(count)) == count


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("64k", "did you mean '64KiB'?"),
        ("64 KB", "did you mean '64KiB'?"),
        ("1M", "did you mean '1MiB'?"),
        ("1.5MiB", "expected a size"),
        (-1, "expected a size"),
        (1.5, "expected a size"),
        (True, "expected a size"),
        ("lots", "expected a size"),
    ],
)
def test_what_is_no_size(value: object, hint: str) -> None:
    with pytest.raises(UnitError) as caught:
        size(value)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("milliseconds", "text"), [(0, "0s"), (75_000, "75s"), (60_000, "1m"), (1_500, "1500ms"), (86_400_000, "1d")]
)
def test_the_spelling_of_durations(milliseconds: int, text: str) -> None:
    assert show_duration(milliseconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0"), (1000, "1000"), (65_536, "64KiB"), (1 << 30, "1GiB")])
def test_the_spelling_of_sizes(count: int, text: str) -> None:
    assert show_size(count) == text


@pytest.mark.parametrize(
    ("text", "meant"),
    [("100/s", Rate(100, 1_000)), ("600/m", Rate(600, 60_000)), ("1/h", Rate(1, 3_600_000))],
)
def test_rates(text: str, meant: Rate) -> None:
    assert rate(text) == meant
    assert show_rate(meant) == text


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (100, "did you mean '100/s'?"),
        ("100", "did you mean '100/s'?"),
        ("0/s", "expected a rate"),
        ("100/d", "expected a rate"),
        ("1.5/s", "expected a rate"),
        ("100 / s", "expected a rate"),
        (True, "expected a rate"),
        (None, "expected a rate"),
    ],
)
def test_what_is_no_rate(value: object, hint: str) -> None:
    with pytest.raises(UnitError) as caught:
        rate(value)
    assert hint in caught.value.hint


def test_a_truth_value_is_no_rate_and_gets_no_suggestion() -> None:
    with pytest.raises(UnitError) as caught:
        rate(True)
    assert "did you mean" not in caught.value.hint
