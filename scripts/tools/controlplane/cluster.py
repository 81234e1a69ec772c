"""One control plane of real processes: etcd, kube-apiserver and whatever of the rest is asked for.

Owns what is started in which order, and the interface that tests, the demo and benchmarks use. Flags are in
`components`, files and ports in `layout`, processes in `launching`, requests in `client`.
"""

from __future__ import annotations

import http.client
import itertools
import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import yaml

from scripts.tools.controlplane.binaries import Note
from scripts.tools.controlplane.building import find_or_build
from scripts.tools.controlplane.client import Api, Json, Parameter, wait_for
from scripts.tools.controlplane.components import Component
from scripts.tools.controlplane.errors import ControlPlaneError, StartFailed
from scripts.tools.controlplane.launching import START_SECONDS, Components, Launch
from scripts.tools.controlplane.layout import Layout
from scripts.tools.controlplane.objects import has_condition, node
from scripts.tools.controlplane.processes import Process
from scripts.tools.controlplane.workspace import Workspace

T = TypeVar("T")
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def silent(line: str) -> None:
    """Take a progress line and say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Which components run, and further flags. etcd and the API server always run.

    A flag given here wins over ours. With thousands of nodes, longer leases leave more of the machine to what is
    measured: kwok ``--node-lease-duration-seconds=200``, controller manager ``--node-monitor-grace-period=300s``.
    ``karpenter`` is the version of Karpenter's KWOK build, None for none. ``karpenter_environment`` is added to its
    environment, such as ``("BATCH_IDLE_DURATION", "1s")``.
    """

    scheduler: bool = True
    controller_manager: bool = True
    kwok: bool = True
    karpenter: str | None = None
    apiserver_flags: tuple[str, ...] = ()
    controller_manager_flags: tuple[str, ...] = ()
    kwok_flags: tuple[str, ...] = ()
    karpenter_environment: tuple[tuple[str, str], ...] = ()

    def binaries(self) -> list[str]:
        """Return the names of the programs that these options need."""
        wanted = {
            "etcd": True,
            "kube-apiserver": True,
            "kube-controller-manager": self.controller_manager,
            "kube-scheduler": self.scheduler,
            "kwok": self.kwok,
            f"karpenter-{self.karpenter}": self.karpenter is not None,
        }
        return [name for name, needed in wanted.items() if needed]


class ControlPlane:
    """A control plane in this process's care: it ends with `stop`, and with this process in any case.

    ``directory`` must be new or empty and is removed by `stop`; None takes a temporary one. Everything is ready when
    `start` returns: the API server answers, the `default` service account exists, each component is healthy.
    """

    def __init__(
        self,
        options: Options | None = None,
        *,
        directory: Path | None = None,
        environment: Mapping[str, str] = os.environ,
        note: Note = silent,
    ) -> None:
        self.options = options or Options()
        self._directory = directory
        self._environment = environment
        self._note = note
        self._workspace: Workspace | None = None
        self._components: Components | None = None
        self._layout: Layout | None = None
        self._api: Api | None = None
        self._binaries: dict[str, Path] = {}
        self._numbers = itertools.count(1)

    # Life

    def start(self) -> None:
        """Find or build the programs and start everything. On any failure nothing is left.

        Raises MissingTool, StartFailed, workspace.Held or another ControlPlaneError.
        """
        if self._workspace is not None:
            raise ControlPlaneError("this control plane runs already")
        self._binaries = find_or_build(self.options.binaries(), self._environment, self._note)
        try:
            self._start_or_clean_up()
        except StartFailed as error:
            # Another process took one of our ports between choosing and listening: choose again, once.
            if "address already in use" not in str(error):
                raise
            self._note("a port was taken by another process: starting once more")
            self._start_or_clean_up()

    def stop(self) -> None:
        """End every process and remove the folder. Does nothing where nothing was started."""
        if self._components is not None:
            self._components.close()
            self._components = None
        if self._api is not None:
            self._api.close()
            self._api = None
        if self._workspace is not None:
            self._workspace.release()
            self._workspace = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # Where things are

    @property
    def directory(self) -> Path:
        return _started(self._workspace).path

    @property
    def server_url(self) -> str:
        return _started(self._layout).server_url

    @property
    def kubeconfig(self) -> Path:
        """The administrator's (system:masters)."""
        return _started(self._layout).kubeconfig("admin")

    @property
    def ca_file(self) -> Path:
        return _started(self._layout).credentials.authority.file

    @property
    def client_certificate(self) -> Path:
        """The administrator's client certificate, PEM."""
        return _started(self._layout).credentials.admin.certificate

    @property
    def client_key(self) -> Path:
        """The administrator's private key, PEM."""
        return _started(self._layout).credentials.admin.key

    @property
    def processes(self) -> Mapping[str, Process]:
        """The processes by name, ended ones too until they are restarted."""
        return _started(self._components).processes

    def kubeconfig_for(self, user: str, groups: Sequence[str] = ()) -> Path:
        """Write a kubeconfig with a client certificate for ``user`` (at most 64 characters) in ``groups``."""
        layout = _started(self._layout)
        name = f"user-{next(self._numbers)}-{re.sub(r'[^A-Za-z0-9.-]', '-', user)}"
        client = layout.credentials.authority.issue_client(name, user=user, groups=groups)
        return layout.write_kubeconfig(name, client, user)

    # Disturbing it. A component is named by `Component`, or by the name given to `start_scheduler`.

    def kill(self, component: str) -> None:
        """SIGKILL a component and wait until it is gone."""
        _started(self._components).process(component).kill()

    def pause(self, component: str) -> None:
        """SIGSTOP a component: its connections stay open and it answers nothing."""
        _started(self._components).process(component).pause()

    def resume(self, component: str) -> None:
        """SIGCONT a paused component."""
        _started(self._components).process(component).resume()

    def restart(self, component: str) -> None:
        """Kill a component if it runs, start it with the same flags and ports, and wait until it is ready."""
        _started(self._components).restart(component)

    def start_scheduler(
        self,
        name: str,
        config: Path | Json,
        *,
        binary: str = "kube-scheduler",
        extra_args: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Process:
        """Start a further kube-scheduler with a KubeSchedulerConfiguration (a dict or a YAML file); ready on return.

        What the configuration leaves open is filled in: kubeconfig, client limits, no leader election. ``name`` names
        the process, not the profile; ``binary`` is one of `known_binaries`. Metrics: ``https://127.0.0.1:PORT/metrics``
        with the administrator's certificate.
        """
        self._binaries |= find_or_build([binary], self._environment, self._note)
        given = yaml.safe_load(config.read_text()) if isinstance(config, Path) else config
        started = _started(self._components)
        program = self._binaries[binary]
        started.start(_started(self._layout).scheduler(name, program, given, extra_args, environment or {}))
        return started.await_ready(name)

    # Requests, as the administrator

    @property
    def api_client(self) -> Api:
        return _started(self._api)

    def api(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        params: Mapping[str, Parameter] | None = None,
        content_type: str | None = None,
    ) -> Json:
        """See `Api.request`."""
        return self.api_client.request(method, path, body, params, content_type)

    def create(self, item: Json) -> Json:
        """See `Api.create`."""
        return self.api_client.create(item)

    def apply(self, item: Json, *, field_manager: str = "tests") -> Json:
        """See `Api.apply`."""
        return self.api_client.apply(item, field_manager=field_manager)

    @staticmethod
    def wait_for(condition: Callable[[], T | None], timeout: float, describe: str | Callable[[], str]) -> T:
        """See `client.wait_for`."""
        return wait_for(condition, timeout, describe)

    def create_namespace(self, prefix: str = "test") -> str:
        """Create a namespace with a name of its own, wait for its `default` service account, and return its name."""
        name = f"{prefix}-{secrets.token_hex(4)}"
        self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        self._ensure_service_account(name)
        return name

    def create_node(
        self,
        name: str,
        *,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        cpu: str = "8",
        memory: str = "32Gi",
        pods: int = 110,
        taints: Sequence[Json] = (),
    ) -> Json:
        """Create a fake Node and return it; KWOK makes it Ready a moment later.

        Admission adds the taint node.kubernetes.io/not-ready, which the controller manager takes away once the node is
        Ready. Without a controller manager it is taken away here.
        """
        taints = list(taints)
        item = node(name, labels=labels, annotations=annotations, cpu=cpu, memory=memory, pods=pods, taints=taints)
        created = self.create(item)
        if self.options.controller_manager:
            return created
        return self.api("PATCH", f"/api/v1/nodes/{name}", {"spec": {"taints": taints or None}})

    # Starting

    def _start_or_clean_up(self) -> None:
        try:
            self._start_all()
        except (OSError, http.client.HTTPException) as error:  # a timeout, or the API server went away meanwhile
            self.stop()
            raise StartFailed(f"the start failed: {error}") from error
        except BaseException:
            self.stop()
            raise

    def _start_all(self) -> None:
        self._workspace = Workspace.claim(self._directory) if self._directory else Workspace.temporary()
        layout = self._layout = Layout.create(self.directory)
        self._api = Api(layout.server_url, layout.credentials.authority.file, layout.credentials.admin)
        started = self._components = Components(layout.logs, self._api.tls)
        options, binaries = self.options, self._binaries
        started.start(layout.etcd(binaries["etcd"]))
        started.start(layout.api_server(binaries["kube-apiserver"], options.apiserver_flags))
        self._await(Component.API_SERVER, Component.ETCD)
        self._await(Component.ETCD)

        # These need nothing but the API server: they get ready side by side.
        others: list[Launch] = []
        if options.controller_manager:
            binary = binaries["kube-controller-manager"]
            others.append(layout.controller_manager(binary, options.controller_manager_flags))
        if options.scheduler:
            others.append(layout.scheduler(Component.SCHEDULER, binaries["kube-scheduler"], {}, (), {}))
        if options.kwok:
            others.append(layout.kwok(binaries["kwok"], options.kwok_flags))
        for launch in others:
            started.start(launch)
        for launch in others:
            self._await(launch.name)
        self._ensure_service_account("default")
        if options.karpenter:
            self._start_karpenter(binaries[f"karpenter-{options.karpenter}"])

    def _start_karpenter(self, binary: Path) -> None:
        files = sorted((binary.parent / "crds").glob("*.yaml"))
        names = [self.create(yaml.safe_load(each.read_text()))["metadata"]["name"] for each in files]
        wait_for(
            lambda: all(has_condition(self.api("GET", f"{CRDS}/{name}"), "Established") for name in names),
            START_SECONDS,
            "Karpenter's CRDs to be established",
        )
        environment = dict(self.options.karpenter_environment)
        _started(self._components).start(_started(self._layout).karpenter(binary, environment))
        self._await(Component.KARPENTER)

    def _await(self, name: str, *needed: str) -> None:
        process = _started(self._components).await_ready(name, *needed)
        self._note(f"{name} is ready (process {process.pid}, port {process.port})")

    def _ensure_service_account(self, namespace: str) -> None:
        """Wait for the namespace's `default` service account, without which no pod is admitted, or create it."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        if not self.options.controller_manager:
            # The API server makes the namespace `default` by itself, a moment after it is ready.
            self._await_object(f"/api/v1/namespaces/{namespace}")
            self.api("POST", path, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}})
            return
        self._await_object(f"{path}/default")

    def _await_object(self, path: str) -> None:
        wait_for(lambda: self.api_client.get_or_none(path), START_SECONDS, f"{path} to be there")


def _started(value: T | None) -> T:
    if value is None:
        raise ControlPlaneError("this control plane does not run: call start() first")
    return value
