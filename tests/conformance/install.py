"""Gets the Autobahn test suite, whose only releases are for Python 2.7, into a directory of its own.

Any Python 2.7 or PyPy of that language will do: the one that `PYTHON2` names, one on the path, one of pyenv's. Where
there is none, the packages of Debian's last release that had one are fetched by apt and unpacked beside the suite;
nothing is installed into the system. What the suite needs is pinned in requirements.txt.
"""

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Missing", "Suite", "installed"]

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".cache" / "conformance"
PINS = HERE / "requirements.txt"

# The last release of virtualenv that makes environments for Python 2.7.
VIRTUALENV = "virtualenv==20.21.1"

DEBIAN = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bullseye main\n"
# OpenSSL and libffi are those that its modules were linked with; the headers are for the suite's one C extension.
PACKAGES = (
    *("python2.7-minimal", "libpython2.7-minimal", "python2.7", "libpython2.7-stdlib", "libpython2.7-dev"),
    *("libssl1.1", "libffi7"),
)
TRIED = "import ssl, sys, zlib; sys.exit(sys.version_info[:2] != (2, 7))"


class Missing(Exception):
    """What could not be had; the text says what was tried."""


@dataclass(frozen=True, slots=True)
class Suite:
    """How to start the suite's programs."""

    python: Path
    environment: Mapping[str, str]

    @property
    def wstest(self) -> Path:
        return self.python.with_name("wstest")

    def cases(self) -> list[str]:
        """The ids of all of its cases, in its order."""
        program = (
            "import sys; from autobahntestsuite.case import Cases; "
            "print('\\n'.join('.'.join(each.__name__[4:].split('_')) for each in Cases))"
        )
        run = subprocess.run([self.python, "-c", program], env=self.environment, capture_output=True, text=True)
        if run.returncode:
            raise Missing(f"the Autobahn test suite does not start:\n{run.stderr}")
        return run.stdout.split()


def installed() -> Suite:
    """The suite, installed first if it is not there as pinned."""
    suite, stamp = Suite(CACHE / "suite" / "bin" / "python", surroundings()), CACHE / "installed.txt"
    if not (stamp.exists() and stamp.read_text() == PINS.read_text() and suite.wstest.exists()):
        CACHE.mkdir(parents=True, exist_ok=True)
        fill(suite, python27())
        stamp.write_text(PINS.read_text())
    return suite


def surroundings() -> dict[str, str]:
    """The environment; Debian's old Python finds its own libraries and headers there."""
    debian = CACHE / "debian" / "usr"
    if not debian.exists():
        return dict(os.environ)
    libraries, headers = [str(each) for each in debian.glob("lib/*-linux-gnu*")], debian / "include"
    return {
        **os.environ,
        "LD_LIBRARY_PATH": ":".join(libraries),
        "CPATH": f"{headers / 'python2.7'}:{headers}",
    }


def python27() -> Path:
    """A Python 2.7 with TLS."""
    for candidate in candidates():
        if works(candidate):
            say(f"Python 2.7: {candidate}")
            return candidate
    say("Python 2.7: none is installed; fetching Debian's")
    fetched = debian()
    if not works(fetched):
        raise Missing(f"{fetched}, unpacked from Debian's packages, does not start here. Set PYTHON2 to one that does.")
    return fetched


def candidates() -> Iterator[Path]:
    names = [os.environ.get("PYTHON2"), "python2.7", "pypy2.7", "python2", "pypy"]
    yield from (Path(found) for name in names if name and (found := shutil.which(name)))
    yield from sorted(Path.home().glob(".pyenv/versions/*2.7*/bin/python2.7"))
    yield CACHE / "debian" / "usr" / "bin" / "python2.7"


def works(python: Path) -> bool:
    if not python.exists():
        return False
    return subprocess.run([python, "-c", TRIED], env=surroundings(), capture_output=True).returncode == 0


def debian() -> Path:
    """Debian's packages, unpacked in the cache; apt keeps its lists there as well."""
    for tool in ("apt-get", "dpkg"):
        if not shutil.which(tool):
            raise Missing(f"no Python 2.7 here, and no {tool} to get Debian's with. Set PYTHON2 to one.")
    apt, root = CACHE / "apt", CACHE / "debian"
    for directory in ("state/lists/partial", "cache/archives/partial", "packages"):
        (apt / directory).mkdir(parents=True, exist_ok=True)
    (apt / "sources.list").write_text(DEBIAN)
    (apt / "state" / "status").touch()
    options = [
        *("-o", f"Dir::State={apt}/state", "-o", f"Dir::State::status={apt}/state/status"),
        *("-o", f"Dir::Cache={apt}/cache", "-o", "APT::Sandbox::User=root"),
        *("-o", f"Dir::Etc::sourcelist={apt}/sources.list", "-o", "Dir::Etc::sourceparts=/nonexistent"),
    ]
    step("Debian's list of packages", ["apt-get", *options, "-qq", "update"])
    step("Debian's Python 2.7", ["apt-get", *options, "-qq", "download", *PACKAGES], cwd=apt / "packages")
    for package in sorted((apt / "packages").glob("*.deb")):
        step(f"unpacking {package.name}", ["dpkg", "-x", str(package), str(root)])
    shutil.rmtree(apt)
    return root / "usr" / "bin" / "python2.7"


def fill(suite: Suite, python: Path) -> None:
    """The suite's environment, whole."""
    tool = CACHE / "virtualenv"
    venv.create(tool, with_pip=True, clear=True)
    pip = ["--quiet", "--disable-pip-version-check"]
    step(VIRTUALENV, [str(tool / "bin" / "python"), "-m", "pip", "install", *pip, VIRTUALENV])
    home = suite.python.parents[1]
    shutil.rmtree(home, ignore_errors=True)
    step("an environment", [str(tool / "bin" / "virtualenv"), "--quiet", "-p", str(python), str(home)])
    step("autobahntestsuite", [str(suite.python), "-m", "pip", "install", *pip, "--no-deps", "-r", str(PINS)])


def step(what: str, command: list[str], cwd: Path | None = None) -> None:
    say(f"installing: {what}")
    run = subprocess.run(
        command, cwd=cwd, env=surroundings(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if run.returncode:
        output = "\n".join(run.stdout.splitlines()[-15:])
        raise Missing(f"{what} could not be had: `{' '.join(command)}` ended with {run.returncode}:\n{output}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
