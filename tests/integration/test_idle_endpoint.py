"""A worker and its mark, against a real API server: bound tokens, late evictions, and the shipped examples."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from extender.kube.api_client import KubeClient
from extender.kube.mark_store import MarkStore
from extender.kube.objects import IDLE_SINCE
from extender.policy.marks import parse_idle_mark
from extender.policy.pools import POOL_LABEL
from extender.telemetry import Metrics
from extender.web.callers import callers_for
from extender.web.idle_api import IdleApi
from extender.web.requests import route
from extender.web.server import Address, Listener
from extender.web.tls import ServerTls
from scripts.tools.controlplane import ApiError, ControlPlane, Json, wait_for
from scripts.tools.controlplane.building import find_or_build
from scripts.tools.controlplane.fixtures import RequireBinaries
from tests.builders import by_label, clock_of

pytestmark = pytest.mark.controlplane

SECONDS = 60.0
DOCS = Path(__file__).resolve().parents[2] / "docs"
FINALIZER = "warmnode.dev/test"
USER = "warmnode-idle"


def documented(name: str) -> str:
    """Give a block of docs/workers.md, as it is written there."""
    found = re.search(rf"<!-- run: {name} -->\n```\w+\n(.*?)```", (DOCS / "workers.md").read_text(), re.DOTALL)
    assert found is not None, f"docs/workers.md has no block {name!r}"
    return found[1]


class Endpoint:
    """The endpoint over TLS, in a thread with a loop of its own, as the user of ``kubeconfig``."""

    def __init__(self, kubeconfig: Path, tls: ServerTls) -> None:
        self.port = 0
        self._kubeconfig = kubeconfig
        self._tls = tls
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def start(self) -> None:
        self._thread.start()
        assert self._started.wait(SECONDS), "the endpoint did not start"

    def stop(self) -> None:
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(SECONDS)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        client = await KubeClient.connect(kubeconfig=str(self._kubeconfig), user_agent="warmnode/test")
        address = Address("127.0.0.1", self.port)
        api = IdleApi(
            marks=MarkStore(client, by_label),
            callers=callers_for(client, address=address, has_tls=True),
            is_dry_run=lambda pool: False,
            takes_marks=lambda pool: True,
            metrics=Metrics(),
            clock=clock_of(lambda: datetime.now(UTC)),
        )
        handler = route({}, templates=api.routes())
        listener = Listener(name="claims", address=address, handler=handler, tls=self._tls)
        await listener.start()
        self.port = listener.address.port
        self._started.set()
        await self._stop.wait()
        await listener.stop()
        await client.close()


class Yard:
    """Workers in a namespace of their own, and the endpoint before them."""

    def __init__(self, control_plane: ControlPlane, namespace: str, endpoint: Endpoint, ca_file: Path) -> None:
        self.control_plane = control_plane
        self.namespace = namespace
        self.endpoint = endpoint
        self.ca_file = ca_file
        self.url = f"https://127.0.0.1:{endpoint.port}"
        self._tls = ssl.create_default_context(cafile=str(ca_file))
        self._held: list[str] = []
        accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        control_plane.api("POST", accounts, {"metadata": {"name": "duck"}})

    def path(self, name: str = "worker-1") -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods/{name}"

    def worker(self, name: str = "worker-1", *, hold: bool = False, mark: str | None = None) -> Json:
        """Create a worker. ``hold``: a deletion leaves it there, terminating."""
        pod: Json = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": self.namespace,
                "labels": {POOL_LABEL: "ducks"},
                "annotations": {} if mark is None else {IDLE_SINCE: mark},
                "finalizers": [FINALIZER] if hold else [],
            },
            "spec": {
                "serviceAccountName": "duck",
                "nodeName": self.namespace,  # no such node: nothing else changes the pod
                "containers": [{"name": "worker", "image": "worker"}],
            },
        }
        if hold:
            self._held.append(name)
        return self.control_plane.create(pod)

    def release(self) -> None:
        for name in self._held:
            self.control_plane.api("PATCH", self.path(name), {"metadata": {"finalizers": None}})

    def token(self, name: str | None = "worker-1", *, audiences: tuple[str, ...] = ("warmnode",)) -> str:
        """Ask for a token of a pod, None: of the service account alone."""
        spec: Json = {"audiences": list(audiences)}
        if name is not None:
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": name}
        path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/duck/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        return str(self.control_plane.api("POST", path, request)["status"]["token"])

    def call(
        self, method: str, token: str | None, name: str = "worker-1", body: Json | None = None
    ) -> tuple[int, dict[str, Any], Mapping[str, str]]:
        """Call the endpoint: status, JSON, headers."""
        connection = http.client.HTTPSConnection("127.0.0.1", self.endpoint.port, timeout=15, context=self._tls)
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, f"/v1/pods/{self.namespace}/{name}/idle", content, headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read()), dict(response.getheaders())
        finally:
            connection.close()

    def pod(self, name: str = "worker-1") -> Json:
        return self.control_plane.api("GET", self.path(name))

    def mark(self, name: str = "worker-1") -> str | None:
        annotations: dict[str, str] = self.pod(name)["metadata"].get("annotations") or {}
        return annotations.get(IDLE_SINCE)

    def evict(self, pod: Json) -> Json:
        """Evict this version of a pod, as the reaper does."""
        meta = pod["metadata"]
        preconditions = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": meta["name"], "namespace": self.namespace},
            "deleteOptions": {"preconditions": preconditions},
        }
        return self.control_plane.api("POST", f"{self.path(meta['name'])}/eviction", body)

    def await_mark(self, present: bool) -> None:
        wait_for(lambda: (self.mark() is not None) is present, SECONDS, f"a mark: {present}")

    def environment(self, folder: Path) -> dict[str, str]:
        """What the worker's pod would have, with a token of worker-1 in a file."""
        token = folder / "token"
        token.write_text(self.token())
        return {
            "POD_NAME": "worker-1",
            "POD_NAMESPACE": self.namespace,
            "WARMNODE_URL": self.url,
            "WARMNODE_TOKEN_FILE": str(token),
            "WARMNODE_CA_FILE": str(self.ca_file),
        }


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ServerTls, Path]:
    """A certificate for 127.0.0.1, and the file of its authority."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(folder / "ca.crt")
    certificate.cert_chain_pems[0].write_to_path(folder / "tls.crt")
    certificate.private_key_pem.write_to_path(folder / "tls.key")
    return ServerTls(cert_file=folder / "tls.crt", key_file=folder / "tls.key"), folder / "ca.crt"


@pytest.fixture(scope="module")
def kubeconfig(control_plane: ControlPlane) -> Path:
    """A user with the role of docs/workers.md, and no other."""
    role = yaml.safe_load(documented("role"))
    control_plane.apply(role)
    control_plane.apply(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": USER},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": role["metadata"]["name"],
            },
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}],
        }
    )
    return control_plane.kubeconfig_for(USER)


@contextmanager
def yard_of(
    control_plane: ControlPlane, namespace: str, kubeconfig: Path, tls: tuple[ServerTls, Path]
) -> Iterator[Yard]:
    endpoint = Endpoint(kubeconfig, tls[0])
    endpoint.start()
    try:
        yard = Yard(control_plane, namespace, endpoint, tls[1])
        yield yard
        yard.release()
    finally:
        endpoint.stop()


@pytest.fixture
def yard(control_plane: ControlPlane, namespace: str, kubeconfig: Path, tls: tuple[ServerTls, Path]) -> Iterator[Yard]:
    with yard_of(control_plane, namespace, kubeconfig, tls) as made:
        yield made


# --- tokens ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("audiences", [("warmnode",), ("vault", "warmnode"), ()])
def test_a_pods_own_token_marks_it_and_removes_the_mark(yard: Yard, audiences: tuple[str, ...]) -> None:
    """With the audience warmnode, or with the API server's own."""
    pod = yard.worker()
    token = yard.token(audiences=audiences)
    before = datetime.now(UTC)
    status, body, _ = yard.call("PUT", token)
    assert status == 200, body
    mark = parse_idle_mark(yard.mark())
    assert mark is not None
    assert abs((mark - before).total_seconds()) < 5
    assert body["uid"] == pod["metadata"]["uid"]
    assert parse_idle_mark(body["idleSince"]) == mark
    again = yard.call("PUT", token)[1]
    assert again == body, "a second PUT writes nothing"
    status, body, _ = yard.call("DELETE", token)
    assert (status, body["idleSince"], body["terminating"]) == (200, None, False)
    assert yard.mark() is None
    assert body["resourceVersion"] == yard.pod()["metadata"]["resourceVersion"]


def test_a_token_for_somebody_else_or_nobody_is_not_authenticated(yard: Yard) -> None:
    yard.worker()
    good = yard.token()
    forged = good[:-8] + "AAAAAAAA"
    for token in (yard.token(audiences=("vault",)), forged, "nonsense", None):
        status, problem, headers = yard.call("PUT", token)
        assert (status, problem["reason"]) == (401, "notAuthenticated")
        assert headers["WWW-Authenticate"].startswith("Bearer")
    assert yard.mark() is None


def test_a_token_of_a_pod_that_is_gone_is_not_authenticated(yard: Yard) -> None:
    """The API server itself knows: such a token ends with its pod, also where a pod of that name comes back."""
    yard.worker()
    token = yard.token()
    yard.control_plane.api("DELETE", yard.path(), params={"gracePeriodSeconds": 0})
    yard.worker()
    assert yard.call("PUT", token)[0] == 401
    assert yard.mark() is None


def test_a_token_is_good_for_its_own_pod_only(yard: Yard) -> None:
    yard.worker()
    yard.worker("worker-2")
    for token, reason in ((yard.token("worker-2"), "notYourPod"), (yard.token(None), "noPodInToken")):
        for method in ("PUT", "DELETE"):
            status, problem, _ = yard.call(method, token)
            assert (status, problem["reason"]) == (403, reason)
    assert yard.mark() is None


def test_without_the_documented_role_the_answer_says_what_to_grant(
    control_plane: ControlPlane, namespace: str, tls: tuple[ServerTls, Path]
) -> None:
    with yard_of(control_plane, namespace, control_plane.kubeconfig_for("nobody"), tls) as yard:
        yard.worker()
        status, problem, headers = yard.call("PUT", yard.token())
    assert (status, problem["reason"]) == (503, "unavailable")
    assert "grant it create tokenreviews" in problem["detail"]
    assert "Retry-After" in headers


# --- evictions ---------------------------------------------------------------------------------------------------


def test_an_eviction_decided_before_the_removal_fails_after_it(yard: Yard) -> None:
    """The promise to workers: work accepted after a DELETE is never evicted by warmnode."""
    yard.worker(mark="2026-11-01T12:00:00Z")
    judged = yard.pod()
    assert yard.call("DELETE", yard.token())[0] == 200
    with pytest.raises(ApiError) as refused:
        yard.evict(judged)
    assert refused.value.status == 409
    assert "deletionTimestamp" not in yard.pod()["metadata"]


def test_a_mark_that_arrives_after_a_delete_fails(yard: Yard) -> None:
    """Its patch names the version it is based on, and a DELETE moves that even where no mark was there."""
    yard.worker()
    meta = yard.pod()["metadata"]
    assert yard.call("DELETE", yard.token())[0] == 200
    late = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"], "annotations": {IDLE_SINCE: "x"}}
    with pytest.raises(ApiError) as refused:
        yard.control_plane.api("PATCH", yard.path(), {"metadata": late})
    assert refused.value.status == 409


def test_an_eviction_that_came_first_makes_the_worker_refuse(yard: Yard) -> None:
    yard.worker(mark="2026-11-01T12:00:00Z", hold=True)
    token = yard.token()
    yard.evict(yard.pod())
    status, problem, _ = yard.call("DELETE", token)
    assert (status, problem["reason"], problem["terminating"]) == (409, "terminating", True)
    assert yard.mark() is None
    status, body, _ = yard.call("PUT", token)
    assert (status, body["terminating"]) == (200, True)


def test_status_updates_do_not_get_in_the_way(yard: Yard) -> None:
    """Another writer changes the pod during each call; a kubelet writes every few seconds."""
    yard.worker()
    token, answers = yard.token(), []

    def update(count: int) -> None:
        condition = {"type": "Busy", "status": "True", "message": str(count)}
        yard.control_plane.api("PATCH", f"{yard.path()}/status", {"status": {"conditions": [condition]}})

    with ThreadPoolExecutor(1) as pool:
        for count in range(30):
            updated = pool.submit(update, count)
            answers.append(yard.call("DELETE" if count % 2 else "PUT", token)[0])
            updated.result()
    assert set(answers) == {200}


# --- the worker in Python ----------------------------------------------------------------------------------------


class PythonWorker:
    """docs/examples/worker.py as a process."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(DOCS / "examples" / "worker.py")],
                env={**os.environ, **environment, "PORT": "0"},
                stdout=output,
                stderr=output,
            )
        found = wait_for(lambda: re.search(r"on port (\d+)", log.read_text()), SECONDS, "the worker to listen")
        self.port = int(found[1])

    def job(self, seconds: float) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("POST", "/jobs", str(seconds))
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()


@pytest.fixture
def python_worker(yard: Yard, tmp_path: Path) -> Iterator[Callable[[], PythonWorker]]:
    started: list[PythonWorker] = []

    def start() -> PythonWorker:
        started.append(PythonWorker(yard.environment(tmp_path), tmp_path / "worker.log"))
        return started[-1]

    yield start
    for worker in started:
        worker.process.kill()
        worker.process.wait(SECONDS)


def test_the_python_worker_is_marked_between_jobs_and_not_during_one(
    yard: Yard, python_worker: Callable[[], PythonWorker]
) -> None:
    yard.worker()
    worker = python_worker()
    yard.await_mark(True)
    first = yard.mark()
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(worker.job, 4.0)
        yard.await_mark(False)
        assert worker.job(0) == (503, "busy\n")
        assert yard.mark() is None
        assert job.result(SECONDS) == (200, "done\n")
    yard.await_mark(True)
    assert yard.mark() != first


def test_the_python_worker_refuses_when_its_pod_is_being_deleted(
    yard: Yard, python_worker: Callable[[], PythonWorker]
) -> None:
    yard.worker(hold=True)
    worker = python_worker()
    yard.await_mark(True)
    yard.evict(yard.pod())
    assert worker.job(0)[0] == 503
    assert '"reason": "terminating"' in worker.log.read_text()


def test_the_python_worker_refuses_while_the_endpoint_is_away(
    yard: Yard, python_worker: Callable[[], PythonWorker]
) -> None:
    """It is marked, and nobody can remove the mark: it might be evicted."""
    yard.worker()
    worker = python_worker()
    yard.await_mark(True)
    yard.endpoint.stop()
    assert worker.job(0)[0] == 503
    assert yard.mark() is not None


def test_the_python_worker_finishes_its_job_after_sigterm(
    yard: Yard, python_worker: Callable[[], PythonWorker]
) -> None:
    yard.worker()
    worker = python_worker()
    yard.await_mark(True)
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(worker.job, 3.0)
        yard.await_mark(False)
        worker.process.send_signal(signal.SIGTERM)
        assert worker.job(0)[0] == 503
        assert job.result(SECONDS) == (200, "done\n")
    assert worker.process.wait(SECONDS) == 0
    assert yard.mark() is None, "a worker that ends does not say that it is idle"


# --- kubectl and the page ----------------------------------------------------------------------------------------


@pytest.fixture
def shell(
    yard: Yard, tmp_path: Path, require_binaries: RequireBinaries
) -> Callable[[str, Path], subprocess.CompletedProcess[str]]:
    """Run commands with kubectl in the test's namespace, as the user of a kubeconfig."""
    folder = kubectl_folder(require_binaries)

    def run(commands: str, kubeconfig: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            env={**kubectl_environment(yard, folder, kubeconfig, tmp_path), **yard.environment(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


def kubectl_folder(require_binaries: RequireBinaries) -> Path:
    require_binaries(["kubectl"])
    return find_or_build(["kubectl"], os.environ, lambda line: None)["kubectl"].parent


def kubectl_environment(yard: Yard, folder: Path, kubeconfig: Path, tmp_path: Path) -> dict[str, str]:
    config = yaml.safe_load(kubeconfig.read_text())
    config["contexts"][0]["context"]["namespace"] = yard.namespace
    own = tmp_path / "kubeconfig"
    own.write_text(yaml.safe_dump(config))
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "KUBECONFIG": str(own)}


def test_the_pod_of_the_page_is_accepted_and_its_token_works(
    yard: Yard, shell: Callable[[str, Path], subprocess.CompletedProcess[str]]
) -> None:
    """The manifests and commands of docs/workers.md, as they are written there."""
    for item in yaml.safe_load_all(documented("worker")):
        item["metadata"]["namespace"] = yard.namespace
        yard.control_plane.apply(item)
    done = shell(documented("endpoint"), yard.control_plane.kubeconfig)
    assert done.returncode == 0, done.stderr
    answers = re.findall(r'"idleSince":(null|"[^"]+")', done.stdout)
    assert len(answers) == 2
    assert answers[0] != "null"
    assert answers[1] == "null"
    assert f'"{IDLE_SINCE}":{answers[0]}' in done.stdout
    done = shell(documented("kubectl"), yard.control_plane.kubeconfig)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^worker-1 +20\d\d-\S+Z$", done.stdout, re.MULTILINE)
    assert done.stdout.endswith("Z\n"), "no deletionTimestamp is printed"
    assert yard.mark() is None


def test_the_kubectl_worker_is_marked_between_jobs_and_not_during_one(
    yard: Yard, tmp_path: Path, require_binaries: RequireBinaries
) -> None:
    """docs/examples/worker.sh as a process, with the role of docs/workers.md."""
    yard.worker(hold=True)
    role = yaml.safe_load(documented("kubectlRole"))
    role["metadata"]["namespace"] = yard.namespace
    yard.control_plane.apply(role)
    yard.control_plane.apply(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "patch-pods", "namespace": yard.namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "patch-pods"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": yard.namespace}],
        }
    )
    kubeconfig = yard.control_plane.kubeconfig_for(yard.namespace)
    environment = kubectl_environment(yard, kubectl_folder(require_binaries), kubeconfig, tmp_path)
    jobs, go_on = tmp_path / "jobs", tmp_path / "goOn"
    jobs.mkdir()
    process = subprocess.Popen(
        ["sh", str(DOCS / "examples" / "worker.sh")],
        env={**environment, "POD_NAME": "worker-1", "POD_NAMESPACE": yard.namespace, "JOBS": str(jobs)},
    )
    try:
        yard.await_mark(True)
        offer(jobs, "one", f"until [ -e {go_on} ]; do sleep 0.1; done")
        wait_for((jobs / "one.job.running").exists, SECONDS, "the job to run")
        assert yard.mark() is None
        go_on.touch()
        wait_for((jobs / "one.job.done").exists, SECONDS, "the job to be done")
        yard.await_mark(True)
        yard.evict(yard.pod())
        offer(jobs, "two", "exit 0")
        yard.await_mark(False)
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
        assert (jobs / "two.job").exists(), "a worker whose pod is being deleted leaves the job to others"
    finally:
        process.kill()
        process.wait(SECONDS)


def offer(jobs: Path, name: str, script: str) -> None:
    """Put a job into the folder, complete at once."""
    (jobs / f"{name}.new").write_text(script)
    (jobs / f"{name}.new").rename(jobs / f"{name}.job")
