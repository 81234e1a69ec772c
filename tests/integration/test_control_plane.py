"""The control plane that the other integration tests stand on: it works, and it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.tools.controlplane import (
    Api,
    ApiError,
    Component,
    ControlPlane,
    ControlPlaneError,
    Json,
    Options,
    wait_for,
)
from scripts.tools.controlplane.__main__ import BASE_BINARIES
from scripts.tools.controlplane.binaries import ROOT
from scripts.tools.controlplane.fixtures import RequireBinaries
from scripts.tools.controlplane.objects import is_ready

pytestmark = pytest.mark.controlplane
SECONDS = 60.0
COMMAND = (sys.executable, "-P", "-m", "scripts.tools.controlplane")


def pod(name: str, **spec: object) -> Json:
    """A pod with one container, in the namespace `default` unless it is POSTed elsewhere."""
    containers = [{"name": "main", "image": "none", "resources": {"requests": {"cpu": "100m"}}}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": containers, **spec}}


def run_pod(control_plane: ControlPlane, namespace: str, item: Json) -> Json:
    """Create a pod and wait until it runs."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    name = control_plane.api("POST", path, item)["metadata"]["name"]
    return wait_for(
        lambda: next((each for each in [control_plane.api("GET", f"{path}/{name}")] if is_ready(each)), None),
        SECONDS,
        lambda: f"pod {name} to run: {control_plane.api('GET', f'{path}/{name}')['status']}",
    )


def processes_about(directory: Path) -> list[int]:
    """The processes that name ``directory`` in their command line or their environment, but for this one."""
    found = []
    for each in Path("/proc").iterdir():
        if not each.name.isdigit() or int(each.name) == os.getpid():
            continue
        try:
            text = (each / "cmdline").read_bytes() + (each / "environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if str(directory).encode() in text:
            found.append(int(each.name))
    return found


def no_process_left(directory: Path) -> None:
    wait_for(lambda: not processes_about(directory), SECONDS, lambda: f"{processes_about(directory)} to end")


def start_command(*arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    """Start scripts/control-plane's program; its output is a pipe."""
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        preexec_fn=_heed_interrupts,
    )


def _heed_interrupts() -> None:
    """Undo what a shell does to its background jobs: they inherit that SIGINT is ignored, and so would the program."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run_command(*arguments: str | Path, **environment: str) -> tuple[int, str, str]:
    """Run it to its end: exit code, output, error output."""
    with start_command(*arguments, **environment) as process:
        output, errors = process.communicate(timeout=2 * SECONDS)
        return process.returncode, output, errors


@pytest.fixture
def binaries(require_binaries: RequireBinaries) -> None:
    require_binaries(BASE_BINARIES)


@pytest.fixture
def directory(tmp_path: Path, binaries: None) -> Iterator[Path]:
    """A folder for one instance that is up at most until the test's end."""
    path = tmp_path / "instance"
    yield path
    run_command("down", "--dir", path)


def test_a_fake_node_gets_ready_and_runs_a_pod(control_plane: ControlPlane, namespace: str) -> None:
    """KWOK makes nodes Ready, the scheduler binds, KWOK makes pods run."""
    control_plane.create_node("ready-1", labels={"kind": "ready"}, cpu="1")
    running = run_pod(control_plane, namespace, pod("p", nodeSelector={"kind": "ready"}))
    assert running["spec"]["nodeName"] == "ready-1"
    assert is_ready(control_plane.api("GET", "/api/v1/nodes/ready-1"))


def test_a_user_without_rights_is_refused(control_plane: ControlPlane, namespace: str) -> None:
    """RBAC is on: a certificate alone allows nothing, and a role allows what it names."""
    user = Api.from_kubeconfig(control_plane.kubeconfig_for("mallory", ["guests"]))
    pods = f"/api/v1/namespaces/{namespace}/pods"
    with pytest.raises(ApiError, match='User "mallory" cannot list resource "pods"') as refusal:
        user.request("GET", pods)
    assert refusal.value.status == 403
    control_plane.apply(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "view", "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "guests"}],
        }
    )

    def allowed() -> bool:
        try:
            return bool(user.request("GET", pods)["kind"])
        except ApiError as error:
            return error.status != 403

    wait_for(allowed, SECONDS, "the role to take effect")
    user.close()


def test_a_further_scheduler_binds_the_pods_that_name_it(control_plane: ControlPlane, namespace: str) -> None:
    """A second stock kube-scheduler works beside the first, with its own configuration."""
    control_plane.create_node("second-1", labels={"kind": "second"}, cpu="1")
    scheduler = control_plane.start_scheduler("second", {"profiles": [{"schedulerName": "second"}]})
    try:
        item = pod("p", schedulerName="second", nodeSelector={"kind": "second"})
        assert run_pod(control_plane, namespace, item)["spec"]["nodeName"] == "second-1"
        with pytest.raises(ControlPlaneError, match="runs already"):
            control_plane.start_scheduler("second", {})
    finally:
        scheduler.stop()
    assert scheduler.exit_code is not None
    control_plane.start_scheduler("second", {"profiles": [{"schedulerName": "second"}]}).stop()


def test_the_api_server_comes_back_at_the_same_address(binaries: None) -> None:
    """A killed API server is away, a restarted one has the same data; a paused one answers nothing until resumed."""
    with ControlPlane(Options(scheduler=False, controller_manager=False, kwok=False)) as running:
        name = running.create_namespace()
        impatient = Api.from_kubeconfig(running.kubeconfig, timeout=0.5)
        running.kill(Component.API_SERVER)
        with pytest.raises(OSError, match="refused"):
            impatient.request("GET", "/version")
        running.restart(Component.API_SERVER)
        assert running.api("GET", f"/api/v1/namespaces/{name}")["metadata"]["name"] == name
        running.pause(Component.API_SERVER)
        with pytest.raises(TimeoutError):
            impatient.request("GET", "/version")
        running.resume(Component.API_SERVER)
        assert running.api("GET", "/version")["major"] == "1"
        impatient.close()
        directory = running.directory
    assert not directory.exists()
    no_process_left(directory)


def test_without_a_controller_manager_a_node_is_still_usable(binaries: None) -> None:
    """The taint that admission adds and the service account are then the control plane's own work."""
    with ControlPlane(Options(controller_manager=False)) as running:
        running.create_node("n", taints=[{"key": "mine", "effect": "NoSchedule"}])
        item = pod("p", tolerations=[{"key": "mine", "operator": "Exists"}])
        assert run_pod(running, "default", item)["spec"]["nodeName"] == "n"
        taints = running.api("GET", "/api/v1/nodes/n")["spec"]["taints"]
        assert [each["key"] for each in taints] == ["mine"]


def test_two_instances_run_side_by_side(tmp_path: Path, binaries: None) -> None:
    """Each name has its own ports and folder; `down` ends one and leaves the other."""
    state = str(tmp_path / "state")
    folders = {name: tmp_path / "state" / "warmnode" / "control-plane" / name for name in ("one", "two")}
    try:
        for name in folders:
            code, _, errors = run_command("up", "--name", name, XDG_STATE_HOME=state)
            assert code == 0, errors
        code, output, _ = run_command("status", "--all", "--json", XDG_STATE_HOME=state)
        found = json.loads(output)
        assert code == 0
        assert len({each["server"] for each in found}) == 2
        assert {part["state"] for each in found for part in each["components"]} == {"running"}
        for each in found:
            client = Api.from_kubeconfig(Path(each["kubeconfig"]))
            client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "mine"}})
            client.close()

        code, _, errors = run_command("up", "--name", "one", XDG_STATE_HOME=state)
        assert (code, "already running" in errors) == (1, True)

        assert run_command("down", "--name", "one", XDG_STATE_HOME=state)[0] == 0
        no_process_left(folders["one"])
        assert not folders["one"].exists()
        assert run_command("status", "--name", "one", XDG_STATE_HOME=state)[0] == 1
        assert run_command("status", "--name", "two", XDG_STATE_HOME=state)[0] == 0
    finally:
        run_command("down", "--all", XDG_STATE_HOME=state)
    no_process_left(folders["two"])
    assert [each for each in (tmp_path / "state").rglob("*") if each.is_file()] == []


def test_env_lines_point_a_shell_at_the_control_plane(directory: Path) -> None:
    """What `env` prints can be evaluated, and kubectl then talks to this control plane."""
    assert run_command("up", "--no-scheduler", "--no-kwok", "--dir", directory)[0] == 0
    code, lines, _ = run_command("env", "--dir", directory)
    assert code == 0
    done = subprocess.run(
        ["sh", "-c", 'eval "$1"; kubectl get namespaces -o name', "sh", lines],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "namespace/default" in done.stdout, done.stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_up_leaves_nothing(directory: Path, number: signal.Signals) -> None:
    """Whatever ends `up` before the control plane is ready ends all that it has started, and removes the folder."""
    with start_command("up", "--dir", directory) as process:
        wait_for((directory / "logs" / "kube-apiserver.log").exists, SECONDS, "the API server to be started")
        process.send_signal(number)
        process.communicate(timeout=SECONDS)
        assert process.returncode == (130 if number != signal.SIGKILL else -number)
    no_process_left(directory)
    wait_for(lambda: not directory.exists(), SECONDS, f"{directory} to be removed")


def test_a_killed_supervisor_takes_its_processes_with_it(directory: Path) -> None:
    """SIGKILL of the process behind `up` ends every component; `status` says so, and `down` removes the rest."""
    assert run_command("up", "--dir", directory)[0] == 0
    state = json.loads(run_command("status", "--json", "--dir", directory)[1])
    os.kill(state["pid"], signal.SIGKILL)
    no_process_left(directory)
    assert run_command("status", "--dir", directory)[0] == 1
    assert run_command("down", "--dir", directory)[0] == 0
    assert not directory.exists()


def test_a_killed_test_process_takes_its_processes_with_it(directory: Path) -> None:
    """SIGKILL of a process that uses `ControlPlane` ends every component, also one that was paused."""
    program = """
import sys, time
from pathlib import Path
from scripts.tools.controlplane import ControlPlane
control_plane = ControlPlane(directory=Path(sys.argv[1]))
control_plane.start()
control_plane.pause("kwok")
print("up", flush=True)
time.sleep(600)
"""
    command = [sys.executable, "-P", "-c", program, str(directory)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        assert len(processes_about(directory)) >= 6
        process.kill()
    no_process_left(directory)


def test_without_go_and_programs_the_refusal_is_one_line(tmp_path: Path) -> None:
    """A machine that can neither find nor build the programs is told what to install, with exit code 1."""
    code, output, errors = run_command(
        "up", "--dir", tmp_path / "instance", PATH="", KUBEBUILDER_ASSETS="", XDG_CACHE_HOME=str(tmp_path)
    )
    assert (code, output) == (1, "")
    assert errors.count("\n") == 1
    assert "install Go" in errors
    assert not (tmp_path / "instance").exists()
