"""Pods that look like a pool of workers although nobody has named one: what a first look suggests. Pure.

A suggestion decides nothing. It is what `--selector` would take, so that the second command shows something.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from extender.model import Pod

FEWEST_PODS = 3
MOST_SHOWN = 5
OF_ONE_POD = frozenset(
    {
        # set by controllers, for one pod, one Job or one generation of a template
        *("apps.kubernetes.io/pod-index", "batch.kubernetes.io/job-completion-index", "controller-revision-hash"),
        *("pod-template-generation", "pod-template-hash", "statefulset.kubernetes.io/pod-name"),
        *("batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name", "controller-uid", "job-name"),
        # copied from the node that a pod is bound to, since Kubernetes 1.35
        *("topology.kubernetes.io/region", "topology.kubernetes.io/zone"),
    }
)
"""Labels that pods of one pool do not share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnnamedPool:
    """Pods with the same labels: what selects them, how many they are, and on how many nodes."""

    namespace: str
    selector: str
    pods: int
    nodes: int


def unnamed_pools(pods: Iterable[Pod]) -> Sequence[UnnamedPool]:
    """Group pods of no pool by namespace and labels: 1. most pods first; 2. namespace; 3. selector.

    Left out: finished pods, DaemonSets' and static ones, namespaces of Kubernetes itself (``kube-``), groups of fewer
    than `FEWEST_PODS` pods or on one node only, which no order of nodes could help. The selector is one label where
    that alone selects the same pods, else all labels that they share.
    """
    groups: dict[tuple[str, str], list[Pod]] = defaultdict(list)
    having: Counter[str] = Counter()
    for pod in pods:
        if pod.finished:
            continue
        pairs = [pair for pair in pod.labels.split(",") if pair and pair.partition("=")[0] not in OF_ONE_POD]
        having.update(pairs)
        is_candidate = pod.pool is None and pod.owner != "DaemonSet.apps" and not pod.static
        if pairs and is_candidate and not pod.namespace.startswith("kube-"):
            groups[pod.namespace, ",".join(pairs)].append(pod)
    found = [
        UnnamedPool(
            namespace=namespace,
            selector=next((pair for pair in labels.split(",") if having[pair] == len(members)), labels),
            pods=len(members),
            nodes=len({pod.node for pod in members if pod.node is not None}),
        )
        for (namespace, labels), members in groups.items()
    ]
    worth = [each for each in found if each.pods >= FEWEST_PODS and each.nodes > 1]
    return sorted(worth, key=lambda each: (-each.pods, each.namespace, each.selector))
