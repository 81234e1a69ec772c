"""Where the API server is and how we prove who we are: values, token files, TLS contexts, the in-cluster case.

Owns what is to be known about credentials without HTTP and without a kubeconfig, which is in `kubeconfig`.
"""

from __future__ import annotations

import logging
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from extender.kube.errors import ConfigurationProblem
from extender.kube.proxy import environment_proxy
from extender.logs import fields, one_line

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TOKEN_LIFE_SECONDS = 60.0  # what client-go uses; the kubelet renews tokens at 80 % of their life

log = logging.getLogger("warmnode.credentials")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What one request proves its origin with, each part None where it is not used.

    It is a source of credentials too, one that does not change: a token, a password or nothing.
    """

    authorization: str | None = field(default=None, repr=False)
    cert_file: Path | None = None
    key_file: Path | None = None

    async def get(self, *, refresh: bool = False) -> Credential:
        return self


class Credentials(Protocol):
    """A source of credentials that may change with time."""

    async def get(self, *, refresh: bool = False) -> Credential:
        """The credential to use now; ``refresh`` asks for a new one although the last has not expired.

        Raises ConfigurationProblem where none can be had.
        """
        ...


class PrivateFiles:
    """Certificates and keys that are there as data only, in a directory of our own: OpenSSL reads files."""

    def __init__(self) -> None:
        self._directory: tempfile.TemporaryDirectory[str] | None = None

    def place(self, name: str, content: Path | bytes | None) -> Path | None:
        """The path of a file with the content: a path is one already. An older one of that name is replaced."""
        if not isinstance(content, bytes):
            return content
        if self._directory is None:
            self._directory = tempfile.TemporaryDirectory(prefix="warmnode-")  # mode 0700
        path = Path(self._directory.name, name)
        path.write_bytes(content)
        return path

    def close(self) -> None:
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One API server as a configuration describes it.

    ``server`` is the URL without a trailing slash and may have a path. ``namespace`` is where we live. ``ca_file`` None
    means the system's authorities. ``cert_file`` and ``key_file`` are a client certificate, which goes before one of
    ``credentials``. ``server_name`` is the name in the server's certificate where it is not the host. ``proxy`` is the
    URL of an HTTP proxy, None for a direct connection. ``headers`` are sent with every request: whom the configuration
    says to impersonate. ``files`` are what was put on the disk for it.
    """

    server: str
    namespace: str
    credentials: Credentials = Credential()
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    verify: bool = True
    server_name: str | None = None
    proxy: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    files: PrivateFiles = field(default_factory=PrivateFiles)

    async def credential(self, *, refresh: bool = False) -> Credential:
        credential = await self.credentials.get(refresh=refresh)
        if self.cert_file is None:
            return credential
        return replace(credential, cert_file=self.cert_file, key_file=self.key_file)


class TokenFile:
    """A bearer token in a file that somebody renews, as the kubelet does. Read again each minute and on a refusal.

    While the file cannot be read, the last token stays in use.
    """

    def __init__(
        self, path: Path, *, until_read: str | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``until_read`` is the token to use as long as the file could not be read once."""
        self._path = path
        self._clock = clock
        self._header = None if until_read is None else f"Bearer {until_read}"
        self._read_at: float | None = None

    async def get(self, *, refresh: bool = False) -> Credential:
        """The token of the file, at most a minute old."""
        if self._read_at is None or refresh or self._clock() - self._read_at >= _TOKEN_LIFE_SECONDS:
            self._read()
        return Credential(authorization=self._header)

    def _read(self) -> None:
        token = ""
        try:
            token = self._path.read_text().strip()
        except OSError as error:
            problem = one_line(error)
        except UnicodeDecodeError:  # whose text has a byte of the token
            problem = f"{self._path} holds no text"
        else:
            problem = f"{self._path} is empty" if not token else f"{self._path} holds more than a token"
        if token and token.isascii() and token.isprintable():
            self._header = f"Bearer {token}"
        elif self._header is None:
            raise ConfigurationProblem(f"no token to be had: {problem}: check the mounted token or tokenFile")
        else:
            log.warning("token file cannot be read, the last token stays in use", extra=fields(problem=problem))
        self._read_at = self._clock()


class TlsContexts:
    """The TLS context for new connections, rebuilt when a certificate file on disk has changed.

    A connection pool keyed by context then retires the old connections by itself. Half-written files keep the old
    context in use until they fit together.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._context: ssl.SSLContext | None = None
        self._stamps: tuple[object, ...] | None = None

    def context(self, credential: Credential) -> ssl.SSLContext:
        """The context for ``credential``. Raises ConfigurationProblem where there is none yet and none can be built."""
        files = (self._access.ca_file, credential.cert_file, credential.key_file)
        stamps = tuple(_stamp(file) for file in files)
        if self._context is not None and stamps == self._stamps:
            return self._context
        try:
            self._context = _build(self._access, credential)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            named = ", ".join(str(file) for file in files if file is not None)
            if self._context is None:
                raise ConfigurationProblem(
                    f"TLS files cannot be used: {error} ({named}): check that they are readable PEM files that belong"
                    " together"
                ) from error
            problem = f"{one_line(error)} ({named})"
            log.warning("changed TLS files cannot be used, the old ones stay", extra=fields(problem=problem))
        self._stamps = stamps
        return self._context


def _stamp(file: Path | None) -> tuple[object, ...]:
    if file is None:
        return ()
    try:
        found = file.stat()
    except OSError:
        return (file,)
    return (file, found.st_mtime_ns, found.st_ino, found.st_size)


def _build(access: Access, credential: Credential) -> ssl.SSLContext:
    # Not create_default_context: since Python 3.13 it sets VERIFY_X509_STRICT, which refuses the authorities of older
    # clusters for lacking key identifiers. kubectl accepts those, and any certificate in the bundle as an anchor.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if not access.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif access.ca_file is not None:
        context.load_verify_locations(access.ca_file)
    else:
        context.load_default_certs()
    if credential.cert_file is not None:
        context.load_cert_chain(credential.cert_file, credential.key_file)
    return context


def in_cluster_access(environ: Mapping[str, str], directory: Path = SERVICE_ACCOUNT) -> Access:
    """The access of a pod through its service account, mounted in ``directory``. Raises ConfigurationProblem."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "443")
    for name in ("token", "ca.crt"):
        if not (directory / name).is_file():
            raise ConfigurationProblem(
                f"KUBERNETES_SERVICE_HOST is set but {directory / name} is missing: set automountServiceAccountToken:"
                " true, or pass --kubeconfig"
            )
    try:
        namespace = (directory / "namespace").read_text().strip()
    except OSError:
        namespace = ""
    server = f"https://{f'[{host}]' if ':' in host else host}:{port}"
    return Access(
        server=server,
        namespace=namespace or "default",
        credentials=TokenFile(directory / "token"),
        ca_file=directory / "ca.crt",
        proxy=environment_proxy(server, environ),
    )
