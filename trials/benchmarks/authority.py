"""A certificate authority of our own, and a server's certificate from it for 127.0.0.1."""

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@dataclass(frozen=True)
class Authority:
    bundle: Path  # PEM: the usual authorities and ours
    certificate: Path
    key: Path


def make_authority(folder: Path, usual: str) -> Authority:
    """Files below `folder`, good for a week. usual: a PEM file of the authorities that are trusted anyway."""
    folder.mkdir(parents=True)
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    name, host = (x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, n)]) for n in ("benchmark", "127.0.0.1"))
    root = _certificate(name, name, root_key, root_key, x509.BasicConstraints(ca=True, path_length=0))
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    leaf = _certificate(host, name, key, root_key, address)
    made = Authority(folder / "bundle.pem", folder / "certificate.pem", folder / "key.pem")
    made.bundle.write_bytes(Path(usual).read_bytes() + root.public_bytes(serialization.Encoding.PEM))
    made.certificate.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signed_by: ec.EllipticCurvePrivateKey,
    extension: x509.ExtensionType,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(
        now + datetime.timedelta(days=7)
    )
    return builder.add_extension(extension, critical=False).sign(signed_by, hashes.SHA256())
