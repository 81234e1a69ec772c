"""Credentials from an exec plugin of a kubeconfig (`aws eks get-token`, `gke-gcloud-auth-plugin`, ...).

Owns running the plugin without blocking the loop, reading its answer and remembering it until it expires.
Protocol: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from extender.kube.credentials import Credential, PrivateFiles
from extender.kube.errors import ConfigurationProblem
from extender.logs import fields

_EARLY = timedelta(minutes=1)  # a token is renewed this long before it expires
_PATIENCE = timedelta(seconds=60)
_PATIENCE_WITH_A_PERSON = timedelta(minutes=5)  # a log-in in a browser takes a while
_RETRY = timedelta(seconds=10)
_API_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
_INTERACTIVE_MODES = ("Never", "IfAvailable", "Always")

log = logging.getLogger("warmnode.credentials")


class EnvironmentVariable(msgspec.Struct):
    """One variable that the plugin gets on top of our own environment."""

    name: str
    value: str


class ExecConfig(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """``users[].user.exec`` of a kubeconfig."""

    command: str
    api_version: str
    args: list[str] | None = None
    env: list[EnvironmentVariable] | None = None
    install_hint: str | None = None
    provide_cluster_info: bool = False
    interactive_mode: str = "IfAvailable"

    def problems(self) -> Iterator[str]:
        if not self.command:
            yield "exec.command is empty"
        if self.api_version not in _API_VERSIONS:
            yield f"exec.apiVersion is {self.api_version}, which is none of {', '.join(_API_VERSIONS)}"
        if self.interactive_mode not in _INTERACTIVE_MODES:
            yield f"exec.interactiveMode is {self.interactive_mode}, which is none of {', '.join(_INTERACTIVE_MODES)}"
        if not all(each.name for each in self.env or ()):
            yield "exec.env: a variable has no name"


class _PluginStatus(msgspec.Struct, rename="camel"):
    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None
    expiration_timestamp: datetime | None = None


class _ExecCredential(msgspec.Struct, rename="camel"):
    api_version: str
    kind: str
    status: _PluginStatus | None = None


def cluster_info(cluster: Mapping[str, object], ca_file: Path | None) -> dict[str, object]:
    """``spec.cluster`` of the plugin's input for a kubeconfig's cluster; the CA is handed over as data."""
    names = ("server", "tls-server-name", "insecure-skip-tls-verify", "proxy-url", "disable-compression")
    info: dict[str, object] = {name: cluster[name] for name in names if name in cluster}
    if ca_file is not None:
        info["certificate-authority-data"] = base64.b64encode(ca_file.read_bytes()).decode()
    extensions = cluster.get("extensions")
    for extension in extensions if isinstance(extensions, list) else []:
        if isinstance(extension, dict) and extension.get("name") == "client.authentication.k8s.io/exec":
            info["config"] = extension.get("extension")
    return info


@dataclass(slots=True, kw_only=True, eq=False)
class ExecCredentials:
    """Runs the plugin, at most once at a time, and keeps its answer until a minute before it expires.

    A failed early renewal keeps the old answer until it has really expired. Certificates go to ``files``.
    ``directory`` is the kubeconfig's: a relative command with a slash is found from there.
    """

    config: ExecConfig
    directory: Path
    files: PrivateFiles
    cluster: dict[str, object] | None = None
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _credential: Credential | None = field(default=None, init=False)
    _expires: datetime | None = field(default=None, init=False)
    _renew_at: datetime | None = field(default=None, init=False)

    async def get(self, *, refresh: bool = False) -> Credential:
        """The plugin's credential. Raises ConfigurationProblem with the plugin's own words where it gives none."""
        before = self._credential
        async with self._lock:
            held = self._credential
            if held is not None and held is not before:  # somebody else renewed it while we waited
                return held
            if held is not None and not refresh and (self._renew_at is None or self.now() < self._renew_at):
                return held
            try:
                self._credential = await self._run()
            except ConfigurationProblem as problem:
                if held is None or refresh or self._expires is None or self.now() >= self._expires:
                    raise
                self._renew_at = self.now() + _RETRY
                log.warning("early renewal of the credential failed", extra=fields(problem=str(problem)))
                return held
            return self._credential

    async def _run(self) -> Credential:
        interactive = self.config.interactive_mode != "Never" and sys.stdin is not None and sys.stdin.isatty()
        if self.config.interactive_mode == "Always" and not interactive:
            raise self._problem("it needs a terminal (interactiveMode: Always)")
        command = self.config.command
        if os.sep in command:
            command = str(self.directory / command)
        try:
            process = await asyncio.create_subprocess_exec(
                command,
                *(self.config.args or []),
                stdin=None if interactive else DEVNULL,
                stdout=PIPE,
                stderr=None if interactive else PIPE,
                env=os.environ | {each.name: each.value for each in self.config.env or []} | self._input(interactive),
            )
        except OSError as error:
            hint = " ".join((self.config.install_hint or "install it, or fix exec.command in the kubeconfig").split())
            raise self._problem(f"it cannot be started: {error.strerror}: {hint}") from error
        patience = _PATIENCE_WITH_A_PERSON if interactive else _PATIENCE
        try:
            async with asyncio.timeout(patience.total_seconds()):
                output, errors = await process.communicate()
        except TimeoutError as error:
            raise self._problem(f"no answer within {patience.total_seconds():.0f} s") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            said = " ".join((errors or b"").decode(errors="replace").split())[-300:]
            raise self._problem(f"exit code {process.returncode}: {said or 'no message'}")
        return self._read(output)

    def _input(self, interactive: bool) -> dict[str, str]:
        spec: dict[str, object] = {"interactive": interactive}
        if self.config.provide_cluster_info and self.cluster is not None:
            spec["cluster"] = self.cluster
        info = {"apiVersion": self.config.api_version, "kind": "ExecCredential", "spec": spec}
        return {"KUBERNETES_EXEC_INFO": msgspec.json.encode(info).decode()}

    def _read(self, output: bytes) -> Credential:
        try:
            answer = msgspec.json.decode(output, type=_ExecCredential)
        except (UnicodeDecodeError, RecursionError) as error:  # the text of the first has a byte of the output
            raise self._problem("its output is no ExecCredential") from error
        except msgspec.DecodeError as error:
            raise self._problem(f"its output is no ExecCredential: {error}") from error
        if answer.api_version != self.config.api_version:
            raise self._problem(
                f"it answered {answer.api_version} and the kubeconfig names {self.config.api_version}: make them equal"
            )
        status = answer.status or _PluginStatus()
        cert, key = status.client_certificate_data, status.client_key_data
        if not status.token and not (cert and key):
            raise self._problem("its answer has neither a token nor a client certificate with its key")
        expires = status.expiration_timestamp
        if expires is not None and expires.tzinfo is None:
            raise self._problem("expirationTimestamp has no time zone")
        cert_file = self.files.place("plugin.crt", cert.encode()) if cert and key else None
        key_file = self.files.place("plugin.key", key.encode()) if cert and key else None
        header = f"Bearer {status.token}" if status.token else None
        self._expires = expires  # of an answer that was taken
        # A life shorter than the margin must not run the plugin before every request.
        self._renew_at = None if expires is None else max(expires - _EARLY, self.now() + _RETRY)
        return Credential(authorization=header, cert_file=cert_file, key_file=key_file)

    def _problem(self, what: str) -> ConfigurationProblem:
        return ConfigurationProblem(f"exec plugin {self.config.command} of the kubeconfig: {what}")
