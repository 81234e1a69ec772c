"""API objects to values: what is read, and that nonsense is on the safe side."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.kube import objects
from extender.kube.objects import (
    ConfigMapObject,
    NodeObject,
    ObjectMeta,
    PodObject,
    ledger_from,
    node_from,
    pod_from,
)
from extender.model import FOREVER, Departure, Ending, IdleBasis, Membership, Node, Pod, PodClaim
from extender.policy.idleness import FUTURE_TOLERANCE, is_undisturbed, reports_idle
from extender.policy.marks import parse_idle_mark
from tests.builders import NOW, worker

STARTED = "2026-11-01T10:00:00Z"


def read_pod(*, basis: IdleBasis = IdleBasis.WORKER, keeps_ip: bool = False, **overrides: Any) -> Pod:
    raw: dict[str, Any] = {
        "metadata": {"name": "w", "namespace": "ns", "uid": "u", "creationTimestamp": STARTED},
        "spec": {"nodeName": "n", "priority": 5, "schedulerName": "warmnode", "containers": [{"name": "c"}]},
        "status": {"phase": "Running", "startTime": STARTED, "conditions": None},
    }
    for path, value in overrides.items():
        section, key = path.split("__")
        raw[section][key] = value

    def pool_from_label(namespace: str, labels: Mapping[str, str]) -> Membership | None:
        if "pool" not in labels:
            return None
        return Membership(pool=labels["pool"], basis=basis, keeps_ip=keeps_ip, cache_key=labels.get("tenant"))

    return pod_from(msgspec.json.decode(msgspec.json.encode(raw), type=PodObject), pool_from_label)


def test_times_that_are_equal_are_one_value() -> None:
    """100,000 pods have three each, whole seconds that bursts share: 10 MiB less."""
    conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": STARTED}]
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-11-01T12:00:00+02:00"}
    first = read_pod()
    second = read_pod(metadata__labels={"pool": "p"}, status__conditions=[*conditions, scheduled])
    assert first.created is second.created is second.ready_since is second.bound


def test_so_many_times_are_kept_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pods of years have more of them than memory should hold; what was read before stays as it is."""
    monkeypatch.setattr(objects, "_MOST_TIMES", 2)
    known: dict[datetime, datetime] = {}
    monkeypatch.setattr(objects, "_times", known)
    times = [f"2026-11-01T10:00:0{second}Z" for second in range(5)]
    pods = [read_pod(metadata__creationTimestamp=time) for time in times]
    assert [pod.created.second for pod in pods] == [0, 1, 2, 3, 4]
    assert len(known) <= 2


FULL_POD: dict[str, Any] = {
    "metadata": {
        "name": "w",
        "namespace": "ns",
        "uid": "u",
        "resourceVersion": "7",
        "creationTimestamp": "2026-11-01T10:00:00Z",
        "deletionTimestamp": "2026-11-01T11:59:00Z",
        "labels": {"pool": "p", "tenant": "t"},
        "annotations": {
            "warmnode.dev/idle-since": "2026-11-01T11:01:00Z",
            "warmnode.dev/idle-source": "confirmed 2026-11-01T11:02:00Z",
            "controller.kubernetes.io/pod-deletion-cost": "1",
            "warmnode.dev/deletion-cost-owner": "2",
            "karpenter.sh/disruption-cost": "3",
            "warmnode.dev/disruption-cost-owner": "4",
            "karpenter.sh/do-not-disrupt": "3h",
            "kubernetes.io/config.mirror": "x",
            "warmnode.dev/claim-ended": "2026-11-01T11:03:00Z",
            "warmnode.dev/claim": '{"id":"i","pool":"p","user":"a","claimant":"q",'
            '"since":"2026-11-01T11:04:00Z","expires":"2026-11-01T11:05:00Z","renewals":2,"protects":true}',
        },
        "ownerReferences": [
            {"apiVersion": "v1", "kind": "Owner", "uid": "o"},
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "uid": "r", "controller": True},
        ],
    },
    "spec": {
        "nodeName": "n",
        "priority": 5,
        "schedulerName": "warmnode",
        "schedulingGates": [{"name": "g"}],
        "tolerations": [{"operator": "Exists"}],
    },
    "status": {
        "phase": "Failed",
        "startTime": "2026-11-01T10:02:00Z",
        "podIP": "10.0.0.7",
        "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-11-01T10:01:00Z"},
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-01T10:03:00Z"},
        ],
    },
}


def at(hour: int, minute: int) -> datetime:
    return datetime(2026, 11, 1, hour, minute, tzinfo=UTC)


def test_all_that_is_kept_of_a_worker() -> None:
    """Each field from its place in the object."""
    member = Membership(pool="p", basis=IdleBasis.BOTH, keeps_ip=True, cache_key="t")
    assert pod_from(msgspec.convert(FULL_POD, PodObject, strict=False), lambda namespace, labels: member) == Pod(
        uid="u",
        namespace="ns",
        name="w",
        created=at(10, 0),
        node="n",
        pool="p",
        priority=5,
        scheduler="warmnode",
        ready_since=at(10, 3),
        idle_since=at(11, 2),
        do_not_disrupt_until=at(13, 2),
        gated=True,
        terminating=True,
        going_until=at(11, 59),
        bound=at(10, 1),
        finished=True,
        resource_version="7",
        owner="ReplicaSet.apps",
        static=True,
        deletion_cost="1",
        cost_mark="2",
        disruption_cost="3",
        disruption_mark="4",
        own_mark=at(11, 1),
        source_mark="confirmed 2026-11-01T11:02:00Z",
        ip="10.0.0.7",
        cache_key="t",
        claim=PodClaim(
            id="i",
            pool="p",
            user="a",
            claimant="q",
            since=at(11, 4),
            expires=at(11, 5),
            renewals=2,
            protects=True,
        ),
        claim_ended=at(11, 3),
    )


def test_a_price_is_kept_once_for_all_that_have_it() -> None:
    """Each read is a new text, and its mark too. On a large cluster that is most of what prices would take."""
    prices = ("controller.kubernetes.io/pod-deletion-cost", "warmnode.dev/deletion-cost-owner")
    one, other = (read_pod(metadata__annotations=dict.fromkeys(prices, "-3735841")) for _ in range(2))
    assert one.deletion_cost is one.cost_mark is other.deletion_cost is other.cost_mark
    assert one.deletion_cost == "-3735841"


def test_of_a_pod_of_no_pool_labels_and_tolerations_are_kept_instead() -> None:
    """What only workers are asked for is left out."""
    pod = pod_from(msgspec.convert(FULL_POD, PodObject, strict=False), lambda namespace, labels: None)
    assert (pod.labels, pod.tolerates_disruption) == ("pool=p,tenant=t", True)
    assert (pod.pool, pod.bound, pod.ip, pod.cache_key) == (None, None, None, None)


def test_all_that_is_kept_of_a_node() -> None:
    """Each field from its place in the object."""
    raw = {
        "metadata": {
            "name": "n",
            "uid": "u",
            "creationTimestamp": "2026-11-01T10:00:00Z",
            "deletionTimestamp": "2026-11-01T11:00:00Z",
            "labels": {
                "karpenter.sh/nodepool": "np",
                "karpenter.sh/initialized": "true",
                "node.kubernetes.io/instance-type": "m",
            },
            "annotations": {"karpenter.sh/do-not-disrupt": "true"},
            "ownerReferences": [
                {"apiVersion": "karpenter.sh/v1", "kind": "NodePool", "uid": "p"},
                {"apiVersion": "example.com/v1", "kind": "NodeClaim", "uid": "x"},
                {"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "uid": "c"},
            ],
        },
        "spec": {
            "unschedulable": True,
            "taints": [
                {"key": "karpenter.sh/disrupted"},
                {"key": "ToBeDeletedByClusterAutoscaler"},
                {"key": "DeletionCandidateOfClusterAutoscaler"},
            ],
        },
        "status": {
            "conditions": [{"type": "Ready", "status": "Unknown", "lastTransitionTime": "2026-11-01T10:30:00Z"}],
            "allocatable": {"cpu": "4", "memory": "1Gi", "none": "0"},
        },
    }
    assert node_from(msgspec.convert(raw, NodeObject, strict=False)) == Node(
        name="n",
        uid="u",
        created=at(10, 0),
        deleting=True,
        disrupted=True,
        unschedulable=True,
        ready=False,
        not_ready_since=at(10, 30),
        unreachable=True,
        announced=Departure.CLUSTER_AUTOSCALER,
        announced_ending=Ending.DELETION_CANDIDATE,
        node_claim="c",
        node_pool="np",
        initialized=True,
        do_not_disrupt=True,
        instance_type="m",
        allocatable={"cpu": Decimal(4), "memory": Decimal(1024**3)},
    )


def test_a_node_that_says_nothing_stays_and_is_not_ready() -> None:
    """Nor is it Karpenter's; and for Ready=False the kubelet can still be heard."""
    silent = node_from(msgspec.convert({"metadata": {"name": "n", "uid": "u"}}, NodeObject))
    assert silent == Node(name="n", uid="u", created=FOREVER, ready=False)
    down = {"type": "Ready", "status": "False", "lastTransitionTime": "2026-11-01T10:30:00Z"}
    for status, since in (("False", at(10, 30)), ("True", None)):
        raw = {"metadata": {"name": "n", "uid": "u"}, "status": {"conditions": [{**down, "status": status}]}}
        node = node_from(msgspec.convert(raw, NodeObject, strict=False))
        assert (node.not_ready_since, node.unreachable) == (since, False)


def test_pod_ready_time_only_while_ready() -> None:
    """The Ready condition's transition counts while the condition is True."""
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-01T11:00:00Z"}
    assert read_pod(status__conditions=[ready]).ready_since == datetime(2026, 11, 1, 11, tzinfo=UTC)
    assert read_pod(status__conditions=[{**ready, "status": "False"}]).ready_since is None
    assert read_pod().ready_since is None


@pytest.mark.parametrize(
    ("conditions", "is_ready"),
    [
        (None, False),
        ([], False),
        ([{"type": "Ready", "status": "True"}], True),
        ([{"type": "Ready", "status": "False"}], False),
        ([{"type": "Ready", "status": "Unknown"}], False),
        ([{"type": "MemoryPressure", "status": "True"}], False),
        ([{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}], True),
    ],
)
def test_a_node_is_ready_where_its_condition_says_so(conditions: list[dict[str, str]] | None, is_ready: bool) -> None:
    """One that is not uses up a node of its NodePool's budget."""
    raw = {"metadata": {"name": "n", "uid": "u"}, "status": {"conditions": conditions}}
    assert node_from(msgspec.convert(raw, NodeObject)).ready is is_ready


def test_pod_pool_comes_from_labels() -> None:
    """A pod is a worker where the selector says so."""
    assert read_pod(metadata__labels={"pool": "p"}).pool == "p"
    assert read_pod().pool is None


def test_pod_address_is_kept_for_workers_that_are_asked() -> None:
    """100,000 pods have an address each: only where a worker is asked over HTTP it is kept."""
    given: dict[str, Any] = {"metadata__labels": {"pool": "p"}, "status__podIP": "10.0.0.7"}
    assert read_pod(keeps_ip=True, **given).ip == "10.0.0.7"
    assert read_pod(**given).ip is None
    assert read_pod(keeps_ip=True, status__podIP="10.0.0.7").ip is None


def test_marks_on_a_pod_count_as_its_pool_reads_them() -> None:
    """The same two annotations: the worker's mark, confirmed for the pool that asks for both."""
    note = "confirmed 2026-11-01T11:30:00Z"
    marks = {"warmnode.dev/idle-since": "2026-11-01T11:00:00Z", "warmnode.dev/idle-source": note}
    given: dict[str, Any] = {"metadata__labels": {"pool": "p"}, "metadata__annotations": marks}
    own, confirmed = datetime(2026, 11, 1, 11, tzinfo=UTC), datetime(2026, 11, 1, 11, 30, tzinfo=UTC)
    assert [read_pod(basis=basis, **given).idle_since for basis in IdleBasis] == [own, None, confirmed]
    assert read_pod(basis=IdleBasis.BOTH, **given).own_mark == own


@pytest.mark.parametrize(
    ("phase", "finished"), [("Running", False), ("Pending", False), ("Succeeded", True), ("Failed", True)]
)
def test_pod_finished_by_phase(phase: str, finished: bool) -> None:
    """Succeeded and Failed pods hold no room."""
    assert read_pod(status__phase=phase).finished is finished


@pytest.mark.parametrize(
    ("value", "until"),
    [
        ("true", FOREVER),
        ("90m", datetime(2026, 11, 1, 11, 30, tzinfo=UTC)),
        ("1h30m", datetime(2026, 11, 1, 11, 30, tzinfo=UTC)),
        ("false", None),
        ("soon", None),
        ("-5m", None),
        ("9" * 40 + "h", FOREVER),
        ("9" * 100 + "h", None),
        ("", None),
    ],
)
def test_do_not_disrupt_is_true_or_a_duration_from_the_start(value: str, until: datetime | None) -> None:
    """As Karpenter 1.12 reads it; a bad value protects nothing."""
    assert read_pod(metadata__annotations={"karpenter.sh/do-not-disrupt": value}).do_not_disrupt_until == until


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-01T10:00:00Z",
        "2026-11-01T10:00:00.000000Z",
        "2026-11-01T11:00:00+01:00",
        "2026-11-01t10:00:00z",
        "2026-11-01T10:00:00.123456789Z",
    ],
)
def test_idle_mark_reads_rfc_3339(text: str) -> None:
    """Any zone, any fraction."""
    mark = parse_idle_mark(text)
    assert mark is not None
    assert mark.replace(microsecond=0) == datetime(2026, 11, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "true",
        "idle",
        "1793527200",
        "2026-11-01",
        "2026-11-01T10:00:00",
        "2026-11-01T10:00Z",
        "20261101T100000Z",
        "2026-02-31T10:00:00Z",
        "2026-11-01T25:00:00Z",
        "0001-01-01T00:00:00+23:59",
        " 2026-11-01T10:00:00Z",
        "2026-11-01T10:00:00Z\n",
        "9" * 1_000_000,
    ],
)
def test_idle_mark_garbage_is_busy(text: str | None) -> None:
    """Absent or unparseable, without a zone, or enormous: busy."""
    assert parse_idle_mark(text) is None


@given(st.text(max_size=50))
def test_idle_mark_never_raises(text: str) -> None:
    """Any text is a time or None."""
    mark = parse_idle_mark(text)
    assert mark is None or mark.tzinfo is not None


def test_idle_mark_in_the_future_is_busy() -> None:
    """30 s ahead is clock skew; more is not a mark."""
    assert reports_idle(worker(idle_since=NOW + FUTURE_TOLERANCE), NOW)
    assert not reports_idle(worker(idle_since=NOW + FUTURE_TOLERANCE + timedelta(seconds=1)), NOW)


def test_do_not_disrupt_duration_ends() -> None:
    """A duration protects until it has passed."""
    idle = worker(idle_since=NOW, do_not_disrupt_until=NOW)
    assert not is_undisturbed(idle, NOW)
    assert is_undisturbed(idle, NOW - timedelta(seconds=1))


@pytest.mark.parametrize(
    ("spec", "meta", "expected"),
    [
        ({"unschedulable": True}, {}, (False, False, True)),
        ({"taints": [{"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}]}, {}, (False, True, False)),
        ({"taints": [{"key": "karpenter.sh/disruption", "value": "disrupting"}]}, {}, (False, True, False)),
        ({"taints": [{"key": "dedicated"}]}, {}, (False, False, False)),
        ({}, {"deletionTimestamp": STARTED}, (True, False, False)),
    ],
)
def test_node_departure_signals(spec: dict[str, Any], meta: dict[str, Any], expected: tuple[bool, bool, bool]) -> None:
    """Deletion, Karpenter's taint of either generation, and a cordon."""
    raw = {"metadata": {"name": "n", "uid": "u", "creationTimestamp": STARTED, **meta}, "spec": spec}
    node = node_from(msgspec.convert(raw, NodeObject, strict=False))
    assert (node.deleting, node.disrupted, node.unschedulable) == expected


def test_ledger_ignores_and_keeps_nonsense() -> None:
    """Values that are no plausible time are listed, the others are read."""
    good = str(int(NOW.timestamp()))
    data = {
        "a": good,
        "b": "soon",
        "c": "",
        "d": "-5",
        "e": "9" * 12,
        "f": "1.5",
        "g": "1",
        "h": "\uff11\uff12\uff13",
        "i": "9" * 99,
    }
    ledger = ledger_from(ConfigMapObject(metadata=ObjectMeta(resource_version="7"), data=data))
    assert ledger.first_seen == {"a": NOW}
    assert ledger.ignored == ("b", "c", "d", "e", "f", "g", "h", "i")
    assert ledger.resource_version == "7"
    assert ledger.size_bytes == sum(len(f"{key}{value}".encode()) for key, value in data.items())


def test_time_that_no_utc_time_can_hold_counts_as_absent() -> None:
    """The first day of year 1 east of Greenwich: nothing a server sends, and no reason for a watch to end."""
    assert read_pod(metadata__creationTimestamp="0001-01-01T00:00:00+14:00").created == FOREVER
