"""Claim against reap at a real API server: the parts of tests/racing.py, in whatever order things happen."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from extender.cluster.state import ClusterState
from extender.kube.api_client import KubeClient
from extender.kube.claim_store import ClaimStore
from extender.kube.errors import Conflict, NotFound
from extender.kube.eviction import Evictor
from extender.kube.listing import list_objects
from extender.kube.objects import CLAIM, IDLE_SINCE, PodObject, pod_from
from extender.loops.evictions import Hands
from extender.loops.reaper import Reaper
from extender.model import Pod
from extender.policy.claims import Claimant
from extender.policy.pools import POOL_LABEL
from extender.telemetry import Metrics
from extender.web.claim_values import ClaimRequest, NothingToClaim, StillChanging
from extender.web.claiming import Claiming
from extender.web.held_claims import HeldClaims
from scripts.tools.controlplane import ControlPlane, Json, wait_for
from scripts.tools.serving import Serve
from tests.builders import by_label, clock_of, node
from tests.integration.ground import POOL, Ground
from tests.integration.reapers import LONG_AGO, Reapers, reaping
from tests.integration.test_claims import LISTEN, aged_nodes, claims_on, replica_of
from tests.racing import REAPING, SETTINGS, Silent

pytestmark = pytest.mark.controlplane

ROUNDS, WORKERS, CLAIMANTS = 10, 5, 3


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
async def client(control_plane: ControlPlane) -> AsyncIterator[KubeClient]:
    made = await KubeClient.connect(kubeconfig=str(control_plane.kubeconfig), user_agent="warmnode/test")
    yield made
    await made.close()


def create_workers(control_plane: ControlPlane, namespace: str) -> None:
    """Idle workers of a pool for each round, on a node that is not there: a deletion leaves them, terminating."""
    names = [(f"pool-{number}", f"w{number}-{each}") for number in range(ROUNDS) for each in range(WORKERS)]

    def create(entry: tuple[str, str]) -> None:
        pool, name = entry
        item: Json = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": {POOL_LABEL: pool},
                "annotations": {IDLE_SINCE: LONG_AGO},
            },
            "spec": {"nodeName": f"{namespace}-gone", "containers": [{"name": "worker", "image": "none"}]},
        }
        control_plane.create(item)
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": LONG_AGO}
        path = f"/api/v1/namespaces/{namespace}/pods/{name}/status"
        control_plane.api("PATCH", path, {"status": {"phase": "Running", "conditions": [ready]}})

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(create, names))


class Round:
    """One pool of workers, three replicas that claim one each, and a reaper that would have them all."""

    def __init__(self, client: KubeClient, node_name: str, pods: list[Pod], random: Random) -> None:
        self.client = client
        self.pool = pods[0].pool or ""
        self.random = random
        self._node = node(node_name)
        self._pods = pods

    def state(self) -> ClusterState:
        """What a process knows: it hears of nothing that happens in the round."""
        state = ClusterState(clock=now)
        state.replace_nodes([self._node])
        state.replace_pods(self._pods)
        state.begin()
        return state

    async def claim(self, number: int) -> str:
        await asyncio.sleep(self.random.random() * 0.03)
        state, clock = self.state(), clock_of(now)
        held = HeldClaims(state=state, claims=ClaimStore(self.client, by_label), clock=clock)
        claiming = Claiming(state=state, held=held, clock=clock, nonce=lambda: secrets.token_hex(10))
        claimant = Claimant(user="u", pool=self.pool, name=f"q{number}")
        try:
            granted = await claiming.claim(ClaimRequest(claimant=claimant, ttl=timedelta(minutes=5), settings=SETTINGS))
        except (NothingToClaim, StillChanging) as error:
            return type(error).__name__
        return granted.worker.name

    async def reap(self) -> None:
        await asyncio.sleep(self.random.random() * 0.03)
        reaper = Reaper(
            state=self.state(),
            hands=Hands(
                pods=Evictor(self.client, by_label), announcer=Silent(), metrics=Metrics(), may_evict=lambda: True
            ),
            clock=clock_of(now),
            rules=lambda pool: REAPING,
        )
        await reaper.one_pass(self.pool)

    async def change_status(self) -> None:
        for number in range(5):
            pod = self.random.choice(self._pods)
            body = json.dumps({"status": {"message": str(number)}}).encode()
            path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/status"
            try:
                await self.client.send("PATCH", path, body, content_type="application/merge-patch+json")
            except (Conflict, NotFound):
                continue


@pytest.mark.parametrize("part", range(6))
async def test_no_claimed_worker_is_evicted_and_no_worker_is_lost_to_both(
    control_plane: ControlPlane, namespace: str, client: KubeClient, part: int
) -> None:
    """Sixty pools of five workers, three claims and a reaper for each at the same time: whoever was told of a claim has
    a worker that is not going, and that nobody else was told of.

    In parts: Kubernetes deletes the pods of a node that it has missed for forty seconds.
    """
    await asyncio.to_thread(create_workers, control_plane, namespace)
    path = f"/api/v1/namespaces/{namespace}/pods"
    pods = await list_objects(client, path, PodObject, lambda raw: pod_from(raw, by_label))
    by_pool: dict[str, list[Pod]] = {}
    for pod in pods:
        by_pool.setdefault(pod.pool or "", []).append(pod)
    outcomes = Counter[str]()
    told: set[str] = set()
    for number, found in enumerate(by_pool.values(), part * ROUNDS):
        one = Round(client, f"{namespace}-gone", found, Random(number))  # noqa: S311 - the same in every run
        *claims, _, _ = await asyncio.gather(
            *(one.claim(each) for each in range(CLAIMANTS)), one.reap(), one.change_status()
        )
        for name in claims:
            outcomes["claimed" if str(name).startswith("w") else str(name)] += 1
        told |= {str(name) for name in claims if str(name).startswith("w")}
    after = await list_objects(client, path, PodObject, lambda raw: pod_from(raw, by_label))
    held = {pod.name for pod in after if pod.claim is not None}
    going = {pod.name for pod in after if pod.terminating}
    assert held == told
    assert len(told) == outcomes["claimed"], "each worker for one claimant"
    assert held & going == set()
    outcomes["evicted"] = len(going)
    assert min(outcomes["claimed"], outcomes["evicted"]) > 2, outcomes
    names = [pod.name for pod in after]
    with ThreadPoolExecutor(4) as threads:
        gone = {"gracePeriodSeconds": 0}
        await asyncio.to_thread(
            lambda: list(threads.map(lambda name: control_plane.api("DELETE", f"{path}/{name}", params=gone), names))
        )


@pytest.fixture
def workers(ground: Ground, tmp_path: Path) -> Iterator[Reapers]:
    with reaping(ground, tmp_path) as made:
        yield made


def test_processes_that_claim_and_reap_at_once_leave_each_worker_to_one(ground: Ground, workers: Reapers) -> None:
    """`serve` and `reap` as they are shipped: what is held stays, the rest goes, and what is released counts as idle
    from then on.
    """
    nodes = aged_nodes(ground, 2)
    where = {f"w{number}": nodes[number % 2] for number in range(12)}
    workers.run_workers(where)
    workers.configure(idleTimeout="3s", floor=0)
    replica = replica_of(ground.serve(*LISTEN, own_port=True, config=workers.config_file.read_text()))
    held = [replica.claim(f"q{number}")[1]["pod"] for number in range(4)]
    reaper: Serve = workers.make().start()
    workers.wait_names(set(held))
    workers.wait_passes(reaper, 2)
    assert set(claims_on(ground)) == set(held)
    assert workers.skipped(reaper, "claimed") == 4
    assert reaper.metric("warmnode_pool_workers", pool=POOL, state="claimed") == 4
    assert reaper.metric("warmnode_pool_workers", pool=POOL, state="idle") == 0
    (mine, *rest) = replica.call("GET")[1]["claims"]
    released = now()
    assert replica.call("DELETE", f"/v1/pools/{POOL}/claims/{mine['id']}")[0] == 204
    workers.wait_names({claim["pod"] for claim in rest})
    assert now() - released >= timedelta(seconds=3), "idle since the end of the claim, not since January"
    wait_for(lambda: workers.skipped(reaper, "claimed") == 3, 60, "the reaper's figures")
    assert CLAIM in ground.pod(rest[0]["pod"])["metadata"]["annotations"]
