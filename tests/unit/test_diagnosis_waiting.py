"""Doctor's check of the workers without a node, and what of two specs says that one fits in the other's place."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from msgspec import structs

from extender.inspect.doctor.evidence import Kind, Needs, WorkerFacts
from extender.inspect.doctor.findings import Finding, Verdict
from extender.inspect.doctor.waiting_workers import TOLD, check_waiting, fits_in_place_of
from extender.inspect.survey.survey_objects import SurveyedPod, pod_facts
from tests.builders import by_label, minutes_ago, worker
from tests.evidence import configured, evidence, facts

OK, UNKNOWN, WARNING = Verdict.OK, Verdict.UNKNOWN, Verdict.WARNING
TWO_DAYS = 2 * 24 * 60
SAID = "0/4 nodes are available:\n4 node(s) didn't match Pod's node affinity/selector."


def waiting(name: str = "never", minutes: float = TWO_DAYS, **given: Any) -> WorkerFacts:
    pod = worker(name, node=None, ready_since=None, created=minutes_ago(minutes), scheduler="warmnode", **given)
    return WorkerFacts(pod=pod, unscheduled_message=SAID, needs=Needs())


def idle(name: str = "w3", **given: Any) -> WorkerFacts:
    pod = worker(name, node="n3", idle_since=minutes_ago(60), scheduler="warmnode", **given)
    return facts(pod, needs=Needs())


def check(*workers: WorkerFacts, pending_for: int | None = None) -> Finding:
    reap = {} if pending_for is None else {"pendingFor": f"{pending_for}m"}
    return check_waiting(evidence(workers=workers, configuration=configured(poolDefaults={"reap": reap})))


def test_a_worker_that_waits_too_long_is_named_with_what_its_scheduler_says() -> None:
    """On one line, whatever the message holds."""
    finding = check(waiting(), facts())
    assert (finding.verdict, finding.summary) == (WARNING, "1 worker without a node for up to 2d: default/never")
    assert finding.details == (f"default/never (2d): {SAID.replace(chr(10), ' ')}",)
    assert "nodeSelector" in (finding.remedy or "")


def test_a_scheduler_that_says_nothing_is_named() -> None:
    """Nobody runs it, mostly."""
    finding = check(replace(waiting(), unscheduled_message=None))
    assert finding.details == ("default/never (2d): scheduler warmnode has said nothing of it",)


def test_workers_that_wait_for_a_moment_are_well() -> None:
    """A node is coming; nor do those wait for a node that go, or wait for a gate."""
    finding = check(
        waiting(minutes=14),
        waiting("going", terminating=True),
        waiting("gated", gated=True),
        facts(),
    )
    assert (finding.verdict, finding.summary) == (OK, "no worker waits for a node for long, 1 for a moment")
    assert check(facts()).summary == "no worker waits for a node for long"


def test_the_pools_own_limit_counts() -> None:
    """What holds reaping up for longer is told later; with 0s for ever, it is told after a quarter of an hour."""
    assert check(waiting(minutes=20), facts(), pending_for=30).verdict is OK
    assert check(waiting(minutes=14), facts(), pending_for=0).verdict is OK
    finding = check(waiting(minutes=16), idle(), pending_for=0)
    assert finding.verdict is WARNING
    assert "pool pool is not reaped while default/never waits (reap.pendingFor: 0s)" in finding.details


def test_an_idle_worker_in_whose_place_it_would_fit_is_named() -> None:
    """Not a busy one, one that goes, nor one that has other needs."""
    beside = "idle worker default/w3 on n3"
    told = f"default/never asks for nothing that {beside} does not have: it would fit there in its place"
    assert told in check(waiting(), idle()).details
    for other in (
        replace(idle(), pod=worker("w3", node="n3", scheduler="warmnode")),
        replace(idle(), pod=structs.replace(idle().pod, terminating=True)),
        replace(idle(), needs=None),
    ):
        assert told not in check(waiting(), other).details
    picky = replace(waiting(), needs=Needs(node_selector={"no": "such"}))
    assert told not in check(picky, idle()).details


def test_pods_that_may_not_be_read_are_not_known() -> None:
    finding = check_waiting(evidence(workers=(), unread={Kind.PODS: "forbidden"}))
    assert (finding.verdict, finding.summary) == (UNKNOWN, "pods were not read (forbidden)")


def test_of_thousands_the_first_are_told() -> None:
    """The one that waits longest first."""
    finding = check(*(waiting(f"w{number:02}", minutes=100 + number) for number in range(50)))
    assert len(finding.details) == TOLD
    assert finding.details[0].startswith("default/w49 ")
    assert finding.summary.startswith("50 workers without a node for up to 2h29m: default/w49")


# -- needs ------------------------------------------------------------------------------------------------------------

SPEC: dict[str, Any] = {
    "nodeName": "n",
    "containers": [
        {"name": "c", "resources": {"requests": {"cpu": "1500m", "memory": "1Gi"}}},
        {"name": "d", "resources": {"requests": {"cpu": 1}}},
    ],
    "initContainers": [{"name": "i", "resources": {"requests": {"memory": "2Gi"}}}],
    "nodeSelector": {"pool": "ducks"},
    "tolerations": [{"key": "ducks", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
}


def needs_of(**changed: Any) -> Needs:
    raw = {
        "metadata": {
            "name": "w",
            "namespace": "work",
            "uid": "u",
            "creationTimestamp": "2026-11-01T00:00:00Z",
            "labels": {"warmnode.dev/pool": "ducks"},
            "annotations": {"warmnode.dev/idle-since": "2026-11-01T00:00:00Z"},
        },
        "spec": SPEC | changed,
        "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": "m"}]},
    }
    found = pod_facts(msgspec.json.decode(json.dumps(raw), type=SurveyedPod), by_label)
    assert found is not None
    assert found.worker is not None
    assert found.worker.unscheduled_message == "m"
    assert found.worker.needs is not None
    return found.worker.needs


def requests(**given: Any) -> list[dict[str, Any]]:
    return [{"name": "c", "resources": {"requests": given}}]


def test_requests_are_those_of_all_containers_or_of_the_largest_before_them() -> None:
    assert needs_of().requests == {"cpu": Decimal("2.5"), "memory": Decimal(2 * 1024**3)}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, True),
        ({"containers": requests(cpu="2500m")}, True),
        ({"containers": requests(cpu="2501m")}, False),
        ({"containers": requests(gpu="1")}, False),
        ({"containers": requests(cpu="a lot")}, False),
        ({"nodeSelector": None}, True),
        ({"nodeSelector": {"no": "such"}}, False),
        ({"affinity": None}, True),
        ({"affinity": {"podAntiAffinity": {}}}, False),
        ({"topologySpreadConstraints": [{"maxSkew": 1}]}, False),
        ({"tolerations": []}, False),
        ({"tolerations": [*SPEC["tolerations"], {"key": "more"}]}, True),
    ],
)
def test_what_fits_in_anothers_place(changed: dict[str, Any], expected: bool) -> None:
    """It asks for no more, of the same nodes, and tolerates as much."""
    assert fits_in_place_of(needs_of(**changed), needs_of()) is expected
