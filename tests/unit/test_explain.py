"""Explanations: of a worker, a node, a pool; in words and as JSON. They ask the policies that a plan asks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from extender.cli import main
from extender.inspect.explain import (
    Explanation,
    Fate,
    NodeExplanation,
    NotThere,
    PodExplanation,
    PoolExplanation,
    Subject,
    explain,
)
from extender.inspect.explain_json import encode_explanation
from extender.inspect.explain_text import render_explanation
from extender.inspect.plan import Look, look_at
from extender.inspect.reason_words import REASONS, words_of
from extender.inspect.snapshot import Snapshot
from extender.model import (
    FOREVER,
    UNREADABLE_CLAIM,
    Ledger,
    Node,
    NodeClaim,
    NodeClaimCondition,
    NodePool,
    Pod,
    SkipReason,
)
from extender.policy.brakes import BrakeRecord
from extender.policy.deletion_cost import (
    EPOCH_MINUTE,
    CostState,
    busy_cost,
    disruption_cost,
    idle_cost,
    node_seen_of,
)
from extender.settings import Configuration, load_configuration
from tests.builders import NOW, claim, ledger, minutes_ago, node, stranger, worker

EXAMPLE = str(Path(__file__).parents[2] / "docs" / "examples" / "snapshot.json")
OLD, NEW = node("node-old"), node("node-new")
SEEN = ledger({OLD.uid: minutes_ago(600), NEW.uid: minutes_ago(30)})


def look(
    *pods: Pod,
    nodes: tuple[Node, ...] = (OLD, NEW),
    recorded: Ledger | None = SEEN,
    config: str = "",
    claims: tuple[NodeClaim, ...] = (),
    pools: tuple[NodePool, ...] = (),
    brakes: Mapping[str, BrakeRecord] | None = None,
) -> Look:
    head = "apiVersion: warmnode.dev/v1alpha1\nkind: Configuration\n"
    configuration = load_configuration(head + config, source="f") if config else Configuration.default()
    snapshot = Snapshot(
        nodes=nodes,
        pods=pods,
        ledger=recorded,
        taken=NOW,
        node_claims=claims,
        node_pools=pools,
        brakes=brakes,
    )
    return look_at(snapshot, configuration, source="the test")


def idle(name: str, node_name: str = "node-new", minutes: float = 20, **given: Any) -> Pod:
    return worker(name, node=node_name, idle_since=minutes_ago(minutes), **given)


def pod_of(seen: Look, name: str) -> PodExplanation:
    found = explain(seen, Subject.POD, name)
    assert isinstance(found, PodExplanation)
    return found


def node_of(seen: Look, name: str) -> NodeExplanation:
    found = explain(seen, Subject.NODE, name)
    assert isinstance(found, NodeExplanation)
    return found


def pool_of(seen: Look, name: str = "pool") -> PoolExplanation:
    found = explain(seen, Subject.POOL, name)
    assert isinstance(found, PoolExplanation)
    return found


def page(seen: Look, found: Explanation) -> str:
    return render_explanation(found, seen.plan)


def tree(seen: Look, found: Explanation) -> Any:
    return json.loads(encode_explanation(found, seen.plan))


# -- a pod ------------------------------------------------------------------------------------------------------------


def test_a_worker_that_would_be_evicted_has_its_place_and_who_goes_before() -> None:
    """Newest node first, and there who is idle longest; the one on the old node is the floor's."""
    seen = look(idle("kept", "node-old"), idle("second", minutes=20), idle("first", minutes=40))
    found = pod_of(seen, "second")
    assert found.worker is not None
    assert (found.worker.fate, found.worker.position, found.evictions) == (Fate.EVICTED, 2, 2)
    assert [pod.name for pod in found.before] == ["first"]
    assert "evicts it: number 2 of 2" in page(seen, found)
    kept = pod_of(seen, "kept")
    assert kept.worker is not None
    assert (kept.worker.fate, kept.worker.reason) == (Fate.STAYS, SkipReason.FLOOR)
    assert [pod.name for pod in kept.before] == ["first", "second"]
    assert "it is one of the claimable workers to keep (floor)" in page(seen, kept)


def test_what_depends_on_an_unknown_node_is_not_known() -> None:
    """Whoever may list pods only sees no node: an idle worker there is neither said to be claimable nor to be kept."""
    seen = look(worker("idle", node="hidden", idle_since=minutes_ago(20)))
    shown = page(seen, pod_of(seen, "idle"))
    assert "claimable      not known, because its node is not\n" in shown
    assert "a pass now     not known, because its node is not\n" in shown


def test_a_busy_worker_is_left_alone_and_its_mark_says_why() -> None:
    """No mark, or one of the future."""
    seen = look(worker("busy"), idle("ahead", minutes=-60))
    found = pod_of(seen, "busy")
    assert found.worker is not None
    assert (found.worker.fate, found.worker.not_claimable, found.not_reapable) == (
        Fate.BUSY,
        SkipReason.BUSY,
        SkipReason.BUSY,
    )
    assert "leaves it alone: it is busy" in page(seen, found)
    assert "no mark warmnode.dev/idle-since" in page(seen, found)
    assert "in the future" in page(seen, pod_of(seen, "ahead"))


def test_a_claimed_worker_says_whose_it_is() -> None:
    """It stays, and its mark does not count; one whose claim cannot be read is held for ever."""
    held = claim(claimant="query-7", expires=NOW + timedelta(minutes=5))
    seen = look(idle("a", claim=held), idle("odd", claim=UNREADABLE_CLAIM))
    found = pod_of(seen, "a")
    assert found.worker is not None
    assert (found.worker.fate, found.worker.reason) == (Fate.STAYS, SkipReason.CLAIMED)
    assert "by 'query-7' of" in page(seen, found)
    assert tree(seen, found)["pod"]["claim"]["claimant"] == "query-7"
    assert "held for ever" in page(seen, pod_of(seen, "odd"))
    assert "last claim ended" not in page(seen, found) + page(seen, pod_of(seen, "odd"))
    over = look(idle("a", claim=claim(expires=minutes_ago(1))))
    assert "its last claim ended 1m ago" in page(over, pod_of(over, "a"))
    assert tree(over, pod_of(over, "a"))["pod"]["claim"] is None


def test_a_pool_that_waits_evicts_nobody_and_says_why() -> None:
    """A worker without a node holds all of them."""
    seen = look(idle("a", "node-old"), idle("b"), worker("pending", node=None, created=minutes_ago(14)))
    found = pod_of(seen, "b")
    assert found.worker is not None
    assert (found.worker.fate, found.worker.reason) == (Fate.STAYS, SkipReason.PENDING_WORKERS)
    assert "none yet: kube-scheduler has found no node" in page(seen, pod_of(seen, "pending"))


def test_a_paused_pool_evicts_nobody_and_says_until_when() -> None:
    """The reaper that leads says it in its Lease: no tool may say that a pass evicts then."""
    brake = BrakeRecord(evicted=9, since=minutes_ago(20), paused_until=NOW + timedelta(minutes=50))
    workers = (idle("a", "node-old"), idle("b"))
    seen = look(*workers, brakes={"pool": brake})
    found = pod_of(seen, "b")
    assert found.worker is not None
    assert (found.worker.fate, found.worker.reason) == (Fate.STAYS, SkipReason.POOL_PAUSED)
    assert "pool pauses, until 12:50:00 UTC (poolPaused)" in page(seen, found)
    assert "pool pauses, until 12:50:00 UTC (poolPaused)" in page(seen, pool_of(seen))
    assert tree(seen, pool_of(seen))["pool"]["pausedUntil"] == tree(seen, found)["pod"]["pausedUntil"]
    over = look(*workers, brakes={"pool": structs.replace(brake, paused_until=NOW)})
    assert pod_of(over, "b").waits is None


def test_a_gated_worker_that_is_the_only_one_of_its_pool_is_explained() -> None:
    """Its pool has nobody on a node and nobody who waits for one."""
    found = pod_of(look(worker("w", node=None, ready_since=None, gated=True)), "w")
    assert found.worker is not None
    assert (found.worker.fate, found.evictions) == (Fate.BUSY, 0)


def test_a_pod_of_no_pool_is_told_why() -> None:
    """No label, no pool that selects it, or no pool at all."""
    seen = look(stranger("s", node="node-old"))
    found = pod_of(seen, "s")
    assert "no label warmnode.dev/pool" in (found.no_pool or "")
    assert "warmnode does nothing about it" in page(seen, found)
    listed = look(stranger("s"), config="pools: [{name: geese}]")
    assert "none of the configured pools selects it: geese" in (pod_of(listed, "s").no_pool or "")
    assert pod_of(look(stranger("s"), config="pools: []"), "s").no_pool == "the configuration has no pool"
    assert "has finished" in (pod_of(look(worker("w", finished=True)), "w").no_pool or "")


def test_a_deletion_cost_is_read_back() -> None:
    """Ours says idle or busy, and when the node was first seen."""
    key = look().state.order["node-new"]
    for value, says_idle in ((idle_cost(key), True), (busy_cost(key), False)):
        seen = look(idle("w", deletion_cost=str(value), cost_mark=str(value)), worker("other", node="node-new"))
        cost = pod_of(seen, "w").cost
        assert cost is not None
        assert (cost.whose, cost.says_idle, cost.node_first_seen) == (CostState.OURS, says_idle, minutes_ago(30))
    foreign = pod_of(look(worker("w", deletion_cost="7")), "w").cost
    assert foreign is not None
    assert (foreign.whose, foreign.says_idle, foreign.to_write) == (CostState.FOREIGN, None, None)


def test_who_has_a_lower_cost_is_counted_and_what_would_be_written_is_said() -> None:
    """None counts as 0, nonsense too."""
    seen = look(
        idle("w", "node-old"), worker("low", deletion_cost="-5"), worker("odd", deletion_cost="many"), worker("none")
    )
    cost = pod_of(seen, "w").cost
    assert cost is not None
    assert (cost.lower_in_pool, cost.to_write) == (1, idle_cost(seen.state.order["node-old"]))


@pytest.mark.parametrize("priority", [0, -20_000_000, 1000])
def test_what_karpenter_alone_reads_is_shown_where_it_stands_or_is_to_be_written(priority: int) -> None:
    """It is read back as the deletion cost is, whatever the priority that it evens out."""
    always = "poolDefaults: {deletionCost: {disruptionCost: always}}"
    key = look().state.order["node-new"]
    for is_busy, told in ((False, "idle, on a node first seen"), (True, "busy, and was idle before, on a node first")):
        value = str(disruption_cost(key, priority, is_busy=is_busy))
        pod = worker("w", node="node-new", priority=priority, disruption_cost=value, disruption_mark=value)
        seen = look(pod, config=always)
        found = pod_of(seen, "w").disruption
        assert found is not None
        assert (found.whose, found.says_idle, found.node_first_seen) == (CostState.OURS, not is_busy, minutes_ago(30))
        assert f"disruption cost  {value}: {told}" in page(seen, pod_of(seen, "w"))
    plain = idle("w", "node-old", priority=priority)
    to_write = pod_of(look(plain, config=always), "w").disruption
    assert to_write is not None
    assert to_write.to_write == disruption_cost(look().state.order["node-old"], priority, is_busy=False)
    assert pod_of(look(idle("w", "node-old")), "w").disruption is None


def test_a_pod_is_named_with_its_namespace_where_several_have_the_name() -> None:
    """And what is not there is answered with what is."""
    seen = look(worker("w", uid="1", namespace="a"), worker("w", uid="2", namespace="b"), worker("worker-1"))
    assert pod_of(seen, "b/w").pod.uid == "2"
    with pytest.raises(NotThere, match="2 pods have the name w: a/w, b/w; give NAMESPACE/NAME"):
        explain(seen, Subject.POD, "w")
    with pytest.raises(NotThere, match="no pod worker-2 among 3 pods; did you mean worker-1"):
        explain(seen, Subject.POD, "worker-2")


# -- a node -----------------------------------------------------------------------------------------------------------


def test_a_node_without_a_creation_time_is_explained() -> None:
    """No API server sends one; a snapshot may, and it counts as the newest."""
    undated = node("node-undated", created=FOREVER)
    seen = look(worker(node=undated.name), nodes=(undated,), recorded=None)
    assert "first seen in the minute 9999-12-31 23:59 UTC" in render_explanation(
        explain(seen, Subject.NODE, undated.name), seen.plan
    )


def test_a_node_has_its_place_between_two_others() -> None:
    """With the three parts of the order."""
    unseen = node("node-unseen")
    seen = look(nodes=(NEW, unseen, OLD))
    found = node_of(seen, "node-new")
    assert (found.line.rank, found.ranked) == (2, 3)
    assert (found.before and found.before.name, found.after and found.after.name) == ("node-old", "node-unseen")
    assert "first seen in the minute 2026-11-01 11:30 UTC; slot" in page(seen, found)
    assert node_of(seen, "node-old").before is None
    last = node_of(seen, "node-unseen")
    assert last.after is None
    assert "not seen yet" in page(seen, last)


def test_a_leaving_node_has_no_place() -> None:
    """And says why it leaves."""
    seen = look(nodes=(OLD, node("gone", unschedulable=True)))
    found = node_of(seen, "gone")
    assert (found.line.rank, found.before, found.after) == (None, None, None)
    assert "leaving (cordoned)" in page(seen, found)


def test_what_keeps_a_node_is_counted() -> None:
    """Workers that stay, and pods of no pool; DaemonSet pods and terminating ones do not."""
    going = look(idle("kept", "node-old"), idle("a"), worker("b", node="node-new", terminating=True))
    assert node_of(going, "node-new").empties
    assert not node_of(going, "node-old").empties
    held = look(idle("kept", "node-old"), idle("a"), stranger("s", node="node-new"))
    found = node_of(held, "node-new")
    assert (found.empties, found.others) == (False, 1)
    assert "1 pod of no pool" in page(held, found)
    daemon = worker("d", pool=None, node="node-new", owner="DaemonSet.apps")
    assert node_of(look(idle("kept", "node-old"), idle("a"), daemon), "node-new").empties


def test_karpenters_part_is_shown() -> None:
    """NodePool, NodeClaim, its conditions and when it expires."""
    owned = Node(name="n", uid="n", created=minutes_ago(60), node_claim="claim", node_pool="workers")
    claim = NodeClaim(
        name="workers-1",
        uid="claim",
        created=minutes_ago(60),
        conditions=frozenset({NodeClaimCondition.DRIFTED}),
        expire_after=timedelta(days=30),
    )
    seen = look(nodes=(owned,), claims=(claim,), pools=(NodePool(name="workers", uid="p"),))
    told = page(seen, node_of(seen, "n"))
    assert "NodePool workers, NodeClaim workers-1 (Drifted), expires 2026-12-01 11:00 UTC" in told
    bare = look(nodes=(owned,))
    assert "NodeClaim not known" in page(bare, node_of(bare, "n"))


# -- a pool -----------------------------------------------------------------------------------------------------------


def test_a_pool_shows_who_is_handed_out_first_and_who_goes_first() -> None:
    """Opposite ends of one order."""
    seen = look(idle("new"), idle("old", "node-old"), worker("busy", scheduler="warmnode"))
    found = pool_of(seen)
    assert [pod.name for pod in found.reap.claimable] == ["old", "new"]
    assert [pod.name for pod in found.reap.victims] == ["new"]
    assert found.schedulers == (("default-scheduler", 2), ("warmnode", 1))
    assert "stays" in page(seen, found)


def test_a_pool_that_is_configured_and_has_no_worker_is_explained() -> None:
    """One that is not is answered with those there are."""
    seen = look(config=yaml.safe_dump({"pools": [{"name": "geese", "reap": {"floor": 7}, "dryRun": True}]}))
    told = page(seen, pool_of(seen, "geese"))
    assert "floor 7" in told
    assert "dry-run" in told
    with pytest.raises(NotThere, match="there is no pool ducks: there are geese"):
        explain(seen, Subject.POOL, "ducks")
    with pytest.raises(NotThere, match="no pod belongs to a pool"):
        explain(look(), Subject.POOL, "ducks")


# -- what is shown ----------------------------------------------------------------------------------------------------


def test_every_reason_has_words() -> None:
    """A new one needs half a sentence in extender/inspect/reason_words.py."""
    assert {str(reason) for reason in SkipReason} - REASONS.keys() == set()
    assert words_of(SkipReason.FLOOR) != SkipReason.FLOOR


@pytest.mark.parametrize(("subject", "name"), [("pod", "a"), ("node", "node-new"), ("pool", "pool")])
def test_json_has_stable_keys(subject: str, name: str) -> None:
    """They are an interface: docs/explain.md has them."""
    seen = look(idle("kept", "node-old"), idle("a"))
    made = tree(seen, explain(seen, Subject(subject), name))
    assert made.keys() == {"schema", "now", "source", "unknown", "history", subject}
    assert made["schema"] == "warmnode.dev/explain/v1alpha1"
    assert made[subject].keys() == KEYS[subject]


KEYS = {
    "pod": {
        *{"namespace", "name", "uid", "pool", "noPool", "node", "scheduler", "idle", "idleSince", "claim"},
        "cacheKey",
        *{"notClaimable", "notReapable", "pass", "waits", "pausedUntil", "before", "deletionCost", "disruptionCost"},
    },
    "node": {
        *{"name", "uid", "rank", "score", "created", "firstSeen", "ageBasis", "leaving", "ending", "why"},
        *{
            "ranked",
            "order",
            "before",
            "after",
            "nodePool",
            "nodeClaim",
            "otherPods",
            "emptyAfterPass",
            "workingSets",
            "workers",
        },
    },
    "pool": {
        *{"name", "idle", "busy", "claimed", "pending", "nodes", "needs", "placement", "schedulers", "settings"},
        "cacheKey",
        "workingSet",
        *{"claimable", "waits", "pausedUntil", "evictions", "stays", "deletionCostsToWrite"},
    },
}


def test_names_from_anybody_reach_no_terminal() -> None:
    """Nor does what is asked for and not there."""
    seen = look(worker("w", pool="a\x1b[31m"))
    assert "\x1b" not in page(seen, pod_of(seen, "w"))


def test_the_command_explains_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    """From the snapshot of the documentation."""
    assert main(["explain", "pool", "transcode", "--snapshot", EXAMPLE]) == 0
    assert "10 workers: 6 idle, 4 busy" in capsys.readouterr().out
    assert main(["explain", "node", "ip-10-0-9-64.ec2.internal", "--snapshot", EXAMPLE, "--output", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["node"]["rank"] == 4


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["pod", "non\x1bsense"], 1, "there is no pod non?sense among 46 pods"),
        (["pod", "x", "--config", "/none"], 2, "/none"),
        (["node", "x", "--snapshot", "/none"], 2, "/none: no such file or directory"),
    ],
)
def test_bad_usage_is_one_line(arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is not there is a failure, what cannot be read is bad usage."""
    if "--snapshot" not in arguments:
        arguments = [*arguments, "--snapshot", EXAMPLE]
    assert main(["explain", *arguments]) == code
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@given(st.integers(0, 7305 * 24 * 60), st.integers(0, 7))
def test_a_value_says_when_its_node_was_first_seen(step: int, slot: int) -> None:
    """Idle or busy, to the minute: what is read out of it is what was put in."""
    minute = EPOCH_MINUTE + step
    key = (0, minute, slot, "uid")
    assert int(node_seen_of(idle_cost(key)).timestamp()) == int(node_seen_of(busy_cost(key)).timestamp()) == 60 * minute
