"""A small synchronous JSON client for tests, demos and benchmarks: http.client with a client certificate.

Owns talking to the API server from outside. It shares no code with `extender.kube.api_client`, so
that a mistake there cannot hide itself here.
"""

from __future__ import annotations

import http.client
import json
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, TypeAlias, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import yaml

from scripts.tools.controlplane.certificates import KeyPair
from scripts.tools.controlplane.errors import ApiError

Json: TypeAlias = dict[str, Any]
Parameter: TypeAlias = str | int | bool
T = TypeVar("T")

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
POLL_SECONDS = 0.05


def wait_for(condition: Callable[[], T | None], timeout: float, describe: str | Callable[[], str]) -> T:
    """Call ``condition`` until what it returns is true, and return that.

    ``timeout`` in seconds. Raises TimeoutError with ``describe``: what was awaited, and if it is a function, what was
    found instead.
    """
    deadline = time.monotonic() + timeout
    while True:
        if found := condition():
            return found
        if time.monotonic() >= deadline:
            raise TimeoutError(f"not within {timeout:g} s: {describe if isinstance(describe, str) else describe()}")
        time.sleep(POLL_SECONDS)


class Api:
    """Requests to one API server as one user. Threads may share it: each has its own kept-alive connection."""

    def __init__(
        self, server_url: str, ca_file: Path | None = None, client: KeyPair | None = None, *, timeout: float = 30.0
    ) -> None:
        address = urlsplit(server_url)
        self._address = (address.hostname or "127.0.0.1", address.port or 443)
        self._is_plain = address.scheme == "http"  # `kubectl proxy`, which has the credentials
        self._timeout = timeout
        self.tls = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
        if client is not None:
            self.tls.load_cert_chain(client.certificate, client.key)
        self._local = threading.local()
        self._lock = threading.Lock()
        self._connections: list[http.client.HTTPConnection] = []
        self._resources: dict[str, dict[str, tuple[str, bool]]] = {}

    @classmethod
    def from_kubeconfig(cls, path: Path, *, timeout: float = 30.0) -> Self:
        """Return a client for the one user of a kubeconfig that names certificate files, as ours do."""
        config = yaml.safe_load(path.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        client = KeyPair(certificate=Path(user["client-certificate"]), key=Path(user["client-key"]))
        return cls(cluster["server"], Path(cluster["certificate-authority"]), client, timeout=timeout)

    def request(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        params: Mapping[str, Parameter] | None = None,
        content_type: str | None = None,
    ) -> Json:
        """Send one request and return the decoded answer, ``{"text": ...}`` where the answer is not JSON.

        ``content_type`` defaults to a merge patch for PATCH, else JSON. Raises ApiError for a refusal (404 and 409 too)
        and OSError or http.client.HTTPException where there is no answer. Nothing is ever sent twice.
        """
        if params:
            plain = {key: str(value).lower() if isinstance(value, bool) else value for key, value in params.items()}
            path = f"{path}?{urlencode(plain)}"
        headers = {"Accept": JSON}
        if body is not None:
            headers["Content-Type"] = content_type or (MERGE_PATCH if method == "PATCH" else JSON)
        connection = self._connection()
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            content = response.read()
        except BaseException:
            connection.close()
            raise
        answer = _decode(content, response.headers.get_content_type())
        if response.status >= 400:
            message = answer.get("message") or answer.get("text") or response.reason
            raise ApiError(response.status, str(message), str(answer.get("reason", "")))
        return answer

    def create(self, item: Json) -> Json:
        """POST an object; kind and apiVersion say where. Raises ApiError 409 where it exists."""
        return self.request("POST", self.path_of(item, collection=True), item)

    def apply(self, item: Json, *, field_manager: str = "tests") -> Json:
        """Create or change an object by server-side apply, taking over fields that others set."""
        params: dict[str, Parameter] = {"fieldManager": field_manager, "force": True}
        return self.request("PATCH", self.path_of(item), item, params, APPLY_PATCH)

    def get_or_none(self, path: str) -> Json | None:
        """Return the object at ``path``, None where there is none."""
        try:
            return self.request("GET", path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def path_of(self, item: Json, *, collection: bool = False) -> str:
        """Return the path of an object, or of the collection that it belongs to, by the server's own discovery."""
        version, kind, metadata = item["apiVersion"], item["kind"], item["metadata"]
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        if kind not in self._resources.get(root, {}):
            listed = self.request("GET", root)["resources"]
            self._resources[root] = {
                each["kind"]: (each["name"], each["namespaced"]) for each in listed if "/" not in each["name"]
            }
        try:
            plural, namespaced = self._resources[root][kind]
        except KeyError:
            raise ApiError(404, f"the API server knows no kind {kind} in {version}") from None
        path = (
            f"{root}/namespaces/{metadata.get('namespace', 'default')}/{plural}" if namespaced else f"{root}/{plural}"
        )
        return path if collection else f"{path}/{quote(metadata['name'])}"

    def close(self) -> None:
        """Close the connections of all threads. The next request opens a new one."""
        with self._lock:
            for each in self._connections:
                each.close()

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = (
                http.client.HTTPConnection(*self._address, timeout=self._timeout)
                if self._is_plain
                else http.client.HTTPSConnection(*self._address, timeout=self._timeout, context=self.tls)
            )
            self._local.connection = connection
            with self._lock:
                self._connections.append(connection)
        # An idle connection with something to read was closed by the server (a restart). Noticing that before anything
        # is sent is what makes a retry, and a write that happens twice, unnecessary.
        if connection.sock is not None and _is_readable(connection.sock):
            connection.close()
        return connection


def _decode(content: bytes, content_type: str) -> Json:
    if content_type == JSON and content:
        decoded = json.loads(content)
        return decoded if isinstance(decoded, dict) else {"items": decoded}
    return {"text": content.decode(errors="replace")}


def _is_readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLHUP)
    return bool(poll.poll(0))
