"""From a file to a Config."""

from pathlib import Path

import pytest

from tidegate.config import Config, load
from tidegate.config.config import Forward, Pem
from tidegate.errors import ConfigError, Problem

BASE = """\
listeners: {web: {bind: 127.0.0.1:8080}}
upstreams: {app: {endpoints: ["http://127.0.0.1:9000"]}}
"""


def config(directory: Path, text: str) -> Config:
    path = directory / "gateway.yaml"
    path.write_text(text)
    return load(path)


def problems(directory: Path, text: str) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        config(directory, text)
    return list(caught.value.problems)


def test_defaults(tmp_path: Path) -> None:
    found = config(tmp_path, BASE + "routes: [{to: app}]")
    [listener], [route], [upstream] = found.listeners, found.routes, found.upstreams
    websocket = route.listeners[0].websocket
    assert (listener.timeouts.head, listener.timeouts.keep_alive, listener.timeouts.tls) == (10_000, 75_000, 10_000)
    assert (listener.limits.connections, listener.limits.headers) == (None, 32_768)
    assert websocket.enabled and websocket.frames == "strict" and websocket.deflate == "pass"
    assert websocket.ping is not None and (websocket.ping.every, websocket.ping.timeout) == (25_000, 10_000)
    assert (websocket.idle_after, websocket.max_lifetime, websocket.max_message) == (None, None, None)
    assert (websocket.on_client_lost, websocket.close_timeout) == (None, 2_000)
    assert isinstance(route.action, Forward)
    assert (route.action.timeouts.handshake, route.action.timeouts.request) == (10_000, 60_000)
    assert (upstream.balance, upstream.connect_timeout, upstream.pool.idle) == ("least_connections", 5_000, 64)
    assert found.admin is not None and str(found.admin.bind) == "127.0.0.1:9900" and found.admin.token is None
    assert found.access_log is not None and (found.access_log.path, found.access_log.format) == ("stdout", "json")
    assert (found.drain.delay, found.drain.window, found.drain.timeout) == (0, 15_000, 25_000)
    assert found.workers is None
    assert found.warnings == ()


def test_every_file_that_was_read_is_known(tmp_path: Path) -> None:
    for name, label in (("a.pem", "CERTIFICATE"), ("a.key", "PRIVATE KEY"), ("ca.pem", "CERTIFICATE")):
        (tmp_path / name).write_text(f"-----BEGIN {label}-----\n-----END {label}-----\n")
    (tmp_path / "token").write_text("0123456789abcdef\n")
    found = config(
        tmp_path,
        """
listeners:
  edge:
    bind: 127.0.0.1:8443
    tls: {certificates: [{cert: a.pem, key: a.key}], client_ca: ca.pem}
routes: [{respond: echo}]
admin: {token: "${file:token}"}
""",
    )
    assert [path.relative_to(tmp_path).name for path in found.files] == [
        "gateway.yaml",
        "token",
        "a.pem",
        "a.key",
        "ca.pem",
    ]
    [listener] = found.listeners
    assert listener.tls is not None and listener.tls.rule.client_auth == "require"


def test_a_changed_certificate_is_another_one() -> None:
    assert Pem("a.pem", b"one").id != Pem("a.pem", b"two").id
    assert "secret" not in repr(Pem("a.key", b"secret"))


def test_the_access_log_is_beside_the_configuration(tmp_path: Path) -> None:
    found = config(tmp_path, BASE + "routes: [{to: app}]\naccess_log: {path: logs/access.log}")
    assert found.access_log is not None
    assert found.access_log.path == str(tmp_path / "logs/access.log")


def test_all_errors_come_at_once_and_in_order(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        """\
drain: {delay: 5}
upstreams: {app: {endpoints: ["127.0.0.1:9000"]}}
routes:
  - {to: ap, name: ""}
  - {match: {hots: a}, to: app}
listeners: {web: {bind: 80}}
""",
    )
    assert [problem.place.line for problem in found] == [1, 2, 4, 4, 5, 6]


def test_a_broken_upstream_is_no_unknown_one(tmp_path: Path) -> None:
    [problem] = problems(
        tmp_path, "listeners: {web: {bind: 127.0.0.1:80}}\nupstreams: {app: {endpoint: x}}\nroutes: [{to: app}]"
    )
    assert problem.key == "upstreams.app.endpoint"


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("listeners: {}", "listeners", "there is no listener"),
        ("routes: []", "listeners", "there is no listener"),
        ("listeners: {web: {}}", "listeners.web", "the key 'bind' is missing"),
        ("listeners: {web: 5}", "listeners.web", "expected a mapping, found 5"),
        ("listeners: {'a b': {bind: 127.0.0.1:80}}", 'listeners["a b"]', "is not a name for a listener"),
        (BASE + "admin: {token: ''}", "admin.token", "the token is empty"),
        (BASE + "admin: {bind: '[::]:9900'}", "admin.bind", "there is no token"),
        (BASE + "admin: {bind: 127.0.0.1:8080}", "admin.bind", "cannot be bound beside"),
        (BASE + "workers: many", "workers", "expected 'auto' or a number from 1 to 1024"),
        (BASE + "workers: 1025", "workers", "expected 'auto' or a number from 1 to 1024"),
        (BASE + "extra: {}", "extra", "unknown key 'extra'"),
        (BASE + "cluster: {}", "cluster", "'cluster' is not supported yet"),
    ],
)
def test_errors(tmp_path: Path, text: str, key: str, words: str) -> None:
    [problem] = problems(tmp_path, text)
    assert problem.key == key
    assert words in problem.text


@pytest.mark.parametrize(("written", "workers"), [("auto", None), ("4", 4), ("'4'", 4), ("1024", 1024)])
def test_workers(tmp_path: Path, written: str, workers: int | None) -> None:
    assert config(tmp_path, BASE + f"workers: {written}\nroutes: [{{to: app}}]").workers == workers


def test_values_from_outside_may_be_numbers_and_truth_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIGHT", "3")
    monkeypatch.setenv("FLAG", "true")
    monkeypatch.setenv("TOKEN", "12345678901234567890")
    text = BASE + "routes: [{to: {app: '${WEIGHT}'}, fall_through: '${FLAG}'}]\nadmin: {token: '${TOKEN}'}"
    found = config(tmp_path, text)
    [route] = found.routes
    assert isinstance(route.action, Forward) and route.action.to == (("app", 3),)
    assert route.fall_through is True
    assert found.admin is not None and found.admin.token == "12345678901234567890"


def test_a_file_can_be_reached_by_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gateway.yaml").write_text(BASE + "routes: [{to: app}]")
    monkeypatch.chdir(tmp_path)
    assert load("gateway.yaml").place(("routes", 0)).file == "gateway.yaml"
