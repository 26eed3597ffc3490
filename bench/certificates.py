"""A certificate for the gateways under test: ECDSA P-256, for localhost, from an authority made for this run."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Certificate:
    """Files: the authority that clients trust, the certificate, its key, and both of these in one."""

    authority: Path
    chain: Path
    key: Path
    both: Path


def make(directory: Path) -> Certificate:
    files = Certificate(*(directory / name for name in ("ca.pem", "site.pem", "site.key", "both.pem")))
    issuer_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = _name("Tidegate bench")
    authority = _certificate(issuer, issuer, issuer_key, issuer_key, x509.BasicConstraints(ca=True, path_length=0))
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    site = _certificate(_name("localhost"), issuer, key, issuer_key, names)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = site.public_bytes(serialization.Encoding.PEM)
    files.authority.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    files.chain.write_bytes(public)
    files.key.write_bytes(secret)
    files.both.write_bytes(public + secret)
    return files


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    extension: x509.ExtensionType,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
    builder = (
        builder.not_valid_before(now - DAY).not_valid_after(now + 30 * DAY).add_extension(extension, critical=False)
    )
    return builder.sign(issuer_key, hashes.SHA256())
