"""Suggestions, and one error for one mistake."""

from pathlib import Path

import pytest

from tidegate.config import load
from tidegate.errors import ConfigError


def hints(directory: Path, route: str) -> list[str]:
    path = directory / "gateway.yaml"
    path.write_text(
        "listeners: {web: {bind: 127.0.0.1:80}}\n"
        "upstreams: {app: {endpoints: ['http://127.0.0.1:9000']}}\n"
        f"routes:\n  - {route}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load(path)
    return [problem.text for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("route", "text"),
    [
        ("{to: app, mtach: {}}", "unknown key 'mtach'; did you mean 'match'?"),
        ("{to: app, ping: never}", "unknown key 'ping'; it belongs under 'websocket'"),
        ("{to: app, match: {to: app}}", "unknown key 'to'; it belongs one level up, beside 'match'"),
        (
            "{to: app, timeouts: {xyz: 1s}}",
            "unknown key 'xyz'; expected handshake or request",
        ),
        ("{ot: app}", "unknown key 'ot'; did you mean 'to'?"),
        ("{redirct: {to: /}}", "unknown key 'redirct'; did you mean 'redirect'?"),
        ("{redirect: {ot: /}}", "unknown key 'ot'; did you mean 'to'?"),
        (
            "{to: app, match: {path: {exact: /a, prefix: /b}}}",
            "expected exactly one of exact, prefix, starts_with, regex, found 'exact' and 'prefix'",
        ),
        ("{to: app, match: {path: {}}}", "expected exactly one of exact, prefix, starts_with, regex, found none"),
        ("{to: app, match: {headers: {a: {not: {prefx: x}}}}}", "unknown key 'prefx'; did you mean 'prefix'?"),
        ("{to: app, websocket: {ping: nevr}}", "expected never or a mapping, found 'nevr'; did you mean 'never'?"),
        ("{to: app, host: {st: x}}", "unknown key 'st'; did you mean 'set'?"),
        ("{to: app, host: [a]}", "expected preserve, upstream or a mapping, found a list"),
        ("{respond: {status: true}}", "expected a whole number, found true"),
        ("{to: [app]}", "expected an upstream's name or a mapping of names to weights, found a list"),
        ("{to: {}}", "expected an upstream's name or a mapping of names to weights, found a mapping"),
        ("{to: app, websocket: {deflate: false}}", "expected pass or off, found false"),
        ("{to: app, on_change: kep}", "expected keep or drain, found 'kep'; did you mean 'keep'?"),
        ("{to: ${NONE}}", "the environment variable NONE is not set"),
    ],
)
def test_one_mistake_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, route: str, text: str) -> None:
    monkeypatch.delenv("NONE", raising=False)
    if "${" in route:
        route = route.replace("${NONE}", "'${NONE}'")
    assert hints(tmp_path, route) == [text]


def test_mistakes_beside_each_other_are_all_told(tmp_path: Path) -> None:
    route = "{to: app, match: {host: [a.b, 'x:1'], method: get}, timeouts: {request: 5}, websocket: {frames: any}}"
    assert len(hints(tmp_path, route)) == 4
