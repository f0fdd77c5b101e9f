"""Signs what it is told to; who may have a certificate is the ledger's decision."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common import certificates
from common.certificates import BadCertificate, PublicKey
from common.model.caller import Caller, dns_name, uri_of
from common.secrets import LooseFile, read_private

CA_DAYS = 3650
SKEW = timedelta(minutes=5)  # clocks of hosts may be so far behind ours


class AuthorityError(Exception):
    """The CA's files cannot be used; the text says what to do."""


class Authority:
    """A CA: its certificate and its key."""

    def __init__(self, domain: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey):
        self.domain = domain
        self._certificate = certificate
        self._key = key

    @property
    def pem(self) -> bytes:
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return certificates.key_pem(self._key)

    def sign(
        self, key: PublicKey, caller: Caller, serial: str, now_ms: int, life: timedelta
    ) -> bytes:
        """A certificate in PEM: this key belongs to this caller."""
        now = _moment(now_ms)
        name = dns_name(self.domain, caller)
        names: list[x509.GeneralName] = [
            x509.UniformResourceIdentifier(uri_of(self.domain, caller))
        ]
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if name:
            names.append(x509.DNSName(name))
            purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
        own = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(str(caller)[:64]))
            .issuer_name(self._certificate.subject)
            .public_key(key)
            .serial_number(int(serial, 16))
            .not_valid_before(
                max(now - min(SKEW, life / 10), self._certificate.not_valid_before_utc)
            )
            .not_valid_after(min(now + life, self._certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(leaf=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), critical=False
            )
        )
        signed = builder.sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)


def new_serial() -> str:
    """Unpredictable, 159 bits (RFC 5280, 4.1.2.2)."""
    return f"{x509.random_serial_number():x}"


def create(domain: str, now_ms: int) -> Authority:
    """A CA with a new key, for `CA_DAYS`."""
    key = certificates.new_key()
    name, now = _name(f"vsignal CA of {domain}"), _moment(now_ms)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(leaf=False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return Authority(domain, builder.sign(key, hashes.SHA256()), key)


def read(domain: str, certificate: Path, key: Path) -> Authority:
    """Raises `AuthorityError`."""
    try:
        loaded = serialization.load_pem_private_key(read_private(key), password=None)
        ca = certificates.load(certificate.read_bytes())
    except (OSError, LooseFile) as error:
        raise AuthorityError(str(error)) from error
    except (BadCertificate, ValueError, TypeError) as error:
        raise AuthorityError(f"the CA ({certificate}, {key}): {error}") from error
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise AuthorityError(f"{key}: the CA's key must be an EC key, as `vcenter init` makes it")
    if loaded.public_key() != ca.public_key():
        raise AuthorityError(f"{key} is not the key of {certificate}")
    return Authority(domain, ca, loaded)


def _usage(leaf: bool) -> x509.KeyUsage:
    """Key encipherment serves nobody with an EC key, but libvirt and QEMU ask for it."""
    return x509.KeyUsage(
        digital_signature=leaf,
        key_encipherment=leaf,
        key_cert_sign=not leaf,
        crl_sign=not leaf,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC).replace(microsecond=0)
