"""Certificates of TLS: whether a server's can be used, and one of the launcher's own for its canaries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gen3c_server.launcher.errors import PreflightError

_LIFE = timedelta(days=3650)  # of our own; it ends with the launcher, which alone has its key
_CLOCKS = timedelta(hours=1)  # that two machines' clocks may differ


def check_pair(certificate: Path, key: Path) -> None:
    """Raises PreflightError unless the first certificate is valid now and belongs to `key`, as gRPC would find late."""
    first = _certificates(certificate)[0]
    now = datetime.now(UTC)
    if now > first.not_valid_after_utc:
        raise PreflightError(f"The certificate {certificate} expired on {first.not_valid_after_utc:%Y-%m-%d}.")
    if now + _CLOCKS < first.not_valid_before_utc:
        raise PreflightError(f"The certificate {certificate} is not valid before {first.not_valid_before_utc}.")
    try:
        private = load_pem_private_key(_read(key), password=None)
    except (ValueError, TypeError) as error:
        raise PreflightError(f"{key} holds no private key in PEM without a passphrase: {error}.") from error
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if private.public_key().public_bytes(*form) != first.public_key().public_bytes(*form):
        raise PreflightError(f"The key {key} does not belong to the certificate {certificate}.")


def check_authorities(path: Path) -> None:
    """Raises PreflightError unless `path` holds certificates in PEM."""
    _certificates(path)


def server_name(certificate: Path) -> str:
    """A name that the certificate is valid for, to be expected by who dials the server as 127.0.0.1."""
    first = _certificates(certificate)[0]
    try:
        names = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        common = [str(one.value) for one in first.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    else:
        addresses = map(str, names.get_values_for_type(x509.IPAddress))
        common = [*names.get_values_for_type(x509.DNSName), *addresses]
    if not common:
        raise PreflightError(f"The certificate {certificate} names no server: it needs a subject alternative name.")
    return common[0].replace("*", "gen3c", 1)


def temporary_identity() -> tuple[bytes, bytes]:
    """A certificate for a client, signed by itself, and its key, as PEM: for who holds the key in memory alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gen3c launcher")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS)
        .not_valid_after(now + _LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM), private


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except ValueError as error:
        raise PreflightError(f"{path} holds no certificate in PEM: {error}.") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PreflightError(f"The file {path} cannot be read: {error.strerror}.") from error
