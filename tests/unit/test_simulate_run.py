"""The simulated pool: what a node costs, who waits, and that the rules are the ones that they are named for."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.simulate.pool import PoolShape
from extender.simulate.rules import RULES, Order, Placement, Rule, parse_rule, placement
from extender.simulate.run import simulate
from extender.simulate.study import run_study
from extender.simulate.tally import RunOutcome
from extender.simulate.workload import Arrivals, DataSets, Job, Traffic, make_jobs

OLDEST = Rule(order=Order.OLDEST)
SHAPE = PoolShape(slots=2, boot=timedelta(seconds=50), consolidate_after=timedelta(seconds=100), cache_blocks=3)


def job(arrives: float, lasts: float = 10, key: str = "", blocks: Sequence[int] = ()) -> Job:
    return Job(arrives=arrives, lasts=lasts, key=key, blocks=blocks)


def outcome(jobs: list[Job], rule: Rule = OLDEST, shape: PoolShape = SHAPE) -> RunOutcome:
    return simulate(jobs, shape, placement(rule, Random(1)))


def test_one_job_costs_boot_its_duration_and_consolidate_after() -> None:
    """A node is paid from its launch until it was empty for consolidateAfter; the job waits while it boots."""
    found = outcome([job(0, lasts=850)])
    assert found.node_hours * 3600 == pytest.approx(50 + 850 + 100)
    assert (found.launched_nodes, found.peak_nodes, found.waited_jobs, found.waited_seconds) == (1, 1, 1, 50)


def test_a_node_is_launched_for_what_booting_ones_cannot_take() -> None:
    """Three jobs at once on nodes of two slots: two nodes. A job that ends first gives its slot to one that waits."""
    assert outcome([job(0), job(0), job(0)]).launched_nodes == 2
    busy = [job(0, lasts=60), job(0, lasts=500), job(100), job(101)]
    found = outcome(busy)
    assert (found.launched_nodes, found.waited_seconds) == (2, 50 + 50 + 10 + 19)


def test_an_empty_node_that_gets_work_again_is_not_removed() -> None:
    """consolidateAfter counts from when the node became empty last."""
    assert outcome([job(0), job(155, lasts=1), job(250)]).launched_nodes == 1
    assert outcome([job(0), job(161)]).launched_nodes == 2


def test_a_new_node_has_an_empty_cache_and_loses_it_with_itself() -> None:
    """Blocks are hits where they were read before, on that node, among the last that fit."""
    reads = [job(0, blocks=(1, 2)), job(100, blocks=(2, 1)), job(120, blocks=(3, 4, 1))]
    found = outcome(reads)
    assert (found.reads, found.hits) == (7, 3)
    assert found.hit_ratio == pytest.approx(3 / 7)
    assert outcome([job(0, blocks=(1, 2)), job(1000, blocks=(1, 2))]).hits == 0


class Told:
    """A placement that tells where it put jobs. Wraps the one that is tested."""

    def __init__(self, rule: Placement) -> None:
        self._rule = rule
        self.nodes: list[str] = []
        self.node_ready, self.node_gone, self.restarted = rule.node_ready, rule.node_gone, rule.restarted
        self.choose, self.ended = rule.choose, rule.ended

    def placed(self, node: str, key: str, now_seconds: float) -> None:
        self.nodes.append(node)
        self._rule.placed(node, key, now_seconds)


def placed(jobs: list[Job], rule: str, shape: PoolShape = SHAPE) -> list[str]:
    told = Told(placement(parse_rule(rule), Random(1)))
    simulate(jobs, shape, told)
    return told.nodes


def test_oldest_first_fills_the_node_that_was_seen_first() -> None:
    """Two nodes, the second seen minutes later: work goes to the first while it has room."""
    shape = replace(SHAPE, consolidate_after=timedelta(hours=1))
    jobs = [job(0, 300), job(0, 300), job(200, 300), *(job(1000 + 20 * number) for number in range(3))]
    assert placed(jobs, "oldest", shape) == ["node-1", "node-1", "node-2", "node-1", "node-1", "node-1"]


def test_spread_goes_to_the_emptiest_node_and_most_allocated_to_the_fullest() -> None:
    """With one slot taken on the first node and none on the second."""
    shape = replace(SHAPE, consolidate_after=timedelta(hours=1))
    jobs = [job(0, 1000), job(0, 100), job(1, 100), job(500), job(600)]
    full, empty = "node-1", "node-2"
    assert placed(jobs, "spread", shape)[3:] == [empty, empty]
    assert placed(jobs, "most-allocated", shape)[3:] == [full, full]


def test_window_goes_where_the_key_ran_and_age_decides_without_key() -> None:
    """Key x ran on the second node; with window 1 and for a job without key the first one is taken."""
    shape = replace(SHAPE, consolidate_after=timedelta(hours=9))
    before = [job(0, 300, "y"), job(0, 300, "y"), job(200, 300, "x")]
    jobs = [*before, job(1000, key="x"), job(1100, key=""), job(1200, key="z")]
    assert placed(jobs, "window:2", shape)[3:] == ["node-2", "node-1", "node-1"]
    assert placed(jobs, "oldest", shape)[3:] == ["node-1", "node-1", "node-1"]


def test_between_equals_most_allocated_takes_the_first_listed_or_any() -> None:
    """Three empty nodes: the one that took jobs first where ties go as listed, and not always where they are random."""
    shape = replace(SHAPE, slots=1, consolidate_after=timedelta(hours=9))
    jobs = [job(0, 10), job(0, 10), job(0, 10), *(job(1000 + 20 * number) for number in range(9))]
    assert set(placed(jobs, "most-allocated-listed", shape)[3:]) == {"node-1"}
    assert set(placed(jobs, "most-allocated", shape)[3:]) == {"node-1", "node-2", "node-3"}


def test_in_the_working_set_the_key_decides_and_behind_it_age() -> None:
    """Key x ran on the third node. While four jobs run, or three, its room is in the set too; while none runs the two
    older ones have enough, and without slack the oldest that has any."""
    shape = replace(SHAPE, consolidate_after=timedelta(hours=9))
    before = [job(0, 1000), job(0, 1000), job(60, 1000), job(60, 300), job(120, 300, "x")]
    jobs = [*before, job(450, 10, "x"), job(700, 10, "x"), job(1500, 10, "x")]
    found = placed(jobs, "set:0.1", shape)[4:]
    assert found == ["node-3", "node-3", "node-3", "node-1"]
    assert placed(jobs, "set:0", shape) == placed(jobs, "oldest", shape)


def test_a_miss_makes_a_job_longer_and_latency_is_from_arrival_to_end() -> None:
    """Two blocks, both missed by the first job and one by the second: five seconds each. The first waits for a node."""
    jobs = [job(0, 10, blocks=(1, 2)), job(100, 10, blocks=(2, 3))]
    found = outcome(jobs, shape=replace(SHAPE, miss_seconds=5))
    assert found.mean_latency_seconds == pytest.approx((50 + 10 + 10 + 10 + 5) / 2)
    assert found.p95_latency_seconds == pytest.approx(70)
    assert found.node_hours * 3600 == pytest.approx(115 + 100)
    assert outcome(jobs).mean_latency_seconds == pytest.approx((60 + 10) / 2)


def test_a_restart_forgets_what_jobs_that_have_ended_told() -> None:
    """Only the keys of running jobs are known afterwards."""
    shape = replace(SHAPE, consolidate_after=timedelta(hours=9))
    jobs = [job(0, 300, "y"), job(0, 300, "y"), job(200, 300, "x"), job(1000, key="x")]
    assert placed(jobs, "window:2", replace(shape, restart_every=timedelta(seconds=900)))[3:] == ["node-1"]
    assert placed(jobs, "window:2", replace(shape, restart_every=timedelta(seconds=520)))[3:] == ["node-2"]


jobs_at_random = st.lists(
    st.builds(job, st.floats(0, 5000), st.floats(0, 500), st.sampled_from(["", "x", "y"]), st.just((1, 2))), max_size=40
).map(lambda jobs: sorted(jobs, key=lambda each: each.arrives))


@given(jobs_at_random, st.sampled_from(RULES), st.integers(1, 4))
def test_every_job_runs_once_and_is_paid_for(jobs: list[Job], rule: Rule, slots: int) -> None:
    """No rule loses a job, and nodes cost at least the slots that jobs used, a boot and a consolidateAfter each."""
    told = Told(placement(rule, Random(1)))
    found = simulate(jobs, replace(SHAPE, slots=slots), told)
    assert len(told.nodes) == found.jobs == len(jobs)
    assert found.reads == 2 * len(jobs)
    least = sum(each.lasts for each in jobs) / slots + 150 * found.launched_nodes
    assert found.node_hours * 3600 >= least - 1e-6
    assert found.hits <= found.reads
    assert found.launched_nodes >= found.peak_nodes


def test_packing_costs_less_than_spreading_and_a_window_is_warmer() -> None:
    """The directions of the trial, on a small scale: they are why this exists."""
    jobs = make_jobs(Arrivals(jobs=4000, traffic=Traffic.DAILY), DataSets(keys=30), Random(1))
    rules = [*RULES, *map(parse_rule, ("window:3", "window:8", "set:0.05"))]
    trials = run_study(jobs, PoolShape(slots=4), rules, [timedelta(minutes=5)], seed=1, report=lambda *progress: None)
    spread, most, oldest, in_set, narrow, wide, tight = (trial.outcome for trial in trials)
    assert oldest.node_hours < 0.9 * spread.node_hours
    assert oldest.node_hours < 1.1 * most.node_hours
    assert oldest.hit_ratio < narrow.hit_ratio < wide.hit_ratio
    assert oldest.hit_ratio < tight.hit_ratio < in_set.hit_ratio
    assert in_set.node_hours < 1.03 * oldest.node_hours
    assert in_set.node_hours < wide.node_hours


def test_a_study_is_the_same_again_and_tells_how_far_it_is() -> None:
    """Same seed, same numbers; progress names each run and ends with all of it done."""
    jobs = make_jobs(Arrivals(jobs=500), DataSets(), Random(1))
    told: list[tuple[int, int, float]] = []

    def study(seed: int) -> list[float]:
        trials = run_study(
            jobs,
            PoolShape(),
            RULES[:2],
            [timedelta(minutes=1), timedelta(minutes=9)],
            seed=seed,
            report=lambda number, runs, rule, after, share: told.append((number, runs, share)),
        )
        return [trial.outcome.node_hours for trial in trials]

    assert study(1) == study(1)
    assert [number for number, runs, share in told if (runs, share) == (4, 1.0)] == [1, 2, 3, 4] * 2


@pytest.mark.parametrize(
    "text",
    [
        *("", "newest", "window", "window:", "window:0", "window:1001", "window:x", "oldest:3"),
        *("set", "set:", "set:1.1", "set:-1", "set:1e9", "set:nan"),
    ],
)
def test_a_rule_that_is_none_is_refused(text: str) -> None:
    """The message names all rules."""
    with pytest.raises(ValueError, match=r"oldest, set:SLACK from 0 to 1, or window:N from 1 to 1000"):
        parse_rule(text)


def test_rules_are_read_as_they_are_written() -> None:
    """A window of one node is oldest first."""
    assert [parse_rule(str(rule)) for rule in RULES] == list(RULES)
    assert parse_rule("window:1") == parse_rule("oldest")
    assert [str(parse_rule(text)) for text in ("set:.5", "set:0", "set:1", "most-allocated-listed")] == [
        "set:0.5",
        "set:0",
        "set:1",
        "most-allocated-listed",
    ]
