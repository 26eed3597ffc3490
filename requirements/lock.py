"""Writes run.txt and dev.txt beside this file: every package that Tidegate needs, pinned, as pip resolves it today.

`run.txt` is what `make run` installs: the dependencies and the builder. `dev.txt` is that and the tools of the tests.
"""

import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

HERE = Path(__file__).parent
HEADER = "# Made by `make lock` from pyproject.toml. Do not edit.\n"


def main() -> None:
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    tools = project["optional-dependencies"]["dev"]
    builder = [tool for tool in tools if tool.startswith("maturin")]
    run = resolve(project["dependencies"] + builder)
    write("run.txt", run)
    write("dev.txt", resolve([*run, *tools]))


def resolve(wanted: list[str]) -> list[str]:
    """Everything that pip installs for `wanted` in an empty environment, as `name==version`."""
    with tempfile.TemporaryDirectory() as directory:
        venv.create(directory, with_pip=True)
        pip = [f"{directory}/bin/python", "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--quiet", *wanted], check=True)
        return subprocess.run([*pip, "freeze"], check=True, text=True, stdout=subprocess.PIPE).stdout.split()


def write(name: str, pins: list[str]) -> None:
    (HERE / name).write_text(HEADER + "".join(f"{pin}\n" for pin in sorted(pins, key=str.lower)))
    print(f"{name}: {len(pins)} packages", file=sys.stderr)


if __name__ == "__main__":
    main()
