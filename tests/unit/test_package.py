"""What the package promises."""

import subprocess
import sys
import tomllib
from pathlib import Path

import tidegate

ROOT = Path(__file__).parents[2]


def test_the_version_is_everywhere_the_same() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    workspace = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]
    assert project["version"] == workspace["package"]["version"] == tidegate.__version__


def test_public_names() -> None:
    assert tidegate.__all__ == ["__version__"]


def test_importing_the_package_loads_nothing_else() -> None:
    code = "import sys, tidegate; print([name for name in sys.modules if name.startswith('tidegate.')])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_it_is_typed() -> None:
    assert (Path(tidegate.__file__).parent / "py.typed").exists()
