"""Whether a scheduler calls: when silence is a fault, and the Lease that all replicas share."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given

from extender.kube.api_client import KubeClient
from extender.kube.credentials import Access
from extender.kube.transport import Transport
from extender.kube.webhook_lease import WebhookLease
from extender.loops.call_lease import CallWatch
from extender.policy.scheduler_silence import (
    SILENCE,
    HandshakeFailure,
    Refusal,
    is_not_called,
    more_telling,
    should_have_called,
)
from extender.telemetry import Metrics
from tests.builders import NOW, clock_of, minutes_ago, steady, times, worker
from tests.fakes.apiserver import FakeApiServer
from tests.fakes.faults import Where, answer
from tests.fakes.store import LEASES

LEASE = ("default", "warmnode-webhook")
OURS = frozenset({"warmnode"})


# -- the rule ---------------------------------------------------------------------------------------------------------


def judged(**given: Any) -> bool:
    facts: dict[str, Any] = {
        "last_call": minutes_ago(20),
        "last_bound": minutes_ago(1),
        "watching_since": minutes_ago(60),
        "schedulable_nodes": 2,
        "now": NOW,
    }
    on_one_clock: dict[str, Any] = {
        name: steady(each) if isinstance(each, datetime) else each for name, each in (facts | given).items()
    }
    return is_not_called(**on_one_clock)


def test_silence_while_workers_are_bound_is_a_fault() -> None:
    """Fifteen minutes without a call, and a worker bound meanwhile."""
    assert judged()
    assert judged(last_call=NOW - SILENCE)
    assert not judged(last_call=minutes_ago(14))


def test_silence_without_workers_is_no_fault() -> None:
    """Nothing was to be placed."""
    assert not judged(last_bound=None)
    assert judged(last_bound=NOW - SILENCE)
    assert not judged(last_bound=NOW - SILENCE - timedelta(seconds=1))


def test_one_node_needs_no_call() -> None:
    """For one feasible node kube-scheduler asks nobody."""
    assert not judged(schedulable_nodes=1)


def test_a_process_that_has_just_started_knows_nothing_yet() -> None:
    """Never called counts only when it has watched for as long."""
    assert not judged(last_call=None, watching_since=minutes_ago(14))
    assert judged(last_call=None, watching_since=minutes_ago(15))


@given(times, times, times, times)
def test_a_later_call_never_makes_it_worse(call: datetime, later: datetime, bound: datetime, now: datetime) -> None:
    """Monotonic in the last call."""
    early, late = sorted((call, later))
    if judged(last_call=late, last_bound=bound, watching_since=now, now=now):
        assert judged(last_call=early, last_bound=bound, watching_since=now, now=now)


def test_only_workers_of_our_schedulers_should_bring_a_call() -> None:
    """Neither those of others, nor DaemonSet pods, which fit on one node only."""
    assert should_have_called(worker(scheduler="warmnode"), OURS)
    assert not should_have_called(worker(scheduler="default-scheduler"), OURS)
    assert not should_have_called(worker(scheduler="warmnode", owner="DaemonSet.apps"), OURS)


# -- the Lease and the metric -----------------------------------------------------------------------------------------


@dataclass
class Replicas:
    """Replicas of serve over one API server in memory, and the time that they believe it is."""

    server: FakeApiServer
    client: KubeClient
    now: datetime = NOW
    nodes: int = 2
    ahead: timedelta = timedelta(0)

    def start(self, name: str, ends: datetime | None = None) -> tuple[CallWatch, Metrics]:
        metrics = Metrics()
        watch = CallWatch(
            WebhookLease(self.client, namespace=LEASE[0], name=LEASE[1]),
            identity=name,
            version="1.2.3",
            metrics=metrics,
            schedulers=lambda: OURS,
            schedulable_nodes=lambda: self.nodes,
            clock=clock_of(lambda: self.now, lambda: self.ahead),
            certificate_ends=lambda: ends,
        )
        return watch, metrics

    def lease(self) -> Any:
        return json.loads(self.server.store.get(LEASES, LEASE).raw)

    def last_call(self) -> str | None:
        return self.lease()["metadata"]["annotations"].get("warmnode.dev/last-call")  # type: ignore[no-any-return]

    def refusal(self) -> str | None:
        return self.lease()["metadata"]["annotations"].get("warmnode.dev/last-handshake-failure")  # type: ignore[no-any-return]

    def writes(self) -> int:
        return sum(each.method != "GET" for each in self.server.requests)


@pytest.fixture
async def replicas() -> AsyncIterator[Replicas]:
    async with FakeApiServer() as server:
        access = Access(server=server.url, namespace="default")
        client = KubeClient(Transport(access, user_agent="test"), namespace="default")
        yield Replicas(server, client)
        await client.close()


def is_silent(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("warmnode_webhook_not_called")


def outcomes(metrics: Metrics) -> dict[str, float]:
    (family,) = (each for each in metrics.registry.collect() if each.name == "warmnode_webhook_lease_writes")
    return {sample.labels["outcome"]: sample.value for sample in family.samples}


async def test_a_replica_says_that_it_runs_before_it_is_called(replicas: Replicas) -> None:
    """Who, since when, which version, and no last call: running and never called can be told apart."""
    watch, _ = replicas.start("one_1")
    await watch.look()
    lease = replicas.lease()
    assert lease["spec"]["holderIdentity"] == "one_1"
    assert lease["spec"]["renewTime"] == "2026-11-01T12:00:00.000000Z"
    assert lease["metadata"]["annotations"] == {"warmnode.dev/version": "1.2.3"}
    assert lease["metadata"]["labels"]["app.kubernetes.io/name"] == "warmnode"


async def test_the_lease_says_when_the_certificate_ends(replicas: Replicas) -> None:
    """For doctor, which sees no file; and nothing where there is none."""
    watch, _ = replicas.start("one", ends=NOW + timedelta(days=1))
    await watch.look()
    ends = "warmnode.dev/certificate-ends"
    assert replicas.lease()["metadata"]["annotations"][ends] == "2026-11-02T12:00:00.000000Z"
    replicas.now += timedelta(minutes=1)
    watch, _ = replicas.start("two")
    await watch.look()
    assert ends not in replicas.lease()["metadata"]["annotations"]


async def test_any_number_of_replicas_write_once_a_minute(replicas: Replicas) -> None:
    """Ten minutes of calls every 15 s at three replicas: ten writes or so; the last call is a minute old at most."""
    watches = [replicas.start(f"replica_{number}")[0] for number in range(3)]
    for _ in range(40):
        for watch in watches:
            watch.called()
            await watch.look()
        replicas.now += timedelta(seconds=15)
    assert replicas.writes() <= 12
    assert replicas.last_call() == "2026-11-01T12:09:00.000000Z"


async def test_a_call_stands_in_the_lease_within_75_seconds_whoever_writes(replicas: Replicas) -> None:
    """The other scheduler leads since a minute, and the replica that is called no more is the first to write."""
    one, _ = replicas.start("one")
    other, _ = replicas.start("other")
    one.called()
    calls = {60, 130, 200, 310, 500}
    for second in range(0, 600, 5):
        if second in calls:
            other.called()
        if second % 15 == 0:
            await one.look()
        if second % 15 == 5:
            await other.look()
        known = [call for call in calls if call <= second - 75]
        if known:
            assert (replicas.last_call() or "") >= f"{NOW + timedelta(seconds=max(known)):%Y-%m-%dT%H:%M:%S}.000000Z"
        replicas.now += timedelta(seconds=5)
    assert replicas.writes() <= 10 + len(calls)


async def test_the_last_call_never_goes_back(replicas: Replicas) -> None:
    """A replica that was called long ago, or never, keeps what another one wrote; labels of others stay too."""
    called, _ = replicas.start("called")
    called.called()
    await called.look()
    tree = replicas.lease()
    tree["metadata"]["labels"]["team"] = "data"
    tree["metadata"]["annotations"]["example.com/note"] = "keep"
    replicas.server.store.replace(LEASES, LEASE, tree)
    replicas.now += timedelta(minutes=5)
    standby, _ = replicas.start("standby")
    await standby.look()
    lease = replicas.lease()
    assert lease["spec"]["holderIdentity"] == "standby"
    assert replicas.last_call() == "2026-11-01T12:00:00.000000Z"
    assert lease["metadata"]["labels"]["team"] == "data"
    assert lease["metadata"]["annotations"]["example.com/note"] == "keep"


async def test_the_end_of_a_silence_is_written_at_once(replicas: Replicas) -> None:
    """Also when the Lease was written a moment ago: nobody shall look for a fault that is mended."""
    watch, _ = replicas.start("one")
    await watch.look()
    replicas.now += timedelta(seconds=5)
    watch.called()
    await watch.look()
    assert replicas.last_call() == "2026-11-01T12:00:05.000000Z"
    replicas.now += timedelta(seconds=5)
    watch.called()
    await watch.look()
    assert replicas.last_call() == "2026-11-01T12:00:05.000000Z"


async def test_the_first_handshake_that_fails_is_written_at_once_and_the_rest_once_a_minute(replicas: Replicas) -> None:
    """A scheduler that tries again with every pod costs no more writes than one that works."""
    watch, _ = replicas.start("one")
    await watch.look()
    replicas.now += timedelta(seconds=5)
    watch.refused(HandshakeFailure.CERTIFICATE_REFUSED)
    await watch.look()
    assert replicas.refusal() == "2026-11-01T12:00:05.000000Z certificateRefused"
    before = replicas.writes()
    for _ in range(100):
        replicas.now += timedelta(milliseconds=100)
        watch.refused(HandshakeFailure.NO_CLIENT_CERTIFICATE)
        await watch.look()
    assert replicas.writes() == before
    replicas.now += timedelta(minutes=1)
    await watch.look()
    assert replicas.refusal() == "2026-11-01T12:00:15.000000Z noClientCertificate"


async def test_noise_and_health_checks_hide_no_scheduler_whose_ca_is_wrong(replicas: Replicas) -> None:
    """Bytes that are no TLS are never written, and plain HTTP not within 15 minutes of something that says more."""
    watch, _ = replicas.start("one")
    watch.refused(HandshakeFailure.OTHER)
    await watch.look()
    assert replicas.refusal() is None
    watch.refused(HandshakeFailure.CERTIFICATE_REFUSED)
    for _ in range(10):
        replicas.now += timedelta(minutes=1)
        watch.refused(HandshakeFailure.PLAIN_HTTP)
        watch.refused(HandshakeFailure.OTHER)
        await watch.look()
    assert replicas.refusal() == "2026-11-01T12:00:00.000000Z certificateRefused"
    replicas.now += timedelta(minutes=6)
    watch.refused(HandshakeFailure.PLAIN_HTTP)
    await watch.look()
    assert replicas.refusal() == "2026-11-01T12:16:00.000000Z plainHttp"


@pytest.mark.parametrize(("minutes", "plain_is_told"), [(14, False), (15, False), (16, True)])
def test_plain_http_says_less_for_fifteen_minutes(minutes: int, plain_is_told: bool) -> None:
    """In whichever order the two are read; and any refusal says more than none."""
    tls = Refusal(at=NOW, failure=HandshakeFailure.CERTIFICATE_REFUSED)
    plain = Refusal(at=NOW + timedelta(minutes=minutes), failure=HandshakeFailure.PLAIN_HTTP)
    told = plain if plain_is_told else tls
    assert more_telling(tls, plain) is more_telling(plain, tls) is told
    assert more_telling(tls, None) is more_telling(None, tls) is tls
    assert more_telling(None, None) is None


async def test_the_metric_tells_the_last_call_here(replicas: Replicas) -> None:
    """0 before the first: the dashboard leaves out a replica that nobody calls."""
    watch, metrics = replicas.start("one")
    found = [metrics.registry.get_sample_value("warmnode_webhook_last_call_timestamp_seconds")]
    watch.called()
    found.append(metrics.registry.get_sample_value("warmnode_webhook_last_call_timestamp_seconds"))
    assert found == [0, NOW.timestamp()]


async def test_times_to_come_count_as_none(replicas: Replicas) -> None:
    """A replica whose clock is a day ahead must not hide the silence of the next day."""
    replicas.now += timedelta(days=1)
    wrong, _ = replicas.start("wrong")
    wrong.called()
    wrong.refused(HandshakeFailure.PLAIN_HTTP)
    await wrong.look()
    replicas.now -= timedelta(days=1)
    right, metrics = replicas.start("right")
    await wrong.look()
    await right.look()
    assert (replicas.last_call(), replicas.refusal()) == (None, None)
    replicas.now += timedelta(minutes=16)
    right.bound(worker(scheduler="warmnode"))
    await right.look()
    assert is_silent(metrics) == 1


async def test_what_another_replica_wrote_of_a_handshake_stays_until_there_is_a_newer_one(replicas: Replicas) -> None:
    """Nobody's knowledge is lost by the next write; the last call stands beside it."""
    one, _ = replicas.start("one")
    other, _ = replicas.start("other")
    one.refused(HandshakeFailure.PLAIN_HTTP)
    await one.look()
    replicas.now += timedelta(minutes=2)
    other.called()
    await other.look()
    assert replicas.lease()["spec"]["holderIdentity"] == "other"
    assert replicas.refusal() == "2026-11-01T12:00:00.000000Z plainHttp"
    assert replicas.last_call() == "2026-11-01T12:02:00.000000Z"


async def test_a_reason_that_a_later_version_wrote_is_some_other(replicas: Replicas) -> None:
    """And nonsense counts as absent."""
    watch, _ = replicas.start("one")
    await watch.look()
    for written, kept in (
        ("2026-11-01T12:00:00.000000Z quantum", "2026-11-01T12:00:00.000000Z other"),
        ("yesterday", None),
    ):
        tree = replicas.lease()
        tree["metadata"]["annotations"]["warmnode.dev/last-handshake-failure"] = written
        replicas.server.store.replace(LEASES, LEASE, tree)
        replicas.now += timedelta(minutes=2)
        fresh, _ = replicas.start("fresh")
        await fresh.look()
        assert replicas.refusal() == kept


async def test_a_standby_is_silent_only_when_all_are(replicas: Replicas) -> None:
    """The standby scheduler's replica is never called; what the others wrote counts for it."""
    active, _ = replicas.start("active")
    standby, metrics = replicas.start("standby")
    for _ in range(20):
        active.called()
        await active.look()
        standby.bound(worker(scheduler="warmnode"))
        await standby.look()
        assert is_silent(metrics) == 0
        replicas.now += timedelta(minutes=1)
    replicas.now += timedelta(minutes=15)
    standby.bound(worker(scheduler="warmnode"))
    await standby.look()
    assert is_silent(metrics) == 1
    active.called()
    await active.look()
    await standby.look()
    assert is_silent(metrics) == 0


async def test_silence_is_counted_whatever_the_time_of_day(replicas: Replicas) -> None:
    """A jump of an hour is no hour without a call, and hides none; a clock that is off writes no time for others."""
    watch, metrics = replicas.start("one")
    watch.called()
    await watch.look()
    written = replicas.writes()
    for ahead in (timedelta(hours=1), timedelta(hours=-1)):
        replicas.ahead = ahead
        replicas.now += timedelta(minutes=5)
        watch.bound(worker(scheduler="warmnode"))
        await watch.look()
        assert is_silent(metrics) == 0
    assert replicas.writes() == written
    replicas.now += timedelta(minutes=5)
    watch.bound(worker(scheduler="warmnode"))
    await watch.look()
    assert is_silent(metrics) == 1


async def test_a_lease_that_may_not_be_written_is_told_and_hurts_nobody(
    replicas: Replicas, caplog: pytest.LogCaptureFixture
) -> None:
    """One line for one problem; the metric goes by this replica's own calls then."""
    watch, metrics = replicas.start("one")
    replicas.server.fail(Where.ANY, *[answer(403, "Forbidden")] * 3)
    for _ in range(3):
        await watch.look()
    assert outcomes(metrics) == {"forbidden": 3}
    assert len([each for each in caplog.records if "last call is not kept" in each.message]) == 1
    replicas.now += timedelta(minutes=16)
    replicas.server.fail(Where.ANY, answer(403, "Forbidden"))
    watch.bound(worker(scheduler="warmnode"))
    await watch.look()
    assert is_silent(metrics) == 1


async def test_two_that_write_at_once_are_no_failure(replicas: Replicas) -> None:
    """A conflict means that another replica wrote: that is as good."""
    watch, metrics = replicas.start("one")
    replicas.server.fail(Where.WRITE, answer(409, "Conflict"))
    await watch.look()
    assert outcomes(metrics) == {"conflict": 1}


@pytest.mark.looptime
async def test_a_handshake_that_fails_wakes_the_loop(replicas: Replicas) -> None:
    """The Lease shows it at once, not at the next look."""
    watch, _ = replicas.start("one")
    running = asyncio.create_task(watch.run())
    await asyncio.sleep(1)
    watch.refused(HandshakeFailure.CERTIFICATE_REFUSED)
    await asyncio.sleep(1)
    running.cancel()
    assert replicas.refusal() == "2026-11-01T12:00:00.000000Z certificateRefused"


@pytest.mark.looptime
async def test_the_loop_outlives_a_bug(replicas: Replicas) -> None:
    """Whatever goes wrong is logged and tried again: answers to the scheduler do not depend on it."""
    watch, metrics = replicas.start("one")
    failures = iter([RuntimeError("a bug")])

    def schedulable_nodes() -> int:
        for failure in failures:
            raise failure
        return 2

    watch.schedulable_nodes = schedulable_nodes
    running = asyncio.create_task(watch.run())
    await asyncio.sleep(40)
    running.cancel()
    assert outcomes(metrics) == {"written": 1, "failed": 1}


async def test_a_lease_of_nonsense_is_written_anew(replicas: Replicas) -> None:
    """Times that are none count as absent."""
    watch, _ = replicas.start("one")
    await watch.look()
    tree = replicas.lease()
    tree["metadata"]["annotations"]["warmnode.dev/last-call"] = "yesterday"
    tree["spec"].pop("renewTime")
    replicas.server.store.replace(LEASES, LEASE, tree)
    await watch.look()
    assert replicas.last_call() is None
    assert replicas.lease()["spec"]["renewTime"]
