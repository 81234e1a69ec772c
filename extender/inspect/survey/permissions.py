"""What each role asks of the API server: the list that `warmnode doctor` checks and the shipped RBAC is compared with.

Owns that list, and nothing about how a permission is checked or granted. Whoever adds a request adds it here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Duty(StrEnum):
    """What a process does that needs permissions of its own. ``run`` is serve and reap."""

    SERVE = "serve"
    CLAIMS = "claims"
    """The listener of --claims-listen, in serve or run."""
    REAP = "reap"
    LOOK = "look"
    """plan, explain and doctor."""
    CLEANUP = "cleanup"


class OwnObject(StrEnum):
    """An object of warmnode's own namespace whose name is a setting: the only one of its kind that is needed."""

    LEDGER = "ledger"
    LEADER_LEASE = "leaderElection"
    WEBHOOK_LEASE = "webhook"


@dataclass(frozen=True, slots=True)
class Permission:
    """Verbs on one resource, as `kubectl auth can-i` takes them: with its subresource after a slash, its group after a
    dot. ``why`` says what for.

    ``own`` None: in the whole cluster. Else only that object, in warmnode's own namespace; RBAC cannot limit ``create``
    to a name. ``optional``: without it less is known or said, which ``why`` names; nothing else fails.
    """

    verbs: str
    resource: str
    why: str
    own: OwnObject | None = None
    optional: bool = False


_LEASES = "leases.coordination.k8s.io"
_BUDGETS = "poddisruptionbudgets.policy"
_KNOWS_THE_CLUSTER = (
    Permission("list watch", "nodes", "know the nodes"),
    Permission("list watch", "pods", "know the workers"),
    Permission(
        "get list watch",
        "configmaps",
        "read when nodes were first seen; without it the order is the order of creation, and nothing is reaped",
        own=OwnObject.LEDGER,
    ),
    Permission(
        "create patch",
        "configmaps",
        "record when nodes were first seen; without it ages are lost at a restart",
        own=OwnObject.LEDGER,
    ),
    Permission("list watch", "nodeclaims.karpenter.sh", "know earlier which nodes are leaving", optional=True),
    Permission("list watch", "nodepools.karpenter.sh", "keep to the budgets of NodePools", optional=True),
)

PERMISSIONS: Mapping[Duty, tuple[Permission, ...]] = {
    Duty.SERVE: (
        *_KNOWS_THE_CLUSTER,
        Permission(
            "get create update",
            _LEASES,
            "tell the other replicas, and doctor, when a scheduler last called",
            own=OwnObject.WEBHOOK_LEASE,
            optional=True,
        ),
        Permission("get", _LEASES, "see whether a reaper prunes the ledger", own=OwnObject.LEADER_LEASE, optional=True),
    ),
    Duty.CLAIMS: (
        Permission("create", "tokenreviews.authentication.k8s.io", "know who calls"),
        Permission("create", "subjectaccessreviews.authorization.k8s.io", "know what a caller may claim"),
        Permission("get patch", "pods", "write marks and claims on workers"),
    ),
    Duty.REAP: (
        *_KNOWS_THE_CLUSTER,
        Permission(
            "get create update",
            _LEASES,
            "lead: without it nothing is reaped and no deletion cost is written",
            own=OwnObject.LEADER_LEASE,
        ),
        Permission("get", "pods", "read a worker right before it is evicted"),
        Permission("patch", "pods", "write deletion costs, and idle marks for sources outside"),
        Permission("create", "pods/eviction", "evict idle workers"),
        Permission("get", _BUDGETS, "see which other workers a budget that refused covers", optional=True),
        Permission(
            "list",
            _BUDGETS,
            "leave workers alone beside pods whose budget keeps Karpenter from taking the node",
            optional=True,
        ),
        Permission("create", "events.events.k8s.io", "say on a pod why it was evicted", optional=True),
    ),
    Duty.LOOK: (
        Permission("list", "nodes", "know the nodes"),
        Permission("list", "pods", "know the workers"),
        Permission("get", "configmaps", "read the ledger", own=OwnObject.LEDGER, optional=True),
    ),
    Duty.CLEANUP: (
        Permission("get list patch", "pods", "remove annotations"),
        Permission("get delete", "configmaps", "remove the ledger", own=OwnObject.LEDGER),
        Permission("get delete", _LEASES, "remove the reapers' Lease", own=OwnObject.LEADER_LEASE),
        Permission(
            "get delete",
            _LEASES,
            "remove the Lease that says when a scheduler last called",
            own=OwnObject.WEBHOOK_LEASE,
        ),
    ),
}


@dataclass(frozen=True, slots=True, order=True)
class ApiVerb:
    """One verb on one resource, as an access review asks. ``own`` as in `Permission`, empty for the whole cluster."""

    group: str
    resource: str
    verb: str
    own: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{f'.{self.group}' if self.group else ''}"


def accesses(*duties: Duty) -> dict[ApiVerb, Permission]:
    """Spell out the verbs of these duties, each once; where two need it, the one that cannot do without it counts."""
    found: dict[ApiVerb, Permission] = {}
    for permission in (permission for duty in duties for permission in PERMISSIONS[duty]):
        resource, _, group = permission.resource.partition(".")
        for verb in permission.verbs.split():
            access = ApiVerb(group, resource, verb, permission.own or "")
            if access not in found or found[access].optional:
                found[access] = permission
    return found
