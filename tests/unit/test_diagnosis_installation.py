"""Doctor's checks of the installation: configuration, ledger, leader, permissions, clocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from extender.inspect.doctor.evidence import (
    AccessFacts,
    ClockReading,
    Kind,
    MissingAccess,
    Program,
)
from extender.inspect.doctor.findings import Finding, Verdict
from extender.inspect.doctor.installation import (
    check_clocks,
    check_configuration,
    check_ledger,
    check_permissions,
    check_reaper,
)
from extender.model import Ledger
from extender.policy.brakes import BrakeRecord
from extender.policy.election import LeaseRecord
from tests.builders import NOW, ledger, minutes_ago, worker
from tests.evidence import configured, evidence, facts

OK, UNKNOWN, WARNING, PROBLEM = Verdict.OK, Verdict.UNKNOWN, Verdict.WARNING, Verdict.PROBLEM
A_MINUTE = timedelta(minutes=1)


# -- configuration ----------------------------------------------------------------------------------------------------


def test_a_configuration_that_is_refused_is_a_problem() -> None:
    """The process keeps the old one and nobody notices."""
    chosen = replace(configured(), source="ConfigMap warmnode/warmnode", problem="config.yaml:3: pool: unknown key")
    finding = check_configuration(evidence(configuration=chosen))
    assert finding.verdict is PROBLEM
    assert "config.yaml:3" in finding.summary


def test_dry_run_is_said() -> None:
    """It ships switched on."""
    finding = check_configuration(evidence(configuration=configured(dryRun=True)))
    assert finding.verdict is OK
    assert "dry-run is on" in finding.summary


# -- ledger -----------------------------------------------------------------------------------------------------------


def test_a_ledger_that_has_every_node_with_a_worker_is_well() -> None:
    """Nodes without one are not in it, and need not be."""
    assert check_ledger(evidence()).verdict is OK


def test_a_ledger_is_not_needed_for_creation_times() -> None:
    """The setting age: created."""
    assert check_ledger(evidence(configuration=configured(age="created"), ledger=None)).verdict is OK


def test_no_ledger_is_a_problem_where_warmnode_runs() -> None:
    """Where it does not, there is none yet."""
    assert check_ledger(evidence(ledger=None)).verdict is PROBLEM
    assert check_ledger(evidence(ledger=None, webhook=None, leader=None)).verdict is UNKNOWN


def test_a_node_with_a_ready_worker_that_is_not_recorded_is_a_problem() -> None:
    """After two minutes: it is written every two seconds. A key that makes no sense is another fault."""
    assert check_ledger(evidence(ledger=ledger({}))).verdict is PROBLEM
    young = (facts(worker(scheduler="warmnode", ready_since=minutes_ago(1))),)
    assert check_ledger(evidence(ledger=ledger({}), workers=young)).verdict is OK
    finding = check_ledger(evidence(ledger=ledger({}, "uid-of-node-a")))
    assert finding.verdict is WARNING
    assert "uid-of-node-a" in finding.summary


def test_a_ledger_that_is_nearly_full_is_a_problem() -> None:
    """A ConfigMap holds one mebibyte."""
    full = Ledger(first_seen={"uid-of-node-a": minutes_ago(30)}, size_bytes=900_000)
    finding = check_ledger(evidence(ledger=full))
    assert finding.verdict is PROBLEM
    assert "86%" in finding.summary


def test_times_of_the_future_in_the_ledger_deserve_a_look() -> None:
    """Some replica's clock was wrong."""
    ahead = ledger({"uid-of-node-a": minutes_ago(30), "other": NOW + A_MINUTE})
    assert check_ledger(evidence(ledger=ahead)).verdict is WARNING


# -- reaper -----------------------------------------------------------------------------------------------------------


def led(minutes: float | None, holder: str = "reap_1") -> LeaseRecord:
    renewed = None if minutes is None else minutes_ago(minutes)
    return LeaseRecord(holder=holder, renewed=renewed, duration=timedelta(seconds=15))


REAPER = Program(namespace="warmnode", name="reap-1", program="warmnode", arguments=("reap",))


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        ({}, OK),
        ({"leader": led(0.9)}, OK),
        ({"leader": led(5)}, PROBLEM),
        ({"leader": led(None)}, PROBLEM),
        ({"leader": led(5, holder="")}, WARNING),
        ({"leader": led(5, holder=""), "programs": (REAPER,)}, PROBLEM),
        ({"leader": None}, OK),
        ({"leader": None, "programs": (REAPER,)}, PROBLEM),
        ({"unread": {Kind.LEASES: "forbidden"}}, UNKNOWN),
    ],
)
def test_a_reaper_leads_or_none_is_meant_to(given: Any, verdict: Verdict) -> None:
    """A Lease that was not renewed, that nobody holds, or that a reaper should hold and does not."""
    finding = check_reaper(evidence(**given))
    assert finding.verdict is verdict
    assert (finding.remedy is None) == (verdict in (OK, UNKNOWN))


def test_no_reaper_where_nothing_is_installed_is_not_known() -> None:
    """It may be in another namespace."""
    finding = check_reaper(evidence(leader=None, webhook=None))
    assert finding.verdict is UNKNOWN
    assert "--namespace" in (finding.remedy or "")


# -- permissions ------------------------------------------------------------------------------------------------------


def missing(*, optional: bool = False) -> MissingAccess:
    return MissingAccess(
        who="service account a/b", duty="reap", access="create pods/eviction", why="w", optional=optional
    )


def test_permissions_that_are_all_there_are_well() -> None:
    """For whom is said."""
    assert check_permissions(evidence()).summary == "service account warmnode/warmnode: all there"


def test_a_permission_that_is_missing_is_a_problem_unless_warmnode_does_without() -> None:
    """Each is named with what it is for."""
    finding = check_permissions(evidence(access=AccessFacts(asked_for=("a",), missing=(missing(),))))
    assert finding.verdict is PROBLEM
    assert finding.details == ("service account a/b may not create pods/eviction (reap): to w",)
    finding = check_permissions(evidence(access=AccessFacts(asked_for=("a",), missing=(missing(optional=True),))))
    assert finding.verdict is WARNING


def test_what_you_may_not_is_a_warning_where_nothing_is_installed() -> None:
    """Warmnode need not run as the one who asks."""
    mine = AccessFacts(asked_for=("you",), missing=(missing(),), is_installed=False)
    assert check_permissions(evidence(access=mine)).verdict is WARNING


def test_permissions_that_were_not_reviewed_are_not_known() -> None:
    """With the reason."""
    finding = check_permissions(evidence(access=None, unread={Kind.ACCESS_REVIEWS: "forbidden"}))
    assert (finding.verdict, finding.summary) == (UNKNOWN, "not checked: forbidden")


def test_a_pod_whose_account_is_not_known_leaves_permissions_open() -> None:
    """The others may have all."""
    finding = check_permissions(evidence(access=AccessFacts(asked_for=("a",), not_asked=("serve-1",))))
    assert finding.verdict is UNKNOWN
    assert "serve-1" in finding.summary


# -- clocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "verdict"), [(0, OK), (5, OK), (-6, WARNING), (30, WARNING), (31, PROBLEM), (-3600, PROBLEM)]
)
def test_a_clock_is_measured_by_the_api_servers(seconds: int, verdict: Verdict) -> None:
    """From half a minute on marks are taken for nonsense."""
    reading = ClockReading(whose="node a", ahead=timedelta(seconds=seconds))
    finding = check_clocks(evidence(clocks=(reading,)))
    assert finding.verdict is verdict
    assert "node a" in finding.summary


def test_our_own_clock_is_a_warning_at_most() -> None:
    """Warmnode need not run on the machine of who asks. The worst is named first."""
    mine = ClockReading(whose="this machine", ahead=timedelta(hours=1), is_ours=True)
    other = ClockReading(whose="warmnode serve", ahead=timedelta(seconds=10))
    finding = check_clocks(evidence(clocks=(other, mine)))
    assert finding.verdict is WARNING
    assert finding.summary.startswith("this machine is 1h fast")


def test_a_file_has_no_clock() -> None:
    """Not known."""
    assert check_clocks(evidence(clocks=None)).verdict is UNKNOWN


# -- what the reaper that leads says of its pools ---------------------------------------------------------------------


def reaper_with(brakes: Mapping[str, BrakeRecord] | None) -> Finding:
    return check_reaper(evidence(brakes=brakes))


def test_a_paused_pool_is_told_with_its_end() -> None:
    """The reaper that leads says so in its Lease."""
    until = NOW + timedelta(minutes=50)
    found = reaper_with({"pool": BrakeRecord(evicted=9, since=minutes_ago(20), paused_until=until)})
    assert found.verdict is Verdict.WARNING
    assert "pool pool is paused until 12:50:00 UTC: workers came back after 9 evictions" in found.summary


def test_a_pool_that_lost_many_times_what_it_has_runs_in_a_circle() -> None:
    """244 evictions of a pool that still has its worker: somebody made each anew, whatever the brake saw."""
    found = reaper_with({"pool": BrakeRecord(evicted=244, since=minutes_ago(9))})
    assert found.verdict is Verdict.WARNING
    assert "has 1 worker, and lost 244 by eviction within 9m" in found.summary
    assert reaper_with({"pool": BrakeRecord(evicted=19, since=minutes_ago(9))}).verdict is Verdict.OK
    assert reaper_with({"gone": BrakeRecord(evicted=244, since=minutes_ago(9))}).verdict is Verdict.OK


def test_a_reaper_that_says_nothing_of_its_pools_is_told() -> None:
    """An earlier version: it leads, and more is not known."""
    finding = reaper_with(None)
    assert finding.verdict is UNKNOWN
    assert "does not say which pools" in finding.summary
