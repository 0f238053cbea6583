"""A certificate authority for one consortium, and the certificates of its coordinator.

For consortia that do not want a public authority between them: members pin one file, `ca.crt`, from
their own settings. Three TLS endpoints use the same certificate: the gate, the round channel and the
SuperLink behind the gate. Keys are P-256; a certificate names the hosts that it is for and can do
nothing but serve TLS; the authority can sign nothing below another authority.

Private keys are written with mode 0600, created exclusively. Whoever has `ca.key` can pretend to be
the coordinator's machine to every member (not to be the coordinator: manifests and announcements are
signed with another key). Move it off the machine; it is needed again only to renew.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedtrade.errors import BadInput

CA_FILE: Final = "ca.crt"
CA_KEY_FILE: Final = "ca.key"
CERTIFICATE_FILE: Final = "server.crt"
KEY_FILE: Final = "server.key"
CA_DAYS: Final = 3650
SERVER_DAYS: Final = 365
SKEW: Final = timedelta(hours=1)
"""A certificate is valid from a little before it was made, for members whose clock is behind."""
HOSTS_MAX: Final = 32


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where an endpoint finds its certificate, and what its peers trust."""

    ca: Path
    certificate: Path
    key: Path

    @classmethod
    def within(cls, folder: Path) -> TlsFiles:
        """The files that `create_authority` and `issue` leave in a folder."""
        return cls(folder / CA_FILE, folder / CERTIFICATE_FILE, folder / KEY_FILE)

    def server_context(self) -> ssl.SSLContext:
        """TLS 1.3 and nothing older, for an endpoint of ours. Raises BadInput."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        try:
            context.load_cert_chain(self.certificate, self.key)
        except OSError as error:  # ssl.SSLError is one
            raise BadInput(
                str(self.certificate),
                f"the certificate or its key {self.key} cannot be used ({error.strerror or error})",
                "Issue one, or give the right files",
            ) from None
        return context

    def client_context(self) -> ssl.SSLContext:
        """TLS for whoever calls an endpoint of ours and trusts its authority alone."""
        try:
            return ssl.create_default_context(cafile=str(self.ca))
        except OSError as error:
            raise BadInput(
                str(self.ca), f"no authority can be read ({error.strerror})", "Give the CA's file"
            ) from None


def create_authority(folder: Path, consortium: str, now: datetime) -> None:
    """Make a consortium's authority: `ca.crt` and `ca.key`. Refuses where there is one.

    `now` is an aware time. Raises BadInput.
    """
    if not 1 <= len(consortium) <= 64:
        raise BadInput("consortium", "a name has 1 to 64 characters", "Choose another")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, consortium)])
    certificate = (
        _builder(name, name, key.public_key(), now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _make_folder(folder)
    _write_key(folder / CA_KEY_FILE, key, replace=False)
    _write(folder / CA_FILE, certificate.public_bytes(Encoding.PEM), 0o644)


def issue(folder: Path, hosts: Sequence[str], now: datetime) -> TlsFiles:
    """Make or renew the coordinator's certificate for these host names and IP addresses.

    Needs `ca.crt` and `ca.key` in the folder. Raises BadInput.
    """
    if not 1 <= len(hosts) <= HOSTS_MAX:
        raise BadInput("hosts", f"give 1 to {HOSTS_MAX} of them", "Name where members connect to")
    authority, authority_key = _load_authority(folder)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    certificate = (
        _builder(subject, authority.subject, key.public_key(), now, SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )
    files = TlsFiles.within(folder)
    _write_key(files.key, key, replace=True)
    _write(files.certificate, certificate.public_bytes(Encoding.PEM), 0o644)
    return files


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    now: datetime,
    days: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError:
        raise BadInput("hosts", f"{host!r} is no host name", "Write it in ASCII") from None


def _load_authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    path = folder / CA_KEY_FILE
    try:
        if path.is_symlink() or path.stat().st_mode & 0o077:
            raise BadInput(
                str(path), "others can read this key, or it is a link", f"chmod 600 {path}"
            )
        key = load_pem_private_key(path.read_bytes(), None)
        certificate = x509.load_pem_x509_certificate((folder / CA_FILE).read_bytes())
        public = certificate.public_key()
    except OSError as error:
        raise BadInput(
            error.filename, f"no authority can be read ({error.strerror})", "Create one first"
        ) from None
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: the key has a password
        raise BadInput(str(folder), "the authority's files are damaged", "Restore them") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or public != key.public_key():
        raise BadInput(str(path), "this key is not that of ca.crt", "Restore the two together")
    return certificate, key


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(
            str(folder), f"cannot be made ({error.strerror})", "Choose another folder"
        ) from None


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey, *, replace: bool) -> None:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    if not replace and path.exists():
        raise BadInput(str(path), "there is one already", "Choose a folder that has no authority")
    _write(path, pem, 0o600)


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write a file with its mode from its first byte on, and put it in place at once."""
    draft = path.with_name(path.name + ".new")
    try:
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        draft.replace(path)
    except OSError as error:
        raise BadInput(
            str(path), f"cannot be written ({error.strerror})", "Choose a folder that you own"
        ) from None
