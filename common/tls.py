"""Mutual TLS on gRPC: credentials from files, which may be replaced while connections last.

Who has a certificate keeps two files: `identity` (private key and certificate chain in one, so that
both are replaced in one step) and `ca` (whom to believe). A client demands that the server is a
vCenter of its own domain, whatever its address (`common.model.caller.dns_name`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography.hazmat.primitives import serialization

from common import certificates
from common.certificates import BadCertificate, Certified
from common.config import Section
from common.model.caller import Caller, Role, dns_name
from common.secrets import LooseFile, read_private


class TlsSettings(Section):
    """The [tls] table. `identity`: key and certificate chain in PEM, mode 0600. `ca`: PEM."""

    identity: Path
    ca: Path


class TlsError(Exception):
    """The files of [tls] cannot be used; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """What the files say, read at one time."""

    key: bytes
    chain: bytes
    ca: bytes
    certified: Certified


def read(settings: TlsSettings) -> Bundle:
    """Raises `TlsError`."""
    try:
        return bundle(read_private(settings.identity), settings.ca.read_bytes())
    except (OSError, LooseFile) as error:
        raise TlsError(str(error)) from error
    except BadCertificate as error:
        raise TlsError(f"{settings.identity}: {error}") from error


def bundle(identity: bytes, ca: bytes) -> Bundle:
    """Raises `BadCertificate`: not PEM, or key and certificate are not of each other."""
    begin = identity.find(b"-----BEGIN CERTIFICATE-----")
    if begin < 0:
        raise BadCertificate("no certificate in it; put the private key and the certificate here")
    try:
        key = serialization.load_pem_private_key(identity, password=None)
    except (ValueError, TypeError) as error:
        raise BadCertificate(f"no private key without a password in it: {error}") from error
    leaf = certificates.load(identity[begin:])
    if key.public_key() != leaf.public_key():
        raise BadCertificate("the private key is not the certificate's")
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    certificates.load(ca)
    return Bundle(pem, identity[begin:], ca, certificates.certified(identity[begin:]))


class Keeper:
    """The current bundle; `refresh` sees that the files were replaced."""

    def __init__(self, settings: TlsSettings) -> None:
        """Raises `TlsError`."""
        self.settings = settings
        self._seen = self._stamp()
        self.current = read(settings)

    def refresh(self) -> bool:
        """Whether there is something new. Files that are wrong raise `TlsError`, and what is in
        use stays."""
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        self.current = read(self.settings)
        self._seen = stamp
        return True

    def _stamp(self) -> tuple[tuple[int, int], ...]:
        try:
            facts = [path.stat() for path in (self.settings.identity, self.settings.ca)]
        except OSError as error:
            raise TlsError(str(error)) from error
        return tuple((fact.st_mtime_ns, fact.st_ino) for fact in facts)


def server_credentials(keeper: Keeper, clients: bool = True) -> grpc.ServerCredentials:
    """For one port. Each handshake takes what is current then. `clients`: they must show
    certificates."""
    given = keeper.current

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        if keeper.current is given:
            return None
        given = keeper.current
        return _configuration(given, clients)

    initial = _configuration(given, clients)
    return grpc.dynamic_ssl_server_credentials(initial, fetch, clients)  # type: ignore[arg-type]


def _configuration(bundle: Bundle, clients: bool) -> grpc.ServerCertificateConfiguration:
    roots = bundle.ca if clients else None
    return grpc.ssl_server_certificate_configuration([(bundle.key, bundle.chain)], roots)


def channel_credentials(bundle: Bundle) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(bundle.ca, bundle.key, bundle.chain)


def vcenter_name(domain: str) -> str:
    """Whom a client of this domain demands to have reached."""
    return dns_name(domain, Caller(Role.VCENTER, "any"))
