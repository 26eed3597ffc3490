"""The documentation says what the product does.

Configurations in it load, links in it lead somewhere, its tables have each reason, cause, metric, log field and admin
endpoint of the source, and no other, and each behaviour that it lists has a test.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from tidegate.admin.app import Control, admin_app
from tidegate.cli import COMMANDS
from tidegate.gateway import check_file
from tidegate.telemetry import HELP

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("examples/*.md"), *ROOT.glob("bench/*.md")])
RUST = ROOT / "rust" / "engine" / "src"
PYTHON = ROOT / "python" / "tidegate"
PEM = ROOT / "tests" / "golden" / "pem"

_FENCE = re.compile(r"^```(\S*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def source(root: Path, ending: str) -> str:
    """Everything below `root` without Rust's tests, which have names of their own."""
    return "\n".join(text_of(file).split("\n#[cfg(test)]\n")[0] for file in sorted(root.rglob(f"*{ending}")))


# ---- configurations -------------------------------------------------------------------------------------------------


def blocks() -> Iterator[tuple[str, bool, str]]:
    """Where each YAML block stands, whether it is said to be complete, and what it says."""
    for page in PAGES:
        text = text_of(page)
        for block in _FENCE.finditer(text):
            if block[1] == "yaml":
                line = text.count("\n", 0, block.start()) + 1
                yield f"{page.relative_to(ROOT)}:{line}", block[2].strip() == "complete", block[3]


BLOCKS = list(blocks())


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the files are that configurations name."""
    for file in PEM.iterdir():
        if file.suffix in (".pem", ".key", ".token"):
            shutil.copy(file, tmp_path)
    return tmp_path


def completed(part: str) -> str:
    """A part of a configuration, with what it needs around it."""
    values: dict[str, Any] = yaml.load(part, yaml.BaseLoader)  # every scalar a text: nothing is lost
    targets = [route["to"] for route in values.get("routes", []) if "to" in route]
    used = {name for target in targets for name in ([target] if isinstance(target, str) else target)}
    missing = used - values.get("upstreams", {}).keys()
    if "listeners" not in values:
        part += "listeners: {edge: {bind: 127.0.0.1:8080}}\n"
    if missing:
        assert "upstreams" not in values, "name all upstreams or none"
        endpoints = '{endpoints: ["http://127.0.0.1:9000"]}'
        part += "upstreams: {" + ", ".join(f"{name}: {endpoints}" for name in sorted(missing)) + "}\n"
    return part


def test_there_are_configurations() -> None:
    assert sum(is_complete for _, is_complete, _ in BLOCKS) >= 10
    assert any(where.startswith("README.md") for where, _, _ in BLOCKS)


@pytest.mark.parametrize(("is_complete", "text"), [block[1:] for block in BLOCKS], ids=[block[0] for block in BLOCKS])
def test_configurations_load(is_complete: bool, text: str, directory: Path) -> None:
    file = directory / "tidegate.yaml"
    file.write_text(text if is_complete else completed(text))
    warnings = check_file(file).warnings
    assert warnings == () or not is_complete


# ---- links ----------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The names of headings as GitHub makes them, and those that are written out."""
    text = _FENCE.sub("", text_of(page))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)">', text))


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in _LINK.findall(_FENCE.sub("", text_of(page))):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        linked = (page.parent / path).resolve() if path else page
        if not linked.exists() or (anchor and anchor not in anchors(linked)):
            broken.append(target)
    assert broken == []


def test_the_index_has_every_page() -> None:
    linked = {target.partition("#")[0] for target in _LINK.findall(text_of(DOCS / "index.md"))}
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} - {"index.md"}
    assert pages <= linked


# ---- tables ---------------------------------------------------------------------------------------------------------


def section(page: str, heading: str) -> str:
    """What stands under a heading, up to the next one of its level."""
    return re.split(rf"^{heading}$", text_of(DOCS / page), flags=re.MULTILINE)[1].split("\n## ")[0]


def rows(text: str) -> list[str]:
    """The names in the first column of the tables in `text`."""
    cells = re.findall(r"^\| ([^|]*`[^|]*) \|", text, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def reasons_in_source() -> dict[str, int]:
    text = source(RUST, ".rs")
    patterns = (
        r'Refusal::new\(\s*(\d{3}),\s*"(\w+)"',
        r'Refusal \{\s*status: (\d{3}),\s*reason: "(\w+)"',
        r'^    [A-Z_]+: (\d{3}), "(\w+)", "',
    )
    return {reason: int(status) for pattern in patterns for status, reason in re.findall(pattern, text, re.MULTILINE)}


def test_reasons() -> None:
    documented = re.findall(r'^\| <a id="(\w+)"></a>`(\w+)` \| (\d{3}) \|', text_of(DOCS / "reasons.md"), re.MULTILINE)
    assert all(anchor == reason for anchor, reason, _ in documented)
    assert {reason: int(status) for _, reason, status in documented} == reasons_in_source()
    assert len(documented) == len({reason for _, reason, _ in documented})


def test_answers_point_to_the_reasons() -> None:
    assert re.search(r'const DOCS: &str = "docs/reasons\.md#";', text_of(RUST / "server" / "answer.rs"))


def test_behaviours() -> None:
    rows = re.findall(r"^\| (?!behaviour|-)(.+?) \|.*\| (.+) \|$", text_of(DOCS / "behaviours.md"), re.MULTILINE)
    assert len(rows) > 60 and len({name for name, _ in rows}) == len(rows)
    for name, test in rows:
        named = re.fullmatch(r"`(test_\w+\.py)::(test_\w+)`", test)
        assert named, f"{name}: {test} is no test"
        file = ROOT / "tests" / "e2e" / named[1]
        assert file.exists() and re.search(rf"^(async )?def {named[2]}\(", text_of(file), re.MULTILINE), test


def test_causes() -> None:
    causes = re.findall(r'Self::\w+ => "(\w+)",', text_of(RUST / "error.rs"))
    assert len(causes) > 10
    assert sorted(rows(section("websockets.md", "## How it ends"))) == sorted(causes)


def test_metrics() -> None:
    named = r'"(tidegate_[a-z0-9_]+)"'
    counted = set(re.findall(named, source(RUST, ".rs")))
    own = set(re.findall(rf"_?registry\.(?:count|gauge)\(\s*{named}", source(PYTHON, ".py")))
    assert set(HELP) == counted | own
    assert sorted(rows(section("observability.md", "## Metrics").split("\n`process_")[0])) == sorted(HELP)


def test_log_fields() -> None:
    text = source(RUST / "log", "record.rs") + source(RUST / "log", "kind.rs")
    named = set(re.findall(r'\(out, "(\w+)"', text))
    traffic = set(re.findall(r'"(\w+)"', "".join(re.findall(r'\(out, \[((?:"\w+",? ?)+)\]\)', text))))
    assert len(traffic) == 6
    fields = section("observability.md", "## Access log").split("| field | in | is |")[1]
    assert set(rows(fields)) - {"time"} == named | traffic


def test_admin_endpoints() -> None:
    starlette: Any = admin_app(cast(Control, None), None)._app  # nothing is asked of it
    routes = starlette.routes
    offered = {f"{'POST' if 'POST' in route.methods else 'GET'} {route.path}" for route in routes}
    page = text_of(DOCS / "admin.md")
    assert set(rows(page.split("## Who may ask")[0])) >= offered
    assert set(re.findall(r"^\| `((?:GET|POST) [^`]+)`", page, re.MULTILINE)) == offered
    errors = dict(re.findall(r"^\| `(\w+)` \| (\d{3}) \|", page, re.MULTILINE))
    refused = re.findall(r'_refuse\((\d+), "(\w+)"', text_of(PYTHON / "admin" / "guard.py"))
    assert errors == {error: status for status, error in refused}


def test_events() -> None:
    python = re.findall(r'event\(\s*\w+, logging\.\w+, "(\w+)"', source(PYTHON, ".py"))
    rust = re.findall(r'(?:\.say\(\s*|Event::new\(\s*)(?:\w+::)*Level::\w+,\s*"(\w+)"', source(RUST, ".rs"))
    said = set(rows(section("observability.md", "## Log")))
    assert said == {*python, *rust, "ready", "reloaded"}  # the last two are named by a variable


def test_commands() -> None:
    page = text_of(DOCS / "quick-start.md")
    assert re.findall(r"^\| `tidegate (\w+)", page, re.MULTILINE) == list(COMMANDS)
