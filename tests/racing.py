"""Claim against reap, and claim against claim: one small cluster, and a random order of all calls to its API server.

The real parts run: `Claiming` in two or three replicas, `Reaper` in one, each with a state that hears of changes late.
Owns how such a race is arranged, and what must hold after it: the table in docs/claims.md, line by line.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any

import msgspec

from extender.cluster.state import ClusterState
from extender.kube.claim_store import ClaimStore
from extender.kube.errors import Unavailable
from extender.kube.eviction import Evictor
from extender.kube.objects import CLAIM, CLAIMED_BY, IDLE_SINCE, PodObject, pod_from
from extender.loops.evictions import Hands
from extender.loops.reaper import Reaper
from extender.model import Pod
from extender.policy.claims import Claimant, ClaimReference, PoolClaims
from extender.policy.defaults import ClaimRules, PoolCosts, ReapRules
from extender.policy.pools import POOL_LABEL
from extender.settings import PoolSettings
from extender.telemetry import Metrics
from extender.web.claim_values import ClaimRequest, Granted, NoSuchClaim, NothingToClaim, StillChanging, WorkerEnds
from extender.web.claiming import Claiming
from extender.web.held_claims import HeldClaims
from tests.builders import NOW, by_label, clock_of, ledger, minutes_ago, node
from tests.fakes.store import NAMESPACES, PODS, Change, Store
from tests.stepping import Stepper, SteppingClient

SETTINGS = PoolClaims(
    rules=ClaimRules(),
    costs=PoolCosts(),
    dry_run=False,
)
REAPING = PoolSettings(
    name="ducks",
    reap=ReapRules(idle_timeout=timedelta(seconds=1), min_pod_age=timedelta(), floor=0, interval=timedelta(seconds=1)),
)
METRICS = Metrics()
"""Shared: making them takes longer than a race."""


LOST_ANSWERS = 0.05
"""Of the writes of replicas: the write is done, and nobody hears of it, as when the replica is killed then."""


class Silent:
    """Announces nothing."""

    async def evicted(self, pod: Pod, why: str) -> None: ...
    async def paused(self, pool: str, pod: Pod, why: str) -> None: ...


@dataclass(slots=True)
class Replica:
    """One process: what it has heard of, and what it answered. ``heard`` is the version of the last change."""

    state: ClusterState
    held: HeldClaims
    claiming: Claiming
    heard: int = 0
    asked: set[str] = field(default_factory=set)


class Race:
    """One small cluster: idle workers on two nodes, replicas that claim, a reaper, kubelets that write status."""

    def __init__(self, random: Random, workers: int) -> None:
        self.random = random
        self.stepper = Stepper(random)
        self.store = Store(now=lambda: NOW)
        self.store.enable(PODS)
        self.store.enable(NAMESPACES)
        self.store.create(NAMESPACES, "", {"metadata": {"name": "default"}})
        for number in range(workers):
            self.create(f"w{number}")
        self.client = SteppingClient(self.store, self.stepper)
        self.losing = SteppingClient(self.store, self.stepper, lambda: random.random() < self.loses)
        self.nonces = iter(range(10**6))
        self.loses = LOST_ANSWERS
        self.replicas: list[Replica] = []
        self.granted: list[tuple[str, Granted]] = []
        self.written: dict[str, int] = {}
        self.plain: set[str] = set()
        self.lost: Counter[str] = Counter()
        self.ended: set[str] = set()
        self.outcomes: Counter[str] = Counter()

    def create(self, name: str) -> None:
        condition = {"type": "Ready", "status": "True", "lastTransitionTime": minutes_ago(40).isoformat()}
        tree = {
            "metadata": {
                "name": name,
                "uid": f"uid-{name}",
                "labels": {POOL_LABEL: "pool"},
                "annotations": {IDLE_SINCE: minutes_ago(30).isoformat()},
                "creationTimestamp": minutes_ago(60).isoformat(),
            },
            "spec": {"nodeName": self.random.choice(("old", "new"))},
            "status": {"phase": "Running", "conditions": [condition]},
        }
        self.store.create(PODS, "default", tree)

    def state(self, heard: Callable[[int], None] = lambda version: None) -> ClusterState:
        """A state of a process of its own, which hears of each change some steps later."""
        state = ClusterState(clock=lambda: NOW)
        state.replace_nodes([node("old"), node("new")])
        state.take_ledger(ledger({"uid-of-old": minutes_ago(500), "uid-of-new": minutes_ago(50)}))
        state.replace_pods(_read(each.raw) for each in self.store.select(PODS, ""))
        state.begin()

        def hear(change: Change) -> None:
            (state.delete_pod if change.deleted else state.take_event)(_read(change.after.raw))
            heard(change.after.version)

        self.store.listeners.append(self.stepper.tell_late(hear))
        return state

    def replica(self) -> Replica:
        """A process that hands out workers."""

        def hear(version: int) -> None:
            replica.heard = version

        state, clock = self.state(hear), clock_of(lambda: NOW)
        held = HeldClaims(state=state, claims=ClaimStore(self.losing, by_label), clock=clock)
        nonce = lambda: str(next(self.nonces))  # noqa: E731
        claiming = Claiming(state=state, held=held, clock=clock, nonce=nonce, sleep=self.stepper.sleep)
        replica = Replica(state, held, claiming)
        self.replicas.append(replica)
        return replica

    def reaper(self, state: ClusterState) -> Reaper:
        return Reaper(
            state=state,
            hands=Hands(
                pods=Evictor(self.client, by_label), announcer=Silent(), metrics=METRICS, may_evict=lambda: True
            ),
            clock=clock_of(lambda: NOW),
            rules=lambda pool: REAPING,
        )

    async def claim(self, replica: Replica, claimant: str, *, repeats: bool) -> None:
        """Claim, and then maybe renew, release or only hold."""
        before, is_known_there = self.held_by(claimant), claimant in replica.asked
        heard = replica.heard
        replica.asked.add(claimant)
        if not repeats:
            self.plain.add(claimant)
        try:
            granted = await replica.claiming.claim(_request(claimant, repeats=repeats))
        except (NothingToClaim, StillChanging) as error:
            self.outcomes[type(error).__name__] += 1
            return None
        except Unavailable:
            self.outcomes["lost"] += 1
            self.lost[claimant] += 1
            return await self.claim(self.random.choice(self.replicas), claimant, repeats=True)
        self.outcomes["claimed" if granted.is_new else "found"] += 1
        for id, version in before.items():
            if granted.is_new and id in self.held_by(claimant):
                assert not repeats, "who says that it repeats gets what was written before"
                assert not is_known_there, "who comes again to a replica gets what was written before"
                assert version > heard, "a replica gives what it has heard of"
        self.granted.append((claimant, granted))
        reference = ClaimReference(user="u", pool="pool", id=granted.claim.id)
        by = self.random.choice(self.replicas)
        try:
            match self.random.randrange(4):
                case 0:
                    await by.held.renew(reference, timedelta(minutes=2))
                case 1:
                    self.ended.add(granted.claim.id)
                    await by.held.release(reference)
        except Unavailable:
            self.ended.add(granted.claim.id)  # or not: nobody knows
        except StillChanging:
            self.outcomes["StillChanging"] += 1
        except (NoSuchClaim, WorkerEnds) as error:
            if granted.claim.id not in self.ended:  # by another call of the same claimant
                raise AssertionError("a claim that was held is not to be renewed") from error

    def held_by(self, claimant: str) -> dict[str, int]:
        """The claims of a claimant that stand on pods, by ID, with the version of the first write of each."""
        found: dict[str, int] = {}
        for pod in (_read(each.raw) for each in self.store.select(PODS, "")):
            if pod.claim is not None and pod.claim.claimant == claimant:
                found[pod.claim.id] = self._first_write(pod.claim.id)
        return found

    def _first_write(self, id: str) -> int:
        for change in reversed(self.store.history):
            claim = (change.after.tree["metadata"].get("annotations") or {}).get(CLAIM)
            if claim is not None and json.loads(claim)["id"] == id:
                self.written[id] = min(self.written.get(id, change.after.version), change.after.version)
        return self.written[id]

    async def status_updates(self, count: int) -> None:
        """Write the status of pods, as their kubelets do; a worker may say that it is busy, or idle again."""
        for number in range(count):
            await self.stepper.turn()
            pods = list(self.store.select(PODS, ""))
            if pods:
                name = self.random.choice(pods).tree["metadata"]["name"]
                patch: dict[str, Any] = {"status": {"message": str(number)}}
                if self.random.random() < 0.2:
                    mark = self.random.choice((None, minutes_ago(20).isoformat()))
                    patch = {"metadata": {"annotations": {IDLE_SINCE: mark}}}
                self.store.patch(PODS, ("default", name), patch)

    def check(self) -> None:
        """What must hold whatever the order was, by the history of the store."""
        ends: dict[str, int] = {}
        holders: dict[str, str] = {}
        for change in self.store.history:
            if change.resource != PODS:
                continue
            meta = change.after.tree["metadata"]
            before = change.before.tree["metadata"] if change.before is not None else {}
            claim = (meta.get("annotations") or {}).get(CLAIM)
            was = (before.get("annotations") or {}).get(CLAIM)
            assert (claim is None) is (CLAIMED_BY not in meta["labels"]), "annotation and label come and go together"
            if "deletionTimestamp" in meta and "deletionTimestamp" not in before:
                assert claim is None, f"evicted while claimed: {claim}"
                assert IDLE_SINCE in meta.get("annotations", {}), "evicted while busy"
                ends[meta["uid"]] = change.after.version
            if claim is not None and claim != was:
                holder = json.loads(claim)["id"]
                assert meta["uid"] not in ends, "claimed while it was going"
                assert was is not None or IDLE_SINCE in meta["annotations"], "claimed while busy"
                assert was is None or json.loads(was)["id"] == holder, "taken from somebody who held it"
                holders[holder] = meta["uid"]
        held = [
            (pod.claim.claimant, pod.claim.id)
            for pod in (_read(each.raw) for each in self.store.select(PODS, ""))
            if pod.claim
        ]
        for claimant, number in Counter(claimant for claimant, _ in held).items():
            asked = sum(claimant in replica.asked for replica in self.replicas)
            most = asked if claimant in self.plain else 1
            assert number <= most + self.lost[claimant], f"{claimant} holds more than it may: {held}"
            self.outcomes["two"] += number > 1
        for claimant, granted in self.granted:
            if granted.claim.id not in self.ended:
                assert (claimant, granted.claim.id) in held, "somebody was told of a claim that is no more"

    async def check_again(self) -> None:
        """Once every watch has told all, every replica gives a claimant the same claim, one that it holds."""
        self.loses = 0.0
        self.stepper.tell_all()
        for claimant in {claimant for claimant, _ in self.granted}:
            held = set(self.held_by(claimant))
            if held:
                asked = [*self.replicas, self.replica()]
                answers = [await each.claiming.claim(_request(claimant)) for each in asked]
                assert {each.claim.id for each in answers} <= held
                assert len({each.claim.id for each in answers}) == 1


def _request(claimant: str, *, repeats: bool = False) -> ClaimRequest:
    return ClaimRequest(
        claimant=Claimant(user="u", pool="pool", name=claimant),
        ttl=timedelta(minutes=1),
        settings=SETTINGS,
        repeats=repeats,
    )


def _read(raw: bytes) -> Pod:
    return pod_from(msgspec.json.decode(raw, type=PodObject), by_label)


async def one_race(seed: int) -> Race:
    """Two or three replicas, a reaper and some claimants, of whom two may be the same."""
    random = Random(seed)  # noqa: S311 - the same in every run
    race = Race(random, workers=random.randint(1, 4))
    replicas = [race.replica() for _ in range(random.randint(2, 3))]
    reaper = race.reaper(race.state())
    claimants = [random.choice(("a", "a", "a", "b", "c")) for _ in range(random.randint(1, 5))]
    repeats = random.choice((0.2, 0.2, 1.0))
    await race.stepper.run(
        *(race.claim(random.choice(replicas), each, repeats=random.random() < repeats) for each in claimants),
        *([reaper.one_pass("pool")] if random.random() < 0.8 else []),
        race.status_updates(random.randint(0, 6)),
    )
    race.check()
    await race.stepper.run(race.check_again())
    return race


async def races(seeds: range) -> Counter[str]:
    """Run a race for each seed, and count what came out. A failure names its seed."""
    outcomes: Counter[str] = Counter()
    for seed in seeds:
        try:
            race = await one_race(seed)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        outcomes += race.outcomes
        outcomes["evicted"] += sum("deletionTimestamp" in each.tree["metadata"] for each in race.store.select(PODS, ""))
    return outcomes
