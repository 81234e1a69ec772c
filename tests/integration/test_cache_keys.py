"""Cache keys on a stock kube-scheduler: whose worker goes to which of the oldest nodes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from scripts.tools.serving import Serve
from tests.integration.ground import POOL, POOL_LABEL, Ground, decisions

pytestmark = pytest.mark.controlplane

CONFIGURATION = """
apiVersion: warmnode.dev/v1alpha1
kind: Configuration
poolDefaults:
  cacheKey: {{label: tenant, window: {window}}}
"""


def aged_nodes(ground: Ground, count: int, *, cpu: str = "4") -> list[str]:
    """Nodes that were first seen one after the other, the oldest first."""
    names = ground.nodes(count, cpu=cpu)
    ground.write_ledger({name: 60 * (count - place) for place, name in enumerate(names)})
    return names


def serve(ground: Ground, window: int, **given: Any) -> Serve:
    return ground.serve(config=CONFIGURATION.format(window=window), **given)


def serve_by_set(ground: Ground) -> Serve:
    return ground.serve(config=CONFIGURATION.format(window="auto"))


def of(tenant: str | None) -> dict[str, str]:
    return {"tenant": tenant} if tenant is not None else {}


def test_a_worker_lands_where_its_tenant_ran_most_among_the_oldest(ground: Ground) -> None:
    """Four nodes, window 3: acme ran once on the second, twice on the third, and three times on the fourth.

    Its worker goes to the third. Without a key, and for a tenant that never ran, the oldest has it, as before.
    """
    first, second, third, fourth = aged_nodes(ground, 4)
    for name, node in {"a": second, "b": third, "c": third, "d": fourth, "e": fourth, "f": fourth}.items():
        ground.run(f"before-{name}", node=node, labels=of("acme"), cpu="100m")
    serving = serve(ground, 3)
    assert ground.place("known", labels=of("acme")) == third
    assert ground.place("without") == first
    assert ground.place("new", labels=of("nobody")) == first
    logged = {line["pod"]: line["cache_key"] for line in decisions(serving, "prioritize")}
    assert logged == {"known": "acme", "without": None, "new": "nobody"}
    ground.wait(lambda: serving.metric("warmnode_cache_keys") == 4, "all placed workers to be counted")


def test_a_tenant_finds_its_node_again_after_its_workers_have_gone(ground: Ground) -> None:
    """What was seen stays known while warmnode runs; after a restart age decides again."""
    first, second = aged_nodes(ground, 2)
    serving = serve(ground, 2)
    names = [first, second]
    labels = {POOL_LABEL: POOL, **of("acme")}
    assert serving.preferred(names, labels) == [first, second]
    ground.run("past", node=second, labels=of("acme"))
    ground.wait(lambda: serving.preferred(names, labels) == [second, first], "acme's node to come first")
    ground.delete_pod("past")
    assert ground.place("again", labels=of("acme")) == second
    ground.delete_pod("again")
    serving.close()
    again = serve(ground, 2)
    assert again.preferred(names, labels) == [first, second]


def test_with_keys_the_newest_nodes_still_get_work_last(ground: Ground) -> None:
    """Six nodes with room for four, twelve workers of four tenants: within window 3 they fill the three oldest.

    Then the tenants' workers leave one by one, and every new one finds room on those three: the newest stay empty.
    """
    nodes = aged_nodes(ground, 6)
    serve(ground, 3)
    tenants = [f"tenant-{number % 4}" for number in range(12)]
    placed = [ground.place(f"w-{number}", labels=of(tenant)) for number, tenant in enumerate(tenants)]
    assert Counter(placed) == dict.fromkeys(nodes[:3], 4)
    for number, tenant in enumerate(tenants[:4]):
        ground.delete_pod(f"w-{number}")
        assert ground.place(f"again-{number}", labels=of(tenant)) == placed[number]


def test_a_window_may_change_while_warmnode_runs(ground: Ground) -> None:
    """The file is read again: with window 1 age alone decides, and a later window counts the live workers."""
    first, second = aged_nodes(ground, 2)
    ground.run("past", node=second, labels=of("acme"))
    serving = serve(ground, 1)
    labels = {POOL_LABEL: POOL, **of("acme")}
    assert serving.preferred([first, second], labels) == [first, second]
    ground.write_config(CONFIGURATION.format(window=2))
    ground.wait(lambda: serving.preferred([first, second], labels) == [second, first], "the key to decide")


def test_a_label_that_changes_on_a_running_worker_counts_and_leaves_nothing_behind(ground: Ground) -> None:
    """A worker that is given to one tenant after another: each is known there, and no more keys than are allowed."""
    first, second = aged_nodes(ground, 2)
    serving = serve(ground, 2)
    ground.run("shared", node=second, labels=of("first"))
    path = f"/api/v1/namespaces/{ground.namespace}/pods/shared"
    for number in range(80):
        value = f"{number:063}"
        ground.control_plane.api("PATCH", path, {"metadata": {"labels": {"tenant": value}}})
    last = {POOL_LABEL: POOL, **of(f"{79:063}")}
    ground.wait(lambda: serving.preferred([first, second], last) == [second, first], "the last label to be known")
    assert serving.metric("warmnode_cache_keys") == 64
    assert serving.metric("warmnode_cache_keys_forgotten_total") == 17
    assert serving.metric("warmnode_cache_key_changes_total") == 80


def test_a_tenants_worker_lands_on_its_node_of_the_working_set_and_never_outside(ground: Ground) -> None:
    """Nine nodes of four; the six oldest are full, and the seventh has room for three. acme ran on the eighth."""
    nodes = aged_nodes(ground, 9)
    for number, name in enumerate(nodes[:6]):
        for slot in range(4):
            ground.run(f"full-{number}-{slot}", node=name)
    ground.run("seventh", node=nodes[6])
    ground.run("acme-before", node=nodes[7], labels=of("acme"), cpu="100m")
    serving = serve_by_set(ground)
    ground.wait(lambda: serving.metric("warmnode_cache_keys") == 1, "the placed workers to be counted")
    # 26 workers: room for 1 + 4.6 is wanted; the seventh has 3, and the eighth 3 more, so that the ninth is outside
    assert ground.place("acme-again", labels=of("acme")) == nodes[7]
    assert ground.place("without") == nodes[6]
    assert serving.metric("warmnode_working_set_nodes", pool=POOL) == 8
    ground.delete_pod("acme-before")
    ground.delete_pod("acme-again")
    for slot in range(4):
        ground.delete_pod(f"full-0-{slot}")
    # 22 workers: room for 1 + 4.2 is wanted; the oldest has 4, and the seventh 2 more: acme's node is outside now
    ground.wait(lambda: serving.preferred(nodes, {POOL_LABEL: POOL, **of("acme")})[0] == nodes[0], "the set to shrink")
    assert ground.place("acme-later", labels=of("acme")) == nodes[0]
