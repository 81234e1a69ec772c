"""What a node needs of this machine, and putting the machine back as it was.

Owns the list of packages, and a snapshot of everything outside our folder that a kubelet, a container runtime,
kube-proxy and CNI plugins change: kernel settings, packet filter rules, network devices, cgroups, mounts.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.tools.controlplane.errors import MissingTool

PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables-save": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "mount": "mount",
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
}
CNI = Path("/usr/lib/cni")
CNI_PACKAGE = "containernetworking-plugins"
SETTINGS = (
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "net/bridge/bridge-nf-call-ip6tables",
    "net/bridge/bridge-nf-call-iptables",
    "net/ipv4/conf/all/route_localnet",
    "net/ipv4/ip_forward",
    "net/netfilter/nf_conntrack_max",
    "net/netfilter/nf_conntrack_tcp_be_liberal",
    "net/netfilter/nf_conntrack_tcp_timeout_close_wait",
    "net/netfilter/nf_conntrack_tcp_timeout_established",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)
FOLDERS = tuple(map(Path, ("/var/lib/cni", "/var/log/containers", "/var/log/pods")))
CNI_RESULTS = tuple(map(Path, ("/var/lib/cni/results", "/var/lib/cni/cache/results")))
CONTAINER_LOGS = Path("/var/log/containers")
CGROUPS = Path("/sys/fs/cgroup")
GROUP = "warmnode-e2e"
"""The cgroup of our pods. What is in it is ours to end: a kubelet of somebody else has another one."""
GONE_SECONDS = 20.0


def require_packages() -> None:
    """Raise MissingTool with the packages that are missing, and the command that gets them."""
    missing = {package for program, package in PROGRAMS.items() if shutil.which(program) is None}
    if not (CNI / "bridge").exists():
        missing.add(CNI_PACKAGE)
    if missing:
        raise MissingTool(
            f"a real node needs packages that are not installed: {', '.join(sorted(missing))}\n"
            f"On Debian and Ubuntu, as root: {install_command(missing)}"
        )


def install_command(packages: set[str] | None = None) -> str:
    """The command that installs them; all that there are by default."""
    wanted = sorted(packages if packages is not None else {*PROGRAMS.values(), CNI_PACKAGE})
    return f"apt-get update && apt-get install --yes --no-install-recommends {' '.join(wanted)}"


def require_root() -> None:
    """Raise MissingTool where we are not root."""
    if os.geteuid() != 0:
        raise MissingTool("a real node needs root: run it as root, or with --kind or --kubeconfig")


def make_group() -> None:
    """Make the cgroup that the kubelet puts pods into, in each hierarchy that there is.

    Tried with cgroup v1. What is here for v2 was not run.
    """
    if (CGROUPS / "cgroup.controllers").exists():
        controllers = (CGROUPS / "cgroup.controllers").read_text().split()
        for controller in controllers:
            (CGROUPS / "cgroup.subtree_control").write_text(f"+{controller}")
        (CGROUPS / GROUP).mkdir(exist_ok=True)
        return
    for hierarchy in CGROUPS.iterdir():
        if hierarchy.is_dir() and not hierarchy.is_symlink():
            group = hierarchy / GROUP
            group.mkdir(exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):  # a cpuset takes no process before it has both
                if (group / name).exists():
                    (group / name).write_text((hierarchy / name).read_text())


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """How the machine was before. ``rules`` are what iptables-save and ip6tables-save said."""

    settings: dict[str, str]
    rules: dict[str, str]
    folders: frozenset[Path]

    @classmethod
    def remember(cls) -> Machine:
        """Look at the machine."""
        return cls(
            settings={name: value for name in SETTINGS if (value := _read(Path("/proc/sys") / name)) is not None},
            rules={program: _output(f"{program}-save") for program in ("iptables", "ip6tables")},
            folders=frozenset(folder for folder in FOLDERS if folder.exists()),
        )

    def restore(self, *, devices: tuple[str, ...], network: str, socket: Path, folder: Path) -> None:
        """End what containers have left, and put everything back. ``socket``: containerd's, whose shims are ours."""
        _end(_processes_of_pods() | _processes_naming(str(socket)))
        for mount in sorted(_mounts(folder), reverse=True):
            _quietly("umount", "--lazy", mount)
        for device in devices:
            _quietly("ip", "link", "delete", device)
        for program, text in self.rules.items():
            wanted = text + _emptied(_output(f"{program}-save"), text)
            subprocess.run([f"{program}-restore"], input=wanted, text=True, capture_output=True, check=False)
        for name, value in self.settings.items():
            path = Path("/proc/sys") / name
            if _read(path) != value:
                path.write_text(value)
        for place in CNI_RESULTS:
            for file in place.glob(f"{network}-*"):
                file.unlink()
        for link in CONTAINER_LOGS.glob("*.log"):
            if link.is_symlink() and link.readlink().is_relative_to(folder):
                link.unlink()
        for place in FOLDERS:
            if place not in self.folders and place.exists():
                shutil.rmtree(place)
        for group in _groups():
            for each in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
                _remove_group(each)
            _remove_group(group)


def _emptied(now: str, before: str) -> str:
    """Say, as iptables-restore reads it, that the tables which were not there before are empty."""
    known = set(re.findall(r"^\*(\w+)$", before, re.MULTILINE))
    tables = re.findall(r"^\*(\w+)$(.*?)^COMMIT$", now, re.MULTILINE | re.DOTALL)
    lines: list[str] = []
    for table, text in tables:
        if table not in known:
            lines += [f"*{table}", *re.findall(r"^:[A-Z]+ [A-Z]+ \[\d+:\d+\]$", text, re.MULTILINE), "COMMIT"]
    return "".join(f"{line}\n" for line in lines)


def _groups() -> list[Path]:
    return [path for pattern in (GROUP, f"*/{GROUP}") for path in CGROUPS.glob(pattern) if path.is_dir()]


def _processes_of_pods() -> set[int]:
    files = (file for group in _groups() for file in group.rglob("cgroup.procs"))
    return {int(pid) for file in files for pid in (_read(file) or "").split()}


def _processes_naming(argument: str) -> set[int]:
    """Processes that have this among their arguments: containerd's shims are told its socket."""
    return {
        int(folder.name)
        for folder in Path("/proc").iterdir()
        if folder.name.isdecimal() and argument in (_read(folder / "cmdline") or "").split("\0")
    }


def _end(pids: set[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    deadline = time.monotonic() + GONE_SECONDS
    while any(_is_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)


def _is_alive(pid: int) -> bool:
    state = _read(Path(f"/proc/{pid}/stat"))
    return state is not None and state.rpartition(")")[2].split()[0] != "Z"


def _mounts(folder: Path) -> Iterator[str]:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        place = line.split()[1].encode().decode("unicode_escape")
        if place.startswith(f"{folder}/"):
            yield place


def _remove_group(path: Path) -> None:
    try:
        path.rmdir()
    except OSError:
        return


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _quietly(*command: str) -> None:
    subprocess.run(command, capture_output=True, check=False)
