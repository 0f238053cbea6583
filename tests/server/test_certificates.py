"""The consortium's own authority: what it signs, who believes it, and what is refused."""

import socket
import ssl
import stat
import threading
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from fedtrade.errors import BadInput
from server.certificates import SERVER_DAYS, TlsFiles, create_authority, issue


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls") / "own"
    create_authority(folder, "test consortium", datetime.now(UTC))
    return issue(folder, ["127.0.0.1", "localhost"], datetime.now(UTC))


def handshake(server, client, name):
    """One TLS handshake over a socket pair; gives the version. Raises what either side raises."""
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    theirs.settimeout(5)
    failed = []

    def serve():
        try:
            with server.wrap_socket(ours, server_side=True) as wrapped:
                wrapped.recv(1)
        except OSError as error:
            failed.append(error)
        finally:
            ours.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(theirs, server_hostname=name) as wrapped:
            wrapped.send(b"x")
            return wrapped.version()
    finally:
        theirs.close()
        thread.join(5)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_whoever_pins_the_authority_believes_the_certificate(files, name):
    assert handshake(files.server_context(), files.client_context(), name) == "TLSv1.3"


def test_a_name_that_it_was_not_issued_for_is_not_believed(files):
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(files.server_context(), files.client_context(), "elsewhere.example")


def test_another_authority_is_not_believed(files, tmp_path):
    create_authority(tmp_path, "another consortium", datetime.now(UTC))
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(files.server_context(), TlsFiles.within(tmp_path).client_context(), "localhost")


def test_tls_1_2_is_not_spoken(files):
    old = files.client_context()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, OSError)):
        handshake(files.server_context(), old, "localhost")


def test_a_server_certificate_is_no_authority(files):
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert constraints.critical
    assert not constraints.value.ca
    assert not usage.value.key_cert_sign
    authority = x509.load_pem_x509_certificate(files.ca.read_bytes())
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value == (
        x509.BasicConstraints(ca=True, path_length=0)
    )


def test_it_ends_when_it_should_and_begins_before_a_slow_clock(tmp_path):
    now = datetime(2026, 1, 1, tzinfo=UTC)
    create_authority(tmp_path, "c", now)
    certificate = x509.load_pem_x509_certificate(
        issue(tmp_path, ["h"], now).certificate.read_bytes()
    )
    assert certificate.not_valid_after_utc == now + timedelta(days=SERVER_DAYS)
    assert certificate.not_valid_before_utc <= now - timedelta(seconds=400)


def test_an_expired_certificate_is_not_believed(tmp_path):
    now = datetime.now(UTC) - timedelta(days=SERVER_DAYS + 1)
    create_authority(tmp_path, "c", now)
    files = issue(tmp_path, ["localhost"], now)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(files.server_context(), files.client_context(), "localhost")


def test_keys_are_for_their_owner_alone_from_their_first_byte(files):
    for key in (files.key, files.key.with_name("ca.key")):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert list(files.key.parent.glob("*.new")) == []


def test_an_authority_is_never_overwritten(tmp_path):
    create_authority(tmp_path, "c", datetime.now(UTC))
    before = (tmp_path / "ca.key").read_bytes(), (tmp_path / "ca.crt").read_bytes()
    with pytest.raises(BadInput, match="there is one already"):
        create_authority(tmp_path, "c", datetime.now(UTC))
    assert before == ((tmp_path / "ca.key").read_bytes(), (tmp_path / "ca.crt").read_bytes())


def test_renewal_keeps_the_authority_that_members_pinned(tmp_path):
    create_authority(tmp_path, "c", datetime.now(UTC))
    pinned = (tmp_path / "ca.crt").read_bytes()
    first = issue(tmp_path, ["localhost"], datetime.now(UTC)).certificate.read_bytes()
    files = issue(tmp_path, ["localhost"], datetime.now(UTC))
    assert files.certificate.read_bytes() != first
    assert files.ca.read_bytes() == pinned
    assert handshake(files.server_context(), files.client_context(), "localhost") == "TLSv1.3"


def test_a_key_that_others_can_read_is_refused(tmp_path):
    create_authority(tmp_path, "c", datetime.now(UTC))
    (tmp_path / "ca.key").chmod(0o640)
    with pytest.raises(BadInput, match="others can read"):
        issue(tmp_path, ["localhost"], datetime.now(UTC))


def test_a_key_of_another_authority_is_refused(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        create_authority(folder, "c", datetime.now(UTC))
    (two / "ca.key").replace(one / "ca.key")
    with pytest.raises(BadInput, match=r"not that of ca\.crt"):
        issue(one, ["localhost"], datetime.now(UTC))


@pytest.mark.parametrize("hosts", [[], ["h"] * 33, ["mün.example"]])
def test_host_names_that_cannot_be_are_refused(tmp_path, hosts):
    create_authority(tmp_path, "c", datetime.now(UTC))
    with pytest.raises(BadInput, match="hosts"):
        issue(tmp_path, hosts, datetime.now(UTC))


def test_missing_or_damaged_files_are_named(tmp_path):
    with pytest.raises(BadInput, match=r"ca\.key"):
        issue(tmp_path, ["localhost"], datetime.now(UTC))
    with pytest.raises(BadInput, match=r"server\.crt"):
        TlsFiles.within(tmp_path).server_context()
    with pytest.raises(BadInput, match=r"ca\.crt"):
        TlsFiles.within(tmp_path).client_context()
    create_authority(tmp_path, "c", datetime.now(UTC))
    (tmp_path / "ca.key").write_bytes(b"not a key")
    with pytest.raises(BadInput, match="damaged"):
        issue(tmp_path, ["localhost"], datetime.now(UTC))
