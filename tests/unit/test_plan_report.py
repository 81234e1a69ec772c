"""What a plan says: the order, where each age comes from, the counts; and how it is shown."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from extender.inspect.plan import AgeBasis, NodeLine, Plan
from extender.inspect.plan_text import SHOWN_WITHOUT_SCORE, render_json, render_table
from extender.inspect.snapshot import Snapshot, parse_snapshot
from extender.inspect.text import span
from extender.model import AgeSource, Ledger, Node, Pod
from extender.policy.brakes import BrakeRecord
from extender.settings import Configuration
from tests.builders import NOW, by_label, claim, ledger, minutes_ago, node, plan_of, stranger, worker

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

OLD, MIDDLE, NEW = (
    node("node-old", created=minutes_ago(600)),
    node("node-middle", created=minutes_ago(300)),
    node("node-new", created=minutes_ago(5)),
)
AN_HOUR, NOTHING = ledger({OLD.uid: minutes_ago(60)}), ledger({})
"""Ledgers: the old node was seen an hour ago, and no node was seen."""


def pool_form(name: str, **counts: int) -> dict[str, object]:
    return {"name": name, **counts, "placement": "active", "workingSet": None}


def plan(
    *nodes: Node, pods: tuple[Pod, ...] = (), recorded: Ledger | None = None, age: AgeSource = AgeSource.FIRST_SEEN
) -> Plan:
    snapshot = Snapshot(nodes=nodes, pods=pods, ledger=recorded, taken=NOW)
    return plan_of(snapshot, Configuration.default().model_copy(update={"age": age}), source="the test")


def test_paused_pool_evicts_nobody_and_says_until_when() -> None:
    """What the reaper that leads remembers counts. Where nobody says, that is not known."""
    pods = tuple(worker(name, node="node-new", idle_since=minutes_ago(20)) for name in "ab")
    until = NOW + timedelta(minutes=50)
    for brakes, fate, is_known in (
        (None, "evicted", False),
        ({}, "evicted", True),
        ({"pool": BrakeRecord(evicted=9, since=minutes_ago(9), paused_until=until)}, "poolPaused until 12:50", True),
    ):
        snapshot = Snapshot(nodes=(NEW,), pods=pods, ledger=AN_HOUR, taken=NOW, brakes=brakes)
        made = plan_of(snapshot, Configuration.default(), source="the test")
        page = render_table(made)
        assert fate in page
        assert ("not known: which pools pause" in page) is not is_known


def line_of(made: Plan, name: str) -> NodeLine:
    (line,) = (line for line in made.nodes if line.name == name)
    return line


def why(made: Plan, name: str) -> str:
    (found,) = (each["why"] for each in as_json(made)["nodes"] if each["name"] == name)
    return str(found)


def as_json(made: Plan) -> Any:
    return json.loads(render_json(made))


# -- the order --------------------------------------------------------------------------------------------------------


def test_nodes_rank_by_first_seen_whatever_their_creation() -> None:
    """The ledger decides: a node created early and used late is a new node."""
    recorded = ledger({NEW.uid: minutes_ago(4), OLD.uid: minutes_ago(2), MIDDLE.uid: minutes_ago(3)})
    ranks = [(line.name, line.rank, line.score) for line in plan(OLD, MIDDLE, NEW, recorded=recorded).nodes]
    assert ranks == [("node-new", 1, 10), ("node-middle", 2, 9), ("node-old", 3, 8)]


def test_unseen_nodes_rank_after_seen_ones_by_creation() -> None:
    """A node without workers since last week is still colder than one with a worker since a minute ago."""
    made = plan(OLD, MIDDLE, NEW, recorded=ledger({NEW.uid: minutes_ago(1)}))
    assert [line.name for line in made.nodes] == ["node-new", "node-old", "node-middle"]


def test_leaving_nodes_come_last_without_rank_and_score() -> None:
    """However old they are."""
    cordoned = node("node-cordoned", created=minutes_ago(9_000), unschedulable=True)
    made = plan(cordoned, NEW)
    assert [(line.name, line.rank, line.score) for line in made.nodes] == [
        ("node-new", 1, 10),
        ("node-cordoned", None, 0),
    ]


def test_ending_nodes_rank_after_all_others() -> None:
    """A node whose workers all terminate is about to be empty; it is ranked last and not refused."""
    pods = (worker("a", node="node-old", terminating=True), worker("b", node="node-new"))
    made = plan(OLD, MIDDLE, NEW, pods=pods, recorded=ledger({}))
    assert [(line.name, line.rank) for line in made.nodes] == [("node-new", 1), ("node-middle", 2), ("node-old", 3)]


def test_tenth_node_has_a_rank_and_no_score() -> None:
    """Nine nodes are scored, 10 to 2."""
    made = plan(*(node(f"node-{i:02}", created=minutes_ago(1000 - i)) for i in range(12)))
    assert [line.score for line in made.nodes] == [10, 9, 8, 7, 6, 5, 4, 3, 2, 0, 0, 0]
    assert [line.rank for line in made.nodes] == list(range(1, 13))


@given(st.permutations([OLD, MIDDLE, NEW, node("node-x", created=minutes_ago(300)), node("node-y", deleting=True)]))
def test_order_of_the_input_does_not_matter(nodes: list[Node]) -> None:
    """Two replicas that list differently show the same plan."""
    pods = (worker("a", node="node-new"), worker("b", node="node-x"))
    made = plan(*nodes, pods=pods)
    assert made == plan(*sorted(nodes, key=lambda each: each.uid), pods=pods)


# -- where an age comes from ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recorded", "ready", "age", "basis", "words"),
    [
        (AN_HOUR, True, AgeSource.FIRST_SEEN, "recorded", "first worker ready 1h ago"),
        (NOTHING, True, AgeSource.FIRST_SEEN, "observed", "first worker ready 30m ago"),
        (NOTHING, False, AgeSource.FIRST_SEEN, "notSeen", "no worker seen yet, created 10h ago: after all seen nodes"),
        (None, True, AgeSource.FIRST_SEEN, "estimated", "has workers, created 10h ago (estimated)"),
        (None, False, AgeSource.FIRST_SEEN, "estimated", "has workers, created 10h ago (estimated)"),
        (AN_HOUR, True, AgeSource.CREATED, "created", "created 10h ago"),
    ],
)
def test_basis_of_an_age_is_named(recorded: Ledger | None, ready: bool, age: AgeSource, basis: str, words: str) -> None:
    """Recorded in the ledger, observed now, estimated from the creation, or the creation by setting."""
    made = plan(
        OLD, pods=(worker(node="node-old", ready_since=minutes_ago(30) if ready else None),), recorded=recorded, age=age
    )
    assert line_of(made, "node-old").age_basis == basis
    assert why(made, "node-old") == words


def test_unseen_and_ending_node_names_both() -> None:
    """The reason for its place comes first."""
    pods = (worker(node="node-old", ready_since=None, terminating=True),)
    made = plan(OLD, pods=pods, recorded=ledger({}))
    assert why(made, "node-old") == (
        "ending (workersTerminating): after all others; no worker seen yet, created 10h ago"
    )


def test_leaving_node_names_its_departure() -> None:
    """The word is the one of metrics and documentation."""
    assert why(plan(node(disrupted=True)), "node-a") == "leaving (disrupted): no score"


def test_absent_kinds_are_named_with_what_they_leave_open() -> None:
    """A plan from half of a cluster says so."""
    assert [text.partition(" (")[0] for text in plan(OLD).unknown] == [
        "when each node's first worker was ready",
        "which workers run where",
    ]
    assert plan(OLD, pods=(stranger(),), recorded=ledger({})).unknown == ()
    assert plan(OLD, pods=(stranger(),), age=AgeSource.CREATED).unknown == ()


# -- counts -----------------------------------------------------------------------------------------------------------


def test_workers_are_counted_by_node_and_by_pool() -> None:
    """Idle is marked; pending has no node; finished pods and pods of no pool are none."""
    pods = (
        worker("busy", node="node-old"),
        worker("idle", node="node-old", idle_since=minutes_ago(1)),
        worker("other", node="node-new", pool="other"),
        worker("pending", node=None),
        worker("finished", node="node-old", finished=True),
        stranger("stranger", node="node-old"),
    )
    made = plan(OLD, NEW, pods=pods)
    assert (line_of(made, "node-old").workers, line_of(made, "node-old").idle) == (2, 1)
    assert as_json(made)["pools"] == [
        {
            "name": "other",
            "idle": 0,
            "busy": 1,
            "claimed": 0,
            "pending": 0,
            "nodes": 1,
            "needs": 1,
            "placement": "active",
            "workingSet": None,
        },
        {
            "name": "pool",
            "idle": 1,
            "busy": 1,
            "claimed": 0,
            "pending": 1,
            "nodes": 1,
            "needs": 2,
            "placement": "active",
            "workingSet": None,
        },
    ]
    assert made.pods == 6


def test_claimed_workers_are_shown_where_there_are_some() -> None:
    """They are neither idle nor busy, and stay with that reason; the column is there for them only."""
    held = claim(expires=minutes_ago(-5))
    made = plan(node("old"), pods=(worker("a", node="old", idle_since=minutes_ago(20), claim=held),))
    assert as_json(made)["pools"] == [
        {
            "name": "pool",
            "idle": 0,
            "busy": 0,
            "claimed": 1,
            "pending": 0,
            "nodes": 1,
            "needs": 1,
            "placement": "active",
            "workingSet": None,
        }
    ]
    assert as_json(made)["nodes"][0]["idle"] == 0
    assert [each["reason"] for each in as_json(made)["reaping"][0]["stays"]] == ["claimed"]
    assert "CLAIMED" in render_table(made)
    assert "CLAIMED" not in render_table(plan(node("old"), pods=(worker("a", node="old"),)))


# -- JSON -------------------------------------------------------------------------------------------------------------


def test_json_keys_are_those_of_the_documentation() -> None:
    """The JSON form is an interface: a key may be added, with a line in docs/plan.md, and none renamed."""
    tree = as_json(plan(OLD, pods=(worker(),)))
    assert list(tree) == [
        "schema",
        "now",
        "source",
        "age",
        "unknown",
        "pods",
        "pools",
        "reaping",
        "stuckNodes",
        "looksLikePools",
        "nodes",
    ]
    assert list(tree["pools"][0]) == [
        *("name", "idle", "busy", "claimed", "pending", "nodes", "needs", "placement"),
        "workingSet",
    ]
    assert list(tree["nodes"][0]) == [
        *("name", "uid", "rank", "score", "created", "firstSeen", "ageBasis", "leaving", "ending", "workers", "idle"),
        "cacheKeys",
        "why",
    ]
    assert tree["schema"] == "warmnode.dev/plan/v1alpha1"
    assert tree["now"] == "2026-11-01T12:00:00Z"
    described = (EXAMPLES.parent / "plan.md").read_text()
    keys = {*tree, *tree["pools"][0], *tree["nodes"][0], *AgeBasis}
    assert {key for key in keys if f"`{key}`" not in described} == set()


def test_reaping_is_what_a_pass_would_do() -> None:
    """Victims in order, the others with their reason, and the costs: by the policies of the reaper itself."""
    long_idle = minutes_ago(20)
    made = plan(
        node("old", created=minutes_ago(900)),
        node("new", created=minutes_ago(50)),
        pods=(
            worker("o", node="old", idle_since=long_idle),
            worker("n", node="new", idle_since=long_idle),
            worker("owned", node="new", idle_since=long_idle, owner="ReplicaSet.apps"),
            worker("busy", node="new"),
        ),
    )
    (reaping,) = as_json(made)["reaping"]
    assert list(reaping) == ["pool", "floor", "dryRun", "waits", "pausedUntil", "evictions", "stays", "deletionCosts"]
    assert [each["pod"] for each in reaping["evictions"]] == ["n", "o"]
    assert [(each["pod"], each["reason"]) for each in reaping["stays"]] == [("owned", "ownerRecreates")]
    assert [(each["pod"], each["from"]) for each in reaping["deletionCosts"]] == [
        ("n", None),
        ("o", None),
        ("owned", None),
    ]
    assert any("PodDisruptionBudget" in text for text in made.unknown)
    page = render_table(made)
    assert "evicted" in page
    assert "stays: ownerRecreates" in page


def test_reaping_waits_for_a_pending_worker() -> None:
    """What stops a whole pass is said for each worker that would go."""
    made = plan(
        node("old", created=minutes_ago(900)),
        pods=(
            worker("w", node="old", idle_since=minutes_ago(20)),
            worker("v", node="old", idle_since=minutes_ago(20)),
            worker("p", node=None, created=minutes_ago(14)),
        ),
    )
    (reaping,) = as_json(made)["reaping"]
    assert reaping["waits"] == "pendingWorkers"
    assert "stays for now: pendingWorkers" in render_table(made)


def test_reaping_goes_on_where_a_worker_waits_for_two_days() -> None:
    """Four idle workers, and one that fits nowhere: three are evicted, in spite of it."""
    made = plan(
        *(node(name, created=minutes_ago(9000 - place)) for place, name in enumerate(("n0", "n1", "n2", "n3"))),
        pods=(
            *(worker(f"w-{name}", node=name, idle_since=minutes_ago(60)) for name in ("n0", "n1", "n2", "n3")),
            worker("never", node=None, ready_since=None, created=minutes_ago(2 * 24 * 60)),
        ),
    )
    (reaping,) = as_json(made)["reaping"]
    assert reaping["waits"] is None
    assert len(reaping["evictions"]) == 3


def test_json_shows_what_is_not_known_as_null() -> None:
    """No rank for a leaving node, no first-seen time for an unseen one."""
    (line,) = as_json(plan(node(deleting=True), recorded=ledger({})))["nodes"]
    assert (line["rank"], line["score"], line["firstSeen"], line["leaving"], line["ending"]) == (
        *(None, 0, None, "nodeDeleting", None),
    )


# -- the page ---------------------------------------------------------------------------------------------------------


def test_example_snapshot_gives_the_committed_page() -> None:
    """docs/plan.md shows it. After a change on purpose: warmnode plan --snapshot docs/examples/snapshot.json."""
    name = "docs/examples/snapshot.json"
    content = (EXAMPLES / "snapshot.json").read_bytes()
    snapshot = parse_snapshot(content, by_label, source=name)
    page = render_table(plan_of(snapshot, Configuration.default(), source=name))
    assert page + "\n" == (EXAMPLES / "plan.txt").read_text()
    assert page.rstrip() in (EXAMPLES.parent / "plan.md").read_text()


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    """Names are never cut: people copy them."""
    long = node("node-" + "x" * 248)
    head, *rows = [line for line in render_table(plan(long, OLD)).splitlines() if "node-" in line or "WHY" in line]
    assert {row.index("no worker seen") for row in rows} == {head.index("WHY")}
    assert any(long.name in row for row in rows)


def test_nodes_without_a_score_are_counted_unless_all_are_asked_for() -> None:
    """5,000 nodes are a page of nine, and of some of those that leave."""
    leaving = [node(f"leaving-{i}", unschedulable=True) for i in range(30)]
    made = plan(*leaving, *(node(f"node-{i}") for i in range(4_970)))
    page = render_table(made).splitlines()
    assert len([line for line in page if "node-" in line]) == 9
    assert len([line for line in page if "leaving-" in line]) == SHOWN_WITHOUT_SCORE
    assert "and 4,981 more nodes without a score, 20 of them leaving (--all shows them)" in page
    everything = render_table(made, all_nodes=True).splitlines()
    assert len([line for line in everything if "node-" in line or "leaving-" in line]) == 5_000
    assert not [line for line in everything if "--all" in line]


def test_page_without_workers_says_how_to_name_some() -> None:
    """The first look at a cluster that knows nothing of us is not an empty table."""
    page = render_table(plan(OLD, pods=(stranger(),)))
    assert "No pod belongs to a pool." in page
    assert page.startswith("1 node, 1 pod, 0 workers\n")


def test_page_without_workers_suggests_what_looks_like_a_pool() -> None:
    """Five of them, each with the flag that shows it; the JSON form has all. Beside a pool nothing is suggested."""
    pods = tuple(
        replace(stranger(f"{app}-{each}", node=("node-old", "node-new")[each % 2]), labels=f"app={app}")
        for app in "abcdef"
        for each in range(3)
    )
    made = plan(OLD, NEW, pods=pods)
    page = render_table(made)
    assert "default    3     2         --selector app=a\n" in page
    assert "--selector app=f" not in page
    assert "and 1 more (--output json lists them)" in page
    assert as_json(made)["looksLikePools"][5] == {"namespace": "default", "selector": "app=f", "pods": 3, "nodes": 2}
    assert as_json(plan(OLD, NEW, pods=(*pods, worker(node="node-new"))))["looksLikePools"] == []


def test_idle_worker_without_a_cost_yet_is_counted() -> None:
    """Six idle workers and five costs are no riddle: one has just fallen idle. One with a cost is not counted."""
    settled = worker("settled", node="node-old", idle_since=minutes_ago(5))
    fresh = worker("fresh", node="node-old", idle_since=minutes_ago(0.2))
    priced = worker("priced", node="node-old", idle_since=minutes_ago(0.2), deletion_cost="7")
    page = render_table(plan(OLD, pods=(settled, fresh, priced)))
    assert "1 deletion cost would be written (--output json lists them)\n1 more idle worker of pool: a cost" in page
    assert "a cost is written after 30s of idleness" in page
    assert "more idle worker" not in render_table(plan(OLD, pods=(settled, priced)))


def test_page_holds_nothing_that_a_terminal_acts_on() -> None:
    """Names of a snapshot may come from anybody; those of other languages are shown as they are."""
    page = render_table(plan(node("nöde-漢字"), node("a\x1b[31m\nb\u202e"), pods=(worker(pool="p\x07"),)))
    assert all(line.isprintable() for line in page.split("\n"))
    assert "nöde-漢字" in page
    assert "a?[31m?b?" in page


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(), "0s"),
        (timedelta(seconds=-5), "0s"),
        (timedelta(seconds=59.9), "59s"),
        (timedelta(minutes=7, seconds=5), "7m5s"),
        (timedelta(hours=5), "5h"),
        (timedelta(hours=5, minutes=12, seconds=3), "5h12m"),
        (timedelta(days=3, minutes=4), "3d"),
        (timedelta(days=3, hours=4, minutes=5), "3d4h"),
    ],
)
def test_span_has_the_two_largest_units(duration: timedelta, text: str) -> None:
    """Ages are read beside each other: more digits would hide the difference."""
    assert span(duration) == text


def test_what_there_is_to_be_won_is_said() -> None:
    """Of a pool that would need fewer nodes; of one that is packed nothing."""
    nodes = [node(f"n-{number}", created=minutes_ago(60 - number)) for number in range(3)]
    spread = [worker(f"a-{number}", node=f"n-{number}") for number in range(3)]
    pods = (*spread, worker("a-3", node="n-0"), worker("b-1", pool="packed", node="n-0"))
    text = render_table(plan(*nodes, pods=pods))
    assert "Packed oldest first, the 4 workers of pool need about 2 of their 3 nodes" in text
    assert "of packed need" not in text


def test_where_the_working_set_of_a_pool_ends_is_said_where_a_key_chooses_in_it() -> None:
    """By the page and the JSON form; of a pool without a key, or with a window, there is none to tell of."""
    nodes = [node(f"n-{number}", created=minutes_ago(60 - number)) for number in range(4)]
    pods = [worker(f"{pool}-{each}", pool=pool, node=f"n-{each}") for pool in ("set", "window", "age") for each in "01"]
    keys = {"set": {"label": "tenant", "slack": 0.5}, "window": {"label": "tenant", "window": 2}, "age": None}
    pools = [{"name": name, "selector": {"matchLabels": {"a": "b"}}, "cacheKey": key} for name, key in keys.items()]
    given = {"apiVersion": "warmnode.dev/v1alpha1", "kind": "Configuration", "pools": pools}
    configuration = Configuration.model_validate(given)
    snapshot = Snapshot(nodes=tuple(nodes), pods=tuple(pods), ledger=None, taken=NOW)
    made = plan_of(snapshot, configuration, source="the test")
    told = {pool["name"]: pool["workingSet"] for pool in as_json(made)["pools"]}
    assert told == {"age": None, "set": {"nodes": 4, "last": "n-3"}, "window": None}
    text = render_table(made)
    assert "Working set of set: 4 nodes up to n-3" in text
    assert text.count("Working set") == 1


def test_nodes_of_one_minute_are_said_to_be_equally_old() -> None:
    """Where one stands before another that was seen a little earlier, and only there."""
    first = plan(OLD, MIDDLE, recorded=ledger({OLD.uid: minutes_ago(60), MIDDLE.uid: minutes_ago(60)}))
    before, after = (line.uid for line in first.nodes)
    for seconds, is_told in ((10, True), (-10, False), (-70, False)):
        seen = ledger({before: minutes_ago(60 - 30 / 60), after: minutes_ago(60 - (30 - seconds) / 60)})
        assert ("are equally old" in render_table(plan(OLD, MIDDLE, recorded=seen))) is is_told
