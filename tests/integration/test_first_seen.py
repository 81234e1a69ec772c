"""Node age survives: workers that go, restarts, several replicas, and a ledger that is lost, spoilt or forbidden."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zlib import crc32

import pytest

from extender.kube.api_client import KubeClient
from extender.kube.errors import Conflict
from extender.kube.ledger_store import LedgerStore
from extender.model import Ledger
from scripts.tools.controlplane import ControlPlane, wait_for
from scripts.tools.serving import Serve
from tests.integration.ground import POOL, POOL_LABEL, SECONDS, Ground, epoch, settled

pytestmark = pytest.mark.controlplane


def asked(serve: Serve, names: Sequence[str]) -> list[str]:
    return serve.preferred(names, {POOL_LABEL: POOL})


def ready_time(ground: Ground, pod: str) -> int:
    conditions = ground.pod(pod)["status"]["conditions"]
    return epoch(next(each["lastTransitionTime"] for each in conditions if each["type"] == "Ready"))


def later_than(second: int) -> str:
    """Wait until the clock's second is past this one, and give the time then."""
    now = wait_for(lambda: int(time.time()) > second and int(time.time()), SECONDS, f"the second {second} to pass")
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_a_killed_serve_makes_the_same_choices_when_it_comes_back(ground: Ground) -> None:
    """First seen outlives the first worker and ignores flapping, so a SIGKILL and a new start change no choice."""
    oldest, older, new, unseen = names = ground.nodes(4)
    ground.write_ledger({oldest: 120, older: 60})
    serve = ground.serve()
    for node in (oldest, older, new):
        ground.run(f"first-on-{node}", node=node)
    first_seen = ready_time(ground, f"first-on-{new}")
    recorded = ground.wait_for_ledger(lambda ledger: ground.uid(new) in ledger)
    assert recorded[ground.uid(new)] == str(first_seen)

    ground.delete_pod(f"first-on-{oldest}")
    ground.set_ready(f"first-on-{new}", False, later_than(first_seen))
    ground.set_ready(f"first-on-{new}", True, later_than(first_seen))
    assert ready_time(ground, f"first-on-{new}") > first_seen
    settled(serve, names, [oldest, older, new, unseen])
    serve.kill()
    serve.start()
    assert asked(serve, names) == [oldest, older, new, unseen]
    assert ground.ledger() == recorded
    placed = [ground.place(f"next-{number}") for number in range(6)]
    assert placed == [oldest, oldest, older, new, unseen, unseen]


def test_replicas_started_at_different_times_answer_the_same(ground: Ground) -> None:
    """What one replica saw happen and what another one reads later are one order: every subset of names agrees."""
    names = ground.nodes(5)
    first = ground.serve(own_port=True)
    for node in names[:3]:
        ground.run(f"on-{node}", node=node)
    ground.wait_for_ledger(lambda ledger: len(ledger) == 3)
    ground.delete_pod(f"on-{names[0]}")
    second = ground.serve(own_port=True)
    for size in range(1, 6):
        for subset in itertools.combinations(names, size):
            assert asked(first, subset) == asked(second, subset)
    assert set(asked(second, names)[:3]) == set(names[:3])


def test_two_replicas_that_write_at_once_lose_nothing(ground: Ground) -> None:
    """Both see the same first workers at the same moment and both write: every node is recorded, by its Ready time."""
    names = ground.nodes(10)
    replicas = [ground.serve(own_port=True) for _ in range(2)]
    for node in names:
        ground.create_pod(f"on-{node}", node=node)
    ledger = ground.wait_for_ledger(lambda found: len(found) == 10)
    assert ledger == {ground.uid(node): str(ready_time(ground, f"on-{node}")) for node in names}
    for replica in replicas:
        wait_for(lambda each=replica: each.metric("warmnode_ledger_entries") == 10, SECONDS, "the ledger read back")  # type: ignore[misc]


async def test_a_race_of_writers_ends_with_the_earliest_time_of_every_node(ground: Ground) -> None:
    """Conflicting writes merge: whatever two writers hold, the ledger ends with each node and its minimum."""
    start = datetime(2026, 5, 1, tzinfo=UTC)
    rounds, keys = 10, 60

    def known(writer: int, turn: int) -> dict[str, datetime]:
        chosen = [key for key in range(keys) if (key + writer + turn) % 3]
        return {f"uid-{key}": start + timedelta(seconds=(key * 7 + writer * 13 + turn * 29) % 100) for key in chosen}

    conflicts = 0

    async def write(writer: int, client: KubeClient) -> None:
        nonlocal conflicts
        store = LedgerStore(client, namespace=ground.namespace, name="raced")
        based_on: Ledger | None = None
        for turn in range(rounds):
            while True:
                try:
                    based_on = await store.record(known(writer, turn), based_on)
                    break
                except Conflict:
                    conflicts += 1

    clients = [
        await KubeClient.connect(kubeconfig=str(ground.control_plane.kubeconfig), user_agent="race") for _ in range(3)
    ]
    try:
        async with asyncio.TaskGroup() as group:
            for writer, client in enumerate(clients):
                group.create_task(write(writer, client))
        ledger = await LedgerStore(clients[0], namespace=ground.namespace, name="raced").read()
    finally:
        for client in clients:
            await client.close()
    assert ledger is not None
    expected: dict[str, datetime] = {}
    for writer, turn in itertools.product(range(3), range(rounds)):
        for uid, seen in known(writer, turn).items():
            expected[uid] = min(seen, expected.get(uid, seen))
    assert dict(ledger.first_seen) == expected


def test_without_a_ledger_ages_start_from_creation_for_nodes_that_have_workers(ground: Ground) -> None:
    """A first installation: occupied nodes count as seen when they were created, and that is written down at once."""
    empty, *occupied = names = ground.nodes(4)
    for node in occupied:
        later_than(ground.created(node))
        ground.run(f"on-{node}", node=node)
    serve = ground.serve()
    by_creation = sorted(occupied, key=lambda node: creation_key(ground, node))
    assert asked(serve, names) == [*by_creation, empty]
    assert ground.wait_for_ledger(bool) == {ground.uid(node): str(ground.created(node)) for node in occupied}
    assert [line["ages"] for line in serve.lines("synced")] == ["creation times"]


def creation_key(ground: Ground, node: str) -> tuple[int, int, str]:
    """The order key of a node that was seen at its creation: minute, slot, UID."""
    uid = ground.uid(node)
    return ground.created(node) // 60, crc32(uid.encode()) % 8, uid


def test_ledger_keys_that_make_no_sense_are_left_as_they_are(ground: Ground) -> None:
    """What we did not write is ignored, told and never destroyed, even where it is the key of a node."""
    old, new, spoilt = names = ground.nodes(3)
    nonsense = {"note": "kept by hand", ground.uid(spoilt): "yesterday", "0-0": "-1", "far": "99999999999999"}
    ground.write_ledger({old: 60}, nonsense)
    serve = ground.serve()
    assert serve.metric("warmnode_ledger_ignored_entries") == 4
    assert len(serve.lines("ledger keys make no sense and are left alone")) == 1
    for node in (new, spoilt):
        ground.run(f"on-{node}", node=node)
    ledger = ground.wait_for_ledger(lambda found: ground.uid(new) in found)
    assert nonsense.items() <= ledger.items()
    assert asked(serve, names)[0] == old
    assert set(asked(serve, names)) == set(names)


def test_without_permission_for_the_ledger_serve_answers_by_creation_and_says_so(ground: Ground) -> None:
    """Nodes and pods are enough: no access to ConfigMaps is a log line and a metric, not a reason to be unready."""
    empty, *occupied = names = ground.nodes(3)
    for node in occupied:
        ground.run(f"on-{node}", node=node)
    user = f"reader-{ground.namespace}"
    serve = ground.serve(kubeconfig=reader(ground.control_plane, user))
    by_creation = sorted(occupied, key=lambda node: creation_key(ground, node))
    assert asked(serve, names) == [*by_creation, empty]
    told = serve.lines("the ledger cannot be read; ages start from creation times and are lost at a restart")
    assert len(told) == 1
    assert f'User "{user}" cannot list resource "configmaps"' in told[0]["problem"]
    assert ground.place("worker") in by_creation
    unwritten = "the ledger is not written; ages stay in memory"
    line = ground.wait(lambda: serve.lines(unwritten), "serve to say that it cannot write")[0]
    assert f'User "{user}" cannot create resource "configmaps"' in line["problem"]
    assert serve.is_ready()


def reader(control_plane: ControlPlane, user: str) -> Path:
    """A kubeconfig for somebody who may read nodes and pods and nothing else."""
    api = "rbac.authorization.k8s.io"
    rule = {"apiGroups": [""], "resources": ["nodes", "pods"], "verbs": ["get", "list", "watch"]}
    control_plane.apply(
        {"apiVersion": f"{api}/v1", "kind": "ClusterRole", "metadata": {"name": "nodes-and-pods"}, "rules": [rule]}
    )
    control_plane.apply(
        {
            "apiVersion": f"{api}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": user},
            "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": "nodes-and-pods"},
            "subjects": [{"apiGroup": api, "kind": "User", "name": user}],
        }
    )
    return control_plane.kubeconfig_for(user)


def test_a_ledger_that_is_deleted_is_written_again(ground: Ground) -> None:
    """Somebody deletes the ConfigMap at runtime: what was seen is still in memory and goes into a new one."""
    old, new, unseen = names = ground.nodes(3)
    ground.write_ledger({old: 60})
    serve = ground.serve()
    ground.run("on-new", node=new)
    before = ground.wait_for_ledger(lambda ledger: ground.uid(new) in ledger)
    ground.control_plane.api("DELETE", ground.ledger_path)
    after = ground.wait_for_ledger(bool)
    assert after == before
    assert asked(serve, names) == [old, new, unseen]
