"""`tls:` of listeners and upstreams: reads the PEM files and puts the rules by server name together.

Only what needs no cryptography is checked here; whether certificate and key belong together is the engine's to say.
"""

import os
from pathlib import Path

from tidegate.config.config import Certificate, NamedRule, Pem, Tls, TlsRule, UpstreamTls
from tidegate.config.document import KeyPath
from tidegate.config.faults import Findings
from tidegate.config.options.listener import CertificateOptions, ClientAuth, TlsOptions, TlsRuleOptions
from tidegate.config.options.upstream import UpstreamTlsOptions

__all__ = ["PemFiles"]

LARGEST_PEM = 1 << 20
SYSTEM_CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, Red Hat
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # Alpine, macOS, the BSDs
)
"""Where systems keep the authorities that they trust; the variable SSL_CERT_FILE goes before them, as with OpenSSL."""


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
        protocols = tuple(options.protocols.items())
        return Tls(certificates, rule, named, protocols) if certificates and rule is not None else None

    def upstream_tls(self, options: UpstreamTlsOptions, path: KeyPath) -> UpstreamTls | None:
        """None when something is missing, which is then among the findings."""
        certificate, trust = None, None
        if options.cert is not None and options.key is not None:
            certificate = self._pair(CertificateOptions(cert=options.cert, key=options.key), path)
        elif options.cert is not None or options.key is not None:
            self._findings.error(path, f"the key '{'cert' if options.key else 'key'}' is missing", at_key=True)
        if options.verify:
            trust = self.trust(options.ca, path)
            if trust is None:
                return None
        else:
            message = "certificates of this upstream are not verified: anybody in between can read and change"
            self._findings.warning((*path, "verify"), message, "name the authority that signs them with ca")
        return UpstreamTls(options.server_name, trust, options.ca is None, certificate)

    def trust(self, ca: str | None, path: KeyPath) -> Pem | None:
        """The authorities of the file `ca`, or of the system. None when there are none, which is then a finding."""
        if ca is not None:
            return self._read(ca, "CERTIFICATE", (*path, "ca"))
        named = os.environ.get("SSL_CERT_FILE")
        files = [named] if named else [file for file in SYSTEM_CERTIFICATES if os.path.exists(file)]
        if not files:
            self._findings.error(path, "this system has no file of trusted authorities", "name one with ca")
            return None
        return self._read(files[0], "CERTIFICATE", path, Path.cwd())

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

    def _read(self, name: str, label: str, path: KeyPath, directory: Path | None = None) -> Pem | None:
        file = (directory or self._directory) / name
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
