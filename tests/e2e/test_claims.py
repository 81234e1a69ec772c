"""Installed with the components tls and claims: what pods do with tokens of their own, over the Service."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from scripts.tools.controlplane import Json
from scripts.tools.controlplane.objects import is_ready
from scripts.tools.manifests.rendering import NAMESPACE, Variant
from tests.e2e.stage import IDLE, IMAGE, NEWEST, OLDEST, POOL, REAL_ONLY, WORKERS, Stage

HOST = "warmnode.warmnode.svc"
URL = f"https://{HOST}:8889"
MOUNT = "/var/run/secrets/warmnode"
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "worker.py"
CALL = """
import json, os, ssl, sys, urllib.error, urllib.request
method, path, body = sys.argv[1:]
token = open("/var/run/secrets/warmnode/token").read()
request = urllib.request.Request(
    os.environ["WARMNODE_URL"] + path, body.encode() or None, method=method,
    headers={"Authorization": "Bearer " + token, "Content-Type": "application/json"},
)
tls = ssl.create_default_context(cafile="/var/run/secrets/warmnode/ca.crt")
try:
    with urllib.request.urlopen(request, context=tls, timeout=10) as answer:
        print(json.dumps([answer.status, json.loads(answer.read() or b"null")]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, json.loads(error.read() or b"null")]))
"""


@pytest.fixture(scope="module")
def installed(stage: Stage) -> Iterator[Stage]:
    """With a certificate of one's own, as docs/install.md says."""
    ca = trustme.CA()
    issued = ca.issue_cert(HOST)
    secret = {
        "tls.crt": b"".join(pem.bytes() for pem in issued.cert_chain_pems),
        "tls.key": issued.private_key_pem.bytes(),
        "ca.crt": ca.cert_pem.bytes(),
    }
    stage.cluster.api.create(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "warmnode-tls", "namespace": NAMESPACE},
            "type": "kubernetes.io/tls",
            "data": {name: base64.b64encode(content).decode() for name, content in secret.items()},
        }
    )
    variant = Variant(components=("tls", "claims"), pools=(WORKERS,))
    folder = stage.kustomization(dry_run=False, variant=variant)
    stage.cluster.kubectl("apply", "--kustomize", str(folder))
    files = {"ca.crt": secret["ca.crt"].decode(), "worker.py": EXAMPLE.read_text(), "call.py": CALL}
    stage.cluster.api.create(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "files", "namespace": WORKERS}, "data": files}
    )
    stage.rollout("warmnode-scheduler", "warmnode-reap")
    yield stage
    stage.cluster.kubectl("delete", "--ignore-not-found", "--wait=false", "--kustomize", str(folder))


def run_pod(stage: Stage, name: str, account: str, command: list[str], **labels: str) -> None:
    """Run a process with a token for warmnode, as docs/workers.md has it, and wait until it is Ready."""
    stage.cluster.api.create(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": WORKERS}}
    )
    service = stage.cluster.get(f"/api/v1/namespaces/{NAMESPACE}/services/warmnode")
    assert service is not None
    sources = [
        {"serviceAccountToken": {"audience": "warmnode", "path": "token", "expirationSeconds": 3600}},
        {"configMap": {"name": "files"}},
    ]
    variables: dict[str, Any] = {
        "WARMNODE_URL": {"value": URL},
        "WARMNODE_CA_FILE": {"value": f"{MOUNT}/ca.crt"},
        "POD_NAME": {"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        "POD_NAMESPACE": {"valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
    }
    spec = {
        "schedulerName": "warmnode",
        "serviceAccountName": account,
        "automountServiceAccountToken": False,
        "affinity": REAL_ONLY,
        "hostAliases": [{"ip": service["spec"]["clusterIP"], "hostnames": [HOST]}],  # not every cluster here has DNS
        "terminationGracePeriodSeconds": 10,
        "containers": [
            {
                "name": "main",
                "image": f"{IMAGE}:{stage.tag}",
                "command": command,
                "env": [{"name": key, **value} for key, value in variables.items()],
                "volumeMounts": [{"name": "warmnode", "mountPath": MOUNT, "readOnly": True}],
            }
        ],
        "volumes": [{"name": "warmnode", "projected": {"sources": sources}}],
    }
    metadata = {"name": name, "namespace": WORKERS, "labels": labels}
    stage.cluster.api.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    stage.wait_ready([name])


def call(stage: Stage, pod: str, method: str, path: str, body: Json | None = None) -> tuple[int, Any]:
    """Call warmnode from inside a pod, with the pod's token: status and answer."""
    said = stage.cluster.kubectl(
        *("exec", "--namespace", WORKERS, pod, "--", "/usr/bin/python3", f"{MOUNT}/call.py"),
        *(method, path, json.dumps(body) if body is not None else ""),
    )
    status, answer = json.loads(said)
    return status, answer


def test_a_worker_says_itself_that_it_is_idle_and_is_evicted_then(installed: Stage, tmp_path: Path) -> None:
    """The example worker of docs/workers.md, with no permission on pods: it marks itself, gets SIGTERM, and drains."""
    installed.worker("floor", node=OLDEST, idle=True)
    # The duck is not idle for long enough at first, and this one would go in its place: so it is kept, and counts.
    stays = {"karpenter.sh/do-not-disrupt": "true"}
    path = f"/api/v1/namespaces/{WORKERS}/pods/floor"
    installed.cluster.api.request("PATCH", path, {"metadata": {"annotations": stays}})
    run_pod(installed, "duck", "duck", ["/usr/bin/python3", f"{MOUNT}/worker.py"], app=POOL)
    with installed.cluster.following("--namespace", WORKERS, "duck", log=tmp_path / "duck.log") as log:
        installed.wait(lambda: "taking jobs" in log.read_text(), lambda: f"the worker to work: {log.read_text()}")
        installed.wait(
            lambda: "duck" not in installed.pods(), lambda: f"{installed.log('reap')[-3:]} {log.read_text()}"
        )
    evicted = [line["pod"] for line in installed.log("reap") if line["message"] == "evicted"]
    assert evicted == ["duck"]
    assert set(installed.pods()) == {"floor"}


def test_nobody_marks_another_pod(installed: Stage) -> None:
    """A token is good for its own pod only."""
    run_pod(installed, "stranger", "stranger", ["/usr/bin/python3", "-c", "import time; time.sleep(3600)"])
    status, answer = call(installed, "stranger", "PUT", f"/v1/pods/{WORKERS}/floor/idle")
    assert status == 403, answer
    assert is_ready(installed.pods()["floor"])
    assert installed.pods()["floor"]["metadata"]["annotations"][IDLE] == "2026-01-01T00:00:00Z"
    assert NEWEST not in {pod["spec"]["nodeName"] for pod in installed.pods().values()}


def test_a_claim_from_inside_a_pod(installed: Stage) -> None:
    """With the permission a pod gets the idle worker, gets it again, and gives it back; without it gets nothing."""
    claims = f"/v1/pools/{POOL}/claims"
    asked = {"claimant": "query-1", "ttl": "60s"}
    status, answer = call(installed, "stranger", "POST", claims, asked)
    assert (status, answer["reason"]) == (403, "forbidden")
    rule = {
        "apiGroups": ["warmnode.dev"],
        "resources": ["claims"],
        "resourceNames": [POOL],
        "verbs": ["create", "delete"],
    }
    group = "rbac.authorization.k8s.io"
    metadata = {"name": "claim-ducks", "namespace": WORKERS}
    installed.cluster.api.create({"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": [rule]})
    installed.cluster.api.create(
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "claim-ducks"},
            "subjects": [{"kind": "ServiceAccount", "name": "caller", "namespace": WORKERS}],
        }
    )
    run_pod(installed, "caller", "caller", ["/usr/bin/python3", "-c", "import time; time.sleep(3600)"])
    status, claim = call(installed, "caller", "POST", claims, asked)
    assert (status, claim["pod"]) == (201, "floor"), claim
    assert call(installed, "caller", "POST", claims, asked)[0] == 200
    other = {"claimant": "query-2"}
    status, answer = call(installed, "caller", "POST", claims, other)
    assert (status, answer["reason"]) == (404, "noneIdle")
    assert call(installed, "caller", "DELETE", f"{claims}/{claim['id']}")[0] == 204
    assert call(installed, "caller", "POST", claims, other)[1]["pod"] == "floor"
