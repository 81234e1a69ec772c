"""The list of permissions: complete for each role, and as small as it can be."""

from __future__ import annotations

from extender.inspect.survey.permissions import PERMISSIONS, ApiVerb, Duty, OwnObject, accesses


def test_no_role_may_read_what_it_has_no_business_with() -> None:
    """No secrets, no wildcard, and no write in the whole cluster but to pods, their evictions, Events and reviews."""
    writes = {
        (access.group, access.resource)
        for access in accesses(*Duty)
        if access.verb not in ("get", "list", "watch") and not access.own
    }
    assert writes == {
        ("", "pods"),
        ("", "pods/eviction"),
        ("events.k8s.io", "events"),
        ("authentication.k8s.io", "tokenreviews"),
        ("authorization.k8s.io", "subjectaccessreviews"),
    }
    assert not [
        access for access in accesses(*Duty) if access.resource == "secrets" or "*" in (access.verb, access.group)
    ]


def test_warmnode_never_writes_to_objects_of_karpenter() -> None:
    """It reads them."""
    verbs = {access.verb for access in accesses(*Duty) if access.group == "karpenter.sh"}
    assert verbs == {"list", "watch"}


def test_config_maps_and_leases_are_only_its_own() -> None:
    """By name, in its own namespace."""
    kinds = {"configmaps", "leases"}
    assert all(access.own in set(OwnObject) for access in accesses(*Duty) if access.resource in kinds)


def test_what_two_duties_need_is_asked_once_and_as_required() -> None:
    """The reaper's Lease may be read by serve if it can be; a reaper must."""
    both = accesses(Duty.SERVE, Duty.REAP)
    lease = ApiVerb("coordination.k8s.io", "leases", "get", OwnObject.LEADER_LEASE)
    assert accesses(Duty.SERVE)[lease].optional
    assert not both[lease].optional
    assert both == accesses(Duty.REAP, Duty.SERVE)


def test_every_permission_says_what_it_is_for() -> None:
    """The words are shown to whoever lacks it."""
    for permissions in PERMISSIONS.values():
        assert permissions
        for permission in permissions:
            assert permission.verbs
            assert permission.why[0].islower()
            assert not permission.why.endswith(".")
