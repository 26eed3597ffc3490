"""What the benchmark's report says of gateways that cannot do a kind of work."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "bench"))

import choices
import report
from gateways import GATEWAYS
from work import WORKS

SETTING = {
    "command": "bench/run.py",
    "date": "today",
    "rounds": 2,
    "seconds": 1.0,
    "machine": {},
    "versions": {},
    "missing": [],
    "idle_connections": 10,
}
ECHO = next(work for work in WORKS if work.name == "h2-echo128")
ENVOY, HAPROXY, TIDEGATE = (
    next(gateway for gateway in GATEWAYS if gateway.name == name) for name in ("envoy", "haproxy", "tidegate")
)


def figures(microseconds: float) -> dict[str, float]:
    return {"operations": 10, "throughput": 5, "p50_us": 1, "p99_us": 2, "cpu_us": microseconds}


def test_a_known_inability_is_told_and_is_no_failure() -> None:
    results = report.Results(SETTING)
    results.fail(1, ECHO, ENVOY, "not the answer expected\nstatus 503", ENVOY.speaks[ECHO.face].fails)
    for microseconds in (20.0, 30.0):
        results.add(ECHO, TIDEGATE, figures(microseconds))
    results.add(ECHO, HAPROXY, figures(50.0))
    text = report.as_markdown(results)
    assert results.is_unable(ECHO, ENVOY)
    assert not results.is_unable(ECHO, HAPROXY)
    assert not results.failures
    assert "| Envoy | fails |" in text
    assert "without a key" in text
    assert "| h2-echo128 | ≤ 1.00 × best peer | 0.50 | yes |" in text


def test_anything_else_that_goes_wrong_is_a_failure() -> None:
    results = report.Results(SETTING)
    results.fail(2, ECHO, HAPROXY, "it does not answer", "")
    assert results.failures == ["round 2, h2-echo128, haproxy: it does not answer"]
    assert not results.is_unable(ECHO, HAPROXY)


def test_every_gateway_has_the_templates_that_it_names() -> None:
    faces = {work.face for work in WORKS}
    for gateway in GATEWAYS:
        for face, spoken in gateway.speaks.items():
            assert face in faces, f"{gateway.name} speaks {face} and no work does"
            assert not spoken.template or (Path(report.__file__).parent / spoken.template).is_file()


def test_the_page_that_compares_ways_gets_its_table(tmp_path: Path) -> None:
    page = tmp_path / choices.PAGE
    page.write_text((Path(__file__).parents[3] / "docs" / choices.PAGE).read_text())
    text = page.read_text()
    results = report.Results(SETTING)
    results.add(next(work for work in WORKS if work.name == "tcp128"), TIDEGATE, figures(12.34))
    assert choices.write(results, tmp_path) == page
    assert "| TCP listener | 12.3 | – | – | 1 |" in page.read_text()
    assert page.read_text().partition(choices.BEGIN)[0] == text.partition(choices.BEGIN)[0]
    assert page.read_text().partition(choices.END)[2] == text.partition(choices.END)[2]
    assert choices.write(results, tmp_path / "elsewhere") is None
