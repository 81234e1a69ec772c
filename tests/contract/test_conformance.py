"""What any extender must do, case by case, with the webhook in process. The cases come from kube-scheduler's sources.

Upstream: kubernetes/kubernetes pkg/scheduler/extender.go and extender_test.go, staging/src/k8s.io/kube-scheduler/
extender/v1/types.go, pkg/scheduler/framework/preemption/preemption.go.
"""

from __future__ import annotations

import http.client
import json
import time
from itertools import pairwise
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from extender.cluster.state import ClusterState
from extender.model import BusyVictims, Pod, Pool
from extender.policy.pools import PoolsInForce
from extender.web.webhook import Webhook
from scripts.tools.serving import SCHEDULER_CONFIG
from tests.builders import NOW, ledger, minutes_ago, node, stranger, worker
from tests.listening import Listening, synced_state, webhook_over

OLDEST, OLDER, NEWEST = "node1", "node2", "node3"
NAMES = [OLDEST, OLDER, NEWEST]
WORKER = {"metadata": {"name": "asked", "namespace": "default", "labels": {"warmnode.dev/pool": "ducks"}}}
STRANGER = {"metadata": {"name": "asked", "namespace": "default"}}
SCORES = [{"Host": OLDEST, "Score": 10}, {"Host": OLDER, "Score": 9}, {"Host": NEWEST, "Score": 8}]


def aged(*pods: Pod, **given: Any) -> Webhook:
    """A webhook that knows three nodes, the first one oldest, and these pods."""
    ages = {f"uid-of-{name}": minutes_ago(60 - 10 * position) for position, name in enumerate(NAMES)}
    return webhook_over(synced_state([node(name) for name in NAMES], pods, ledger(ages)), **given)


def ask(webhook: Webhook, pod: Any = WORKER, nodes: Any = None, names: Any = None) -> Any:
    body = {"Pod": pod, "Nodes": nodes, "NodeNames": names}
    return json.loads(webhook.prioritize(json.dumps(body).encode()).content)


def preempt(webhook: Webhook, meta: Any = None, full: Any = None, pod: Any = STRANGER) -> Any:
    body = {"Pod": pod, "NodeNameToVictims": full, "NodeNameToMetaVictims": meta}
    return json.loads(webhook.preempt(json.dumps(body).encode()).content)


def meta(*uids: str, violations: int = 0) -> dict[str, Any]:
    return {"Pods": [{"UID": uid} for uid in uids], "NumPDBViolations": violations}


def node_list(*names: str) -> dict[str, Any]:
    return {"metadata": {}, "items": [{"metadata": {"name": name}, "spec": {}, "status": {}} for name in names]}


def test_case_1_names_give_whole_scores_the_oldest_highest() -> None:
    """An array; each host once; nothing that was not sent; the order of the names does not matter."""
    for names in (NAMES, NAMES[::-1], [OLDER, NEWEST, OLDEST, OLDER]):
        assert ask(aged(), names=names) == SCORES
    assert ask(aged(), names=[NEWEST]) == [{"Host": NEWEST, "Score": 10}]


def test_case_2_whole_nodes_give_the_same_scores() -> None:
    """nodeCacheCapable false: Nodes.items in place of NodeNames."""
    assert ask(aged(), nodes=node_list(*NAMES)) == SCORES


@pytest.mark.parametrize(("nodes", "names"), [(None, None), (None, []), ({"items": None}, None), ({"items": []}, [])])
def test_case_3_no_nodes_give_no_scores(nodes: Any, names: Any) -> None:
    """Both null or empty is a request about nothing, not a mistake."""
    assert ask(aged(), nodes=nodes, names=names) == []


def test_case_4_keys_in_another_case_give_the_same_answers() -> None:
    """Go matches keys in any case, and clients up to 1.16 sent lower case."""
    body = json.dumps({"pod": WORKER, "nodes": None, "nodenames": NAMES}).encode()
    assert json.loads(aged().prioritize(body).content) == SCORES
    victims = {OLDEST: {"pods": [{"uid": "a"}], "numPDBViolations": 2}}
    body = json.dumps({"pod": STRANGER, "nodeNameToVictims": None, "nodeNameToMetaVictims": victims}).encode()
    assert json.loads(aged().preempt(body).content) == {"NodeNameToMetaVictims": {OLDEST: meta("a", violations=2)}}


def test_case_5_an_unknown_node_is_not_in_the_answer() -> None:
    """A host that is left out gets nothing, and from 1.35 on loses every tie too."""
    assert ask(aged(), names=["stranger", *NAMES]) == SCORES


def test_case_6_nodes_of_one_age_are_still_told_apart() -> None:
    """Upstream's case asks for equal scores; ours differ on purpose: equal nodes would fill side by side."""
    webhook = webhook_over(synced_state([node(name) for name in NAMES]))
    scores = ask(webhook, names=NAMES)
    assert [score["Score"] for score in scores] == [10, 9, 8]
    assert ask(webhook, names=NAMES[::-1]) == scores


def test_case_7_five_thousand_names_and_twenty_megabytes_are_answered_in_time() -> None:
    """Within the shipped httpTimeout of 250 ms of CPU for names, whatever else the machine does; whole nodes are what
    nodeCacheCapable is there to avoid."""
    many = [f"node-{number:04}" for number in range(5000)]
    webhook = webhook_over(synced_state([node(name) for name in many]))
    started = time.process_time()
    assert len(ask(webhook, names=many)) == 9
    assert time.process_time() - started < 0.25
    padded = [
        {"metadata": {"name": name, "annotations": {"padding": "x" * 4000}}, "status": {"images": [{"names": ["a"]}]}}
        for name in many
    ]
    body = json.dumps({"Pod": WORKER, "Nodes": {"items": padded}, "NodeNames": None}).encode()
    assert len(body) > 20_000_000
    started = time.process_time()
    assert len(json.loads(webhook.prioritize(body).content)) == 9
    assert time.process_time() - started < 2.5


@pytest.mark.parametrize(
    "metadata", [{"creationTimestamp": None}, {"name": None}, {"namespace": None, "uid": None, "annotations": None}]
)
def test_case_8_a_pod_as_the_typed_client_sends_it(metadata: dict[str, Any]) -> None:
    """No apiVersion, no kind, a null creationTimestamp: ordinary."""
    pod = {"metadata": {**WORKER["metadata"], **metadata}, "spec": {"containers": None}, "status": {}}
    assert ask(aged(), pod=pod, names=NAMES) == SCORES


@pytest.mark.parametrize("labels", [None, {}, {"warmnode.dev/pool": ""}, {"app": "ducks"}, {"warmnode.dev/pool": None}])
def test_case_9_a_pod_of_no_pool_gets_no_scores(labels: Any) -> None:
    """[] is exactly the scheduler without an extender; equal scores for all would not be."""
    assert ask(aged(), pod={"metadata": {"name": "asked", "labels": labels}}, names=NAMES) == []


def test_case_10_one_step_of_the_shipped_weight_outweighs_all_plugins() -> None:
    """The scheduler adds score x weight x 10 to at most 1,200 points of the default plugins (schedule_one.go)."""
    (extender,) = yaml.safe_load(SCHEDULER_CONFIG.read_text())["extenders"]
    scores = [score["Score"] for score in ask(aged(), names=NAMES)]
    assert min(high - low for high, low in pairwise(scores)) * extender["weight"] * 10 > 1200


def test_case_11_one_node_is_answered_too() -> None:
    """The scheduler never asks about one node; a person with curl does."""
    assert ask(aged(), names=[OLDER]) == [{"Host": OLDER, "Score": 10}]


def test_case_12_a_failure_of_ours_is_503_at_once_and_never_200() -> None:
    """Not synced: prioritize answers 503 quickly, which the scheduler ignores. An empty 200 would look like success."""
    state = ClusterState(clock=lambda: NOW)
    webhook = webhook_over(state)
    with Listening(webhook.handler()) as listening:
        body = json.dumps({"Pod": WORKER, "Nodes": None, "NodeNames": NAMES})
        connection = http.client.HTTPConnection("127.0.0.1", listening.port, timeout=5)
        connection.request("POST", "/prioritize", body)
        response = connection.getresponse()
        assert response.status == 503
        assert json.loads(response.read())["detail"] == "nodes, pods and ledger are not loaded yet"
        connection.close()
    assert preempt(webhook, {OLDEST: meta("a")}) == {"NodeNameToMetaVictims": {OLDEST: meta("a")}}


def test_case_13_nothing_to_judge_gives_the_same_map_back() -> None:
    """Candidates, the order of victims and violation counts are as they came."""
    pods = [stranger(f"p{number}", node=name) for number, name in enumerate(NAMES)]
    extra = [stranger("p3", node=OLDEST), stranger("p4", node=OLDEST)]
    candidates = {
        OLDER: meta("uid-of-p1", violations=3),
        OLDEST: meta("uid-of-p4", "uid-of-p0", "uid-of-p3"),
        NEWEST: meta("uid-of-p2", violations=1),
    }
    answer = preempt(aged(*pods, *extra), candidates)
    assert answer == {"NodeNameToMetaVictims": candidates}


def test_case_14_whole_victims_are_answered_as_uids() -> None:
    """The answer is NodeNameToMetaVictims whichever map the request had."""
    full = {
        name: {"Pods": [{"metadata": {"name": name, "uid": f"uid-{name}"}, "spec": {}}], "NumPDBViolations": 1}
        for name in NAMES
    }
    expected = {name: meta(f"uid-{name}", violations=1) for name in NAMES}
    assert preempt(aged(), full=full) == {"NodeNameToMetaVictims": expected}


PROTECT = PoolsInForce(Pool(name="", busy_victims=BusyVictims.PROTECT))


def test_case_15_all_but_one_node_are_vetoed() -> None:
    """Upstream: extenders allow only node1, otherwise node3 would have been chosen; its victims come unchanged."""
    idle = minutes_ago(5)
    pods = [
        worker("p1.1", node=OLDEST, idle_since=idle),
        worker("p1.2", node=OLDEST, idle_since=idle),
        worker("p2", node=OLDER),
        worker("p3", node=NEWEST),
    ]
    candidates = {OLDEST: meta("uid-of-p1.1", "uid-of-p1.2"), OLDER: meta("uid-of-p2"), NEWEST: meta("uid-of-p3")}
    answer = preempt(aged(*pods, pools=PROTECT), candidates)
    assert answer == {"NodeNameToMetaVictims": {OLDEST: meta("uid-of-p1.1", "uid-of-p1.2")}}


def test_case_16_all_nodes_are_vetoed() -> None:
    """Upstream: extenders do not allow any preemption. An empty map, never null."""
    pods = [worker(f"p{number}", node=name) for number, name in enumerate(NAMES)]
    candidates = {name: meta(f"uid-of-p{number}") for number, name in enumerate(NAMES)}
    body = json.dumps({"Pod": STRANGER, "NodeNameToVictims": None, "NodeNameToMetaVictims": candidates}).encode()
    answer = aged(*pods, pools=PROTECT).preempt(body)
    assert (answer.content, answer.outcome) == (b'{"NodeNameToMetaVictims":{}}', "vetoed")


@pytest.mark.parametrize("entry", [{"Pods": [], "NumPDBViolations": 0}, {"Pods": None, "NumPDBViolations": 0}, None])
@pytest.mark.parametrize("form", ["meta", "full"])
def test_case_17_a_node_without_victims_is_passed_through(entry: Any, form: str) -> None:
    """Another extender rejected it (kubernetes/kubernetes#135486). A null would crash the scheduler."""
    answer = preempt(aged(worker("p", node=OLDER)), **{form: {OLDEST: entry}})
    assert answer == {"NodeNameToMetaVictims": {OLDEST: meta()}}


def test_case_18_unknown_nodes_and_pods_change_nothing() -> None:
    """Our state may be behind the scheduler's: what we miss is unchanged, never dropped."""
    known = worker("p", node=OLDEST)
    for candidates in (
        {OLDEST: meta("uid-of-p"), "stranger": meta("x")},
        {OLDEST: meta("uid-of-p"), OLDER: meta("x")},
        {OLDER: meta("uid-of-p"), NEWEST: meta("x")},
    ):
        assert preempt(aged(known), candidates) == {"NodeNameToMetaVictims": candidates}


NODE_NAMES = st.sampled_from([*NAMES, "stranger", ""])
UIDS = st.sampled_from([f"uid-of-p{number}" for number in range(6)] + ["unknown"])
CANDIDATES = st.dictionaries(
    NODE_NAMES,
    st.none()
    | st.fixed_dictionaries(
        {
            "Pods": st.none() | st.lists(UIDS.map(lambda uid: {"UID": uid}), max_size=4),
            "NumPDBViolations": st.integers(0, 3),
        }
    ),
    max_size=5,
)
PODS = st.lists(
    st.builds(
        lambda number, place, pool, idle: worker(
            f"p{number}", node=place, pool=pool, idle_since=minutes_ago(3) if idle else None
        ),
        st.integers(0, 5),
        st.sampled_from(NAMES),
        st.sampled_from(["ducks", None]),
        st.booleans(),
    ),
    max_size=6,
    unique_by=lambda pod: pod.uid,
)


@given(candidates=CANDIDATES, pods=PODS, pod=st.sampled_from([WORKER, STRANGER]), mode=st.sampled_from(BusyVictims))
def test_case_19_a_preempt_answer_is_a_part_of_the_request(
    candidates: dict[str, Any], pods: list[Pod], pod: Any, mode: BusyVictims
) -> None:
    """Nodes and victims of the request only, victims complete and in order, and no null anywhere."""
    webhook = aged(*pods, pools=PoolsInForce(Pool(name="", busy_victims=mode)))
    answer = preempt(webhook, candidates, pod=pod)
    assert answer.keys() == {"NodeNameToMetaVictims"}
    for name, entry in answer["NodeNameToMetaVictims"].items():
        sent = candidates[name] or {"Pods": [], "NumPDBViolations": 0}
        assert entry == {"Pods": sent["Pods"] or [], "NumPDBViolations": sent["NumPDBViolations"]}
