"""A look at a live cluster: where warmnode's own objects are looked for."""

from __future__ import annotations

import pytest

from extender.inspect.live_snapshot import take_snapshot
from extender.inspect.survey.live_evidence import DoctorOptions, gather
from extender.kube.api_client import KubeClient
from extender.kube.credentials import Access, Credential, FixedCredentials
from extender.kube.lease import LEASE_LABELS
from extender.kube.transport import Transport
from tests.builders import by_label
from tests.fakes.apiserver import FakeApiServer
from tests.fakes.store import CONFIG_MAPS, LEASES, NAMESPACES, NODES, Resource

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
        access = Access(server=server.url, namespace="default", credentials=FixedCredentials(Credential()))
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
        access = Access(server=server.url, namespace="default", credentials=FixedCredentials(Credential()))
        client = KubeClient(Transport(access, user_agent="test"), namespace="default")

        async def look() -> object:
            live = await take_snapshot(client, by_label, namespace="default", ledger_name="l", lease_name="r")
            return live.snapshot.brakes

        assert await look() == {}
        server.store.create(LEASES, "zone", {"metadata": metadata, "spec": spec})
        found = await look()
        assert isinstance(found, dict)
        assert found["ducks"].evicted == 9
        await client.close()
