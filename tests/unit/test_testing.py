"""The test kit, as far as it needs no gateway."""

import io
import threading

import httpx
import pytest
import yaml
from websockets.sync.client import connect, unix_connect

from tidegate.testing import EchoUpstream, GatewayError, Metrics, Records, _complete


def test_records_are_found_by_their_fields() -> None:
    records = Records()
    records.read(io.StringIO('{"event": "open", "route": "a"}\nnot json\n{"event": "close", "route": "a"}\n'))
    assert [record["event"] for record in records] == ["open", "text", "close"]
    assert records.wait_for(event="close")["route"] == "a"
    assert len(records.matching(route="a")) == 2


def test_a_record_that_comes_later_is_waited_for() -> None:
    records = Records()
    records.add({"event": "open", "number": 1})
    later = threading.Timer(0.05, records.add, [{"event": "open", "number": 2}])
    later.start()
    assert records.wait_for(lambda record: record["number"] > 1, event="open")["number"] == 2
    assert records.wait_for(event="open", after=1)["number"] == 2
    later.join()


def test_waiting_ends_when_no_more_can_come() -> None:
    records = Records()
    records.read(io.StringIO('{"event": "open"}\n'))
    with pytest.raises(GatewayError, match='"event": "open"'):
        records.wait_for(event="close")


def test_waiting_has_a_limit() -> None:
    with pytest.raises(GatewayError):
        Records().wait_for(timeout=0.01)


def test_metrics_are_summed_over_labels() -> None:
    metrics = Metrics.parse('# TYPE x counter\nx_total{a="1",b="q\\"{}, "} 2\nx_total{a="2",b="z"} 3.5\ny 4\nz +Inf\n')
    assert metrics.value("x_total") == 5.5
    assert metrics.value("x_total", a="2") == 3.5
    assert (metrics.value("y"), metrics.value("nothing")) == (4, 0)


def test_a_configuration_is_completed_at_its_end() -> None:
    text = _complete("listeners: {}\naccess_log: off\n")
    assert text.startswith("listeners: {}\naccess_log: off\n")
    assert yaml.safe_load(text) == {"listeners": {}, "access_log": False, "admin": {"bind": "127.0.0.1:0"}}
    assert yaml.safe_load(_complete({"listeners": {}}))["access_log"] == {"path": "stdout", "format": "json"}


def test_the_echo_upstream() -> None:
    with EchoUpstream() as upstream:
        with connect(upstream.url.replace("http", "ws") + "/a%2Fb?x=1", subprotocols=["v2", "v1"]) as socket:  # type: ignore[list-item]
            assert socket.subprotocol == "v2"
            for message in ("hello", b"\x00\x01", "x" * 100_000):
                socket.send(message)
                assert socket.recv() == message
        answer = httpx.post(upstream.url + "/path?q=1", content="body", headers={"x-test": "yes"}).json()
        assert (answer["method"], answer["path"], answer["query"], answer["body"]) == ("POST", "/path", "q=1", "body")
        assert answer["headers"]["x-test"] == "yes"
        assert upstream.requests.wait_for(type="websocket")["path"] == "/a%2Fb"


def test_the_echo_upstream_on_a_unix_socket(tmp_path: object) -> None:
    with EchoUpstream(f"unix:{tmp_path}/echo.sock") as upstream:
        assert upstream.url == f"unix:{tmp_path}/echo.sock"
        with unix_connect(upstream.url.removeprefix("unix:"), "ws://localhost/") as socket:
            socket.send("hello")
            assert socket.recv() == "hello"
