"""One run of sessions on long-lived workers: who asks claims an idle worker, or has one started, and gives it back.

A session that finds no idle worker waits, and where more wait than workers are on their way, one more is started: it
takes a slot of a node, as a job does, and stays. Whatever worker is free first is taken, oldest session first. Idle
workers are evicted by passes, as the reaper's are. Claims by age or by key, and passes from the newest node on, ask the
functions that decide for `warmnode serve` and `warmnode reap`; the others are what is done without it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from math import inf
from random import Random

from msgspec.structs import replace

from extender.model import Pod
from extender.policy.affinity import Affinity
from extender.policy.claims import claimable_on
from extender.policy.defaults import ReapRules
from extender.policy.idleness import RulesNow
from extender.policy.reaping import assess_node, at_once, planning
from extender.policy.scoring import score_nodes
from extender.policy.working_set import Reach, wanted_room
from extender.simulate.pool import Agenda, PoolShape, SimulatedNode, SimulatedPool
from extender.simulate.rules import OldestFirst, Order, Placement, Rule, as_time, placement
from extender.simulate.run import PROGRESS_JOBS, Progress
from extender.simulate.session_rules import ClaimOrder, ReapOrder, SessionRule, WorkerShape
from extender.simulate.tally import RunOutcome, Tally
from extender.simulate.workload import Job

POOL = "pool"


def simulate_sessions(
    sessions: Sequence[Job],
    shape: PoolShape,
    workers: WorkerShape,
    rule: SessionRule,
    random: Random,
    progress: Progress = lambda arrived: None,
) -> RunOutcome:
    """Run sessions, which are given in order of arrival, through a pool that begins with its ``first_nodes``."""
    return _Run(sessions, shape, workers, rule, random).run(progress)


class _Run:
    def __init__(
        self, sessions: Sequence[Job], shape: PoolShape, workers: WorkerShape, rule: SessionRule, random: Random
    ) -> None:
        self._sessions = sessions
        self._workers = workers
        self._rule = rule
        self._random = random
        chosen = placement(Rule(order=rule.placement), random)
        self._known = chosen if isinstance(chosen, OldestFirst) else _Watching(chosen)
        self._agenda = Agenda()
        self._tally = Tally(shape.miss_seconds)
        self._waiting: deque[int] = deque()
        self._started = self._coming = self._homeless = self._over = 0
        self._node_of: dict[str, SimulatedNode] = {}
        self._on: dict[str, dict[str, Pod]] = {}
        self._idle: dict[str, Pod] = {}  # idle longest first
        self._idle_on: Counter[str] = Counter()
        self._last_pass = 0.0
        self._reap_rules = ReapRules(
            floor=workers.floor,
            idle_timeout=workers.idle_timeout,
            whole_node=rule.reaping is ReapOrder.WHOLE_NODE,
        )
        self._pool = SimulatedPool(shape, self._agenda, self._known, self._give_homes)  # last: it tells of its nodes

    def run(self, progress: Progress) -> RunOutcome:
        """Take arrivals and events in order of time. Nodes that the floor keeps are paid until the rest has gone."""
        self._agenda.at(0.0, self._pass)
        for number, session in enumerate(self._sessions):
            self._agenda.work_until(session.arrives)
            self._arrive(number, session)
            if number % PROGRESS_JOBS == 0:
                progress(number)
        self._agenda.work_until(inf)
        self._pool.close(self._last_pass)
        progress(len(self._sessions))
        return self._tally.outcome(self._sessions, self._pool, workers=self._started)

    def _arrive(self, number: int, session: Job) -> None:
        if self._idle:
            self._begin(number, self._claimed(session.key, session.arrives), session.arrives)
            return
        self._waiting.append(number)
        if len(self._waiting) > self._coming:
            self._coming += 1
            self._homeless += 1
            self._give_homes(session.arrives)
            self._pool.launch_for(self._homeless, session.arrives)

    # -- workers ------------------------------------------------------------------------------------------------------

    def _give_homes(self, now: float) -> None:
        """Place workers that wait for a node, while there is room."""
        while self._homeless and self._pool.room:
            self._homeless -= 1
            self._agenda.at(now + self._workers.start.total_seconds(), partial(self._ready, self._pool.take("", now)))

    def _ready(self, node: SimulatedNode, now: float) -> None:
        self._coming -= 1
        self._started += 1
        name, time = f"worker-{self._started}", as_time(now)
        self._node_of[name] = node
        pod = Pod(uid=name, namespace=POOL, name=name, created=time, node=node.name, pool=POOL, ready_since=time)
        self._free(pod, now)

    def _free(self, worker: Pod, now: float) -> None:
        """Give a worker to the session that waits longest, or note that it is idle."""
        if self._waiting:
            number = self._waiting.popleft()
            self._tally.waited(now - self._sessions[number].arrives)
            self._begin(number, worker, now)
        else:
            self._idle[worker.uid] = self._note(replace(worker, idle_since=as_time(now)))
            self._idle_on[worker.node or ""] += 1

    def _begin(self, number: int, worker: Pod, now: float) -> None:
        session, node = self._sessions[number], self._node_of[worker.uid]
        busy = self._note(replace(worker, idle_since=None))
        if session.key:
            self._known.history.record(node.name, session.key, as_time(now))
        self._agenda.at(self._tally.began(session, node.cache, now), partial(self._end, busy))

    def _end(self, worker: Pod, now: float) -> None:
        self._over += 1
        self._free(worker, now)

    def _note(self, worker: Pod) -> Pod:
        self._on.setdefault(worker.node or "", {})[worker.uid] = worker
        return worker

    def _is_idle_no_more(self, worker: Pod) -> None:
        del self._idle[worker.uid]
        self._idle_on[worker.node or ""] -= 1
        if not self._idle_on[worker.node or ""]:
            del self._idle_on[worker.node or ""]

    # -- claims -------------------------------------------------------------------------------------------------------

    def _claimed(self, key: str, now: float) -> Pod:
        """Take an idle worker: there must be one."""
        match self._rule.claims:
            case ClaimOrder.RANDOM:
                worker = self._random.choice(list(self._idle.values()))
            case ClaimOrder.LAST_USED:
                worker = next(reversed(self._idle.values()))
            case ClaimOrder.OLDEST | ClaimOrder.KEY:
                on = self._on[self._claimed_node(key)].values()
                worker = claimable_on(on, POOL, None, as_time(now))[0]
        self._is_idle_no_more(worker)
        return worker

    def _claimed_node(self, key: str) -> str:
        """Choose the node, as the claim API does: the oldest that has an idle worker, or in the set by key."""
        ranking = self._known.ranking
        if self._rule.claims is ClaimOrder.OLDEST or not key:
            return score_nodes(self._idle_on, ranking)[0][0]
        at_work = len(self._node_of) - len(self._idle)
        reach = Reach(self._idle_on[name] for name in ranking).nodes(wanted_room(at_work, self._rule.slack))
        return score_nodes(self._idle_on, ranking, Affinity(key=key, reach=reach, history=self._known.history))[0][0]

    # -- the reaper ---------------------------------------------------------------------------------------------------

    def _pass(self, now: float) -> None:
        """Evict what is idle for too long. The last pass is when nobody comes any more and all have had their time."""
        for worker in self._victims(now):
            self._is_idle_no_more(worker)
            del self._on[worker.node or ""][worker.uid]
            self._pool.give_back(self._node_of.pop(worker.uid), now)
        if self._over < len(self._sessions):
            self._last_pass = now + (self._reap_rules.idle_timeout + self._reap_rules.interval).total_seconds()
        if now <= self._last_pass:
            self._agenda.at(now + self._reap_rules.interval.total_seconds(), self._pass)

    def _victims(self, now: float) -> Collection[Pod]:
        time, rules = as_time(now), self._reap_rules
        longest = next(iter(self._idle.values()), None)
        if longest is None or time - (longest.idle_since or time) <= rules.idle_timeout:
            return ()
        if self._rule.reaping is ReapOrder.LONGEST_IDLE:
            due = [each for each in self._idle.values() if time - (each.idle_since or time) > rules.idle_timeout]
            return due[: max(0, len(self._idle) - rules.floor)]
        asked = RulesNow.of(rules, time)
        assessed = [
            assess_node(
                node=name,
                order_key=self._known.ranking[name][1:],
                workers=self._on[name].values(),
                others=0,
                asked=asked,
            )
            for name in self._idle_on
        ]
        return at_once(planning(assessed, rules)).victims


class _Watching(OldestFirst):
    """Knows the nodes as warmnode does, and places by another rule."""

    def __init__(self, chosen: Placement) -> None:
        super().__init__(Rule(order=Order.OLDEST))
        self._chosen = chosen

    def choose(self, room: Mapping[str, int], key: str) -> str:
        return self._chosen.choose(room, key)

    def node_ready(self, node: str, slots: int, now_seconds: float) -> None:
        super().node_ready(node, slots, now_seconds)
        self._chosen.node_ready(node, slots, now_seconds)

    def node_gone(self, node: str) -> None:
        super().node_gone(node)
        self._chosen.node_gone(node)
