"""Certificates for a test: an authority, and what it signs, as files."""

import ssl
from pathlib import Path
from typing import Any

import trustme
from cryptography import x509

__all__ = ["Authority", "client_context", "serial_of"]


class Authority:
    """Signs certificates and writes them to `directory`."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._ca = trustme.CA()
        self._directory = directory
        self.file = f"{name}.pem"
        self._ca.cert_pem.write_to_path(str(directory / self.file))

    def issue(self, name: str, *hosts: str) -> dict[str, str]:
        """`name.pem` and `name.key`, replaced one after the other as certificate tools do it; returns how a
        configuration names them."""
        issued = self._ca.issue_cert(*hosts)
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        for suffix, content in (("key", issued.private_key_pem.bytes()), ("pem", chain)):
            fresh = self._directory / f".{name}.{suffix}"
            fresh.write_bytes(content)
            fresh.replace(self._directory / f"{name}.{suffix}")
        return {"cert": f"{name}.pem", "key": f"{name}.key"}

    def serial(self, name: str) -> int:
        """Of the certificate that is in the file now."""
        return x509.load_pem_x509_certificate((self._directory / f"{name}.pem").read_bytes()).serial_number


def client_context(
    directory: Path, authority: Authority, certificate: str | None = None, **settings: Any
) -> ssl.SSLContext:
    """For a client that trusts `authority` and shows the certificate of that name; names are compared by the test."""
    context = ssl.create_default_context(cafile=str(directory / authority.file))
    context.check_hostname = False
    if certificate:
        context.load_cert_chain(directory / f"{certificate}.pem", directory / f"{certificate}.key")
    for name, value in settings.items():
        setattr(context, name, value)
    return context


def serial_of(connection: ssl.SSLObject) -> int:
    """Of the certificate that the server has shown."""
    shown = connection.getpeercert(binary_form=True)
    assert shown
    return x509.load_der_x509_certificate(shown).serial_number
