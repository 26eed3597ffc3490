"""`make browsers`: real browsers open WebSockets through the gateway to servers made with several libraries.

Ends with 0 when everything that could be run is as it must be, with 1 when something is not, and with 2 when there was
no browser or no server to run. What could not be run is said.
"""

import argparse
import contextlib
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.browsers import report
from tests.browsers.browser import BROWSERS, launched
from tests.browsers.echoes import LIBRARIES, Echo, Missing, program, running
from tests.browsers.report import Report
from tests.browsers.scenes import LISTENERS, SIZE, fall_back, gateway, play
from tidegate import __version__
from tidegate.testing import Gateway


def main() -> int:
    arguments = parsed()
    found = Report(datetime.now(UTC).date().isoformat(), __version__, arguments.sockets, SIZE)
    with contextlib.ExitStack() as stack:
        echoes = started(arguments.servers.split(), found, stack)
        if echoes:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidegate-browsers-")))
            running = stack.enter_context(gateway(directory, echoes))
            for name in arguments.browsers.split():
                watch(name, directory, running, echoes, found)
    print("\n".join(report.text(found)))
    for what, why in found.missing.items():
        say(f"make browsers: {what} was not run: {why}")
    for fault in found.faults:
        say(f"make browsers: {fault}")
    if not found.outcomes:
        return 2
    if arguments.write:
        Path(arguments.write).write_text(report.page(found))
    return 1 if found.faults else 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.browsers", description=__doc__)
    parser.add_argument("--browsers", default=" ".join(BROWSERS), help="of: %(default)s")
    parser.add_argument("--servers", default=" ".join(LIBRARIES), help="of: %(default)s")
    parser.add_argument("--sockets", type=int, default=50, help="on one page at once (%(default)s)")
    parser.add_argument("--write", metavar="FILE", help="write the page with the result")
    arguments = parser.parse_args()
    for option, known in (("browsers", BROWSERS), ("servers", LIBRARIES)):
        if unknown := set(getattr(arguments, option).split()) - set(known):
            parser.error(f"no such {option}: {', '.join(sorted(unknown))}")
    return arguments


def started(libraries: list[str], found: Report, stack: contextlib.ExitStack) -> list[Echo]:
    echoes = []
    for library in libraries:
        try:
            echoes.append(stack.enter_context(running(program(library, install=True))))
        except Missing as reason:
            found.missing[f"the server with {library}"] = str(reason)
    return echoes


def watch(name: str, directory: Path, gateway: Gateway, echoes: list[Echo], found: Report) -> None:
    """All scenes of one browser."""
    began = time.monotonic()
    try:
        with launched(name, directory, directory / "site.pem") as browser:
            for listener in LISTENERS:
                for echo in echoes:
                    found.outcomes.append(play(gateway, browser, listener, echo, found.sockets))
            found.fallbacks.append(fall_back(gateway, browser, echoes[0]))
    except Missing as reason:
        found.missing[name] = str(reason)
    else:
        say(f"{browser.version}: {time.monotonic() - began:.0f} s")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
