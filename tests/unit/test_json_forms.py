"""The JSON of commands is an interface: the same cluster gives the same bytes, down to the order of keys.

What is in tests/unit/golden is compared. After a change on purpose, delete a file and run this: it is written anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from extender.cli import main

DOCS = Path(__file__).parents[2] / "docs"
GOLDEN = Path(__file__).parent / "golden"
CONFIGURATION = """\
apiVersion: warmnode.dev/v1alpha1
kind: Configuration
poolDefaults: {cacheKey: {label: app}}
"""
SNAPSHOT_SOURCE, CONFIGURATION_SOURCE = "snapshot.json", "configuration.yaml"


def cluster() -> dict[str, Any]:
    """The example's cluster, with one of everything that the forms can tell."""
    tree: dict[str, Any] = json.loads((DOCS / "examples" / "snapshot.json").read_text())
    items = tree["items"]
    workers = [item for item in items if "warmnode.dev/pool" in item["metadata"].get("labels", {})]
    for pod in workers:
        if pod["metadata"]["namespace"] == "media":
            del pod["metadata"]["ownerReferences"]  # so they can be evicted
    idle = [pod for pod in workers if "warmnode.dev/idle-since" in pod["metadata"].get("annotations", {})]
    notes = [pod["metadata"]["annotations"] for pod in idle]
    notes[0]["warmnode.dev/claim"] = json.dumps(
        {
            "id": "n0",
            "pool": "transcode",
            "user": "front",
            "claimant": "query-42",
            "since": "2026-11-20T09:10:00.000Z",
            "expires": "2026-11-20T10:00:00.000Z",
        }
    )
    notes[1] |= {
        "controller.kubernetes.io/pod-deletion-cost": "-3719880",
        "warmnode.dev/deletion-cost-owner": "-3719880",
    }
    notes[2]["controller.kubernetes.io/pod-deletion-cost"] = "7"
    nodes = [item for item in items if item["kind"] == "Node"]
    nodes[0]["spec"]["unschedulable"] = True
    spare = json.loads(json.dumps(next(each for each in nodes if not each["spec"].get("taints"))))
    spare["metadata"] |= {"name": "spare", "uid": "uid-of-spare", "creationTimestamp": "2026-11-19T09:00:00Z"}
    held = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "all", "namespace": "media"},
        "spec": {"selector": {"matchLabels": {"app": "transcoder"}}, "maxUnavailable": 0},
        "status": {"disruptionsAllowed": 0, "currentHealthy": 10, "desiredHealthy": 10, "expectedPods": 10},
    }
    pool = {
        "apiVersion": "karpenter.sh/v1",
        "kind": "NodePool",
        "metadata": {"name": "workers", "uid": "uid-of-workers"},
        "spec": {"disruption": {"consolidateAfter": "30s", "budgets": [{"nodes": "50%"}]}, "template": {"spec": {}}},
    }
    items.extend([spare, held, pool])
    return tree


COMMANDS = {
    "plan": "plan",
    "pod": "explain pod media/transcoder-65cb6885d8-98t4n",
    "evicted-pod": "explain pod transcoder-65cb6885d8-d7k8l",
    "pod-of-no-pool": "explain pod aws-node-289mw",
    "node": "explain node ip-10-0-33-151.ec2.internal",
    "pool": "explain pool transcode",
    "doctor": "doctor",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_form_of_a_look_is_what_it_was(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """A plan, each kind of explanation, a diagnosis."""
    monkeypatch.chdir(tmp_path)  # the name of the file is in the form
    Path(SNAPSHOT_SOURCE).write_text(json.dumps(cluster()))
    Path(CONFIGURATION_SOURCE).write_text(CONFIGURATION)
    main([*COMMANDS[name].split(), "--snapshot", SNAPSHOT_SOURCE, "--config", CONFIGURATION_SOURCE, "-o", "json"])
    is_as_before(name, capsys.readouterr().out)


def test_the_form_of_a_study_is_what_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    """With the parameters of bursts, and a warmnode that is restarted."""
    small = "--jobs 300 --rules spread,window:4 --consolidate-after 1m --traffic bursts --restart-every 1h --quiet"
    main(["simulate", *small.split(), "-o", "json"])
    is_as_before("simulate", capsys.readouterr().out)


def is_as_before(name: str, text: str) -> None:
    """Compare with the golden file, and write it where there is none."""
    file = GOLDEN / f"{name}.json"
    if not file.exists():
        file.write_text(text)
        pytest.fail(f"{file} is written: look at it, and run this again")
    assert text == file.read_text()
