"""Makes the certificates of a server that speaks TLS: of its authority, itself, a client, and another authority."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_VALID = datetime.timedelta(days=2)


@dataclass(frozen=True)
class Certificates:
    """Is the PEM files in a folder; the server's name is 127.0.0.1 and localhost."""

    folder: Path

    @property
    def authority(self) -> Path:
        """Return the certificate that the server's and the client's are signed with."""
        return self.folder / "authority.pem"

    @property
    def stranger(self) -> Path:
        """Return the certificate of an authority that signed neither."""
        return self.folder / "stranger.pem"

    @property
    def server(self) -> tuple[Path, Path]:
        """Return the server's certificate and key."""
        return self.folder / "server.pem", self.folder / "server.key"

    @property
    def client(self) -> tuple[Path, Path]:
        """Return a client's certificate and key."""
        return self.folder / "client.pem", self.folder / "client.key"


def make_certificates(folder: Path, user: str) -> Certificates:
    """Make all of them; the client's is the user's."""
    folder.mkdir()
    made = Certificates(folder)
    authority = _write(made.authority, "power-loop tests")
    _write(made.stranger, "strangers")
    _write(made.server[0], "localhost", by=authority)
    _write(made.client[0], user, by=authority)
    return made


def _write(path: Path, name: str, *, by: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
    """Write a certificate and, beside it, its key; without `by` it is an authority's."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    issuer, signer = by or (subject, key)
    now = datetime.datetime.now(datetime.timezone.utc)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    public = signer.public_key()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _VALID)
        .not_valid_after(now + _VALID)
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(signer, hashes.SHA256())
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret = path.with_suffix(".key")
    secret.touch(0o600)
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return subject, key
