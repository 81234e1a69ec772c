"""TLS of a listener: files that are read again when they change, and why handshakes fail. Knows nothing of HTTP."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from extender.policy.scheduler_silence import HandshakeFailure
from extender.web.certificates import certificates_in, end_of


class TlsProblem(Exception):
    """TLS files do not load. The message is one line that names them."""


class ServerTls:
    """Server certificate and optional client CA, read again when the files change.

    New connections get the newest files that load; a pair that does not match (a rotation half done) is tried again.
    With ``client_ca_file`` a client without a certificate of that CA is refused in the handshake, or with
    ``client_may_lack_one`` only a client with a certificate of another CA; TLS 1.3 is required.
    """

    def __init__(
        self,
        *,
        cert_file: Path,
        key_file: Path,
        client_ca_file: Path | None = None,
        client_may_lack_one: bool = False,
    ) -> None:
        self._verify_mode = ssl.CERT_OPTIONAL if client_may_lack_one else ssl.CERT_REQUIRED
        self._files = (cert_file, key_file, client_ca_file)
        self._stamp = self._read_stamp()
        self.ends: datetime | None = None
        """When the server certificate that is in force ends, None where that cannot be read."""
        self._client_cas: frozenset[str] = frozenset()
        self.client_ca_version = 0
        """Goes up with each client CA that is withdrawn: whoever connected until then may have shown one of its own."""
        self._current = self._load()
        self.context = self._load()
        self.context.sni_callback = self._use_current

    def tell(self, failed: Callable[[HandshakeFailure], None]) -> None:
        """Call ``failed`` for each handshake that failed from now on; not for a connection that just ended."""
        self.context.sslobject_class = _observed(failed)

    def reload(self) -> bool:
        """Load the files again if they changed; True if new ones are in force now.

        Raises:
            TlsProblem: they changed and do not load; the old ones stay in force.
        """
        stamp = self._read_stamp()
        if stamp == self._stamp:
            return False
        self._current = self._load()
        self._stamp = stamp
        return True

    def _use_current(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self._current

    def _load(self) -> ssl.SSLContext:
        cert_file, key_file, client_ca_file = self._files
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # As Go does: a CA may lack key identifiers (Python refuses it from 3.13 on), and any certificate in the file is
        # an anchor.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        client_cas: frozenset[str] = frozenset()
        try:
            context.load_cert_chain(cert_file, key_file)
            ends = end_of(cert_file.read_text("ascii", errors="replace"))
            if client_ca_file is not None:
                # A resumed session shows no certificate: it would get a client past the client CA of a later reload.
                # Only TLS 1.3 lets Python turn sessions off; every kube-scheduler speaks it.
                context.minimum_version = ssl.TLSVersion.TLSv1_3
                context.num_tickets = 0
                client_cas = certificates_in(client_ca_file.read_text("ascii", errors="replace"))
                context.load_verify_locations(client_ca_file)
                context.verify_mode = self._verify_mode
        except OSError as error:
            names = ", ".join(str(file) for file in self._files if file is not None)
            raise TlsProblem(f"TLS files do not load ({names}): {_why(error)}") from error
        self.ends = ends
        if self._client_cas - client_cas:
            self.client_ca_version += 1
        self._client_cas = client_cas
        return context

    def _read_stamp(self) -> tuple[tuple[int, int, int], ...]:
        stamps = []
        for file in self._files:
            try:
                stat = file.stat() if file is not None else None
            except OSError:
                stat = None
            stamps.append((stat.st_mtime_ns, stat.st_size, stat.st_ino) if stat else (0, 0, 0))
        return tuple(stamps)


def _observed(failed: Callable[[HandshakeFailure], None]) -> type[ssl.SSLObject]:
    """Make a connection that tells why its handshake failed: asyncio drops the error, and calls nobody."""

    class Observed(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except ssl.SSLError as error:
                failed(failure_of(error.reason or ""))
                raise

    return Observed


def failure_of(reason: str) -> HandshakeFailure:
    """Classify OpenSSL's reason code, as ``SSLError.reason`` has it.

    An alert is what the caller sent: about a certificate it can only mean ours. kube-scheduler sends "bad certificate"
    for an unknown CA and for a wrong server name alike (Go, crypto/tls/handshake_client.go: verifyServerCertificate).
    """
    if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
        return HandshakeFailure.CERTIFICATE_REFUSED
    return _FAILURES.get(reason, HandshakeFailure.OTHER)


_FAILURES = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": HandshakeFailure.NO_CLIENT_CERTIFICATE,
    "CERTIFICATE_VERIFY_FAILED": HandshakeFailure.CLIENT_CERTIFICATE_REFUSED,
    "HTTP_REQUEST": HandshakeFailure.PLAIN_HTTP,
}


def _why(error: OSError) -> str:
    """Say it in words: an `ssl.SSLError` names a line of Python's source, and often nothing else."""
    if not isinstance(error, ssl.SSLError):
        return error.strerror or str(error)
    if not error.reason:
        return "what is in one of them is not PEM, or not what it should be"
    return error.reason.replace("_", " ").lower()
