"""A look at a live cluster: where warmnode's own objects are looked for, and what could not be read."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from aiohttp import web

from extender.inspect.doctor.diagnose import Check, diagnose
from extender.inspect.doctor.evidence import Evidence, Kind
from extender.inspect.doctor.findings import Verdict
from extender.inspect.live_snapshot import take_snapshot
from extender.inspect.plan_text import render_table
from extender.inspect.survey.live_evidence import gather
from extender.inspect.survey.to_evidence import DoctorOptions
from extender.kube.api_client import KubeClient
from extender.kube.credentials import Access
from extender.kube.lease import LEASE_LABELS
from extender.kube.transport import Transport
from extender.settings import Configuration
from tests.builders import by_label, plan_of
from tests.fakes.apiserver import FakeApiServer
from tests.fakes.faults import Where
from tests.fakes.store import CONFIG_MAPS, LEASES, NAMESPACES, NODES, PODS, Resource

OURS = {"app.kubernetes.io/name": "warmnode"}


@pytest.mark.parametrize(("resource", "labels"), [(LEASES, LEASE_LABELS), (CONFIG_MAPS, OURS)])
async def test_objects_of_warmnode_are_found_wherever_they_are(resource: Resource, labels: dict[str, str]) -> None:
    """With everything down: by their labels, and not in the namespace of the kubeconfig's context."""
    async with FakeApiServer() as server:
        for namespace in ("zone", "another"):
            server.store.create(NAMESPACES, "", {"metadata": {"name": namespace}})
        server.store.create(NODES, "", {"metadata": {"name": "node-a"}})
        server.store.create(resource, "another", {"metadata": {"name": "theirs"}})
        server.store.create(resource, "zone", {"metadata": {"name": "ours", "labels": dict(labels)}})
        access = Access(server=server.url, namespace="default")
        client = KubeClient(Transport(access, user_agent="test"), namespace="default")
        assert (await gather(client, DoctorOptions())).namespace == "zone"
        await client.close()


async def test_plan_finds_the_pauses_wherever_the_reaper_is_installed() -> None:
    """By the labels of its Lease, with a name and a namespace that the command line does not say."""
    async with FakeApiServer() as server:
        server.store.create(NAMESPACES, "", {"metadata": {"name": "zone"}})
        server.store.create(NODES, "", {"metadata": {"name": "node-a"}})
        note = '{"ducks": {"evicted": 9, "since": "2026-11-01T12:00:00Z", "pausedUntil": "2026-11-01T13:00:00Z"}}'
        metadata = {"name": "my-reaper", "labels": LEASE_LABELS, "annotations": {"warmnode.dev/brakes": note}}
        spec = {"holderIdentity": "reap_1", "renewTime": "2026-11-01T12:00:00.000000Z"}
        access = Access(server=server.url, namespace="default")
        client = KubeClient(Transport(access, user_agent="test"), namespace="default")

        async def look() -> object:
            snapshot, _ = await take_snapshot(
                client, by_label, namespace="default", ledger_name="l", lease_name="r", home="default"
            )
            return snapshot.brakes

        assert await look() == {}
        server.store.create(LEASES, "zone", {"metadata": metadata, "spec": spec})
        found = await look()
        assert isinstance(found, dict)
        assert found["ducks"].evicted == 9
        await client.close()


async def test_plan_shows_one_namespace_to_somebody_who_may_not_list_more() -> None:
    """Its pods, no nodes, and what is not known for that. Whoever may list all sees all, whatever the namespace."""
    for is_allowed, expected in ((True, ({"duck", "goose"}, None, False)), (False, ({"duck"}, "mine", True))):

        async def guarded(request: web.Request, is_allowed: bool = is_allowed) -> web.StreamResponse | None:
            if is_allowed or request.path not in ("/api/v1/nodes", "/api/v1/pods"):
                return None
            return web.Response(status=403, body=b'{"kind": "Status", "message": "not yours", "reason": "Forbidden"}')

        async with FakeApiServer() as server:
            for namespace, name in (("mine", "duck"), ("theirs", "goose")):
                server.store.create(NAMESPACES, "", {"metadata": {"name": namespace}})
                labels = {"warmnode.dev/pool": "ducks"}
                server.store.create(PODS, namespace, {"metadata": {"name": name, "labels": labels}})
            server.fail(Where.ANY, *[guarded] * REQUESTS)
            access = Access(server=server.url, namespace="default")
            client = KubeClient(Transport(access, user_agent="test"), namespace="default")
            snapshot, _ = await take_snapshot(
                client, by_label, namespace="default", ledger_name="l", lease_name="r", home="mine"
            )
            await client.close()
        assert ({pod.name for pod in snapshot.pods}, snapshot.only, "Node" in snapshot.unread) == expected
        page = render_table(plan_of(snapshot, Configuration.default(), source="the test"), width=200)
        assert ("not known: the order of nodes" in page) is not is_allowed
        assert ("not known: workers of other namespaces than mine" in page) is not is_allowed
        assert "RANK" not in page


REQUESTS = 50
"""More than one look makes."""
KARPENTER_CHECKS = (Check.KARPENTER_GENERATION, Check.KARPENTER_EXPIRY, Check.KARPENTER_NODE_POOLS)


async def look_with(answers: Mapping[str, tuple[int, object]]) -> Evidence:
    """Look at a cluster with a node, where some paths are answered so."""

    async def scripted(request: web.Request) -> web.StreamResponse | None:
        if request.path not in answers:
            return None
        code, body = answers[request.path]
        return web.Response(status=code, body=json.dumps(body).encode(), content_type="application/json")

    async with FakeApiServer() as server:
        server.store.create(NODES, "", {"metadata": {"name": "node-a"}})
        server.fail(Where.ANY, *[scripted] * REQUESTS)
        access = Access(server=server.url, namespace="default")
        client = KubeClient(Transport(access, user_agent="test"), namespace="default")
        try:
            return await gather(client, DoctorOptions())
        finally:
            await client.close()


def verdicts(evidence: Evidence) -> dict[Check, Verdict]:
    return {check: finding.verdict for check, finding in diagnose(evidence, source="f").findings.items()}


EMPTY: dict[str, object] = {"items": [], "metadata": {}}
ALL_EMPTY: dict[str, tuple[int, object]] = {
    "/apis/policy/v1/poddisruptionbudgets": (200, EMPTY),
    "/apis/karpenter.sh/v1/nodepools": (200, EMPTY),
    "/apis/karpenter.sh/v1/nodeclaims": (200, EMPTY),
    "/version": (200, {"major": "1", "minor": "36+"}),
}
KINDS = {
    "/api/v1/pods": Kind.PODS,
    "/api/v1/namespaces/default/configmaps": Kind.CONFIG_MAPS,
    "/apis/coordination.k8s.io/v1/namespaces/default/leases": Kind.LEASES,
    "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases": Kind.NODE_LEASES,
    "/apis/policy/v1/poddisruptionbudgets": Kind.DISRUPTION_BUDGETS,
    "/apis/karpenter.sh/v1/nodepools": Kind.NODE_POOLS,
    "/apis/karpenter.sh/v1/nodeclaims": Kind.NODE_CLAIMS,
    "/api/v1/nodes": Kind.NODES,
}


@pytest.mark.parametrize("path", KINDS)
@pytest.mark.parametrize("answer", [(403, {"kind": "Status"}), (502, "a proxy's"), (200, "a proxy's")])
async def test_what_may_not_be_read_makes_nothing_ok(path: str, answer: tuple[int, object]) -> None:
    """The kind is named, and each check that was not ok before is not ok now."""
    whole = verdicts(await look_with(ALL_EMPTY))
    part = await look_with({**ALL_EMPTY, path: answer})
    assert KINDS[path] in part.unread
    assert {check for check, verdict in verdicts(part).items() if verdict is Verdict.OK} <= {
        check for check, verdict in whole.items() if verdict is Verdict.OK
    }


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ((404, {}), Verdict.OK),
        ((200, {"versions": [{"groupVersion": "karpenter.sh/v1beta1"}]}), Verdict.UNKNOWN),
        ((200, {"versions": []}), Verdict.UNKNOWN),
        ((403, {}), Verdict.UNKNOWN),
        ((200, []), Verdict.UNKNOWN),
    ],
)
async def test_karpenter_is_absent_only_where_no_version_of_it_is_served(
    answer: tuple[int, object], verdict: Verdict
) -> None:
    """NodePools of v1beta1 are there and not read; an answer that is none says nothing."""
    gone: dict[str, tuple[int, object]] = {path: (404, {}) for path in KINDS if "karpenter.sh" in path}
    found = verdicts(await look_with({**ALL_EMPTY, **gone, "/apis/karpenter.sh": answer}))
    assert {found[check] for check in KARPENTER_CHECKS} == {verdict}


@pytest.mark.parametrize(
    ("answer", "version"), [((200, {"major": "1", "minor": "36+"}), (1, 36)), ((403, {}), None), ((200, []), None)]
)
async def test_the_schedulers_minor_is_that_of_the_api_server(
    answer: tuple[int, object], version: tuple[int, int] | None
) -> None:
    """Where no scheduler is seen."""
    assert (await look_with({**ALL_EMPTY, "/version": answer})).scheduler_version == version
