"""A kubeconfig with `as` against a real API server: all is done as that user, with no right of the one of the file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from extender.inspect.survey.access_reviews import who_am_i
from extender.kube.api_client import KubeClient
from extender.kube.errors import Forbidden
from scripts.tools.controlplane import ControlPlane, Json, wait_for

pytestmark = pytest.mark.controlplane

LEDGER = "warmnode-first-seen"
REVIEW = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


def as_somebody(control_plane: ControlPlane, folder: Path, **fields: Any) -> Path:
    """The administrator's kubeconfig, with fields of its user added."""
    tree = yaml.safe_load(control_plane.kubeconfig.read_text())
    for user in tree["users"]:
        user["user"] |= {name.replace("_", "-"): value for name, value in fields.items()}
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_cleanup_does_not_write_as_the_administrator_of_the_file(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    """A user without rights gets a 403, and everything is still there. With the rights it is done."""
    ledger: Json = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": LEDGER, "namespace": namespace}}
    ledger["metadata"]["labels"] = {"app.kubernetes.io/name": "warmnode"}
    control_plane.create(ledger)
    path = f"/api/v1/namespaces/{namespace}/configmaps/{LEDGER}"

    def clean(**fields: Any) -> subprocess.CompletedProcess[str]:
        config = as_somebody(control_plane, tmp_path, **fields)
        command = [sys.executable, "-m", "extender", "cleanup", "--namespace", namespace, "--kubeconfig", str(config)]
        return subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, check=False, timeout=60)

    refused = clean(**{"as": "jane", "as_groups": ["admins"]})
    assert refused.returncode == 1
    assert 'User "jane" cannot' in refused.stderr
    control_plane.api("GET", path)
    done = clean(**{"as": "jane", "as_groups": ["system:masters"]})
    assert done.returncode == 0, done.stderr
    assert LEDGER in done.stdout


async def test_the_api_server_sees_all_that_the_file_says(control_plane: ControlPlane, tmp_path: Path) -> None:
    """User, UID, groups and extra arrive, keys of extra in lower case; and a read has no rights of the file's user."""
    config = as_somebody(
        control_plane,
        tmp_path,
        **{"as": "jane", "as_uid": "7", "as_groups": ["admins", "duck keepers"]},
        as_user_extra={"example.org/Why": ["a", "b"]},
    )
    client = await KubeClient.connect(kubeconfig=str(config), user_agent="warmnode/test")
    try:
        assert await who_am_i(client) == "jane"
        review = yaml.safe_load(
            await client.send("POST", REVIEW, b'{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}')
        )
        user = review["status"]["userInfo"]
        assert (user["username"], user["uid"]) == ("jane", "7")
        assert {"admins", "duck keepers"} <= set(user["groups"])
        assert user["extra"] == {"example.org/why": ["a", "b"]}
        with pytest.raises(Forbidden, match='User "jane" cannot list'):
            await client.get_bytes("/api/v1/pods")
    finally:
        await client.close()


def test_explain_of_ones_own_pod_needs_rights_in_its_namespace_only(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    """Who may list pods in one namespace sees its own worker, and what is not known; without that right nothing."""
    pod: Json = {"apiVersion": "v1", "kind": "Pod"}
    pod["metadata"] = {"name": "duck-1", "namespace": namespace, "labels": {"warmnode.dev/pool": "ducks"}}
    pod["metadata"]["annotations"] = {"warmnode.dev/idle-since": "2026-01-01T00:00:00Z"}
    pod["spec"] = {"containers": [{"name": "duck", "image": "example.org/duck"}], "nodeName": "node-of-ours"}
    control_plane.create(pod)
    config = as_somebody(control_plane, tmp_path, **{"as": "jane"})

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "extender", *words, "--kubeconfig", str(config)]
        return subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, check=False, timeout=60)

    refused = run("explain", "pod", f"{namespace}/duck-1")
    assert refused.returncode == 1
    assert f'in the namespace "{namespace}"' in refused.stderr
    api: Json = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "look", "namespace": namespace}}
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]
    control_plane.create({**api, "kind": "Role", "rules": rules})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "look"}
    subjects = [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]
    control_plane.create({**api, "kind": "RoleBinding", "roleRef": role, "subjects": subjects})

    def explained() -> subprocess.CompletedProcess[str] | None:
        done = run("explain", "pod", f"{namespace}/duck-1")
        return done if done.returncode == 0 else None

    done = wait_for(explained, 60.0, "the right to list pods")
    assert f"pod {namespace}/duck-1, a worker of pool ducks" in done.stdout
    assert "a pass now     keeps it: tooYoung" in done.stdout
    assert (
        "not known: the order of nodes, and so what a pass does with a worker (no Node: nodes is forbid" in done.stdout
    )
    assert f"not known: workers of other namespaces than {namespace} " in done.stdout
