"""Records Nodes, NodeClaims and NodePools as a real Karpenter leaves them: scripts/record-karpenter runs it.

Owns ``tests/unit/recorded``: one file for each version of Karpenter, which holds for each state the objects of one
node, as the API server gave them but for managedFields. Each state is provoked, not written by hand.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from scripts.tools.controlplane import ControlPlane, ControlPlaneError, Json, wait_for
from scripts.tools.controlplane.binaries import KARPENTER_MODULES, Note
from scripts.tools.controlplane.cluster import silent
from scripts.tools.controlplane.karpenter import (
    NODE_POOLS,
    create_node_class,
    create_node_pool,
    delete_node_claim,
    drift,
    karpenter_options,
    node_claims,
    nodes,
    worker,
)
from scripts.tools.controlplane.objects import has_condition, is_ready

RECORDED = Path(__file__).parents[2] / "tests" / "unit" / "recorded"
SECONDS = 120.0
NAMESPACE = "default"
KEPT = {"karpenter.sh/do-not-disrupt": "true"}


def main() -> int:
    """Record into the repository."""
    argparse.ArgumentParser(prog="scripts/record-karpenter", description=__doc__).parse_args()
    RECORDED.mkdir(exist_ok=True)
    try:
        for version in KARPENTER_MODULES:
            states = record(version, RECORDED / f"karpenter-{version}.json", note=print)
            print(f"recorded {', '.join(states)} of Karpenter {version}")
    except (ControlPlaneError, TimeoutError) as error:
        print(f"scripts/record-karpenter: {error}", file=sys.stderr)
        return 1
    return 0


def record(version: str, file: Path, *, note: Note = silent) -> list[str]:
    """Record every state of one version of Karpenter, side by side: their names."""
    newest = version == next(iter(KARPENTER_MODULES))
    states_of_it = (*STATES, *NEWEST) if newest else STATES
    options = karpenter_options(version, gates="NodeRepair=true" if newest else "")
    with ControlPlane(options, note=note) as control_plane:
        create_node_class(control_plane)
        create_node_class(control_plane, "slow", delay="45s")
        kubernetes = control_plane.api("GET", "/version")["gitVersion"]
        with ThreadPoolExecutor(len(states_of_it)) as threads:
            found = list(threads.map(lambda provoke: provoke(control_plane), states_of_it))
    states = {name: objects for each in found for name, objects in each.items()}
    content = {"karpenter": version, "kubernetes": kubernetes, "states": dict(sorted(states.items()))}
    file.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    return sorted(states)


def _initialized(control_plane: ControlPlane) -> Json:
    """A node that works, and what its NodePool's settings look like to us."""
    create_node_pool(
        control_plane,
        "settled",
        policy="WhenEmptyOrUnderutilized",
        consolidate_after="1h30m",
        expire_after="720h",
        budgets=[
            {"nodes": "20%", "reasons": ["Empty", "Drifted"]},
            {"nodes": "5"},
            {"nodes": "0", "schedule": "@daily", "duration": "10m"},
        ],
    )
    node = _grown(control_plane, "settled")
    return {"initialized": _objects(control_plane, "settled", node)}


def _consolidatable(control_plane: ControlPlane) -> Json:
    """A node that Karpenter would take if its pod could go anywhere."""
    create_node_pool(control_plane, "quiet", policy="WhenEmptyOrUnderutilized", budgets=[{"nodes": "0"}])
    node = _grown(control_plane, "quiet")
    _wait(lambda: has_condition(node_claims(control_plane, "quiet")[node], "Consolidatable"), "Consolidatable")
    return {"consolidatable": _objects(control_plane, "quiet", node)}


def _never(control_plane: ControlPlane) -> Json:
    """A node of a NodePool that never consolidates."""
    create_node_pool(control_plane, "never", consolidate_after="Never")
    node = _grown(control_plane, "never")
    return {"neverConsolidated": _objects(control_plane, "never", node)}


def _drifted(control_plane: ControlPlane) -> Json:
    """A node that has drifted and may not be replaced now; its NodeClaim expires within two hours."""
    create_node_pool(control_plane, "held", expire_after="2h", budgets=[{"nodes": "0"}])
    node = _grown(control_plane, "held")
    drift(control_plane, "held")
    _wait(lambda: has_condition(node_claims(control_plane, "held")[node], "Drifted"), "Drifted")
    return {"drifted": _objects(control_plane, "held", node)}


def _disrupted(control_plane: ControlPlane) -> Json:
    """A node that Karpenter has decided to replace, while the replacement is not there yet: taint and condition."""
    create_node_pool(control_plane, "replaced", budgets=[{"nodes": "1"}])
    node = _grown(control_plane, "replaced")
    slow = {"spec": {"template": {"spec": {"nodeClassRef": {"name": "slow"}}}}}
    control_plane.api("PATCH", f"{NODE_POOLS}/replaced", slow)
    _wait(
        lambda: (
            has_condition(node_claims(control_plane, "replaced")[node], "DisruptionReason")
            and nodes(control_plane, "replaced")[node]["spec"].get("taints")
        ),
        "DisruptionReason and the taint",
    )
    return {"disrupted": _objects(control_plane, "replaced", node)}


def _deleting(control_plane: ControlPlane) -> Json:
    """A node whose NodeClaim was deleted, and whose pod will not go: once without and once with a deadline."""
    found = {}
    for name, period in (("deleting", None), ("deadline", "1h")):
        create_node_pool(control_plane, name, termination_grace_period=period)
        node = _grown(control_plane, name, annotations=KEPT)
        delete_node_claim(control_plane, node, name)
        _wait(partial(_is_draining, control_plane, name, node), "the drain")
        found[name] = _objects(control_plane, name, node)
    return found


def _rebooting(control_plane: ControlPlane) -> Json:
    """A node that is mended by a reboot, while a pod that may not be disturbed holds it up; and once it is back."""
    create_node_pool(control_plane, "rebooted", budgets=[{"nodes": "100%"}])
    node = _grown(control_plane, "rebooted", annotations=KEPT)
    _report(control_plane, node, "KWOKRebootRequired", "True")
    _wait(lambda: _is_rebooting(control_plane, node), "the reboot")
    found = {"rebooting": _objects(control_plane, "rebooted", node)}
    _report(control_plane, node, "KWOKRebootRequired", "False")
    _wait(lambda: not _is_rebooting(control_plane, node), "the reboot to be over")
    return found | {"rebooted": _objects(control_plane, "rebooted", node)}


def _repaired(control_plane: ControlPlane) -> Json:
    """A node that is mended by a new one, while that is not there yet: as one that is disrupted for another reason."""
    create_node_pool(control_plane, "repaired", budgets=[{"nodes": "0", "reasons": ["Drifted", "Empty"]}])
    node = _grown(control_plane, "repaired")
    slow = {"spec": {"template": {"spec": {"nodeClassRef": {"name": "slow"}}}}}
    control_plane.api("PATCH", f"{NODE_POOLS}/repaired", slow)
    _report(control_plane, node, "KWOKUnhealthy", "True")
    _wait(
        lambda: (
            has_condition(node_claims(control_plane, "repaired")[node], "DisruptionReason")
            and nodes(control_plane, "repaired")[node]["spec"].get("taints")
        ),
        "DisruptionReason and the taint",
    )
    return {"repaired": _objects(control_plane, "repaired", node)}


def _bare(control_plane: ControlPlane) -> Json:
    """A node of a NodePool that says nothing of disruption."""
    create_node_pool(control_plane, "bare", consolidate_after=None)
    return {"bare": _objects(control_plane, "bare", _grown(control_plane, "bare"))}


NEWEST: tuple[Callable[[ControlPlane], Json], ...] = (_rebooting, _repaired, _bare)
"""What only the newest version of those that are recorded can do."""
STATES: tuple[Callable[[ControlPlane], Json], ...] = (
    _initialized,
    _consolidatable,
    _never,
    _drifted,
    _disrupted,
    _deleting,
)


def _grown(control_plane: ControlPlane, node_pool: str, annotations: Mapping[str, str] | None = None) -> str:
    """Create a pod that needs a node of this NodePool: the name of the node it runs on."""
    name = f"pod-{node_pool}"
    pod = worker(name, namespace=NAMESPACE, pool="ducks", node_pool=node_pool, annotations=annotations)
    pod["spec"]["schedulerName"] = "default-scheduler"
    control_plane.create(pod)
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}"
    _wait(lambda: is_ready(control_plane.api("GET", path)), f"{name} Ready")
    node: str = control_plane.api("GET", path)["spec"]["nodeName"]
    _wait(lambda: has_condition(node_claims(control_plane, node_pool).get(node, {}), "Initialized"), "Initialized")
    return node


def _report(control_plane: ControlPlane, node: str, condition: str, status: str) -> None:
    """Let a node say of itself what the KWOK build of Karpenter mends."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    told = {"type": condition, "status": status, "lastTransitionTime": now, "lastHeartbeatTime": now, "reason": "Told"}
    content_type = "application/strategic-merge-patch+json"
    body = {"status": {"conditions": [told]}}
    control_plane.api("PATCH", f"/api/v1/nodes/{node}/status", body, content_type=content_type)


def _is_rebooting(control_plane: ControlPlane, node: str) -> bool:
    return has_condition(node_claims(control_plane, "rebooted")[node], "Rebooting")


def _is_draining(control_plane: ControlPlane, node_pool: str, node: str) -> bool:
    found = nodes(control_plane, node_pool)[node]
    return "deletionTimestamp" in found["metadata"] and bool(found["spec"].get("taints"))


def _objects(control_plane: ControlPlane, node_pool: str, node: str) -> Json:
    found = {
        "Node": nodes(control_plane, node_pool)[node],
        "NodeClaim": node_claims(control_plane, node_pool)[node],
        "NodePool": control_plane.api("GET", f"{NODE_POOLS}/{node_pool}"),
    }
    return dict(_without_managed_fields(found))


def _without_managed_fields(objects: Json) -> Iterator[tuple[str, Json]]:
    for kind, item in objects.items():
        metadata = {key: value for key, value in item["metadata"].items() if key != "managedFields"}
        yield kind, {**item, "metadata": metadata}


def _wait(condition: Callable[[], object], what: str) -> None:
    wait_for(lambda: bool(condition()) or None, SECONDS, what)


if __name__ == "__main__":
    sys.exit(main())
