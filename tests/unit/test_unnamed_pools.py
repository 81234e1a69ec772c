"""What looks like a pool where no pod belongs to one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from extender.inspect.unnamed_pools import unnamed_pools
from extender.model import Pod
from tests.builders import daemon, stranger, worker


def group(app: str, number: int, *, nodes: int = 2, namespace: str = "ducks", more: str = "") -> list[Pod]:
    """Pods of one Deployment, each with labels of its own beside those that they share."""
    return [
        replace(
            stranger(f"{app}-{each}", node=f"node-{each % nodes}"),
            namespace=namespace,
            owner="ReplicaSet.apps",
            labels=f"app={app}{more},pod-template-hash={each},topology.kubernetes.io/zone=zone-{each}",
        )
        for each in range(number)
    ]


def found(*pods: Pod) -> list[tuple[str, int, int]]:
    return [(each.selector, each.pods, each.nodes) for each in unnamed_pools(pods)]


def test_pods_of_one_template_are_suggested_largest_first() -> None:
    """Labels of one pod, of one generation of a template or of a zone do not split them."""
    assert found(*group("small", 3), *group("large", 5, nodes=3)) == [("app=large", 5, 3), ("app=small", 3, 2)]


def test_what_no_order_of_nodes_could_help_is_left_out() -> None:
    """Few pods, pods on one node, DaemonSets, finished pods, Kubernetes' own, and workers of a pool."""
    daemons = [daemon(f"agent-{each}", node=f"node-{each}") for each in range(5)]
    finished = [replace(pod, finished=True) for pod in group("done", 5)]
    static = [replace(pod, static=True) for pod in group("static", 5)]
    workers = [worker(f"w-{each}", node=f"node-{each}") for each in range(5)]
    system = group("coredns", 4, namespace="kube-system")
    bare = [stranger(f"bare-{each}", node=f"node-{each}") for each in range(5)]
    few, together = group("few", 2), group("together", 4, nodes=1)
    assert found(*daemons, *finished, *static, *workers, *system, *bare, *few, *together) == []


def test_selector_is_one_label_only_where_that_selects_no_other_pod() -> None:
    """Else the second command would show other pods too."""
    blue, green = group("web", 3, more=",colour=blue"), group("web", 4, more=",colour=green")
    assert found(*blue, *green) == [("colour=green", 4, 2), ("colour=blue", 3, 2)]
    elsewhere = group("web", 3, namespace="other", more=",colour=blue")
    assert [selector for selector, *_ in found(*blue, *elsewhere)] == ["app=web,colour=blue"] * 2


@given(st.permutations([*group("a", 3), *group("b", 3), *group("a", 3, namespace="other"), *group("c", 4)]))
def test_order_of_the_input_does_not_matter(pods: list[Pod]) -> None:
    """Two looks at the same cluster suggest the same."""
    expected = [("ducks", 4), ("ducks", 3), ("ducks", 3), ("other", 3)]
    assert [(each.namespace, each.pods) for each in unnamed_pools(pods)] == expected
