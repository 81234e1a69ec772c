"""What may be given to `warmnode plan --snapshot`, and what is said about anything else: one line with the remedy."""

from __future__ import annotations

import io
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.inspect.plan import Plan
from extender.inspect.plan_text import render_table
from extender.inspect.reading import read_source
from extender.inspect.snapshot import REMEDY, Snapshot, SnapshotError, parse_snapshot
from extender.kube.lease import LEASE_LABELS
from extender.kube.reaper_notes import brake_note
from extender.model import Departure, SkipReason
from extender.policy.brakes import BrakeRecord
from extender.settings import Configuration
from tests.builders import by_label, plan_of

CREATED = "2026-11-01T10:00:00Z"


def parse(content: bytes) -> Snapshot:
    return parse_snapshot(content, by_label, source="given.json")


def refusal(content: bytes) -> str:
    """The part of the message between the source and the remedy, after checking that both are there."""
    with pytest.raises(SnapshotError) as caught:
        parse(content)
    return between(str(caught.value), "given.json")


def between(message: str, source: str) -> str:
    assert message.isprintable(), message
    head, tail = f"{source}: ", f"; {REMEDY}"
    assert message.startswith(head), message
    assert message.endswith(tail), message
    return message.removeprefix(head).removesuffix(tail)


def node_item(name: str = "node-a", *, created: str | None = CREATED, **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "uid": f"uid-of-{name}"} | ({"creationTimestamp": created} if created else {})
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, **more}


def pod_item(name: str = "pod-1", *, annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    labels = {"warmnode.dev/pool": "pool"}
    metadata = {"name": name, "namespace": "default", "uid": f"uid-of-{name}", "creationTimestamp": CREATED}
    return {"kind": "Pod", "metadata": {**metadata, "labels": labels, "annotations": annotations}, "spec": spec}


def beat(time: str) -> dict[str, Any]:
    """A node's status whose kubelet was last heard of at that time."""
    return {"conditions": [{"type": "Ready", "lastHeartbeatTime": time, "lastTransitionTime": CREATED}]}


def listed(*items: Any, kind: str = "List") -> bytes:
    return json.dumps({"apiVersion": "v1", "kind": kind, "items": items}).encode()


# -- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("missing.json", "no such file or directory"),
        (".", "is a directory"),
        ("missing/snapshot.json", "no such file or directory"),
    ],
)
def test_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str, problem: str) -> None:
    """The message has the path as it was given and what the system says."""
    path = str(tmp_path / name)
    with pytest.raises(SnapshotError) as caught:
        read_source(path, SnapshotError)
    assert between(str(caught.value), path) == problem


def test_path_with_control_characters_stays_on_one_line() -> None:
    """A name that no file can have is refused without a line break or a terminal sequence in the message."""
    with pytest.raises(SnapshotError) as caught:
        read_source("a\0b\n\x1b[31m", SnapshotError)
    assert between(str(caught.value), "a?b??[31m").startswith("it is no file name")


def test_closed_standard_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """`plan --snapshot - <&-` leaves Python without sys.stdin."""
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SnapshotError, match="nothing is piped into it"):
        read_source("-", SnapshotError)


def test_dash_reads_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `kubectl ... | warmnode plan --snapshot -` has it."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"{}")))
    assert read_source("-", SnapshotError) == b"{}"


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it is empty (did kubectl fail?)"),
        (b" \n", "it is empty (did kubectl fail?)"),
        (b"apiVersion: v1\nkind: List\n", "it is no JSON object (written without -o json?)"),
        (b"NAME   STATUS\nnode-a   Ready\n", "it is no JSON object (written without -o json?)"),
        (b"[]", "it is no JSON object (written without -o json?)"),
        (listed(node_item())[:-1], "it is not JSON: Input data was truncated"),
        (b"{}", "it is an object, not a list"),
        (json.dumps(node_item()).encode(), "it is a Node, not a list"),
        (b'{"kind": "NodeList", "items": null}', "no Node and no Pod is in it (it holds nothing)"),
        (b'{"kind": 3, "items": []}', "it is not a Kubernetes list: Expected `str`, got `int` - at `$.kind`"),
        (b'{"items": 3}', "it is not a Kubernetes list: Expected `array | null`, got `int` - at `$.items`"),
        (listed(), "no Node and no Pod is in it (it holds nothing)"),
        (listed({"metadata": {"name": "a"}}, kind="JobList"), "no Node and no Pod is in it (it holds Job)"),
        (listed(node_item(), None), "item 1 cannot be read: Expected `object`, got `null`"),
        (listed({"kind": "Node"}), "item 0 cannot be read: Object missing required field `metadata`"),
        (
            listed(node_item(created="yesterday")),
            "item 0 cannot be read: Invalid RFC3339 encoded datetime - at `$.metadata.creationTimestamp`",
        ),
        (
            listed(node_item(), pod_item(nodeName=["a"])),
            "item 1 cannot be read: Expected `str | null`, got `array` - at `$.spec.nodeName`",
        ),
    ],
)
def test_what_is_no_snapshot_is_refused_with_its_reason(content: bytes, problem: str) -> None:
    """Each message says what was found instead of a List with a Node or a Pod in it."""
    assert refusal(content) == problem


def test_two_documents_are_refused() -> None:
    """As when two kubectl calls were written to one file."""
    problem = refusal(listed(node_item()) * 2)
    assert problem.startswith("it is not JSON: ")
    assert problem.endswith("(more than one document?)")


def test_time_without_a_zone_is_refused() -> None:
    """No server sends one, and taking it for local time would make ages depend on the reader's machine."""
    assert "timezone" in refusal(listed(node_item(status=beat("2026-11-01T12:00:00"))))


@pytest.mark.parametrize("content", [b'{"items":' + b"[" * 1_000_000, b'{"metadata":' + b'{"a":' * 1_000_000])
def test_deep_nesting_is_refused(content: bytes) -> None:
    """A crafted file cannot end the process. What is too deep is Python's to say: from 3.14 on what its stack holds."""
    assert refusal(content).startswith("it is not JSON: ")


def test_bytes_that_are_no_utf_8_are_refused() -> None:
    """As after a copy through a terminal with another encoding."""
    content = listed(node_item("NAME")).replace(b"NAME", b"\xff\xfe")
    assert refusal(content).startswith("item 0 cannot be read: ")


def test_refusal_of_crafted_kinds_is_short_and_printable() -> None:
    """Whatever the file holds, it cannot fill or drive the reader's terminal."""
    problem = refusal(listed(*({"kind": f"\x1b[2J\nkind-{i}"} for i in range(10_000))))
    assert len(problem) < 400


# -- what is accepted -------------------------------------------------------------------------------------------------


def test_list_of_kubectl_gives_nodes_and_pods() -> None:
    """Other kinds are left out."""
    snapshot = parse(listed(node_item(), pod_item(nodeName="node-a"), {"kind": "Service", "metadata": {}}))
    assert [node.name for node in snapshot.nodes] == ["node-a"]
    assert [(pod.name, pod.node, pod.pool) for pod in snapshot.pods] == [("pod-1", "node-a", "pool")]
    assert snapshot.ledger is None


def test_node_list_of_the_api_gives_nodes() -> None:
    """What `kubectl get --raw /api/v1/nodes` prints has no kind in its items."""
    item = node_item()
    del item["kind"], item["apiVersion"]
    assert [node.name for node in parse(listed(item, kind="NodeList")).nodes] == ["node-a"]


@pytest.mark.parametrize(("namespaces", "only"), [(("mine", "mine"), "mine"), (("mine", "theirs"), None)])
def test_pods_without_nodes_are_what_somebody_with_one_namespace_has(
    namespaces: tuple[str, ...], only: str | None
) -> None:
    """Then nodes are not read, and neither are the workers of others; both are said."""
    pods = [pod_item(f"pod-{place}", nodeName="node-a") for place in range(2)]
    for pod, namespace in zip(pods, namespaces, strict=True):
        pod["metadata"]["namespace"] = namespace
    found = parse(listed(*pods))
    assert (len(found.pods), found.only, found.unread["Node"]) == (2, only, "not in the snapshot")
    unknown = plan_of(found, Configuration.default(), source="s").unknown
    assert any("the order of nodes" in line for line in unknown)
    assert any("workers of other namespaces than mine" in line for line in unknown) == (only is not None)
    everything = parse(listed(node_item(), *pods))
    assert (everything.only, "Node" in everything.unread) == (None, False)


def test_without_nodes_the_newest_mark_is_believed_and_said_to_be_alone() -> None:
    """Nobody else tells the time after the last pod began: workers that fell idle since would count as busy."""
    mark = "2026-11-01T12:11:00Z"
    found = parse(listed(pod_item(nodeName="node-a", annotations={"warmnode.dev/idle-since": mark})))
    plan = plan_of(found, Configuration.default(), source="s")
    assert (found.taken, plan.pools[0].idle) == (at(mark), 1)
    assert plan.unknown[0].startswith("what time it was (by a worker's mark alone, 2 h after all else in it")


@pytest.mark.parametrize("item", [node_item(status=beat("9999-12-31T23:59:59Z")), pod_item(nodeName="a")])
def test_a_time_at_the_end_of_all_calendars_is_nobodys(item: dict[str, Any]) -> None:
    """Of a kubelet or of a worker: a plan is made all the same."""
    marked = pod_item("m", nodeName="a", annotations={"warmnode.dev/idle-since": "9999-12-31T23:59:59Z"})
    found = parse(listed(item, marked))
    assert found.taken == at(CREATED)
    assert render_table(plan_of(found, Configuration.default(), source="s"))


def test_a_time_before_kubernetes_is_nobodys() -> None:
    """Go writes its zero time where nobody set one: a plan is made all the same."""
    zero = "0001-01-01T00:00:00Z"
    items = [node_item(), pod_item("w", nodeName="node-a", annotations={"warmnode.dev/idle-since": zero})]
    for item in items:
        item["metadata"]["creationTimestamp"] = zero
    assert render_table(plan_of(parse(listed(*items)), Configuration.default(), source="s"))


def test_ledger_is_known_by_its_label() -> None:
    """Any other ConfigMap is none."""
    data = {"uid-of-node-a": "1793527200"}
    other = {"kind": "ConfigMap", "metadata": {"name": "other"}, "data": data}
    ledger = {"kind": "ConfigMap", "metadata": {"labels": {"app.kubernetes.io/component": "ledger"}}, "data": data}
    assert parse(listed(node_item(), other)).ledger is None
    found = parse(listed(node_item(), other, ledger)).ledger
    assert found is not None
    assert dict(found.first_seen) == {"uid-of-node-a": datetime.fromtimestamp(1793527200, UTC)}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_mark_is_taken_off(encoding: str) -> None:
    """PowerShell's > writes one."""
    content = listed(node_item("nöde")).decode().encode(encoding)
    assert [node.name for node in parse(content).nodes] == ["nöde"]


def test_numbers_of_any_size_are_no_traceback() -> None:
    """A priority that no integer type of Kubernetes holds is taken as it is or refused."""
    content = listed(node_item(), pod_item(priority=123)).replace(b"123", b"9" * 400)
    assert parse(content).nodes


# -- the time that ages count to --------------------------------------------------------------------------------------


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_taken_is_the_newest_time_of_any_object() -> None:
    """A snapshot has no time of its own; what was heard of last is the closest to it."""
    ready = {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-01T12:02:00Z"}]}
    older, newer = node_item("a", status=beat("2026-11-01T12:00:00Z")), node_item("b", created="2026-11-01T12:01:00Z")
    assert parse(listed(older)).taken == at("2026-11-01T12:00:00Z")
    assert parse(listed(older, newer)).taken == at("2026-11-01T12:01:00Z")
    assert parse(listed(older, newer, pod_item() | {"status": ready})).taken == at("2026-11-01T12:02:00Z")


FAST = "2026-11-01T14:00:00Z"


def test_taken_is_not_the_time_of_the_fastest_kubelet() -> None:
    """One clock that is two hours fast would make claims long over and idle workers idle for long: it is named."""
    nodes = [node_item(name, status=beat(f"2026-11-01T12:0{minute}:00Z")) for minute, name in enumerate("abc")]
    fast = node_item("fast", status=beat(FAST))
    found = parse(listed(*nodes, fast))
    assert found.taken == at("2026-11-01T12:02:00Z")
    assert found.doubts == ("what time it was (ahead of all others, by up to 118 min: fast)",)
    assert planned(*nodes, fast).unknown[0] == found.doubts[0]
    assert parse(listed(*nodes)).doubts == ()


def test_pods_of_a_node_tell_the_time_by_its_clock() -> None:
    """The kubelet writes when they became Ready, however many they are."""
    ready = {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": FAST}]}
    pods = [pod_item(f"p{number}", nodeName="fast") | {"status": ready} for number in range(9)]
    nodes = [node_item(name, status=beat("2026-11-01T12:00:00Z")) for name in ("a", "b", "fast")]
    assert parse(listed(*nodes, *pods)).taken == at("2026-11-01T12:00:00Z")


def test_nodes_that_are_silent_do_not_hold_the_time_back() -> None:
    """Their last heartbeats are old, and the control plane says Unknown of them."""
    silent = beat("2026-10-30T12:00:00Z")
    silent["conditions"][0]["status"] = "Unknown"
    nodes = [node_item(name, status=silent) for name in "abc"]
    assert parse(listed(*nodes, node_item("d", status=beat("2026-11-01T12:00:00Z")))).taken == at(
        "2026-11-01T12:00:00Z"
    )


@pytest.mark.parametrize(
    "written",
    [
        {"kind": "Event", "metadata": {"name": "e", "creationTimestamp": "2026-11-01T13:59:00Z"}},
        {"kind": "Secret", "metadata": {"name": "s", "managedFields": [{"time": "2026-11-01T13:59:00Z"}, {}]}},
    ],
)
def test_what_the_api_server_wrote_last_is_never_later_than_the_snapshot(written: dict[str, Any]) -> None:
    """Whatever the object: then the kubelet that seemed to be fast is the one that is right."""
    slow, other = node_item("slow", status=beat("2026-11-01T12:00:00Z")), node_item("fast", status=beat(FAST))
    found = parse(listed(slow, other, written))
    assert (found.taken, found.doubts) == (at(FAST), ())


def test_one_node_alone_is_believed_and_said_to_be_alone() -> None:
    """Where nobody wrote for long before it, nobody can tell."""
    found = parse(listed(node_item(status=beat("2026-11-01T12:00:00Z"))))
    assert found.taken == at("2026-11-01T12:00:00Z")
    assert found.doubts == ("what time it was (by the clock of node-a alone, 2 h after the API server wrote last)",)


@pytest.mark.parametrize("written", ["yesterday", 5, {}, None])
def test_dates_that_make_no_sense_on_an_object_that_is_not_read_are_left_out(written: object) -> None:
    """Other kinds are not read."""
    other = {"kind": "Event", "metadata": {"name": "e", "creationTimestamp": written}}
    assert parse(listed(node_item(status=beat("2026-11-01T10:01:00Z")), other)).taken == at("2026-11-01T10:01:00Z")


@pytest.mark.parametrize(
    ("mark", "taken"),
    [
        ("2026-11-01T12:04:00Z", "2026-11-01T12:04:00Z"),
        ("2026-11-01T12:11:00Z", "2026-11-01T12:00:00Z"),
        ("2026-11-01T11:00:00Z", "2026-11-01T12:00:00Z"),
    ],
)
def test_idle_mark_counts_for_taken_unless_its_clock_is_wrong(mark: str, taken: str) -> None:
    """Kubelets tell their time every five minutes only: a worker idle for one minute must not count as busy."""
    pod = pod_item(nodeName="node-a", annotations={"warmnode.dev/idle-since": mark})
    assert parse(listed(node_item(status=beat("2026-11-01T12:00:00Z")), pod)).taken == at(taken)


def test_object_without_creation_time_moves_no_age() -> None:
    """It counts as created at the end of time, which is not when the snapshot was taken."""
    assert parse(listed(node_item("a"), node_item("b", created=None))).taken == at(CREATED)
    assert parse(listed(node_item(created=None))).taken is None


# -- properties -------------------------------------------------------------------------------------------------------

KEYS = (
    *("kind", "items", "metadata", "name", "uid", "labels", "annotations", "creationTimestamp", "spec", "nodeName"),
    *("taints", "status", "conditions", "type", "lastHeartbeatTime", "lastTransitionTime", "data", "key"),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(CREATED),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=30,
)


def outcome(content: bytes) -> str:
    """The refusal, or that there was none. Anything else that is raised fails the test."""
    try:
        return f"a snapshot of {len(parse(content).nodes)} nodes"
    except SnapshotError as error:
        return str(error)


@given(st.binary(max_size=300))
def test_any_bytes_give_a_snapshot_or_one_line(content: bytes) -> None:
    """There is no third outcome."""
    assert outcome(content).isprintable()


@given(json_values, st.sampled_from(["Node", "Pod", "ConfigMap", ""]))
def test_any_json_gives_a_snapshot_or_one_line(value: Any, kind: str) -> None:
    """Nor is there for JSON, in the place of the list, an item or an item's parts."""
    inner = value if isinstance(value, dict) else {"metadata": value}
    for tree in (value, {"items": value}, {"items": [value]}, {"items": [node_item(), {**inner, "kind": kind}]}):
        assert outcome(json.dumps(tree).encode()).isprintable()


# -- Karpenter's objects ----------------------------------------------------------------------------------------------


def recorded_objects(state: str) -> dict[str, Any]:
    """Node, NodeClaim and NodePool as a real Karpenter left them, each with its kind as kubectl prints it."""
    file = Path(__file__).parent / "recorded" / "karpenter-1.14.3.json"
    objects = json.loads(file.read_text())["states"][state]
    return {kind: {**item, "kind": kind} for kind, item in objects.items()}


def planned(*items: Any) -> Plan:
    return plan_of(parse(listed(*items)), Configuration.default(), source="given.json")


def test_node_claims_of_a_snapshot_say_which_nodes_leave() -> None:
    """The same list from `kubectl get nodes,nodeclaims,nodepools`; the node itself does not show it yet."""
    quiet, going = recorded_objects("initialized"), recorded_objects("deleting")
    node = {**going["Node"], "spec": quiet["Node"]["spec"]}
    node["metadata"] = {key: value for key, value in node["metadata"].items() if key != "deletionTimestamp"}
    told = planned(*quiet.values(), node, going["NodeClaim"])
    assert [line.leaving for line in told.nodes] == [None, Departure.NODE_CLAIM_DELETING]
    assert not [text for text in told.unknown if "Karpenter" in text]
    untold = planned(quiet["Node"], node)
    assert [line.leaving for line in untold.nodes] == [None, None]
    assert [text for text in untold.unknown if "Karpenter" in text] == [
        "which nodes Karpenter has begun to take (no NodeClaim)",
        "which empty nodes Karpenter would take (no NodePool)",
    ]


def test_pauses_are_read_from_the_lease_of_the_reapers() -> None:
    """It is known by its labels, wherever it is; a snapshot without any Lease does not say."""
    until = BrakeRecord(evicted=3, since=at(CREATED), paused_until=at(CREATED))
    metadata = {"name": "my-reaper", "labels": LEASE_LABELS, "annotations": brake_note({"pool": until})}
    spec = {"holderIdentity": "reap_1", "renewTime": CREATED}
    ours = {"kind": "Lease", "metadata": metadata, "spec": spec}
    other = {"kind": "Lease", "metadata": {"name": "node-a"}, "spec": spec}
    assert parse(listed(node_item(), other, ours)).brakes == {"pool": until}
    assert parse(listed(node_item(), other)).brakes == {}
    assert parse(listed(node_item())).brakes is None


def test_clusters_without_karpenter_are_not_told_what_they_lack() -> None:
    assert not [text for text in planned(node_item()).unknown if "Karpenter" in text]


def test_plan_keeps_to_the_node_pool() -> None:
    """An idle worker on a node that never goes stays for that reason; without the NodePool only the floor keeps it."""
    found = recorded_objects("neverConsolidated")
    mark = {"warmnode.dev/idle-since": CREATED}
    pod = pod_item(annotations=mark, nodeName=found["Node"]["metadata"]["name"])
    (reap,) = planned(*found.values(), pod).reaps
    assert [reason for _, reason in reap.stays] == [SkipReason.NEVER_CONSOLIDATED]
    (reap,) = planned(found["Node"], pod).reaps
    assert [reason for _, reason in reap.stays] == [SkipReason.FLOOR]
