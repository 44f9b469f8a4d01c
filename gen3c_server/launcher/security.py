"""Who may speak to the server, and about what: TLS and restricted protocols as Triton's flags, and how we comply."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from gen3c_client.connection import ACCESS_KEY_HEADER, Access, Credentials, read_access_key
from gen3c_client.errors import InputError

from gen3c_server.launcher.errors import PreflightError

LOOPBACK = "127.0.0.1"
LAUNCHER_HEADER = "gen3c-launcher"
# Through these code is loaded, files are written, and memory of this machine is read.
CLOSED = ("shared-memory", "model-repository", "logging", "trace")
OPEN = ("health", "metadata", "inference", "model-config", "statistics")
TRUSTED_CLIENTS = "client-ca.pem"
FLAGS = (
    "--grpc-use-ssl",
    "--grpc-use-ssl-mutual",
    "--grpc-server-cert",
    "--grpc-server-key",
    "--grpc-root-cert",
    "--grpc-restricted-protocol",
    "--http-restricted-api",
)


@dataclass(frozen=True)
class Security:
    """By default everybody may ask for inferences, and nobody for anything that changes the server.

    certificate, key: of the server, PEM; with them gRPC speaks TLS, and plain HTTP is for the launcher alone.
    client_ca: clients must show a certificate that one of these has signed.
    access_key: calls must carry it.
    """

    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    access_key: str | None = field(default=None, repr=False)
    # What only this process knows: for what is closed to all others.
    launcher_key: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)
    # The canary's certificate and its key, for it could be signed by none of the operator's authorities.
    identity: tuple[bytes, bytes] | None = field(default=None, repr=False)
    # How the Triton that was started last is met: the files may be replaced while it runs.
    _met: list[Access] = field(default_factory=list, repr=False, compare=False)

    @classmethod
    def load(
        cls,
        certificate: Path | None,
        key: Path | None,
        client_ca: Path | None,
        access_key_file: Path | None,
    ) -> Security:
        """Reads and checks the files. Raises PreflightError."""
        if (certificate is None) != (key is None):
            raise PreflightError("--tls-certificate and --tls-key belong together; only one is given.")
        if client_ca is not None and certificate is None:
            raise PreflightError("--tls-client-ca needs --tls-certificate and --tls-key.")
        try:
            access_key = read_access_key(access_key_file) if access_key_file is not None else None
        except InputError as error:
            raise PreflightError(str(error)) from error
        identity = None
        if certificate is not None and key is not None:
            from gen3c_server.launcher import certificates

            certificates.check_pair(certificate, key)
            certificates.server_name(certificate)
            if client_ca is not None:
                certificates.check_authorities(client_ca)
                identity = certificates.temporary_identity()
        return cls(certificate, key, client_ca, access_key, identity=identity)

    def http_host(self, host: str) -> str:
        """Where Triton's HTTP listens, which has no TLS."""
        return host if self.certificate is None else LOOPBACK

    def flags(self, run_dir: Path) -> list[str]:
        """Of a `tritonserver` that starts now; what they name besides the operator's files is written to `run_dir`.

        Raises PreflightError if the certificate is not as it was loaded, and none that can be used.
        """
        self._met[:] = [self._access()]
        return [*self._tls_flags(run_dir), *self._restrictions()]

    def http_headers(self) -> dict[str, str]:
        """Of the launcher's own calls of Triton's HTTP."""
        known = {ACCESS_KEY_HEADER: self.access_key} if self.access_key is not None else {}
        return {LAUNCHER_HEADER: self.launcher_key, **known}

    def access(self) -> Access:
        """How the launcher's canaries meet the server that was started last."""
        return self._met[0] if self._met else self._access()

    def _access(self) -> Access:
        if self.certificate is None:
            return Access(None, self.access_key)
        from gen3c_server.launcher.certificates import server_name

        # No other certificate than this one is expected there, whoever signed it, and under whichever name.
        own, key = self.identity or (None, None)
        return Access(
            Credentials(self.certificate.read_bytes(), own, key, server_name(self.certificate)), self.access_key
        )

    def _tls_flags(self, run_dir: Path) -> list[str]:
        if self.certificate is None or self.key is None:
            return []
        flags = [
            "--grpc-use-ssl=true",
            f"--grpc-server-cert={self.certificate.absolute()}",
            f"--grpc-server-key={self.key.absolute()}",
        ]
        if self.client_ca is not None and self.identity is not None:
            trusted = run_dir / TRUSTED_CLIENTS
            trusted.write_bytes(self.client_ca.read_bytes() + b"\n" + self.identity[0])
            flags += ["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={trusted}"]
        return flags

    def _restrictions(self) -> list[str]:
        ours = f"{LAUNCHER_HEADER}={self.launcher_key}"
        http_closed = CLOSED if self.certificate is None else (*CLOSED, *OPEN)
        flags = [
            f"--grpc-restricted-protocol={','.join(CLOSED)}:{ours}",
            f"--http-restricted-api={','.join(http_closed)}:{ours}",
        ]
        if self.access_key is not None:
            known = f"{ACCESS_KEY_HEADER}={self.access_key}"
            flags.append(f"--grpc-restricted-protocol={','.join(OPEN)}:{known}")
            if self.certificate is None:
                flags.append(f"--http-restricted-api={','.join(OPEN)}:{known}")
        return flags
