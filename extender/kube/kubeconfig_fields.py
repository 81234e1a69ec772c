"""The fields of a kubeconfig that kubectl goes by, and which of their combinations are refused.

Owns the words of the file. A field of a user that is not here is refused: it may say as whom.
Fields: https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from typing import Any

import msgspec

from extender.kube.exec_plugin import ExecConfig

# legalHeaderKeyBytes of client-go's transport/round_trippers.go, without the percent sign, which escapes
_LEGAL_IN_A_HEADERS_NAME = frozenset(string.ascii_letters + string.digits + "!#$&'*+-.^_`|~")


class Cluster(msgspec.Struct, rename="kebab"):
    """``clusters[].cluster``. Nothing asks for compressed answers, so ``disable_compression`` is always so."""

    server: str = ""
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    insecure_skip_tls_verify: bool | None = None
    tls_server_name: str | None = None
    proxy_url: str | None = None
    disable_compression: bool | None = None


class AuthProvider(msgspec.Struct):
    """``users[].user.auth-provider``: the mechanism before exec plugins."""

    name: str = ""


class User(msgspec.Struct, rename="kebab", forbid_unknown_fields=True):
    """``users[].user``. A field that is not known here may say as whom, so it is refused."""

    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    token: str | None = None
    token_file: str | None = msgspec.field(default=None, name="tokenFile")
    username: str | None = None
    password: str | None = None
    as_user: str | None = msgspec.field(default=None, name="as")
    as_uid: str | None = None
    as_groups: list[str] | None = None
    as_user_extra: dict[str, list[str]] | None = None
    exec: ExecConfig | None = None
    auth_provider: AuthProvider | None = None
    extensions: Any = None


class Context(msgspec.Struct):
    """``contexts[].context``."""

    cluster: str = ""
    user: str | None = None
    namespace: str | None = None


def cluster_problems(cluster: Cluster) -> Iterator[str]:
    """What kubectl refuses (client-go's clientcmd/validation.go), and a server that cannot be reached so."""
    if not cluster.server:
        yield "it has no server"
    scheme = scheme_of(cluster.server)
    if scheme not in ("", "http", "https"):
        yield f"server is {scheme}://, and only https:// and http:// can be reached"
    if cluster.certificate_authority and cluster.certificate_authority_data:
        yield "certificate-authority and certificate-authority-data: take one of them away"
    if cluster.insecure_skip_tls_verify and (cluster.certificate_authority or cluster.certificate_authority_data):
        yield "insecure-skip-tls-verify beside a certificate authority: take one of them away"


def user_problems(user: User) -> Iterator[str]:
    """What kubectl refuses (client-go's clientcmd/validation.go), and what it would do and this cannot."""
    if user.auth_provider is not None:
        yield (
            f"auth-provider {user.auth_provider.name!r} is not supported: use its exec plugin instead, such as "
            "kubelogin for oidc"
        )
    if (user.token or user.token_file) and (user.username or user.password):
        yield "a token and a username with a password: take one of them away"
    if user.password and not user.username:
        yield "password without username"
    for name, file, data in (
        ("client-certificate", user.client_certificate, user.client_certificate_data),
        ("client-key", user.client_key, user.client_key_data),
    ):
        if file and data:
            yield f"{name} and {name}-data: take one of them away"
    if bool(user.client_certificate or user.client_certificate_data) != bool(user.client_key or user.client_key_data):
        yield "client-certificate and client-key belong together, and one of them is missing"
    if user.exec is not None:
        yield from user.exec.problems()
    if not user.as_user and (user.as_uid or user.as_groups or user.as_user_extra):
        yield "as-uid, as-groups and as-user-extra go with as, the user, which is missing"
    for _, value in impersonation(user):
        if not value or value != value.strip() or not value.isprintable():
            yield "as, as-uid, as-groups and as-user-extra are sent as headers: one of them is empty or no plain text"


def impersonation(user: User) -> tuple[tuple[str, str], ...]:
    """The headers that make each request one of somebody else, none where the file has no ``as``."""
    if not user.as_user:
        return ()
    uid = [("Impersonate-Uid", user.as_uid)] if user.as_uid else []
    groups = [("Impersonate-Group", group) for group in user.as_groups or ()]
    extra = [
        (f"Impersonate-Extra-{_header_name(key)}", value)
        for key, values in (user.as_user_extra or {}).items()
        for value in values
    ]
    return (("Impersonate-User", user.as_user), *uid, *groups, *extra)


def _header_name(key: str) -> str:
    """As client-go's headerKeyEscape; the API server takes keys in lower case whatever is sent."""
    return "".join(chr(byte) if chr(byte) in _LEGAL_IN_A_HEADERS_NAME else f"%{byte:02X}" for byte in key.encode())


def scheme_of(url: str) -> str:
    """Give the scheme in lower case, empty without one."""
    return url.partition("://")[0].lower() if "://" in url else ""
