"""A real node on this machine: containerd, kubelet and kube-proxy, joined to a control plane that runs here too.

Owns their configuration and the reason for each setting, and the order of start and end. Needs root, leaves nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from scripts.tools.controlplane import Api, ControlPlane, Json, Options, Process, wait_for
from scripts.tools.controlplane.binaries import Note
from scripts.tools.controlplane.building import find_or_build
from scripts.tools.controlplane.objects import is_ready
from scripts.tools.controlplane.processes import Spawner, free_ports, log_tail
from tests.e2e.forwarder import Forwarder
from tests.e2e.machine import CNI, GROUP, Machine, make_group

NAME = "real"
DEVICE = "warmnode-node"
BRIDGE = "warmnode-pods"
NETWORK = "warmnode-e2e"
ADDRESS = "10.231.0.1"
"""Of the node and of the API server as pods see it, on a bridge without ports. Nothing outside this machine has it."""
POD_RANGE = "10.231.128.0/24"
PAUSE = "warmnode.dev/pause:1"
PROGRAMS = ("kubelet", "kube-proxy", "kube-scheduler")
READY_SECONDS = 60.0
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "userGroups": ["system:serviceaccounts:warmnode"]},
        {"level": "None"},
    ],
}


def control_plane_options(folder: Path, pki: Path) -> Options:
    """A control plane that a kubelet can join. It writes what warmnode's service accounts ask for to `audit_log`."""
    policy = folder / "audit-policy.json"
    policy.write_text(json.dumps(AUDIT_POLICY))
    return Options(
        apiserver_flags=(
            "--enable-admission-plugins=NodeRestriction",
            f"--requestheader-client-ca-file={pki / 'ca.crt'}",  # kube-scheduler complains without one
            "--requestheader-allowed-names=nobody",
            f"--kubelet-client-certificate={pki / 'admin.crt'}",
            f"--kubelet-client-key={pki / 'admin.key'}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--audit-policy-file={policy}",
            f"--audit-log-path={audit_log(folder)}",
            "--audit-log-mode=blocking",
        ),
        kwok_flags=("--manage-all-nodes=false", "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake"),
    )


def audit_log(folder: Path) -> Path:
    """Where the API server writes what warmnode's service accounts ask for, one JSON object a line."""
    return folder / "audit.log"


class Node:
    """The processes of one node. ``folder`` is where everything of it is."""

    def __init__(self, control_plane: ControlPlane, folder: Path, note: Note) -> None:
        self._control_plane = control_plane
        self._folder = folder
        self._note = note
        self._ends = ExitStack()
        self._socket = folder / "containerd.sock"
        self._binaries: dict[str, Path] = {}

    def start(self) -> None:
        """Start everything and wait until the node is Ready. On any failure nothing is left."""
        self._binaries = find_or_build(PROGRAMS, os.environ, self._note)
        machine = Machine.remember()
        self._ends.callback(
            machine.restore, devices=(BRIDGE, DEVICE), network=NETWORK, socket=self._socket, folder=self._folder
        )
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End everything and put the machine back as it was."""
        self._ends.close()

    def import_images(self, archives: Iterable[Path]) -> None:
        """Make images known to the node."""
        for archive in archives:
            self._ctr("images", "import", "--no-unpack", str(archive))

    def _start(self) -> None:
        make_group()
        _ip("link", "add", DEVICE, "type", "bridge")
        _ip("address", "add", f"{ADDRESS}/32", "dev", DEVICE)
        _ip("link", "set", DEVICE, "up")
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        port = urlsplit(self._control_plane.server_url).port or 0
        self._ends.enter_context(Forwarder(ADDRESS, port))
        self._tell_pods_where(port)
        spawner = Spawner()
        self._ends.callback(spawner.close)
        containerd = self._spawn(spawner, "containerd", shutil.which("containerd") or "", *self._containerd())
        wait_for(self._socket.exists, READY_SECONDS, lambda: f"containerd:\n{log_tail(containerd.log)}")
        kubelet = self._spawn(spawner, "kubelet", self._binaries["kubelet"], *self._kubelet())
        self._spawn(spawner, "kube-proxy", self._binaries["kube-proxy"], *self._kube_proxy())
        path = f"/api/v1/nodes/{NAME}"
        wait_for(
            lambda: is_ready(self._control_plane.api_client.get_or_none(path) or {}),
            READY_SECONDS,
            lambda: f"the node to be Ready; the kubelet says:\n{log_tail(kubelet.log, 20)}",
        )
        self._note(f"node {NAME} is Ready")

    def _spawn(self, spawner: Spawner, name: str, program: str | Path, *arguments: str) -> Process:
        process = spawner.start(name, [program, *arguments], log=self._folder / f"{name}.log", directory=self._folder)
        self._ends.callback(process.stop)
        return process

    def _tell_pods_where(self, port: int) -> None:
        """The Service `kubernetes` leads here: the API server itself cannot say so of a loopback address."""
        self._control_plane.create(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": [ADDRESS], "conditions": {"ready": True}}],
                "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
            }
        )

    def _containerd(self) -> list[str]:
        cni = self._folder / "cni"
        cni.mkdir()
        network = {
            "cniVersion": "1.0.0",
            "name": NETWORK,
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": BRIDGE,
                    "isGateway": True,
                    "ipMasq": True,
                    "hairpinMode": True,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": str(self._folder / "addresses"),
                        "ranges": [[{"subnet": POD_RANGE}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        }
        (cni / "10-warmnode.conflist").write_text(json.dumps(network))
        config = self._folder / "containerd.toml"
        config.write_text(f"""\
version = 2
root = "{self._folder}/containerd"
state = "{self._folder}/containerd-state"
[grpc]
  address = "{self._socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true # without CAP_SYS_RESOURCE no sandbox would start
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI}"
    conf_dir = "{cni}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
""")
        return [f"--config={config}"]

    def _kubelet(self) -> list[str]:
        user = f"system:node:{NAME}"
        kubeconfig = self._control_plane.kubeconfig_for(user, ["system:nodes"])
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": ADDRESS,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self._control_plane.ca_file)},
            },
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{GROUP}",
            "containerRuntimeEndpoint": f"unix://{self._socket}",
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "failCgroupV1": False,
            "failSwapOn": False,
            "healthzPort": 0,
            "imageGCHighThresholdPercent": 100,  # a collected image could not be pulled again
            "podLogsDir": str(self._folder / "pod-logs"),
            "readOnlyPort": 0,
            "resolvConf": "/etc/resolv.conf",
            "syncFrequency": "10s",  # after a ConfigMap has changed, its file does so within this time
        }
        file = self._folder / "kubelet.json"
        file.write_text(json.dumps(config))
        return [
            f"--config={file}",
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={NAME}",
            f"--node-ip={ADDRESS}",
            f"--root-dir={self._folder / 'kubelet'}",
            f"--cert-dir={self._folder / 'kubelet-pki'}",
        ]

    def _kube_proxy(self) -> list[str]:
        healthz, metrics = free_ports(2)
        config = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": str(self._control_plane.kubeconfig)},
            "mode": "iptables",
            "hostnameOverride": NAME,
            "bindAddress": ADDRESS,
            "healthzBindAddress": f"127.0.0.1:{healthz}",
            "metricsBindAddress": f"127.0.0.1:{metrics}",
            "conntrack": {"maxPerCore": 0},
        }
        file = self._folder / "kube-proxy.json"
        file.write_text(json.dumps(config))
        return [f"--config={file}"]

    def _ctr(self, *arguments: str) -> None:
        command = ["ctr", "--address", str(self._socket), "--namespace", "k8s.io", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


@contextmanager
def running_node(control_plane: ControlPlane, folder: Path, note: Note) -> Iterator[Node]:
    """A node that ends with the block: its pods first, so that their processes can end well."""
    node = Node(control_plane, folder, note)
    node.start()
    try:
        yield node
    finally:
        _delete_pods(control_plane.api_client)
        node.stop()


def _delete_pods(api: Api) -> None:
    def left() -> list[Json]:
        selected = api.request("GET", "/api/v1/pods", params={"fieldSelector": f"spec.nodeName={NAME}"})
        items: list[Json] = selected["items"]
        return items

    for kind in ("deployments", "daemonsets", "jobs"):
        group = "batch" if kind == "jobs" else "apps"
        for item in api.request("GET", f"/apis/{group}/v1/{kind}")["items"]:
            metadata = item["metadata"]
            api.request("DELETE", f"/apis/{group}/v1/namespaces/{metadata['namespace']}/{kind}/{metadata['name']}")
    for item in left():
        metadata = item["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        api.request("DELETE", path, params={"gracePeriodSeconds": 1})
    try:
        wait_for(lambda: not left(), 20, "the node's pods to be gone")
    except TimeoutError:
        return  # what is left is ended with the node


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
