"""What it takes to be let in by a server: TLS, and an access key. Knows nothing of jobs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gen3c_client.errors import InputError

if TYPE_CHECKING:
    import grpc

# Triton looks for its header of this name in HTTP, and for one with a prefix in gRPC.
ACCESS_KEY_HEADER = "gen3c-key"
GRPC_PREFIX = "triton-grpc-protocol-"
_LEGAL_KEY = re.compile(r"[A-Za-z0-9._~+/=-]{16,256}")


@dataclass(frozen=True)
class Tls:
    """How to meet a server that speaks TLS. PEM files.

    Attributes:
        ca: certificates to trust instead of the system's.
        cert: our certificate, for servers that ask for one; with `key`.
        key: its private key.
        name: the name in the server's certificate, where the server is dialled by another.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    name: str | None = None

    def read(self) -> "Credentials":
        """Raises InputError if a file cannot be read, or one is missing."""
        if (self.cert is None) != (self.key is None):
            raise InputError("--tls-certificate and --tls-key belong together; only one is given.", "--tls-certificate")
        return Credentials(_read_pem(self.ca), _read_pem(self.cert), _read_pem(self.key), self.name)


@dataclass(frozen=True)
class Credentials:
    """The contents of a `Tls`."""

    ca: bytes | None = None
    cert: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    name: str | None = None


@dataclass(frozen=True)
class Access:
    """How a server is met; by default in plain text and without a key."""

    credentials: Credentials | None = None
    key: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, tls: Tls | None, key: str | None) -> "Access":
        """Reads the files. Raises InputError if one is not usable."""
        return cls(tls.read() if tls is not None else None, key)

    @property
    def is_tls(self) -> bool:
        return self.credentials is not None

    def channel_credentials(self) -> "grpc.ChannelCredentials | None":
        """None for plain text."""
        import grpc

        if self.credentials is None:
            return None
        return grpc.ssl_channel_credentials(self.credentials.ca, self.credentials.key, self.credentials.cert)

    def channel_options(self) -> list[tuple[str, Any]]:
        """What a channel must be told, too."""
        name = self.credentials.name if self.credentials is not None else None
        return [("grpc.ssl_target_name_override", name)] if name is not None else []

    def headers(self) -> dict[str, str]:
        """Metadata of every call."""
        return {f"{GRPC_PREFIX}{ACCESS_KEY_HEADER}": self.key} if self.key is not None else {}

    def channel(self, url: str, options: Sequence[tuple[str, Any]] = ()) -> "grpc.Channel":
        """A channel to `host:port`."""
        import grpc

        credentials, options = self.channel_credentials(), [*options, *self.channel_options()]
        if credentials is None:
            return grpc.insecure_channel(url, options=options)
        return grpc.secure_channel(url, credentials, options=options)


def tls_of_options(
    *, tls: bool, ca: Path | None, certificate: Path | None, key: Path | None, name: str | None
) -> Tls | None:
    """What --tls and its companions ask for: any of them means TLS."""
    chosen = Tls(ca, certificate, key, name)
    return chosen if tls or chosen != Tls() else None


def read_access_key(path: Path) -> str:
    """The key in a file, without the line's end. Raises InputError, which does not quote it, if it is none."""
    try:
        key = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"The access key file {path} cannot be read: {e}.", "--access-key-file") from e
    if not _LEGAL_KEY.fullmatch(key):
        raise InputError(
            f"The access key in {path} has {len(key)} characters; legal: 16 to 256, of letters, digits and -._~+/=.",
            "--access-key-file",
        )
    return key


def _read_pem(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as e:
        raise InputError(f"The TLS file {path} cannot be read: {e.strerror}.", "--tls") from e
