"""What a reason means, for people, in half a sentence. docs/reaping.md says what to do about each."""

from __future__ import annotations

from extender.model import SkipReason

REASONS = {
    "busy": "it does not say that it is idle",
    "terminating": "it is going already",
    "notReady": "it is not Ready",
    "leavingNode": "its node is leaving",
    "nodeNotHeardOf": "its node is not Ready for longer than its Lease allows",
    "nodeRebooting": "Karpenter reboots its node",
    "oldMachine": "it ran on an earlier machine of its node's name, and has not started on this one",
    "systemNamespace": "pods in kube-system are never evicted",
    "daemonSet": "a DaemonSet's pod belongs to its node",
    "staticPod": "a static pod belongs to its node",
    "disabled": "reaping is switched off for the pool",
    "annotateOnly": "scaleIn: annotate evicts nothing, deletion costs are written instead",
    "ownerRecreates": "its owner would make a new one; its deletion cost is written instead",
    "doNotDisrupt": "it has karpenter.sh/do-not-disrupt",
    "idleTooShort": "it is idle for no longer than idleTimeout",
    "tooYoung": "it is younger than minPodAge",
    "floor": "it is one of the claimable workers to keep",
    "nodeKeepsOthers": "a pod would stay on its node: any with wholeNode, else one that Karpenter does not move",
    "maxPerPass": "a pass takes no more than maxPerPass: its turn comes",
    "maxPerNode": "a pass takes no more than maxPerNode from a node: its turn comes",
    "clockOff": "the clock of the reaper is off the API server's: who is idle or claimed is not known",
    "pendingWorkers": "a worker of the pool waits for a node: nothing is evicted for up to pendingFor",
    "poolPaused": "evicted workers came back, so the pool pauses",
    "budgetBlocked": "a PodDisruptionBudget refused just now",
    "backingOff": "the API server refused or failed a moment ago",
    "claimed": "somebody has claimed it",
    "staticNodePool": "its NodePool is static: the node would stay",
    "neverConsolidated": "its NodePool has consolidateAfter: Never: the node would stay",
    "nodeDoNotDisrupt": "its node has karpenter.sh/do-not-disrupt: it would stay",
    "nodePoolUnknown": "its node's NodePool is not there, and Karpenter takes no node of such a one",
    "noNodeClaim": "its node has no NodeClaim: Karpenter does not manage it",
    "nodeNotInitialized": "its node is not initialized: Karpenter takes none that is not",
    "otherPodDoNotDisrupt": "another pod on its node, be it a DaemonSet's, has karpenter.sh/do-not-disrupt",
    "otherPodBudget": "a PodDisruptionBudget lets Karpenter evict no other pod on its node, be it a DaemonSet's",
    "emptyBudget": "its NodePool's budget lets no further node go now",
}
"""By the reason's name."""


def words_of(reason: SkipReason) -> str:
    return REASONS.get(reason, str(reason))
