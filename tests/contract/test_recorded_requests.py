"""What a real kube-scheduler sent (scripts/record-requests), replayed byte for byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.builders import ledger, minutes_ago, node, worker
from tests.listening import synced_state, webhook_over

RECORDED = Path(__file__).parent / "recorded"
INDEX: dict[str, Any] = json.loads((RECORDED / "requests.json").read_text())
NODES = ("node-a", "node-b", "node-c")
MODES = ("names", "objects")


def body(name: str) -> bytes:
    return (RECORDED / name).read_bytes()


def uids_by_node(mode: str) -> dict[str, list[str]]:
    """The victims of the recorded preemption, read with the standard library."""
    request = json.loads(body(f"preempt-{mode}.json"))
    if mode == "names":
        entries = request["NodeNameToMetaVictims"]
        return {name: [pod["UID"] for pod in entry["Pods"]] for name, entry in entries.items()}
    entries = request["NodeNameToVictims"]
    return {name: [pod["metadata"]["uid"] for pod in entry["Pods"]] for name, entry in entries.items()}


@pytest.mark.parametrize("name", sorted(INDEX["requests"]))
def test_a_request_is_a_post_of_json_with_its_length(name: str) -> None:
    """Go's client sends no credentials and no query, and the length of the body first."""
    head = INDEX["requests"][name]
    assert head["method"] == "POST"
    assert head["path"] == f"/{name.partition('-')[0]}"
    assert head["headers"]["Content-Type"] == "application/json"
    assert int(head["headers"]["Content-Length"]) == len(body(name))
    assert "Authorization" not in head["headers"]
    assert "Transfer-Encoding" not in head["headers"]


@pytest.mark.parametrize("mode", MODES)
def test_the_records_are_of_three_nodes_and_one_of_two_forms(mode: str) -> None:
    """nodeCacheCapable true sends names and UIDs, false sends whole objects; the other key is null, never absent."""
    prioritize, preempt = (json.loads(body(f"{verb}-{mode}.json")) for verb in ("prioritize", "preempt"))
    assert prioritize.keys() == {"Pod", "Nodes", "NodeNames"}
    assert preempt.keys() == {"Pod", "NodeNameToVictims", "NodeNameToMetaVictims"}
    assert "apiVersion" not in prioritize["Pod"]
    used, unused = ("NodeNames", "Nodes") if mode == "names" else ("Nodes", "NodeNames")
    assert prioritize[unused] is None
    assert len(prioritize[used] if mode == "names" else prioritize[used]["items"]) == 3
    used, unused = ("Meta", "") if mode == "names" else ("", "Meta")
    assert preempt[f"NodeNameTo{unused}Victims"] is None
    assert set(preempt[f"NodeNameTo{used}Victims"]) == set(NODES)


@pytest.mark.parametrize("mode", MODES)
def test_a_recorded_prioritize_call_scores_the_oldest_node_highest(mode: str) -> None:
    """Ten for the oldest, one less for each that follows, in a bare array."""
    nodes = [node(name) for name in NODES]
    ages = {f"uid-of-{name}": minutes_ago(age) for name, age in zip(NODES, (10, 30, 20), strict=True)}
    webhook = webhook_over(synced_state(nodes, ledger=ledger(ages)))
    answer = webhook.prioritize(body(f"prioritize-{mode}.json"))
    assert json.loads(answer.content) == [
        {"Host": "node-b", "Score": 10},
        {"Host": "node-c", "Score": 9},
        {"Host": "node-a", "Score": 8},
    ]
    assert answer.outcome == "scored"


@pytest.mark.parametrize("mode", MODES)
def test_a_recorded_preempt_call_keeps_the_oldest_node(mode: str) -> None:
    """A worker preempts: one node stays, with its victims as they came."""
    uids = uids_by_node(mode)
    nodes = [node(name) for name in NODES]
    ages = {f"uid-of-{name}": minutes_ago(age) for name, age in zip(NODES, (10, 30, 20), strict=True)}
    pods = [worker(uid, uid=uid, node=name) for name, found in uids.items() for uid in found]
    webhook = webhook_over(synced_state(nodes, pods, ledger(ages)))
    answer = webhook.preempt(body(f"preempt-{mode}.json"))
    expected = {"Pods": [{"UID": uid} for uid in uids["node-b"]], "NumPDBViolations": 0}
    assert json.loads(answer.content) == {"NodeNameToMetaVictims": {"node-b": expected}}
    assert answer.outcome == "chosen"


@pytest.mark.parametrize("mode", MODES)
def test_a_recorded_preempt_call_about_unknown_pods_is_echoed(mode: str) -> None:
    """What we do not know we do not judge: all candidates come back, as UIDs in both forms."""
    webhook = webhook_over(synced_state([node(name) for name in NODES]))
    answer = webhook.preempt(body(f"preempt-{mode}.json"))
    echo = {
        name: {"Pods": [{"UID": uid} for uid in uids], "NumPDBViolations": 0}
        for name, uids in uids_by_node(mode).items()
    }
    assert json.loads(answer.content) == {"NodeNameToMetaVictims": echo}
    assert answer.outcome == "unknownPod"
