"""Karpenter's definitions and a NodePool, without Karpenter: what warmnode reads of it comes and goes."""

from __future__ import annotations

from contextlib import suppress

from scripts.tools.controlplane import ApiError, ControlPlane, Json, wait_for
from scripts.tools.controlplane.objects import has_condition
from scripts.tools.soak.stage import NODE_POOL

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GROUP, VERSION = "karpenter.sh", "v1"
KINDS = {"nodepools": "NodePool", "nodeclaims": "NodeClaim"}
NODE_POOL_PATH = f"/apis/{GROUP}/{VERSION}/nodepools/{NODE_POOL}"


def create_all(plane: ControlPlane) -> None:
    """Create the definitions and the NodePool, as far as they are not there."""
    for plural, kind in KINDS.items():
        with suppress(ApiError):
            plane.create(_definition(plural, kind))
    names = [f"{plural}.{GROUP}" for plural in KINDS]
    wait_for(
        lambda: all(has_condition(plane.api("GET", f"{DEFINITIONS}/{name}"), "Established") for name in names),
        30,
        "Karpenter's definitions to be established",
    )
    create_node_pool(plane)


def remove_definitions(plane: ControlPlane) -> None:
    """Remove the definitions with all that is defined by them."""
    for plural in KINDS:
        with suppress(ApiError):
            plane.api("DELETE", f"{DEFINITIONS}/{plural}.{GROUP}")


def create_node_pool(plane: ControlPlane) -> None:
    """Create a NodePool that no node belongs to."""
    spec = {"disruption": {"consolidateAfter": "30s", "budgets": [{"nodes": "10%"}]}, "template": {"spec": {}}}
    item = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "NodePool", "metadata": {"name": NODE_POOL}, "spec": spec}

    def created() -> bool:
        try:
            plane.api("POST", NODE_POOL_PATH.rpartition("/")[0], item)
        except ApiError as error:  # a definition that has just come is served a moment later
            return error.status == 409
        return True

    wait_for(created, 20, "the NodePool to be created")


def delete_node_pool(plane: ControlPlane) -> None:
    """Delete the NodePool."""
    with suppress(ApiError):
        plane.api("DELETE", NODE_POOL_PATH)


def _definition(plural: str, kind: str) -> Json:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": VERSION, "served": True, "storage": True, "schema": schema, "subresources": {"status": {}}}
    names = {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Cluster", "names": names, "versions": [version]},
    }
