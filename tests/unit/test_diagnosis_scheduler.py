"""Doctor's checks of the scheduler: does it call, and does its configuration let the answers count?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.inspect.doctor.evidence import Kind, Program
from extender.inspect.doctor.findings import Finding, Verdict
from extender.inspect.doctor.scheduler import check_extender, check_sample, check_weight, nodes_scored
from extender.inspect.doctor.scheduler_calls import check_calls, check_names
from extender.policy.scheduler_silence import HandshakeFailure, Refusal
from tests.builders import minutes_ago, node, node_claim, worker
from tests.evidence import called, config, configured, evidence, extender, facts, profile

CA = {"caFile": "/ca"}
HTTPS = {"urlPrefix": "https://127.0.0.1:8888"}
RESOURCE = {"name": "warmnode.dev/worker"}
ONLY_FIT = {"disabled": [{"name": "*"}], "enabled": [{"name": "NodeResourcesFit"}]}
OK, UNKNOWN, WARNING, PROBLEM = Verdict.OK, Verdict.UNKNOWN, Verdict.WARNING, Verdict.PROBLEM


def placed(minutes: float, name: str = "worker-1", scheduler: str = "warmnode") -> Any:
    return facts(worker(name, scheduler=scheduler), scheduled=minutes_ago(minutes))


def text(finding: Finding) -> str:
    return "\n".join((finding.summary, *finding.details))


# -- calls ------------------------------------------------------------------------------------------------------------


def test_a_call_a_moment_ago_is_well() -> None:
    """And says when."""
    finding = check_calls(evidence())
    assert (finding.verdict, finding.summary, finding.remedy) == (OK, "last called 1m ago", None)


def test_workers_placed_without_a_call_are_a_problem() -> None:
    """Three workers got a node since the last call, an hour ago."""
    workers = tuple(placed(5, f"worker-{number}") for number in range(3))
    finding = check_calls(evidence(webhook=called(minutes_ago(60)), workers=workers))
    assert finding.verdict is PROBLEM
    assert "3 workers got a node since" in finding.summary
    assert finding.remedy is not None


def test_one_worker_placed_without_a_call_may_have_had_one_feasible_node() -> None:
    """The scheduler asks nobody then: a warning that says so."""
    finding = check_calls(evidence(webhook=called(minutes_ago(60)), workers=(placed(5),)))
    assert finding.verdict is WARNING
    assert "one node only" in finding.details[0]


def test_three_workers_placed_since_the_last_call_are_told_at_once() -> None:
    """A wrong port is not a matter of a quarter of an hour: five minutes of silence, and four workers placed since."""
    workers = tuple(placed(4, f"worker-{number}") for number in range(4))
    found = check_calls(evidence(webhook=called(minutes_ago(5)), workers=workers))
    assert (found.verdict, found.summary) == (WARNING, "last called 5m ago, and 4 workers got a node since")
    few = check_calls(evidence(webhook=called(minutes_ago(5)), workers=workers[:2]))
    assert (few.verdict, few.summary) == (OK, "last called 5m ago; 2 workers got a node since")
    one = check_calls(evidence(webhook=called(minutes_ago(5)), workers=workers, nodes=(node("a"),)))
    assert one.verdict is OK


def test_workers_whose_call_is_not_written_yet_count_for_nothing() -> None:
    """The record is up to 75 s old, and a worker gets its node seconds after its call."""
    for minutes, last in ((1.4, 5.0), (4.9, 5.0)):
        workers = tuple(placed(minutes, f"worker-{number}") for number in range(4))
        found = check_calls(evidence(webhook=called(minutes_ago(last)), workers=workers))
        assert (found.verdict, found.summary) == (OK, "last called 5m ago")


def test_a_lease_that_is_late_is_a_warning() -> None:
    """It is written each minute, so that after two and a half nobody writes it, whatever it says of a last call."""
    assert check_calls(evidence(webhook=called(minutes_ago(3), written=minutes_ago(2.4)))).verdict is OK
    late = check_calls(evidence(webhook=called(minutes_ago(3), written=minutes_ago(3))))
    assert (late.verdict, "none runs" in late.summary) == (WARNING, True)


def test_a_certificate_that_has_expired_is_the_reason() -> None:
    """Whatever else the last handshake says; and one that expires soon is a warning before anything fails."""
    refusal = Refusal(minutes_ago(3), HandshakeFailure.CERTIFICATE_REFUSED)
    expired = check_calls(evidence(webhook=called(None, refusal=refusal, ends=minutes_ago(27 * 1440))))
    assert (expired.verdict, "certificate expired 27d ago" in expired.summary) == (PROBLEM, True)
    soon = check_calls(evidence(webhook=called(minutes_ago(1), ends=minutes_ago(-13 * 1440))))
    assert (soon.verdict, "certificate expires in 13d" in soon.summary) == (WARNING, True)
    assert check_calls(evidence(webhook=called(minutes_ago(1), ends=minutes_ago(-15 * 1440)))).verdict is OK


def test_never_called_although_a_worker_was_placed_is_a_problem() -> None:
    """One is enough then, and at once: nothing says that it was ever otherwise, and a first call is written at once."""
    assert check_calls(evidence(webhook=called(None), workers=(placed(5),))).verdict is PROBLEM
    assert check_calls(evidence(webhook=called(None), workers=(placed(0.1),))).verdict is PROBLEM


@pytest.mark.parametrize(
    ("failure", "remedy"),
    [
        (HandshakeFailure.CERTIFICATE_REFUSED, "caFile"),
        (HandshakeFailure.NO_CLIENT_CERTIFICATE, "certFile"),
        (HandshakeFailure.CLIENT_CERTIFICATE_REFUSED, "--client-ca-file"),
        (HandshakeFailure.PLAIN_HTTP, "enableHTTPS"),
    ],
)
def test_a_handshake_that_failed_after_the_last_call_is_the_reason(failure: HandshakeFailure, remedy: str) -> None:
    """A problem where nobody ever got through, and where workers were placed since; with its own remedy."""
    finding = check_calls(evidence(webhook=called(None, refusal=Refusal(minutes_ago(3), failure)), workers=()))
    assert finding.verdict is PROBLEM
    assert finding.summary == f"never called; 3m ago a TLS handshake failed: {failure.meaning}"
    assert finding.remedy is not None
    assert remedy in finding.remedy
    later = called(minutes_ago(10), refusal=Refusal(minutes_ago(3), failure))
    assert check_calls(evidence(webhook=later, workers=(placed(5),))).verdict is PROBLEM


def test_a_handshake_that_failed_while_nothing_was_placed_is_a_warning() -> None:
    """It may have been anybody, and nothing has been missed yet."""
    refusal = Refusal(minutes_ago(3), HandshakeFailure.CERTIFICATE_REFUSED)
    assert check_calls(evidence(webhook=called(minutes_ago(5), refusal=refusal), workers=())).verdict is WARNING


def test_a_handshake_that_failed_before_the_last_call_is_over() -> None:
    """Somebody got through since."""
    refusal = Refusal(minutes_ago(3), HandshakeFailure.CERTIFICATE_REFUSED)
    assert check_calls(evidence(webhook=called(minutes_ago(1), refusal=refusal))).verdict is OK


def test_noise_on_the_port_is_no_finding() -> None:
    """A port scan speaks no TLS; the metric counts it."""
    refusal = Refusal(minutes_ago(1), HandshakeFailure.OTHER)
    assert check_calls(evidence(webhook=called(minutes_ago(2), refusal=refusal))).verdict is OK


def test_never_called_and_nothing_to_place_is_not_known() -> None:
    """Neither well nor bad; the remedy is to try."""
    finding = check_calls(evidence(webhook=called(None), workers=()))
    assert finding.verdict is UNKNOWN
    assert finding.remedy is not None


def test_silence_without_workers_to_place_is_well() -> None:
    """The last call came with the last worker, which got its node some seconds later."""
    assert check_calls(evidence(webhook=called(minutes_ago(35.4)), workers=(placed(35),))).verdict is OK


@pytest.mark.parametrize(
    "workers",
    [
        (placed(5, scheduler="default-scheduler"),),
        (facts(worker(scheduler="warmnode", owner="DaemonSet.apps"), scheduled=minutes_ago(5)),),
        (facts(worker(scheduler="warmnode", node=None), scheduled=None),),
    ],
)
def test_workers_that_bring_no_call_do_not_count(workers: Any) -> None:
    """Of another scheduler, of a DaemonSet, without a node yet."""
    assert check_calls(evidence(webhook=called(minutes_ago(60)), workers=workers)).verdict is OK


def test_with_one_schedulable_node_silence_is_well() -> None:
    """A cordoned node does not count."""
    nodes = (node("node-a"), node("node-b", unschedulable=True))
    workers = tuple(placed(5, f"worker-{number}") for number in range(3))
    found = check_calls(evidence(webhook=called(minutes_ago(60)), workers=workers, nodes=nodes))
    assert found.verdict is OK


def test_a_lease_that_nobody_writes_is_a_problem() -> None:
    """No replica runs, whatever the last call was."""
    finding = check_calls(evidence(webhook=called(minutes_ago(1), written=minutes_ago(6))))
    assert finding.verdict is PROBLEM
    assert "for 6m" in finding.summary


def test_without_a_lease_serve_is_not_installed_or_may_not_write() -> None:
    """Which of the two, its pods tell; ``run`` serves too."""
    assert check_calls(evidence(webhook=None)).verdict is UNKNOWN
    for role, verdict in (("serve", PROBLEM), ("run", PROBLEM), ("reap", UNKNOWN)):
        program = Program(namespace="warmnode", name="a", program="warmnode", arguments=(role,))
        assert check_calls(evidence(webhook=None, programs=(program,))).verdict is verdict


def test_leases_that_may_not_be_read_are_not_known() -> None:
    """With the reason."""
    finding = check_calls(evidence(webhook=None, unread={Kind.LEASES: "forbidden"}))
    assert (finding.verdict, finding.summary) == (UNKNOWN, "leases were not read (forbidden)")


def test_pods_that_may_not_be_read_leave_a_silence_open() -> None:
    """Nobody can say whether something was to be placed."""
    finding = check_calls(evidence(webhook=called(minutes_ago(60)), workers=(), unread={Kind.PODS: "forbidden"}))
    assert finding.verdict is UNKNOWN


def unseen(minutes: float, name: str = "worker-1", **given: Any) -> Any:
    """A worker that no scheduler has looked at."""
    pod = worker(name, **({"scheduler": "warmnode", "node": None, "created": minutes_ago(minutes)} | given))
    return facts(pod, scheduled=None, is_seen=False)


def test_workers_that_nobody_looks_at_are_a_problem() -> None:
    """Whatever called once does not run now; whether serve runs, or its Lease may be read, does not matter."""
    waiting = tuple(unseen(120, f"worker-{number}") for number in range(8))
    finding = check_calls(evidence(webhook=called(minutes_ago(180)), workers=(placed(240), *waiting)))
    assert finding.verdict is PROBLEM
    assert "8 workers of warmnode that no scheduler has looked at, for up to 2h" in finding.summary
    assert finding.remedy is not None
    assert check_calls(evidence(webhook=None, workers=waiting)).verdict is PROBLEM
    assert check_calls(evidence(webhook=None, workers=waiting, unread={Kind.LEASES: "forbidden"})).verdict is PROBLEM


def test_a_scheduler_that_calls_and_does_not_keep_up_deserves_a_look() -> None:
    """It runs, and has work for minutes."""
    assert check_calls(evidence(webhook=called(minutes_ago(1)), workers=(unseen(10),))).verdict is WARNING


@pytest.mark.parametrize(
    "worker_facts",
    [
        unseen(1),
        unseen(120, gated=True),
        unseen(120, terminating=True),
        facts(worker(scheduler="warmnode", node=None, created=minutes_ago(120)), scheduled=None),
    ],
)
def test_workers_that_wait_for_something_else_are_no_finding_here(worker_facts: Any) -> None:
    """Just made, gated, going; or a scheduler looked at it and says why it has no node."""
    assert check_calls(evidence(workers=(worker_facts,))).verdict is OK


def test_a_node_that_is_leaving_by_its_node_claim_is_not_schedulable() -> None:
    """Before its taint shows: the same rule as everywhere."""
    nodes = (node("node-a"), node("node-b", node_claim="uid-of-claim-a"))
    workers = tuple(placed(5, f"worker-{number}") for number in range(3))
    going = {"uid-of-claim-a": node_claim("claim-a", deleting=True)}
    silent = evidence(webhook=called(minutes_ago(60)), workers=workers, nodes=nodes)
    assert check_calls(silent).verdict is PROBLEM
    assert check_calls(replace(silent, node_claims=going)).verdict is OK


# -- the extender -----------------------------------------------------------------------------------------------------


def test_the_shipped_configuration_is_well() -> None:
    """All four checks."""
    well = evidence()
    assert {check(well).verdict for check in (check_extender, check_weight, check_sample, check_names)} == {OK}


def test_a_configuration_without_an_extender_is_a_problem() -> None:
    """Nobody asks."""
    silent = extender(prioritizeVerb="")
    finding = check_extender(evidence(scheduler_configs=(config(silent),)))
    assert finding.verdict is PROBLEM
    assert "no extender has a prioritizeVerb" in finding.summary


@pytest.mark.parametrize(
    ("change", "verdict", "said"),
    [
        ({"prioritizeVerb": "score"}, PROBLEM, "warmnode answers /prioritize"),
        ({"urlPrefix": "http://127.0.0.1:8888/api"}, PROBLEM, "posts to /api/prioritize"),
        ({"prioritizeVerb": "/prioritize"}, PROBLEM, "posts to //prioritize"),
        ({"prioritizeVerb": "prioritize/"}, PROBLEM, "posts to /prioritize/"),
        ({"preemptVerb": "preempt/"}, WARNING, "posts to /preempt/"),
        ({"urlPrefix": "https://127.0.0.1:8888", "tlsConfig": {"insecure": True}}, WARNING, "insecure is true"),
        (
            {"urlPrefix": "https://127.0.0.1:8888", "tlsConfig": {"insecure": True, "caFile": "/ca"}},
            PROBLEM,
            "does not start",
        ),
        ({"urlPrefix": "https://127.0.0.1:8888", "enableHTTPS": True}, WARNING, "verifies nothing"),
        ({"enableHTTPS": True, "tlsConfig": CA}, WARNING, "speaks plain HTTP"),
        ({"filterVerb": "filter"}, PROBLEM, "filterVerb is set"),
        ({"bindVerb": "bind"}, PROBLEM, "bindVerb is set"),
        ({"preemptVerb": ""}, WARNING, "no preemptVerb"),
        ({"ignorable": False}, WARNING, "ignorable is not true"),
        ({"nodeCacheCapable": False}, WARNING, "nodeCacheCapable"),
        ({"httpTimeout": None}, WARNING, "httpTimeout is 5s, the default"),
        ({"httpTimeout": "30s"}, WARNING, "httpTimeout is 30s"),
        (
            {"managedResources": [{"name": "warmnode.dev/worker"}]},
            PROBLEM,
            "1 worker without resource warmnode.dev/worker",
        ),
    ],
)
def test_each_fault_of_an_extender_is_named(change: Any, verdict: Verdict, said: str) -> None:
    """With the verdict that it deserves."""
    finding = check_extender(evidence(scheduler_configs=(config(extender(**change)),)))
    assert finding.verdict is verdict
    assert said in text(finding)
    assert finding.remedy is not None


@pytest.mark.parametrize(
    "given", [{"enableHTTPS": True, "tlsConfig": CA}, {"tlsConfig": CA}, {}, {"urlPrefix": "https://127.0.0.1:8888/"}]
)
def test_a_certificate_that_is_verified_is_well(given: Any) -> None:
    """By a CA of its own, or by the system's; and a slash at the end of urlPrefix is cut."""
    ours = extender(**(HTTPS | given))
    assert check_extender(evidence(scheduler_configs=(config(ours),))).verdict is OK


def version(api_version: str, runs: tuple[int, int] | None) -> Finding:
    shipped = config(apiVersion=api_version)
    return check_extender(evidence(scheduler_configs=(shipped,), scheduler_version=runs))


@pytest.mark.parametrize(
    ("api_version", "runs", "verdict"),
    [
        ("v1", (1, 37), OK),
        ("v1", (1, 25), OK),
        ("v1", (1, 24), PROBLEM),
        ("v1", None, OK),
        ("v1beta3", (1, 28), OK),
        ("v1beta3", (1, 29), PROBLEM),
        ("v1beta3", None, WARNING),
        ("v1beta2", (1, 28), PROBLEM),
        ("v1beta2", (1, 27), OK),
        ("v1alpha1", None, PROBLEM),
    ],
)
def test_an_api_version_is_read_by_some_minors_only(api_version: str, runs: Any, verdict: Verdict) -> None:
    """A kube-scheduler that cannot read its configuration does not start."""
    assert version(f"kubescheduler.config.k8s.io/{api_version}", runs).verdict is verdict


@pytest.mark.parametrize("api_version", ["", "v1", "kubescheduler.config.k8s.io", "componentconfig/v1"])
def test_an_api_version_that_is_none_is_a_problem(api_version: str) -> None:
    """Whatever runs."""
    assert version(api_version, (1, 37)).verdict is PROBLEM


def test_a_second_scheduler_with_the_lease_of_the_first_sleeps() -> None:
    """The default of leaderElection. The cluster's own scheduler may lead by it, whatever other profiles it has."""
    shared = config(leaderElection={})
    finding = check_extender(evidence(scheduler_configs=(shared,)))
    assert finding.verdict is PROBLEM
    assert "one of the two sleeps" in text(finding)
    own = config(leaderElection={}, profiles=[profile(), profile("default-scheduler")])
    assert check_extender(evidence(scheduler_configs=(own,))).verdict is OK
    alone = config(leaderElection={"leaderElect": False})
    assert check_extender(evidence(scheduler_configs=(alone,))).verdict is OK


def test_flags_of_leader_election_go_over_the_file() -> None:
    """As kube-scheduler's ApplyLeaderElectionTo does."""
    shared = config(leaderElection={})
    flag = ("kube-scheduler", "--leader-elect-resource-name=warmnode-scheduler")
    pod = Program(namespace="warmnode", name="s", program="warmnode", arguments=flag)
    assert check_extender(evidence(scheduler_configs=(shared,), programs=(pod,))).verdict is OK


# -- whose extender it is ---------------------------------------------------------------------------------------------


def test_another_extender_is_not_taken_for_ours() -> None:
    """It has verbs that warmnode has not, and no sign of ours: nobody asks warmnode, and its weight is not ours."""
    other = extender(urlPrefix="http://127.0.0.1:9251", filterVerb="predicate", weight=1, preemptVerb="")
    looked_at = evidence(scheduler_configs=(config(other),))
    finding = check_extender(looked_at)
    assert finding.verdict is PROBLEM
    assert "http://127.0.0.1:9251 is not warmnode" in finding.summary
    assert finding.details == ()
    assert check_weight(looked_at).verdict is UNKNOWN


def test_an_extender_that_may_be_ours_is_not_called_ok() -> None:
    """Our verbs at an address that tells nothing, and no call: not known. With calls it can be no other."""
    strange = (config(extender(urlPrefix="http://scorer.infra:8888")),)
    silent = evidence(scheduler_configs=strange, webhook=called(None), workers=())
    assert check_extender(silent).verdict is check_weight(silent).verdict is UNKNOWN
    faulty = (config(extender(urlPrefix="http://scorer.infra:8888", weight=1, prioritizeVerb="/prioritize")),)
    told = replace(silent, scheduler_configs=faulty)
    assert check_extender(told).verdict is check_weight(told).verdict is PROBLEM
    two = evidence(scheduler_configs=(config(extender(urlPrefix="http://a:1"), extender(urlPrefix="http://b:1")),))
    assert check_extender(two).verdict is check_weight(two).verdict is UNKNOWN
    assert "which of http://a:1, http://b:1 is warmnode" in check_extender(two).summary
    old = evidence(scheduler_configs=strange, webhook=called(minutes_ago(60)))
    assert check_extender(old).verdict is UNKNOWN
    assert check_extender(evidence(scheduler_configs=strange)).verdict is OK


def test_the_last_worker_that_was_placed_with_a_call_tells_whose_it_is() -> None:
    """However long ago: nothing had to be placed since."""
    strange = (config(extender(urlPrefix="http://scorer.infra:9000")),)
    quiet = evidence(scheduler_configs=strange, webhook=called(minutes_ago(60)), workers=(placed(61),))
    assert check_extender(quiet).verdict is OK


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        ({"arguments": ("serve", "--webhook-listen=0.0.0.0:9000")}, OK),
        ({"arguments": ("serve", "--webhook-listen", "127.0.0.1:9000")}, OK),
        ({"arguments": ("serve",), "environment": {"WARMNODE_WEBHOOK_LISTEN": ":9000"}}, OK),
        ({"arguments": ("serve",)}, UNKNOWN),
        ({"arguments": ("serve", "--webhook-listen=0.0.0.0:9001")}, UNKNOWN),
    ],
)
def test_a_port_of_this_machine_is_ours_where_we_listen_on_it(given: Any, verdict: Verdict) -> None:
    """As the pods that run serve say."""
    serve = Program(namespace="warmnode", name="serve-1", program="warmnode", **given)
    local = (config(extender(urlPrefix="http://localhost:9000")),)
    looked_at = evidence(scheduler_configs=local, programs=(serve,), webhook=called(None), workers=())
    assert check_extender(looked_at).verdict is verdict


def test_managed_resources_that_the_workers_carry_are_well() -> None:
    """In requests or limits, whatever the quantity."""
    managed = config(extender(managedResources=[RESOURCE]))
    carrying = facts(worker(scheduler="warmnode"), resources=frozenset({"cpu", "warmnode.dev/worker"}))
    assert check_extender(evidence(scheduler_configs=(managed,), workers=(carrying,))).verdict is OK


def test_a_profile_of_another_name_is_a_problem_with_both_names() -> None:
    """The extender is no sign of ours either."""
    other = config(extender(urlPrefix="http://scorer:9000"), profiles=[profile("packer")])
    finding = check_extender(evidence(scheduler_configs=(other,)))
    assert finding.verdict is PROBLEM
    assert "no profile is called warmnode: there are packer" in finding.summary


def test_without_a_configuration_nothing_is_known_of_it() -> None:
    """And the remedy names the flag."""
    for check in (check_extender, check_weight, check_sample):
        finding = check(evidence(scheduler_configs=()))
        assert finding.verdict is UNKNOWN
        assert "--scheduler-config FILE" in (finding.remedy or "")


@pytest.mark.parametrize("url", ["http://[::1", "warmnode:8888", "127.0.0.1:8888", "ftp://warmnode", "//warmnode"])
def test_an_address_that_is_none_is_a_problem(url: str) -> None:
    """kube-scheduler posts to nothing, and ignores that."""
    finding = check_extender(evidence(scheduler_configs=(config(extender(urlPrefix=url)),)))
    assert finding.verdict is PROBLEM
    assert "is no address" in text(finding)


# -- weight and sample ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("weight", "verdict"), [(121, OK), (120, WARNING), (12, WARNING), (11, PROBLEM), (1, PROBLEM)])
def test_a_weight_is_measured_by_the_plugins(weight: int, verdict: Verdict) -> None:
    """Default plugins have twelve weights: a step of score outweighs them from 121 on, all ten steps from 12 on."""
    finding = check_weight(evidence(scheduler_configs=(config(extender(weight=weight)),)))
    assert finding.verdict is verdict
    assert "from 121 on" in finding.summary


def test_a_weight_is_measured_by_the_profile_that_the_workers_use() -> None:
    """With one plugin of weight 1 left, 11 is enough."""
    bare = config(extender(weight=11), profiles=[profile(plugins={"score": ONLY_FIT})])
    assert check_weight(evidence(scheduler_configs=(bare,))).verdict is OK


def test_of_two_profiles_the_worse_is_told_first() -> None:
    """Both call, and plugins of one outweigh age."""
    both = configured(webhook={"schedulers": ["bare", "warmnode"]})
    mixed = config(extender(weight=11), profiles=[profile("bare", plugins={"score": ONLY_FIT}), profile()])
    finding = check_weight(evidence(configuration=both, scheduler_configs=(mixed,)))
    assert finding.verdict is PROBLEM
    assert "plugins can outweigh every score" in finding.summary
    assert finding.details == ("weight 11, and age decides from 11 on (profile bare)",)


def test_another_extender_that_scores_deserves_a_look() -> None:
    """Its scores are added too."""
    both = config(extender(), extender(urlPrefix="http://other:9000", weight=500))
    finding = check_weight(evidence(scheduler_configs=(both,)))
    assert finding.verdict is WARNING
    assert "http://other:9000 with weight 500" in text(finding)


def many(count: int) -> Any:
    return tuple(node(f"node-{number}") for number in range(count))


def test_a_sample_is_a_problem_once_there_are_more_nodes_than_it_takes() -> None:
    """Up to a hundred nodes all are scored whatever is set."""
    sampling = (config(percentageOfNodesToScore=0),)
    finding = check_sample(evidence(scheduler_configs=sampling, nodes=many(500)))
    assert finding.verdict is PROBLEM
    assert "of 500 nodes the first 230 that fit are scored" in finding.summary
    assert check_sample(evidence(scheduler_configs=sampling, nodes=many(100))).verdict is WARNING


def test_a_profile_goes_over_the_global_percentage() -> None:
    """In both directions."""
    whole = config(percentageOfNodesToScore=10, profiles=[profile(percentageOfNodesToScore=100)])
    part = config(profiles=[profile(percentageOfNodesToScore=10)])
    assert check_sample(evidence(scheduler_configs=(whole,))).verdict is OK
    assert check_sample(evidence(scheduler_configs=(part,))).verdict is WARNING


def test_preemption_that_samples_is_a_warning_in_a_large_cluster() -> None:
    """In a small one it sees all candidates: at least a hundred."""
    sampling = (config(profiles=[profile(preemption_percentage=10)]),)
    assert check_sample(evidence(scheduler_configs=sampling, nodes=many(101))).verdict is WARNING
    assert check_sample(evidence(scheduler_configs=sampling, nodes=many(100))).verdict is OK


@given(st.integers(0, 20_000), st.integers(0, 120))
def test_so_many_nodes_are_scored(nodes: int, percentage: int) -> None:
    """Never more than there are, never fewer than a hundred of them, all at 100 %."""
    scored = nodes_scored(nodes, percentage)
    assert min(nodes, 100) <= scored <= nodes
    assert scored == nodes or (percentage < 100 and nodes > 100)


# -- names ------------------------------------------------------------------------------------------------------------


def test_a_scheduler_that_nobody_runs_is_named() -> None:
    """A name with a letter too few: its workers are not placed elsewhere, they wait."""
    finding = check_names(evidence(workers=(facts(), unseen(60, "w", scheduler="warmnod"))))
    assert finding.verdict is WARNING
    assert finding.details[-1] == "no scheduler has looked at 1 worker: is there one called warmnod?"


def test_workers_of_another_scheduler_are_counted_by_pool() -> None:
    """A warning while some are ours, a problem when none is."""
    ours, other = facts(), facts(worker("other", pool="ducks"))
    finding = check_names(evidence(workers=(ours, other)))
    assert finding.verdict is WARNING
    assert finding.details == ("pool ducks: 1 worker of default-scheduler",)
    assert check_names(evidence(workers=(other,))).verdict is PROBLEM


def test_every_profile_of_a_scheduler_with_our_extender_calls() -> None:
    """Extenders belong to the process, not to a profile."""
    whole = config(profiles=[profile(), profile("packed")])
    assert check_names(evidence(scheduler_configs=(whole,), workers=(facts(worker(scheduler="packed")),))).verdict is OK
