"""The client of the API server: where it is by kubeconfig or service account, and requests with errors as exceptions.

The only module that imports `kubernetes`, lazily, and only to read a kubeconfig. Knows no kind of object and decodes
nothing but failures; `transport` sends.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp
import msgspec

from extender.kube.access import (
    Access,
    Credential,
    Credentials,
    FixedCredentials,
    HookCredentials,
    TokenFile,
    in_cluster_access,
)
from extender.kube.errors import ConfigurationProblem, failure
from extender.kube.exec_plugin import ExecConfig, ExecCredentials, cluster_info
from extender.kube.proxy import environment_proxy
from extender.kube.transport import Lane, Request, Transport

Params: TypeAlias = Mapping[str, str]

TIMEOUT = timedelta(seconds=30)
ANSWER_LIMIT = timedelta(seconds=20)
"""For the head of an answer to a GET: a list and a watch begin at once where an API server works."""
_REFUSAL_TIMEOUT = timedelta(seconds=10)  # for the body of a refused watch


class KubeClient:
    """Requests to one API server. Make it with `connect`, inside a running loop; close it when done.

    ``namespace`` is where we live: the pod's own in a cluster, else the context's, else ``default``.

    Every call raises a `KubeError` of `extender.kube.errors`: no answer, a time-out and an answer cut short are
    `Unavailable`. Paths start with ``/api`` or ``/apis``. There are no retries, except that a read answered 401 is
    repeated once with refreshed credentials.
    """

    def __init__(self, transport: Transport, *, namespace: str, lane: Lane = Lane.OTHER) -> None:
        self.namespace = namespace
        self._transport = transport
        self._lane = lane

    @classmethod
    async def connect(cls, *, kubeconfig: str | None = None, context: str | None = None, user_agent: str) -> KubeClient:
        """A client for the configured API server. Asks for credentials once, and sends no request to the server.

        With neither ``kubeconfig``, ``context`` nor $KUBECONFIG, and KUBERNETES_SERVICE_HOST set: the pod's service
        account. Else a kubeconfig: ``kubeconfig`` or $KUBECONFIG (a list of files, as in kubectl) or
        ``~/.kube/config``, and in it ``context`` or the current one. Raises ConfigurationProblem, one line.
        """
        files = kubeconfig or os.environ.get("KUBECONFIG", "")
        if not files and context is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
            access = in_cluster_access(os.environ)
        else:
            access = await asyncio.to_thread(_kubeconfig_access, files or "~/.kube/config", context)
        transport = Transport(access, user_agent=user_agent)
        try:
            await transport.prepare()
        except BaseException:
            await transport.close()
            raise
        return cls(transport, namespace=access.namespace)

    def on(self, lane: Lane) -> KubeClient:
        """The same client over the connections of ``lane``, for what must not wait for other requests."""
        return KubeClient(self._transport, namespace=self.namespace, lane=lane)

    @property
    def clock_skew(self) -> timedelta | None:
        """The server's clock minus ours now, by the Date of its last answer, good to a second. None before one."""
        return self._transport.clock_skew

    @property
    def problem(self) -> str | None:
        """Say why the API server cannot be reached, None while it answers, as far as anything was asked."""
        return self._transport.problem

    async def get_bytes(
        self,
        path: str,
        *,
        params: Params | None = None,
        timeout: timedelta = TIMEOUT,  # noqa: ASYNC109 - no call without a limit, so each has one by default
    ) -> bytes:
        """The body of a successful GET, complete within ``timeout``."""
        request = Request(method="GET", path=path, params=params, answer_limit=ANSWER_LIMIT, lane=self._lane)
        return await self._call(request, timeout)

    async def send(
        self,
        method: str,
        path: str,
        body: bytes,
        *,
        params: Params | None = None,
        content_type: str = "application/json",
        timeout: timedelta = TIMEOUT,  # noqa: ASYNC109 - as above
    ) -> bytes:
        """The body of a successful POST, PUT, PATCH or DELETE, complete within ``timeout``. It is never sent twice.

        A merge patch needs ``content_type="application/merge-patch+json"``. After `Unavailable` nobody knows whether it
        was done.
        """
        headers = {"Content-Type": content_type}
        request = Request(method=method, path=path, body=body, params=params, headers=headers, lane=self._lane)
        return await self._call(request, timeout)

    @asynccontextmanager
    async def watch_stream(
        self, path: str, *, params: Params, silence_limit: timedelta
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Chunks of a streamed answer as they arrive, cut anywhere, until the server ends it.

        A refusal raises its error on entry. The iterator raises Unavailable when the connection breaks, or when nothing
        has come for ``silence_limit``; there is no limit on the whole.
        """
        request = Request(
            method="GET",
            path=path,
            params=params,
            silence_limit=silence_limit,
            answer_limit=ANSWER_LIMIT,
            lane=self._lane,
        )
        async with AsyncExitStack() as stack:
            with self._transport.failures(request, _REFUSAL_TIMEOUT):
                response = await stack.enter_async_context(self._transport.answer(request))
                if response.status != 200:
                    async with asyncio.timeout(_REFUSAL_TIMEOUT.total_seconds()):
                        _raise_failure(response, await response.read())
            yield await stack.enter_async_context(aclosing(self._chunks(response, request)))

    async def close(self) -> None:
        """Close all connections, of every lane, and remove credentials from the disk."""
        await self._transport.close()

    async def _call(self, request: Request, limit: timedelta) -> bytes:
        with self._transport.failures(request, limit):
            async with asyncio.timeout(limit.total_seconds()), self._transport.answer(request) as response:
                body = await response.read()
        _raise_failure(response, body)
        return body

    async def _chunks(self, response: aiohttp.ClientResponse, request: Request) -> AsyncGenerator[bytes, None]:
        with self._transport.failures(request):
            async for chunk in response.content.iter_any():
                yield chunk


def _raise_failure(response: aiohttp.ClientResponse, body: bytes) -> None:
    error = failure(response.status, body, response.headers)
    if error is not None:
        raise error


def _kubeconfig_access(files: str, context: str | None) -> Access:
    """Read the kubeconfig ``files``. Blocks: half a second of imports, and an old auth provider may ask its server."""
    paths = [Path(each).expanduser() for each in files.split(os.pathsep) if each]
    if not any(path.exists() for path in paths):
        raise ConfigurationProblem(
            f"no kubeconfig at {', '.join(map(str, paths))}: pass --kubeconfig FILE or set KUBECONFIG"
        )
    import yaml
    from kubernetes.client import Configuration
    from kubernetes.config.config_exception import ConfigException
    from kubernetes.config.kube_config import KubeConfigLoader, KubeConfigMerger

    where = files
    try:
        tree = KubeConfigMerger(os.pathsep.join(map(str, paths))).config  # type: ignore[no-untyped-call]
        name = context or tree.value.get("current-context")
        known = [each["name"] for each in tree.value["contexts"]]
        if not name or name not in known:
            asked = f"no context {name!r}" if name else "no current-context"
            raise ConfigurationProblem(
                f"{where}: {asked}: pass --context with one of: {', '.join(known) or '(it has none)'}"
            )
        chosen = tree["contexts"].get_with_name(name)["context"]
        cluster = tree["clusters"].get_with_name(chosen["cluster"])["cluster"]
        user = tree["users"].get_with_name(chosen.safe_get("user"), safe=True) if chosen.safe_get("user") else None
        user_tree: dict[str, Any] = (user.value.get("user") or {}) if user is not None else {}
        directory = Path(user.path if user is not None else cluster.path).absolute().parent
        exec_tree = None if user_tree.get("token") else user_tree.pop("exec", None)  # run by us, not by the loader
        configuration = Configuration()
        # config_base_path None: relative file names start from the file that they stand in
        loader = KubeConfigLoader(tree, name, config_base_path=None)  # type: ignore[no-untyped-call]
        loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
        exec_config = None if exec_tree is None else msgspec.convert(exec_tree, ExecConfig)
    except yaml.YAMLError as error:
        raise ConfigurationProblem(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error
    except ConfigException as error:
        raise ConfigurationProblem(f"{where}: {error}: compare with `kubectl config view`") from error
    except (OSError, ValueError, TypeError, AttributeError, KeyError, msgspec.ValidationError) as error:
        raise ConfigurationProblem(
            f"{where}: not a usable kubeconfig: {' '.join(str(error).split())}: compare with `kubectl config view`"
        ) from error
    server = str(configuration.host).rstrip("/")
    ca_file = Path(configuration.ssl_ca_cert) if configuration.ssl_ca_cert else None
    credentials: Credentials
    if exec_config is not None:
        info = cluster_info(cluster.value, ca_file) if exec_config.provide_cluster_info else None
        credentials = ExecCredentials(exec_config, directory=directory, cluster=info)
    elif user_tree.get("tokenFile"):
        credentials = TokenFile(directory / user_tree["tokenFile"])
    elif "auth-provider" in user_tree:
        credentials = HookCredentials(lambda: _bearer(configuration))
    else:
        credentials = FixedCredentials(
            Credential(
                authorization=_bearer(configuration),
                cert_file=Path(configuration.cert_file) if configuration.cert_file else None,
                key_file=Path(configuration.key_file) if configuration.key_file else None,
            )
        )
    proxy = cluster.value.get("proxy-url") or environment_proxy(server, os.environ)
    if proxy is not None and not proxy.startswith(("http://", "https://")):
        raise ConfigurationProblem(f"proxy {proxy} cannot be used: only http:// and https:// proxies are supported")
    return Access(
        server=server,
        namespace=chosen.safe_get("namespace") or "default",
        credentials=credentials,
        ca_file=ca_file,
        verify=bool(configuration.verify_ssl),
        server_name=cluster.value.get("tls-server-name"),
        proxy=proxy,
    )


def _bearer(configuration: Any) -> str | None:
    """The Authorization header. ``auth_settings`` runs the refresh hook and is spelt alike in every version."""
    setting = configuration.auth_settings().get("BearerToken")
    return None if setting is None else setting["value"]
