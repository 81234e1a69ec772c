"""The count of claimable workers while a plan is carried out: exact whatever changes, without a look at all nodes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from extender.cluster.state import ClusterState
from extender.model import Node, Pod
from extender.policy.idleness import why_not_claimable
from extender.policy.judging import judging
from extender.policy.reaping import at_once
from extender.policy.recheck import Circumstances, Standing
from extender.settings import PoolSettings
from tests.builders import NOW, minutes_ago, node, worker

NODES = ("a", "b", "c")
rarely = st.sampled_from([False, False, False, True])
some_nodes = st.builds(node, st.sampled_from(NODES), unschedulable=rarely)
some_workers = st.builds(
    lambda number, **given: worker(f"w{number}", **given),
    st.integers(0, 8),
    node=st.sampled_from([*NODES, *NODES, "unknown", None]),
    pool=st.sampled_from(["pool", "pool", "pool", "other", None]),
    idle_since=rarely.map(lambda busy: None if busy else minutes_ago(10)),
    ready_since=rarely.map(lambda unready: None if unready else minutes_ago(20)),
    terminating=rarely,
    finished=rarely,
)
changes = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["upsert_pod", "delete_pod"]), some_workers),
        st.tuples(st.sampled_from(["upsert_node", "delete_node"]), some_nodes),
        st.tuples(st.just("replace_pods"), st.lists(some_workers, max_size=4, unique_by=lambda pod: pod.uid)),
        st.tuples(st.just("replace_nodes"), st.lists(some_nodes, max_size=3, unique_by=lambda each: each.name)),
    ),
    max_size=12,
)


def claimable(state: ClusterState, pool: str) -> list[str]:
    """UIDs of a pool's claimable workers, by a look at all nodes."""
    return [
        pod.uid
        for name in state.nodes
        for pod in state.where.workers_on(name).values()
        if pod.pool == pool and why_not_claimable(pod, state.objects.why_barred(name, NOW), NOW) is None
    ]


@given(st.lists(some_nodes, min_size=2), st.lists(some_workers, min_size=4), changes, some_workers)
def test_count_is_that_of_a_look_at_all_nodes(
    nodes: list[Node], pods: list[Pod], events: list[tuple[str, object]], asked: Pod
) -> None:
    """Whatever changes after the assessment, and while it is under way, is counted."""
    state = ClusterState(clock=lambda: NOW)
    for each in nodes:
        state.upsert_node(each)
    for pod in pods:
        state.upsert_pod(pod)
    with state.ranking.changes() as changed:
        standing = Standing(state, Circumstances(rules=lambda pool: PoolSettings(name=pool)), changed)
        at_once(judging(standing, ["pool", "other"], NOW))
        for change, value in events:
            getattr(state, change)(value)
            for pool in ("pool", "other"):
                left = [uid for uid in claimable(state, pool) if uid != asked.uid]
                assert standing.claimable_besides(pool, asked, NOW) == len(left)


def test_changes_end_with_the_block() -> None:
    """What changes afterwards is not kept."""
    state = ClusterState(clock=lambda: NOW)
    with state.ranking.changes() as changed, state.ranking.changes() as others:
        state.upsert_node(node("a"))
    state.upsert_node(node("b"))
    state.upsert_pod(replace(worker("w"), node="b"))
    assert changed == others == {"a"}


def test_workers_count_as_their_idle_sources_have_them() -> None:
    """A worker whose mark its source does not confirm by now is not one of those that the floor keeps."""
    state = ClusterState(clock=lambda: NOW)
    state.upsert_node(node("a"))
    unconfirmed = worker("w1", node="a", idle_since=minutes_ago(10)).uid
    with state.ranking.changes() as changed:
        for name in ("w1", "w2", "w3"):
            state.upsert_pod(worker(name, node="a", idle_since=minutes_ago(10)))

        def view(pool: str, workers: list[Pod]) -> list[Pod]:
            return [replace(each, idle_since=None) if each.uid == unconfirmed else each for each in workers]

        given = Circumstances(rules=lambda pool: PoolSettings(name=pool), workers=view)
        standing = Standing(state, given, changed)
        at_once(judging(standing, ["pool"], NOW))
        assert standing.claimable_besides("pool", worker("w2", node="a"), NOW) == 1
        assert standing.claimable_besides("pool", worker("w1", node="a"), NOW) == 2
