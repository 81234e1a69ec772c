"""HTTPS on the webhook listener: certificates that are replaced while it runs, and clients that must have one."""

from __future__ import annotations

import gc
import json
import os
import shutil
import socket
import ssl
import tracemalloc
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from extender.policy.scheduler_silence import HandshakeFailure
from extender.web.admission import PLAIN_KIB, TLS_KIB, Places
from extender.web.tls import ServerTls, TlsProblem
from tests.builders import node
from tests.listening import Listening, synced_state, webhook_over

BODY = json.dumps({"Pod": {"metadata": {"labels": {"warmnode.dev/pool": "a"}}}, "Nodes": None, "NodeNames": ["node-a"]})
REQUEST = f"POST /prioritize HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(BODY)}\r\n\r\n{BODY}".encode()


class Files:
    """Certificate, key and client CA in a folder, replaced as a mounted Secret is: whole files at once."""

    def __init__(self, folder: Path) -> None:
        self.cert, self.key, self.client_ca = (folder / name for name in ("tls.crt", "tls.key", "ca.crt"))

    def install(self, server: trustme.LeafCert) -> None:
        self.install_cert(server)
        self._put(self.key, server.private_key_pem.bytes())

    def install_cert(self, server: trustme.LeafCert) -> None:
        self._put(self.cert, b"".join(pem.bytes() for pem in server.cert_chain_pems))

    def trust(self, *client_cas: trustme.CA, comment: bytes = b"") -> None:
        self._put(self.client_ca, comment + b"".join(each.cert_pem.bytes() for each in client_cas))

    def tls(self, *, client_ca: bool = False) -> ServerTls:
        return ServerTls(cert_file=self.cert, key_file=self.key, client_ca_file=self.client_ca if client_ca else None)

    @staticmethod
    def _put(path: Path, content: bytes) -> None:
        new = path.with_suffix(".new")
        new.write_bytes(content)
        shutil.move(new, path)


def caller(trusted: trustme.CA, client: trustme.LeafCert | None = None) -> ssl.SSLContext:
    """A client that trusts this CA, with a certificate of its own or without."""
    context = ssl.create_default_context()
    trusted.configure_trust(context)
    if client is not None:
        client.configure_cert(context)
    return context


def ask(connection: socket.socket) -> bool:
    """Whether a prioritize call over this connection is answered with 200."""
    connection.sendall(REQUEST)
    response = HTTPResponse(connection)
    response.begin()
    return response.status == 200 and json.loads(response.read()) == [{"Host": "node-a", "Score": 10}]


@contextmanager
def serving(tls: ServerTls) -> Iterator[Listening]:
    with Listening(webhook_over(synced_state([node()])).handler(), tls=tls) as listening:
        yield listening
        assert not listening.mistakes()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_the_webhook_is_served_over_https(files: Files) -> None:
    """The scheduler verifies our certificate against its caFile; an unknown CA and plain HTTP get nothing."""
    ca = trustme.CA()
    files.install(ca.issue_cert("localhost"))
    with serving(files.tls()) as listening:
        with listening.connect(caller(ca)) as connection:
            assert ask(connection)
            assert connection.version() in ("TLSv1.2", "TLSv1.3")  # type: ignore[attr-defined]
        with pytest.raises(ssl.SSLCertVerificationError):
            listening.connect(caller(trustme.CA()))
        with listening.connect() as plain:
            plain.sendall(REQUEST)
            assert not plain.recv(100).startswith(b"HTTP/1.1 200")


def test_old_tls_versions_are_refused(files: Files) -> None:
    """TLS 1.2 is the least that is spoken, as in kube-scheduler."""
    ca = trustme.CA()
    files.install(ca.issue_cert("localhost"))
    context = caller(ca)
    context.set_ciphers("ALL:@SECLEVEL=0")  # else this client itself would refuse
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with serving(files.tls()) as listening:
        with listening.connect(context) as connection:
            assert ask(connection)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that is the point
            context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            listening.connect(context)


def test_replaced_certificates_are_used_by_new_connections_and_old_ones_go_on(files: Files) -> None:
    """A rotation interrupts nobody: the kept-alive connection keeps what it shook hands with."""
    before, after = trustme.CA(), trustme.CA()
    files.install(before.issue_cert("localhost"))
    tls = files.tls()
    with serving(tls) as listening, listening.connect(caller(before)) as old:
        assert ask(old)
        assert tls.reload() is False
        files.install(after.issue_cert("localhost"))
        assert tls.reload() is True
        with listening.connect(caller(after)) as new:
            assert ask(new)
        with pytest.raises(ssl.SSLCertVerificationError):
            listening.connect(caller(before))
        assert ask(old)


def test_a_certificate_without_its_key_is_refused_and_the_old_pair_stays(files: Files) -> None:
    """A rotation half done: told each time, until the key has come too."""
    ca, half = trustme.CA(), trustme.CA()
    files.install(ca.issue_cert("localhost"))
    tls = files.tls()
    with serving(tls) as listening:
        replacement = half.issue_cert("localhost")
        files.install_cert(replacement)
        for _ in range(2):
            with pytest.raises(TlsProblem, match="TLS files do not load"):
                tls.reload()
        with listening.connect(caller(ca)) as connection:
            assert ask(connection)
        files.install(replacement)
        assert tls.reload() is True
        with listening.connect(caller(half)) as connection:
            assert ask(connection)


def test_files_that_are_gone_for_a_moment_change_nothing(files: Files) -> None:
    """A Secret that is mounted anew: what was loaded stays in force."""
    ca = trustme.CA()
    files.install(ca.issue_cert("localhost"))
    tls = files.tls()
    with serving(tls) as listening:
        files.key.unlink()
        with pytest.raises(TlsProblem, match="TLS files do not load"):
            tls.reload()
        with listening.connect(caller(ca)) as connection:
            assert ask(connection)


def test_a_start_with_files_that_do_not_load_is_one_line(files: Files) -> None:
    """The message names the files."""
    files.install(trustme.CA().issue_cert("localhost"))
    files.key.write_text("not a key")
    with pytest.raises(TlsProblem, match=rf"TLS files do not load \({files.cert}, {files.key}\)"):
        files.tls()


def refused(listening: Listening, context: ssl.SSLContext) -> bool:
    """Whether a caller is turned away: with TLS 1.3 that shows at the first read, after the client's handshake."""
    try:
        with listening.connect(context) as connection:
            connection.sendall(REQUEST)
            return connection.recv(1) == b""
    except (ssl.SSLError, ConnectionError):
        return True


def test_with_a_client_ca_only_its_clients_are_served(files: Files) -> None:
    """No certificate and a foreign one are refused in the handshake."""
    ca, clients, others = trustme.CA(), trustme.CA(), trustme.CA()
    files.install(ca.issue_cert("localhost"))
    files.trust(clients)
    with serving(files.tls(client_ca=True)) as listening:
        assert refused(listening, caller(ca))
        assert refused(listening, caller(ca, others.issue_cert(common_name="scheduler")))
        with listening.connect(caller(ca, clients.issue_cert(common_name="scheduler"))) as connection:
            assert ask(connection)


def old_style(ca: bool, issuer: tuple[x509.Name, rsa.RSAPrivateKey] | None = None) -> tuple[x509.Certificate, Any]:
    """A certificate without key identifiers, as authorities of older clusters and hand-made ones are."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "old CA" if ca else "scheduler")])
    issuer_name, issuer_key = issuer or (name, key)
    begins = datetime.now(UTC) - timedelta(minutes=1)
    builder = (
        x509.CertificateBuilder(issuer_name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    return builder.sign(issuer_key, hashes.SHA256()), key


def test_a_client_ca_without_key_identifiers_is_good_enough(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kube-scheduler and the API server take it; Python from 3.13 on would not, by its default for contexts."""
    create = ssl.create_default_context

    def create_strictly(purpose: ssl.Purpose = ssl.Purpose.SERVER_AUTH) -> ssl.SSLContext:
        context = create(purpose)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    ca = trustme.CA()
    files.install(ca.issue_cert("localhost"))
    authority, authority_key = old_style(ca=True)
    client, client_key = old_style(ca=False, issuer=(authority.subject, authority_key))
    files.client_ca.write_bytes(authority.public_bytes(Encoding.PEM))
    pem = tmp_path / "client.pem"
    private = client_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem.write_bytes(client.public_bytes(Encoding.PEM) + private)
    context = caller(ca)
    context.load_cert_chain(pem)
    monkeypatch.setattr(ssl, "create_default_context", create_strictly)
    with serving(files.tls(client_ca=True)) as listening, listening.connect(context) as connection:
        assert ask(connection)


def test_a_replaced_client_ca_takes_the_place_of_the_old_one(files: Files) -> None:
    """After the reload clients of the new CA are served, and those of the old one are not."""
    ca, before, after = trustme.CA(), trustme.CA(), trustme.CA()
    files.install(ca.issue_cert("localhost"))
    files.trust(before)
    tls = files.tls(client_ca=True)
    old_caller = caller(ca, before.issue_cert(common_name="scheduler"))
    new_caller = caller(ca, after.issue_cert(common_name="scheduler"))
    with serving(tls) as listening:
        with listening.connect(old_caller) as connection:
            assert ask(connection)
        assert refused(listening, new_caller)
        files.trust(after)
        assert tls.reload() is True
        with listening.connect(new_caller) as connection:
            assert ask(connection)
        assert refused(listening, old_caller)


@contextmanager
def connected(files: Files, ca: trustme.CA, client: trustme.LeafCert) -> Iterator[tuple[ServerTls, socket.socket]]:
    """A listener with a certificate of this CA and the client CA that is in place, and a client's open connection."""
    files.install(ca.issue_cert("localhost"))
    tls = files.tls(client_ca=True)
    with serving(tls) as listening, listening.connect(caller(ca, client)) as connection:
        yield tls, connection


def test_a_client_ca_that_is_withdrawn_ends_open_connections(files: Files) -> None:
    """At their next request: whom it vouched for is trusted no more. A new certificate of our own ends none."""
    ca, before, after = trustme.CA(), trustme.CA(), trustme.CA()
    files.trust(before)
    with connected(files, ca, before.issue_cert(common_name="scheduler")) as (tls, connection):
        assert ask(connection)
        files.install(ca.issue_cert("localhost"))
        assert tls.reload() is True
        assert ask(connection)
        files.trust(after)
        assert tls.reload() is True
        connection.sendall(REQUEST)
        assert is_over(connection)


def test_a_client_ca_that_is_added_cuts_nobody_off(files: Files) -> None:
    """The first step of every rotation, and a comment, or another order: whoever was trusted still is."""
    ca, before, after = trustme.CA(), trustme.CA(), trustme.CA()
    files.trust(before)
    with connected(files, ca, before.issue_cert(common_name="scheduler")) as (tls, connection):
        for trusted, comment in (((before, after), b""), ((after, before), b"# both\r\n"), ((before, after, ca), b"")):
            files.trust(*trusted, comment=comment)
            assert tls.reload() is True
            assert ask(connection)
        files.trust(after)
        assert tls.reload() is True
        connection.sendall(REQUEST)
        assert is_over(connection)


def test_an_anchor_that_is_no_ca_can_be_withdrawn(files: Files) -> None:
    """Any certificate in the file is trusted, so one client's own may be there, and be taken out."""
    ca, clients = trustme.CA(), trustme.CA()
    client = clients.issue_cert(common_name="scheduler")
    files.client_ca.write_bytes(client.cert_chain_pems[0].bytes())
    with connected(files, ca, client) as (tls, connection):
        assert ask(connection)
        files.trust(clients)
        assert tls.reload() is True
        connection.sendall(REQUEST)
        assert is_over(connection)


def is_over(connection: socket.socket) -> bool:
    """Whether the other side ends the connection, not only TLS, without our doing anything."""
    with socket.socket(fileno=os.dup(connection.fileno())) as below:
        below.settimeout(10)
        try:
            while below.recv(4096):
                pass
        except TimeoutError:
            return False
        except ConnectionError:
            pass
    return True


def test_a_connection_without_a_place_is_over_at_once(files: Files) -> None:
    """A caller that does not say goodbye keeps nothing of ours."""
    ca = trustme.CA()
    files.install(ca.issue_cert("localhost"))
    handler = webhook_over(synced_state([node()])).handler()
    with (
        Listening(handler, tls=files.tls(), places=Places(plain=0, tls=1)) as there,
        there.connect(caller(ca)) as first,
        there.connect() as second,
    ):
        assert is_over(second)
        assert ask(first)


def test_a_handshake_that_never_ends_holds_a_place_for_its_time_only(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who connects and says nothing is counted before TLS: 128 such callers are no more than 128 others."""
    ca = trustme.CA()
    files.install(ca.issue_cert("localhost"))
    handler = webhook_over(synced_state([node()])).handler()
    monkeypatch.setattr("extender.web.connections.HANDSHAKE", timedelta(seconds=1))
    with Listening(handler, tls=files.tls(), places=Places(plain=0, tls=1)) as there, there.connect() as silent:
        with there.connect() as second:
            assert is_over(second)
        assert is_over(silent)
        with there.connect(caller(ca)) as connection:
            assert ask(connection)


def test_a_request_may_come_with_the_end_of_the_handshake(files: Files) -> None:
    """A client need not wait for anything after its last message: both may be in one segment."""
    ca = trustme.CA()
    files.install(ca.issue_cert("localhost"))
    with serving(files.tls()) as listening, listening.connect() as connection:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = caller(ca).wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        connection.sendall(outgoing.read())
        while outgoing.pending == 0:
            incoming.write(connection.recv(65_536))
            with suppress(ssl.SSLWantReadError):
                client.do_handshake()
        client.write(REQUEST)
        connection.sendall(outgoing.read())
        answer = b""
        while b"node-a" not in answer:
            incoming.write(connection.recv(65_536))
            with suppress(ssl.SSLWantReadError):
                answer += client.read(65_536)
        assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("kib", [PLAIN_KIB, TLS_KIB])
def test_a_held_place_takes_no_more_memory_than_is_reckoned_with(files: Files, kib: int) -> None:
    """By that the listeners' places are as many as they are. OpenSSL's own 20 to 30 KiB are not seen, and within it."""
    ca = trustme.CA()
    files.install(ca.issue_cert("localhost"))
    tls, context = (files.tls(), caller(ca)) if kib == TLS_KIB else (None, None)
    with Listening(webhook_over(synced_state([node()])).handler(), tls=tls) as listening, ExitStack() as held:
        assert ask(held.enter_context(listening.connect(context)))  # what is made once is not counted
        gc.collect()
        tracemalloc.start()
        held.callback(tracemalloc.stop)
        for _ in range(40):
            assert ask(held.enter_context(listening.connect(context)))
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] / 40 <= kib * 1024


def test_a_session_from_before_does_not_get_an_old_client_past_a_new_client_ca(files: Files) -> None:
    """TLS sessions are resumed without a certificate: that must not outlive the CA that vouched for it."""
    ca, before, after = trustme.CA(), trustme.CA(), trustme.CA()
    files.install(ca.issue_cert("localhost"))
    files.trust(before)
    tls = files.tls(client_ca=True)
    context = caller(ca, before.issue_cert(common_name="scheduler"))
    with serving(tls) as listening:
        with listening.connect(context) as connection:
            assert ask(connection)
            session = connection.session  # type: ignore[attr-defined]
        files.trust(after)
        assert tls.reload() is True
        plain = socket.create_connection(("127.0.0.1", listening.port), timeout=10)
        resumed = False
        try:
            with context.wrap_socket(plain, server_hostname="localhost", session=session) as connection:
                connection.sendall(REQUEST)
                resumed = connection.recv(20).startswith(b"HTTP/1.1 200")
        except (ssl.SSLError, ConnectionError):
            pass
        finally:
            plain.close()
        assert not resumed


def test_why_a_handshake_failed_is_told(files: Files) -> None:
    """Who would not go on, and why: for callers that trust another CA, want another name, or speak plain HTTP."""
    ca = trustme.CA()
    files.install(ca.issue_cert("localhost"))
    with serving(files.tls()) as listening:
        listening.connect().close()  # as a probe does: no failure
        with pytest.raises(ssl.SSLCertVerificationError):
            listening.connect(caller(trustme.CA()))
        with pytest.raises(ssl.SSLCertVerificationError):
            listening.connect(caller(ca), name="elsewhere")
        with listening.connect() as plain:
            plain.sendall(REQUEST)
            plain.recv(100)
        with listening.connect() as noise:
            noise.sendall(b"\x16\x03\x01" + bytes(200))
            noise.recv(100)
    assert listening.handshake_failures == [
        HandshakeFailure.CERTIFICATE_REFUSED,
        HandshakeFailure.CERTIFICATE_REFUSED,
        HandshakeFailure.PLAIN_HTTP,
        HandshakeFailure.OTHER,
    ]


def test_why_a_client_certificate_was_refused_is_told(files: Files) -> None:
    """None was shown, or one of another CA; after a reload too."""
    ca, clients, others = trustme.CA(), trustme.CA(), trustme.CA()
    files.install(ca.issue_cert("localhost"))
    files.trust(clients)
    tls = files.tls(client_ca=True)
    with serving(tls) as listening:
        assert refused(listening, caller(ca))
        files.install(ca.issue_cert("localhost"))
        assert tls.reload()
        assert refused(listening, caller(ca, others.issue_cert(common_name="scheduler")))
    assert listening.handshake_failures == [
        HandshakeFailure.NO_CLIENT_CERTIFICATE,
        HandshakeFailure.CLIENT_CERTIFICATE_REFUSED,
    ]


def test_a_connection_that_comes_about_is_no_failure(files: Files) -> None:
    """Nor one that is closed after it was used."""
    ca = trustme.CA()
    files.install(ca.issue_cert("localhost"))
    with serving(files.tls()) as listening, listening.connect(caller(ca)) as connection:
        assert ask(connection)
    assert listening.handshake_failures == []


def test_a_scheduler_that_fails_with_every_pod_is_one_line_a_minute(files: Files) -> None:
    """The first of each reason is told, the rest is counted."""
    files.install(trustme.CA().issue_cert("localhost"))
    with serving(files.tls()) as listening:
        for _ in range(5):
            with pytest.raises(ssl.SSLCertVerificationError):
                listening.connect(caller(trustme.CA()))
        with listening.connect() as plain:
            plain.sendall(REQUEST)
            plain.recv(100)
    assert len(listening.handshake_failures) == 6
    told = [each for each in listening.logged if each.getMessage() == "TLS handshake failed"]
    assert [each.fields["reason"] for each in told] == ["certificateRefused", "plainHttp"]  # type: ignore[attr-defined]
