"""Headless browsers, driven by JSON over a WebSocket of their own.

Chromium is told what to do by the DevTools protocol, Firefox by WebDriver BiDi. Both are reduced to what is needed
here: a page of its own, in a context that shares no connection, cache or memory of servers with another one, and the
value of a script in it.
"""

import abc
import base64
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from websockets.sync.client import ClientConnection, connect

from tests.browsers.echoes import Missing
from tidegate.testing import Records

__all__ = ["BROWSERS", "Browser", "Failed", "Page", "executable", "launched"]

LIMIT = 60.0
"""Seconds that a step may take."""

BROWSERS = {
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
    "firefox": ("firefox-esr", "firefox"),
}


class Failed(Exception):
    """A browser did not do what it was told; the text has its answer."""


class Driver:
    """Commands and their answers, one at a time; what comes beside them is kept for `event`."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._serial = 0
        self._events: list[dict[str, Any]] = []

    def ask(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._serial += 1
        command = {"id": self._serial, "method": method, "params": params}
        self._socket.send(json.dumps(command | ({"sessionId": session} if session else {})))
        while (message := self._next()).get("id") != self._serial:
            self._events.append(message)
        if "error" in message:
            raise Failed(f"{method}: {json.dumps(message)}")
        result: dict[str, Any] = message["result"]
        return result

    def event(self, method: str, session: str) -> None:
        """Wait until it has happened since the last call."""
        wanted = {"method": method, "sessionId": session}.items()
        while not any(wanted <= event.items() for event in self._events):
            self._events.append(self._next())
        self._events.clear()

    def _next(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._socket.recv(timeout=LIMIT))
        return message


class Page(abc.ABC):
    """A tab in a context of its own."""

    @abc.abstractmethod
    def visit(self, url: str) -> None:
        """Returns when it has loaded."""

    @abc.abstractmethod
    def run(self, script: str) -> Any:
        """The value that the promise which `script` makes has in the end, from JSON."""


class Browser(abc.ABC):
    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.version = ""

    @classmethod
    @abc.abstractmethod
    def arguments(cls, home: Path, certificate: Path) -> list[str]: ...

    @abc.abstractmethod
    def begin(self) -> Self:
        """Once, before anything else."""

    @abc.abstractmethod
    def page(self) -> "contextlib.AbstractContextManager[Page]": ...


class Chromium(Browser):
    LISTENING = r"DevTools listening on (ws://\S+)"

    @classmethod
    def arguments(cls, home: Path, certificate: Path) -> list[str]:
        quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
        # Its sandbox refuses to run as root, which containers are.
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        trust = f"--ignore-certificate-errors-spki-list={public_key_hash(certificate)}"
        return [
            *("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0"),
            *(*quiet, *sandbox, trust, f"--user-data-dir={home}", "about:blank"),
        ]

    def begin(self) -> Self:
        product = self.driver.ask("Browser.getVersion")["product"]
        self.version = f"Chromium {product.partition('/')[2]}"
        return self

    @contextlib.contextmanager
    def page(self) -> Iterator[Page]:
        context = self.driver.ask("Target.createBrowserContext")["browserContextId"]
        target = self.driver.ask("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.driver.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.driver.ask("Page.enable", session)
        yield ChromiumPage(self.driver, session)
        self.driver.ask("Target.disposeBrowserContext", browserContextId=context)


class ChromiumPage(Page):
    def __init__(self, driver: Driver, session: str) -> None:
        self._driver, self._session = driver, session

    def visit(self, url: str) -> None:
        if error := self._driver.ask("Page.navigate", self._session, url=url).get("errorText"):
            raise Failed(f"{url}: {error}")
        self._driver.event("Page.loadEventFired", self._session)

    def run(self, script: str) -> Any:
        told = self._driver.ask("Runtime.evaluate", self._session, expression=script, awaitPromise=True)
        if "exceptionDetails" in told:
            raise Failed(json.dumps(told))
        return json.loads(told["result"]["value"])


class Firefox(Browser):
    LISTENING = r"WebDriver BiDi listening on (ws://\S+)"

    @classmethod
    def arguments(cls, home: Path, certificate: Path) -> list[str]:
        (home / "user.js").write_text(PREFERENCES)
        return ["--headless", "--no-remote", "--profile", str(home), "--remote-debugging-port=0", "about:blank"]

    def begin(self) -> Self:
        wanted = {"alwaysMatch": {"acceptInsecureCerts": True}}
        told = self.driver.ask("session.new", capabilities=wanted)["capabilities"]
        self.version = f"Firefox {told['browserVersion']}"
        return self

    @contextlib.contextmanager
    def page(self) -> Iterator[Page]:
        container = self.driver.ask("browser.createUserContext")["userContext"]
        context = self.driver.ask("browsingContext.create", type="tab", userContext=container)["context"]
        yield FirefoxPage(self.driver, context)
        self.driver.ask("browser.removeUserContext", userContext=container)


class FirefoxPage(Page):
    def __init__(self, driver: Driver, context: str) -> None:
        self._driver, self._context = driver, context

    def visit(self, url: str) -> None:
        self._driver.ask("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def run(self, script: str) -> Any:
        target = {"context": self._context}
        told = self._driver.ask("script.evaluate", expression=script, target=target, awaitPromise=True)
        if told["type"] != "success":
            raise Failed(json.dumps(told))
        return json.loads(told["result"]["value"])


# No word to its maker's servers, and names below localhost are this machine whatever DNS says.
PREFERENCES = """\
user_pref("app.update.enabled", false);
user_pref("browser.safebrowsing.malware.enabled", false);
user_pref("browser.safebrowsing.phishing.enabled", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("network.dns.native-is-localhost", true);
user_pref("services.settings.server", "data:,#remote-settings-dummy/v1");
user_pref("toolkit.telemetry.server", "");
"""

KINDS: dict[str, type[Chromium] | type[Firefox]] = {"chromium": Chromium, "firefox": Firefox}


def executable(name: str) -> str:
    """The browser's program; raises Missing."""
    for each in BROWSERS[name]:
        if where := shutil.which(each):
            return where
    raise Missing(f"{name} is not installed (Debian: apt-get install {BROWSERS[name][0]})")


@contextlib.contextmanager
def launched(name: str, home: Path, certificate: Path) -> Iterator[Browser]:
    """The browser of this name, with a new profile in `home`, that trusts `certificate`."""
    kind, command = KINDS[name], executable(name)
    profile = home / name
    profile.mkdir()
    process = subprocess.Popen(
        [command, *kind.arguments(profile, certificate)],
        env={**os.environ, "HOME": str(home), "MOZ_DISABLE_CONTENT_SANDBOX": "1" if os.geteuid() == 0 else "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    said = Records()
    assert process.stderr
    reader = threading.Thread(target=said.read, args=(process.stderr,), daemon=True)
    reader.start()
    try:
        line = said.wait_for(lambda record: re.search(kind.LISTENING, str(record.get("message"))) is not None)
        found = re.search(kind.LISTENING, line["message"])
        assert found
        path = "/session" if kind is Firefox else ""
        with connect(found[1] + path, max_size=None, open_timeout=LIMIT) as socket:
            yield kind(Driver(socket)).begin()
    finally:
        # A browser is many processes, which all hold its output.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        reader.join()
        process.stderr.close()


def public_key_hash(certificate: Path) -> str:
    """As Chromium wants it: SHA-256 of the SubjectPublicKeyInfo, in base 64."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(spki).digest()).decode()
