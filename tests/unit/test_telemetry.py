"""Log lines and metrics text."""

import io
import json
import logging
import threading

from tidegate.telemetry import (
    EventReader,
    Family,
    JsonFormatter,
    Registry,
    TextFormatter,
    configure_logging,
    event,
    process_families,
    render,
)


def counter(name: str, **labels: str) -> Family:
    return {"name": name, "kind": "counter", "samples": [{"labels": labels, "value": 3}]}


HISTOGRAM: Family = {
    "name": "tidegate_websocket_ping_seconds",
    "kind": "histogram",
    "samples": [{"labels": {"route": "a"}, "value": {"buckets": [(0.001, 1), (1, 2)], "sum": 2.5, "count": 3}}],
}


def test_prometheus_text() -> None:
    assert render([counter("x_total", route="a"), {"name": "g", "kind": "gauge", "samples": []}]) == (
        '# TYPE g gauge\n# TYPE x_total counter\nx_total{route="a"} 3\n'
    )


def test_openmetrics_names_a_counter_without_its_suffix_and_ends() -> None:
    assert render([counter("x_total")], openmetrics=True) == "# TYPE x counter\nx_total 3\n# EOF\n"


def test_a_histogram_ends_with_its_infinite_bucket() -> None:
    assert render([HISTOGRAM]).splitlines()[1:] == [
        "# TYPE tidegate_websocket_ping_seconds histogram",
        'tidegate_websocket_ping_seconds_bucket{route="a",le="0.001"} 1',
        'tidegate_websocket_ping_seconds_bucket{route="a",le="1.0"} 2',
        'tidegate_websocket_ping_seconds_bucket{route="a",le="+Inf"} 3',
        'tidegate_websocket_ping_seconds_sum{route="a"} 2.5',
        'tidegate_websocket_ping_seconds_count{route="a"} 3',
    ]


def test_label_values_are_escaped() -> None:
    text = render([counter("x_total", route='a"b\\c\nd')])
    assert 'x_total{route="a\\"b\\\\c\\nd"} 3' in text


def test_a_known_name_has_help() -> None:
    assert "# HELP tidegate_config_reloads_total Attempts" in render([counter("tidegate_config_reloads_total")])


def test_registry_counts_by_labels() -> None:
    registry = Registry()
    registry.count("reloads_total", result="success")
    registry.count("reloads_total", result="success")
    registry.count("reloads_total", result="failure")
    registry.gauge("generation", 7)
    assert render(registry.families()).splitlines() == [
        "# TYPE generation gauge",
        "generation 7",
        "# TYPE reloads_total counter",
        'reloads_total{result="success"} 2',
        'reloads_total{result="failure"} 1',
    ]


def test_the_process_is_measured() -> None:
    values = {family["name"]: family["samples"][0]["value"] for family in process_families()}
    assert values["process_resident_memory_bytes"] > 1_000_000  # type: ignore[operator]
    assert 0 < values["process_open_fds"] < values["process_max_fds"]  # type: ignore[operator]


def record(message: str, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("tidegate.x", logging.WARNING, "file", 1, "%s", (message,), None)
    made.__dict__ |= {"event": "test", "fields": fields}
    return made


def test_json_lines_have_the_fields_and_keep_their_own_names() -> None:
    line = json.loads(JsonFormatter().format(record("it\nbroke", generation=2, level="forged")))
    assert line.pop("time").endswith("+00:00")
    assert line == {"level": "warning", "event": "test", "message": "it\nbroke", "generation": 2}


def test_text_cannot_forge_a_line() -> None:
    assert TextFormatter(colour=False).format(record("one\n12:00:00 error   two")).splitlines()[1].startswith("    ")


def test_without_a_terminal_the_log_is_json() -> None:
    stream = io.StringIO()
    configure_logging("info", stream=stream)
    event(logging.getLogger("tidegate.test"), logging.INFO, "hello", "Hello", name="x")
    event(logging.getLogger("tidegate.test"), logging.DEBUG, "quiet", "not shown")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["hello"]


class Talking:
    """An engine with something to tell."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.asked = threading.Event()

    def events(self, timeout: float) -> list[str]:
        taken, self.lines = self.lines, []
        self.asked.set()
        return taken


def test_engine_events_become_log_lines() -> None:
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    engine = Talking([json.dumps({"level": "warn", "event": "accept_paused", "message": "no files left", "open": 9})])
    reader = EventReader(engine)
    engine.asked.wait(5)
    engine.lines = [json.dumps({"level": "info", "event": "last", "message": "bye"})]
    reader.stop()
    first, last = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (first["level"], first["event"], first["message"], first["open"]) == (
        "warning",
        "accept_paused",
        "no files left",
        9,
    )
    assert (last["level"], last["event"]) == ("info", "last")
