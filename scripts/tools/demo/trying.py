"""Commands to copy while the demo is left running. Owns them and nothing else."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

from scripts.tools.demo import scenario
from scripts.tools.demo.stage import Stage


def things_to_try(stage: Stage) -> list[tuple[str, str]]:
    """Pair each command with what it is for. They work in any shell, also without kubectl or warmnode on its PATH."""
    folders = f"{shlex.quote(str(Path(sys.executable).parent))}:{shlex.quote(str(stage.kubectl().parent))}"
    of_workers = f"-n {scenario.WORKERS}"
    question = {
        "Pod": {"metadata": {"name": "asked", "labels": {"warmnode.dev/pool": scenario.POOL}}},
        "NodeNames": [each.name for each in scenario.NODES[:3]],
    }
    webhook, ops = f"http://127.0.0.1:{stage.webhook_port}", f"http://127.0.0.1:{stage.ops_port}"
    return [
        (f"export KUBECONFIG={shlex.quote(str(stage.cluster.kubeconfig))}", "use this cluster"),
        (f'export PATH={folders}:"$PATH"', "with these programs"),
        ("warmnode plan", "every node: its score and why"),
        (f"kubectl get pods {of_workers} -o wide --sort-by=.spec.nodeName", "where the workers are"),
        (
            f"kubectl scale {of_workers} deployment/{scenario.DEPLOYMENT} --replicas=18",
            "more: they go to the next node",
        ),
        ("kubectl cordon workers-8fkqz", "the oldest node is leaving: it loses its score"),
        (f"curl -s {webhook}/prioritize -d {shlex.quote(json.dumps(question))}; echo", "ask as a scheduler asks"),
        (f"curl -s {ops}/readyz", "what warmnode follows, and how fresh it is"),
        (f"curl -s {ops}/metrics | grep ^warmnode_nodes", "its metrics"),
    ]
