"""What each role asks of the API server: the list that `warmnode doctor` checks and the shipped RBAC is compared with.

Owns that list, and nothing about how a permission is checked or granted. Whoever adds a request adds it here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """Verbs on one resource. ``resource`` has its subresource after a slash; ``group`` is empty for the core group.

    ``own`` None: in the whole cluster. Else only that object, in warmnode's own namespace; RBAC cannot limit ``create``
    to a name. ``optional``: without it less is known or said, which ``why`` names; nothing else fails.
    """

    group: str = ""
    resource: str
    verbs: tuple[str, ...]
    why: str
    own: OwnObject | None = None
    optional: bool = False


_WATCH = ("list", "watch")
_READ_LEDGER = Permission(
    resource="configmaps",
    verbs=("get", "list", "watch"),
    own=OwnObject.LEDGER,
    why="read when nodes were first seen; without it the order is the order of creation, and nothing is reaped",
)
_WRITE_LEDGER = Permission(
    resource="configmaps",
    verbs=("create", "patch"),
    own=OwnObject.LEDGER,
    why="record when nodes were first seen; without it ages are lost at a restart",
)
_STATE = (
    Permission(resource="nodes", verbs=_WATCH, why="know the nodes"),
    Permission(resource="pods", verbs=_WATCH, why="know the workers"),
    _READ_LEDGER,
    _WRITE_LEDGER,
    Permission(
        group="karpenter.sh",
        resource="nodeclaims",
        verbs=_WATCH,
        optional=True,
        why="know earlier which nodes are leaving",
    ),
    Permission(
        group="karpenter.sh",
        resource="nodepools",
        verbs=_WATCH,
        optional=True,
        why="keep to the budgets of NodePools",
    ),
)

PERMISSIONS: Mapping[Duty, tuple[Permission, ...]] = {
    Duty.SERVE: (
        *_STATE,
        Permission(
            group="coordination.k8s.io",
            resource="leases",
            verbs=("get", "create", "update"),
            own=OwnObject.WEBHOOK_LEASE,
            optional=True,
            why="tell the other replicas, and doctor, when a scheduler last called",
        ),
        Permission(
            group="coordination.k8s.io",
            resource="leases",
            verbs=("get",),
            own=OwnObject.LEADER_LEASE,
            optional=True,
            why="see whether a reaper prunes the ledger",
        ),
    ),
    Duty.CLAIMS: (
        Permission(
            group="authentication.k8s.io",
            resource="tokenreviews",
            verbs=("create",),
            why="know who calls",
        ),
        Permission(
            group="authorization.k8s.io",
            resource="subjectaccessreviews",
            verbs=("create",),
            why="know what a caller may claim",
        ),
        Permission(resource="pods", verbs=("get", "patch"), why="write marks and claims on workers"),
    ),
    Duty.REAP: (
        *_STATE,
        Permission(
            group="coordination.k8s.io",
            resource="leases",
            verbs=("get", "create", "update"),
            own=OwnObject.LEADER_LEASE,
            why="lead: without it nothing is reaped and no deletion cost is written",
        ),
        Permission(resource="pods", verbs=("get",), why="read a worker right before it is evicted"),
        Permission(resource="pods", verbs=("patch",), why="write deletion costs, and idle marks for sources outside"),
        Permission(resource="pods/eviction", verbs=("create",), why="evict idle workers"),
        Permission(
            group="policy",
            resource="poddisruptionbudgets",
            verbs=("get",),
            optional=True,
            why="see which other workers a budget that refused covers",
        ),
        Permission(
            group="policy",
            resource="poddisruptionbudgets",
            verbs=("list",),
            optional=True,
            why="leave workers alone beside pods whose budget keeps Karpenter from taking the node",
        ),
        Permission(
            group="events.k8s.io",
            resource="events",
            verbs=("create",),
            optional=True,
            why="say on a pod why it was evicted",
        ),
    ),
    Duty.LOOK: (
        Permission(resource="nodes", verbs=("list",), why="know the nodes"),
        Permission(resource="pods", verbs=("list",), why="know the workers"),
        Permission(resource="configmaps", verbs=("get",), own=OwnObject.LEDGER, optional=True, why="read the ledger"),
    ),
    Duty.CLEANUP: (
        Permission(resource="pods", verbs=("get", "list", "patch"), why="remove annotations"),
        Permission(resource="configmaps", verbs=("get", "delete"), own=OwnObject.LEDGER, why="remove the ledger"),
        Permission(
            group="coordination.k8s.io",
            resource="leases",
            verbs=("get", "delete"),
            own=OwnObject.LEADER_LEASE,
            why="remove the reapers' Lease",
        ),
        Permission(
            group="coordination.k8s.io",
            resource="leases",
            verbs=("get", "delete"),
            own=OwnObject.WEBHOOK_LEASE,
            why="remove the Lease that says when a scheduler last called",
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
    for access, permission in _spelled_out(duties):
        known = found.get(access)
        if known is None or known.optional:
            found[access] = permission
    return found


def _spelled_out(duties: tuple[Duty, ...]) -> Iterator[tuple[ApiVerb, Permission]]:
    for duty in duties:
        for permission in PERMISSIONS[duty]:
            for verb in permission.verbs:
                yield ApiVerb(permission.group, permission.resource, verb, permission.own or ""), permission
