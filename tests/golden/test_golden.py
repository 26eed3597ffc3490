"""A file in, a snapshot or the words of its errors out.

Each `NAME.yaml` here has beside it what must come of it: `NAME.snapshot.json`, with `NAME.warnings.txt` where there are
doubts, or `NAME.errors.txt`. After a change that is meant, `UPDATE_GOLDEN=1 pytest tests/golden` writes them anew; read
the difference before you commit it.
"""

import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidegate.config import load
from tidegate.config.document import Document, KeyPath
from tidegate.config.schema import nodes_at
from tidegate.errors import ConfigError, Problem
from tidegate.snapshot import compile

HERE = Path(__file__).parent
NAMES = sorted(path.stem for path in HERE.glob("*.yaml"))
GOOD = [name for name in NAMES if not name.startswith(("errors", "later"))]
ENVIRONMENT = {
    "GOLDEN_PORT": "8080",
    "GOLDEN_WEIGHT": "7",
    "GOLDEN_FLAG": "false",
    "GOLDEN_SIZE": "64KiB",
    "GOLDEN_HOST": "app.internal",
    "SSL_CERT_FILE": "pem/clients.pem",
}
needs_engine = pytest.mark.skipif(
    importlib.util.find_spec("tidegate._engine") is None, reason="the engine is not built here"
)


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HERE)
    monkeypatch.delenv("GOLDEN_MISSING", raising=False)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def outcome(name: str) -> dict[str, str]:
    """What comes of `name.yaml`: file endings and contents."""
    try:
        config = load(f"{name}.yaml")
    except ConfigError as error:
        return {"errors.txt": lines(error.problems)}
    snapshot = json.dumps(compile(config).data, indent=2, ensure_ascii=False) + "\n"
    return {"snapshot.json": snapshot} | ({"warnings.txt": lines(config.warnings)} if config.warnings else {})


def lines(problems: tuple[Problem, ...]) -> str:
    return "".join(f"{problem}\n" for problem in problems)


def expected(name: str) -> dict[str, str]:
    endings = ("snapshot.json", "warnings.txt", "errors.txt")
    return {
        ending: (HERE / f"{name}.{ending}").read_text() for ending in endings if (HERE / f"{name}.{ending}").exists()
    }


@pytest.mark.parametrize("name", NAMES)
def test_golden(name: str) -> None:
    found = outcome(name)
    if os.environ.get("UPDATE_GOLDEN"):
        for ending in expected(name):
            (HERE / f"{name}.{ending}").unlink()
        for ending, text in found.items():
            (HERE / f"{name}.{ending}").write_text(text)
    assert found == expected(name)


def test_nothing_is_left_over() -> None:
    results = {path.name.split(".")[0] for path in HERE.iterdir() if path.suffix in (".json", ".txt")}
    assert results == set(NAMES)


@pytest.mark.parametrize("name", GOOD)
def test_good_files_are_named_so(name: str) -> None:
    assert "snapshot.json" in outcome(name)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in GOOD])
def test_bad_files_are_named_so(name: str) -> None:
    assert "errors.txt" in outcome(name)


def test_the_design_sample_lacks_only_what_is_not_supported_yet() -> None:
    with pytest.raises(ConfigError) as caught:
        load("later-design.yaml")
    assert len(caught.value.problems) == 4
    assert all("is not supported yet" in problem.message for problem in caught.value.problems)


def written(value: object, path: KeyPath = ()) -> Iterator[KeyPath]:
    yield path
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, member in members:
        yield from written(member, (*path, step))


@pytest.mark.parametrize("name", GOOD)
def test_the_schema_knows_all_that_is_accepted(name: str) -> None:
    document = Document(name, HERE / f"{name}.yaml")
    assert [path for path in written(document.values) if not nodes_at(path)] == []


@needs_engine
@pytest.mark.parametrize("name", GOOD)
def test_the_engine_accepts_good_snapshots(name: str) -> None:
    from tidegate import _engine

    snapshot = compile(load(f"{name}.yaml"))
    assert _engine.check(json.dumps(snapshot.data), snapshot.secrets) == []


@needs_engine
@pytest.mark.parametrize("name", sorted(path.stem for path in (HERE / "engine").glob("*.yaml")))
def test_what_only_the_engine_can_tell(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tidegate import gateway

    monkeypatch.chdir(HERE / "engine")
    with pytest.raises(ConfigError) as caught:
        gateway.check_file(Path(f"{name}.yaml"))
    result = Path(f"{name}.errors.txt")
    if os.environ.get("UPDATE_GOLDEN"):
        result.write_text(lines(caught.value.problems))
    assert lines(caught.value.problems) == result.read_text()
