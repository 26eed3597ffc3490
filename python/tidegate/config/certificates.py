"""`tls:` of a listener: reads the PEM files and puts the rules by server name together.

Only what needs no cryptography is checked here; whether certificate and key belong together is the engine's to say.
"""

from pathlib import Path

from tidegate.config.config import Certificate, NamedRule, Pem, Tls, TlsRule
from tidegate.config.document import KeyPath
from tidegate.config.faults import Findings
from tidegate.config.options.listener import CertificateOptions, ClientAuth, TlsOptions, TlsRuleOptions

__all__ = ["PemFiles"]

LARGEST_PEM = 1 << 20


class PemFiles:
    """Reads the PEM files of one configuration; `files` are those it looked at."""

    def __init__(self, directory: Path, findings: Findings) -> None:
        self.files: list[Path] = []
        self._directory = directory
        self._findings = findings

    def tls(self, options: TlsOptions, path: KeyPath) -> Tls | None:
        """None when something is missing, which is then among the findings."""
        pairs = [self._pair(pair, (*path, "certificates", at)) for at, pair in enumerate(options.certificates)]
        certificates = tuple(pair for pair in pairs if pair is not None)
        rule = self._rule(options, None, path)
        named = self._by_name(options, rule, (*path, "by_name"))
        return Tls(certificates, rule, named) if certificates and rule is not None else None

    def _by_name(self, options: TlsOptions, base: TlsRule | None, path: KeyPath) -> tuple[NamedRule, ...]:
        rules = []
        for (name, own), spelling in zip(options.by_name.items(), self._spellings(path), strict=False):
            rule = self._rule(own, base, (*path, spelling))
            if rule is not None:
                rules.append(NamedRule(name, (*path, spelling), rule))
        return tuple(rules)

    def _spellings(self, path: KeyPath) -> list[str]:
        """The server names as written, to find their places; the options have them in lower case."""
        value: object = self._findings.document.values
        for step in path:
            value = value.get(str(step), {}) if isinstance(value, dict) else {}
        return list(value) if isinstance(value, dict) else []

    def _pair(self, options: CertificateOptions, path: KeyPath) -> Certificate | None:
        cert = self._read(options.cert, "CERTIFICATE", (*path, "cert"))
        key = self._read(options.key, "PRIVATE KEY", (*path, "key"))
        return Certificate(cert, key) if cert and key else None

    def _rule(self, own: TlsRuleOptions, base: TlsRule | None, path: KeyPath) -> TlsRule | None:
        authorities = base.client_ca if base else None
        if own.client_ca is not None:
            authorities = self._read(own.client_ca, "CERTIFICATE", (*path, "client_ca"))
            if authorities is None:
                return None
        auth = self._client_auth(own, base)
        if auth != "off" and authorities is None:
            message = f"'client_auth: {auth}' needs a client_ca to check certificates with"
            self._findings.error((*path, "client_auth"), message)
        version = own.min_version if base is None or "min_version" in own.written else base.min_version
        return TlsRule(version, auth, authorities if auth != "off" else None)

    @staticmethod
    def _client_auth(own: TlsRuleOptions, base: TlsRule | None) -> ClientAuth:
        if "client_auth" in own.written:
            return own.client_auth
        if own.client_ca is not None:
            return "require"
        return base.client_auth if base else "off"

    def _read(self, name: str, label: str, path: KeyPath) -> Pem | None:
        file = self._directory / name
        self.files.append(file)
        try:
            with file.open("rb") as stream:
                content = stream.read(LARGEST_PEM + 1)
        except OSError as error:
            self._findings.error(path, f"'{name}' cannot be read: {error.strerror or error}")
            return None
        if len(content) > LARGEST_PEM or f"{label}-----".encode() not in content:
            self._findings.error(path, f"'{name}' has no PEM block '{label}' in it", "expected a PEM file")
            return None
        return Pem(name, content)
