"""A kubeconfig: which server, and as whom, as `kubectl` would take it. docs/kubeconfig.md has the table of its fields.

Owns the reading and what is refused. A field that kubectl goes by is gone by here too or the file is refused: never is
one passed over, for then this would act as somebody else than the file says.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from extender.kube.credentials import Access, Credential, Credentials, PrivateFiles, TokenFile
from extender.kube.errors import ConfigurationProblem
from extender.kube.exec_plugin import ExecCredentials, cluster_info
from extender.kube.kubeconfig_fields import (
    Cluster,
    Context,
    User,
    cluster_problems,
    impersonation,
    scheme_of,
    user_problems,
)
from extender.kube.proxy import environment_proxy

T = TypeVar("T")


class _Named(msgspec.Struct):
    name: str = ""
    cluster: Any = None
    user: Any = None
    context: Any = None


class _File(msgspec.Struct):
    clusters: list[_Named] | None = None
    users: list[_Named] | None = None
    contexts: list[_Named] | None = None
    current_context: str | None = msgspec.field(default=None, name="current-context")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """An entry of a list by its name, and the file that it stands in: its relative paths start there."""

    entry: _Named
    file: Path

    @property
    def directory(self) -> Path:
        return self.file.absolute().parent


def kubeconfig_access(files: str, context: str | None, environ: Mapping[str, str]) -> Access:
    """Read ``files``, one or several as in $KUBECONFIG, and in them ``context`` or the current one. Blocks.

    Of several files the first that has a name, or says what the current context is, counts.

    Raises:
        ConfigurationProblem: one line, which says what to do, and holds nothing secret.
    """
    paths = [Path(each).expanduser() for each in files.split(os.pathsep) if each]
    read = [(path, file) for path in paths if (file := _read(path)) is not None]
    if not read:
        raise ConfigurationProblem(
            f"no kubeconfig at {', '.join(map(str, paths))}: pass --kubeconfig FILE or set KUBECONFIG"
        )
    contexts = _by_name(read, lambda file: file.contexts)
    name = context or next((file.current_context for _, file in read if file.current_context), "")
    if name not in contexts:
        asked = f"no context {name!r}" if name else "no current-context"
        known = ", ".join(contexts) or "(it has none)"
        raise ConfigurationProblem(f"{files}: {asked}: pass --context with one of: {known}")
    chosen = _converted(contexts[name].entry.context, Context, f"{files}: context {name!r}")
    clusters, users = _by_name(read, lambda file: file.clusters), _by_name(read, lambda file: file.users)
    for kind, wanted, known_names in (("cluster", chosen.cluster, clusters), ("user", chosen.user or "", users)):
        if wanted not in known_names and (wanted or kind == "cluster"):
            raise ConfigurationProblem(f"{files}: context {name!r} names the {kind} {wanted!r}, which is not there")
    user_at = users[chosen.user] if chosen.user else _Found(entry=_Named(), file=contexts[name].file)
    return _access(
        clusters[chosen.cluster], user_at, namespace=chosen.namespace or "default", where=files, environ=environ
    )


def _access(cluster_at: _Found, user_at: _Found, *, namespace: str, where: str, environ: Mapping[str, str]) -> Access:
    at_cluster, at_user = f"{where}: cluster {cluster_at.entry.name!r}", f"{where}: user {user_at.entry.name!r}"
    cluster = _converted(cluster_at.entry.cluster, Cluster, at_cluster)
    user = _converted(user_at.entry.user, User, at_user)
    for place, problem in (
        *((at_cluster, each) for each in cluster_problems(cluster)),
        *((at_user, each) for each in user_problems(user)),
    ):
        raise ConfigurationProblem(f"{place}: {problem}")
    ca = _material(cluster_at, cluster.certificate_authority, cluster.certificate_authority_data, at_cluster)
    cert = _material(user_at, user.client_certificate, user.client_certificate_data, at_user)
    key = _material(user_at, user.client_key, user.client_key_data, at_user)
    server = _server(cluster, has_tls=bool(ca or cert))
    proxy = cluster.proxy_url or environment_proxy(server, environ)
    if proxy is not None and scheme_of(proxy) not in ("http", "https"):
        said = f"proxy-url, or HTTPS_PROXY, is {scheme_of(proxy)}://"  # the rest of it may hold a password
        raise ConfigurationProblem(f"{where}: {said}: only http:// and https:// proxies are supported")
    files = PrivateFiles()
    try:
        ca_file, cert_file, key_file = (
            files.place(name, content) for name, content in (("ca.crt", ca), ("client.crt", cert), ("client.key", key))
        )
        credentials = _credentials(user, user_at.directory, files, cluster_info(cluster_at.entry.cluster, ca_file))
    except OSError as error:
        files.close()
        raise ConfigurationProblem(f"{where}: certificates cannot be put into a file: {error.strerror}") from error
    return Access(
        server=server,
        namespace=namespace,
        credentials=credentials,
        ca_file=ca_file,
        cert_file=cert_file,
        key_file=key_file,
        verify=not cluster.insecure_skip_tls_verify,
        server_name=cluster.tls_server_name or None,
        proxy=proxy,
        headers=impersonation(user),
        files=files,
    )


def _credentials(user: User, directory: Path, files: PrivateFiles, cluster: dict[str, object] | None) -> Credentials:
    """By precedence, as client-go: tokenFile, token, username, exec."""
    if user.token_file:
        return TokenFile(directory / user.token_file, until_read=user.token)
    if user.token:
        return Credential(authorization=f"Bearer {user.token}")
    if user.username:
        pair = base64.b64encode(f"{user.username}:{user.password or ''}".encode()).decode()
        return Credential(authorization=f"Basic {pair}")
    if user.exec is not None:
        return ExecCredentials(config=user.exec, directory=directory, files=files, cluster=cluster)
    return Credential()


def _server(cluster: Cluster, *, has_tls: bool) -> str:
    """The URL. Without a scheme it is https where anything of TLS is set, else http: rest.DefaultServerURL."""
    server = cluster.server.rstrip("/")
    if scheme_of(server):
        return server
    return f"{'https' if has_tls or cluster.insecure_skip_tls_verify else 'http'}://{server}"


def _material(found: _Found, file: str | None, data: str | None, where: str) -> Path | bytes | None:
    """A certificate or key: the path of its file, which can be read, or its bytes."""
    if data:
        try:
            return base64.b64decode("".join(data.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise ConfigurationProblem(f"{where}: a field that ends in -data is not base64") from error
    if not file:
        return None
    path = found.directory / file
    try:
        path.open("rb").close()
    except OSError as error:
        raise ConfigurationProblem(f"{where}: {path} cannot be read: {error.strerror}") from error
    return path


def _read(path: Path) -> _File | None:
    """Read one file, None where there is none."""
    try:
        tree = yaml.load(path.read_bytes(), Loader=_LOADER)  # noqa: S506 - both are safe loaders
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigurationProblem(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)  # the text around it may be a token
        line = "" if mark is None else f" (line {mark.line + 1})"
        raise ConfigurationProblem(f"{path}: not valid YAML{line}: compare with `kubectl config view`") from error
    return _converted(tree, _File, str(path))


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _by_name(read: list[tuple[Path, _File]], of: Callable[[_File], list[_Named] | None]) -> Mapping[str, _Found]:
    found: dict[str, _Found] = {}
    for path, file in read:
        for entry in of(file) or ():
            found.setdefault(entry.name, _Found(entry=entry, file=path))
    return found


def _converted(tree: Any, struct: type[T], where: str) -> T:
    """The tree as ``struct``; nothing at all is an empty one."""
    try:
        return msgspec.convert({} if tree is None else tree, struct)
    except msgspec.ValidationError as error:
        raise ConfigurationProblem(
            f"{where}: not a usable kubeconfig: {error}: compare with `kubectl config view`"
        ) from error
