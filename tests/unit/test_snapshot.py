"""A Config becomes what the engine reads, and the engine's pointers become places again."""

import json
from pathlib import Path

import pytest

from tidegate.config import load
from tidegate.snapshot import Snapshot, compile

FILE = """\
listeners:
  web:
    bind: ["127.0.0.1:8080", "unix:/run/web.sock"]
    tls:
      certificates: [{cert: site.pem, key: site.key}]
      by_name:
        Admin.example.com: {client_ca: ca.pem}
routes:
  - match:
      host: [a.example.com, b.example.com]
      path: {regex: "/(.*"}
      headers: {x-a: {regex: "["}}
      query: {q: "1"}
    rewrite: {regex: "^/", to: "/$2"}
    host: {set: "{oops}"}
    headers: {request: {set: {x-b: "{nope}"}, remove: [x-c]}, response: {add: {x-d: d}}}
    to: {app: 1, far: 2}
  - match: {path: {prefix: /x}}
    redirect: {to: "{what}"}
    headers: {response: {set: {x-e: e}}}
  - match: {path: {prefix: /y}}
    respond: {body: hello}
upstreams:
  app: {endpoints: ["http://127.0.0.1:9000", "http://app.internal"]}
  far: {endpoints: ["unix:/run/far.sock"]}
access_log: {path: /var/log/tidegate.log}
"""


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Snapshot:
    monkeypatch.chdir(tmp_path)
    for name, label in (("site.pem", "CERTIFICATE"), ("site.key", "PRIVATE KEY"), ("ca.pem", "CERTIFICATE")):
        Path(name).write_text(f"-----BEGIN {label}-----\n-----END {label}-----\n")
    Path("gateway.yaml").write_text(FILE)
    return compile(load("gateway.yaml"))


@pytest.mark.parametrize(
    ("pointer", "place"),
    [
        ("", "gateway.yaml"),
        ("/format", "gateway.yaml"),
        ("/listeners/0", "gateway.yaml:3:5"),
        ("/listeners/0/binds/1", "gateway.yaml:3:30"),
        ("/listeners/0/tls", "gateway.yaml:5:7"),
        ("/listeners/0/tls/certificates/0", "gateway.yaml:5:22"),
        ("/listeners/0/tls/certificates/0/key", "gateway.yaml:5:44"),
        ("/listeners/0/tls/rule/client_ca", "gateway.yaml:4:5"),
        ("/listeners/0/tls/by_name/0/0", "gateway.yaml:7:28"),
        ("/listeners/0/tls/by_name/0/1/client_ca", "gateway.yaml:7:40"),
        ("/routes/0", "gateway.yaml:9:5"),
        ("/routes/0/match/hosts/1/exact", "gateway.yaml:10:29"),
        ("/routes/0/match/path/regex", "gateway.yaml:11:21"),
        ("/routes/0/match/path", "gateway.yaml:11:21"),
        ("/routes/0/match/headers/0/test/regex", "gateway.yaml:12:22"),
        ("/routes/0/match/query/0", "gateway.yaml:13:18"),
        ("/routes/0/action/forward/rewrite/regex/pattern", "gateway.yaml:14:22"),
        ("/routes/0/action/forward/rewrite/regex/to", "gateway.yaml:14:32"),
        ("/routes/0/action/forward/host/set", "gateway.yaml:15:17"),
        ("/routes/0/action/forward/request_headers/set/0/1", "gateway.yaml:16:36"),
        ("/routes/0/action/forward/request_headers/remove/0", "gateway.yaml:16:56"),
        ("/routes/0/action/forward/response_headers/add/0", "gateway.yaml:16:85"),
        ("/routes/0/action/forward/to/1", "gateway.yaml:17:23"),
        ("/routes/1/action/redirect/to", "gateway.yaml:19:20"),
        ("/routes/1/action/redirect/headers/set/0/1", "gateway.yaml:20:37"),
        ("/routes/2/action/respond/fixed/headers/set/0", "gateway.yaml:22:14"),
        ("/upstreams/0/endpoints/1/target", "gateway.yaml:24:46"),
        ("/access_log/path", "gateway.yaml:26:20"),
        ("/websockets/0", "gateway.yaml"),
    ],
)
def test_pointers_lead_to_lines(snapshot: Snapshot, pointer: str, place: str) -> None:
    assert str(snapshot.problem(pointer, "wrong").place) == place


def test_every_noted_pointer_is_in_the_snapshot(snapshot: Snapshot) -> None:
    for pointer in snapshot.places:
        value = snapshot.data
        for step in pointer.split("/")[1:]:
            if isinstance(value, dict) and step not in value:
                assert pointer.endswith(("/rewrite/regex", "/rewrite/regex/to", "/client_ca")), pointer
                break
            value = value[int(step)] if isinstance(value, list) else value[step]
            if not isinstance(value, dict | list):
                break


def test_a_problem_names_the_key(snapshot: Snapshot) -> None:
    problem = snapshot.problem("/routes/0/match/headers/0/test/regex", "is no regular expression")
    assert str(problem) == "gateway.yaml:12:22: routes[0].match.headers.x-a: is no regular expression"


def test_secrets_travel_beside_it(snapshot: Snapshot) -> None:
    text = json.dumps(snapshot.data)
    assert "-----BEGIN" not in text
    assert len(snapshot.secrets) == 3
    assert all(name in text for name in snapshot.secrets)
    assert snapshot.secrets[snapshot.data["listeners"][0]["tls"]["certificates"][0]["key"]].startswith(
        b"-----BEGIN PRIVATE"
    )


def test_compiling_is_pure(snapshot: Snapshot) -> None:
    config = load("gateway.yaml")
    assert json.dumps(compile(config).data) == json.dumps(compile(config).data) == json.dumps(snapshot.data)


def test_ties_are_warned_about_once_at_the_later_route(snapshot: Snapshot) -> None:
    order = [
        {"route": 2, "listener": 0, "host": "any", "ties": [1]},
        {"route": 1, "listener": 0, "host": "any", "ties": [2]},
        {"route": 0, "listener": 0, "host": "any", "ties": []},
    ]
    [problem] = snapshot.ties(order)
    assert str(problem).startswith("gateway.yaml:21:5: warning: routes[2]: ties with the route '*/x' (line 18)")
