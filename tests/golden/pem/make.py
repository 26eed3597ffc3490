"""Makes the certificates that the golden configurations name; they are good for a century.

python tests/golden/pem/make.py
"""

from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HERE = Path(__file__).parent
FROM, TO = datetime(2025, 1, 1, tzinfo=UTC), datetime(2124, 12, 31, tzinfo=UTC)


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def build(subject: str, issuer: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name(issuer))
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    return builder.not_valid_before(FROM).not_valid_after(TO)


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def site(domain: str, file: str, authority: ec.EllipticCurvePrivateKey) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.DNSName(domain), x509.DNSName(f"*.{domain}")])
    certificate = build(domain, "Tidegate golden CA", key).add_extension(names, critical=False)
    (HERE / f"{file}.pem").write_bytes(pem(certificate.sign(authority, hashes.SHA256())))
    plain = serialization.NoEncryption()
    (HERE / f"{file}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )


def main() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    authority = build("Tidegate golden CA", "Tidegate golden CA", key)
    authority = authority.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    (HERE / "clients.pem").write_bytes(pem(authority.sign(key, hashes.SHA256())))
    site("example.com", "site", key)
    site("other.example", "other", key)


if __name__ == "__main__":
    main()
