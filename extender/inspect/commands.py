"""Commands that look once and end: plan, explain and doctor, from the cluster or a snapshot, and cleanup.

Puts parts together, as `app` does for the processes that stay. Starts no loop and listens nowhere. Whatever looks at a
cluster raises ConfigurationProblem where the API server cannot be addressed, and `KubeError` where it says too little.
"""

from __future__ import annotations

from extender.inspect import cleanup
from extender.inspect.doctor.diagnose import Diagnosis, diagnose
from extender.inspect.explain import Subject
from extender.inspect.live_snapshot import take_snapshot
from extender.inspect.plan import Look, look_at
from extender.inspect.reading import read_source, source_name
from extender.inspect.recall import History, recall, recall_shadow
from extender.inspect.snapshot import SnapshotError, parse_snapshot
from extender.inspect.survey.live_evidence import gather
from extender.inspect.survey.snapshot_evidence import evidence_of_snapshot
from extender.inspect.survey.to_evidence import DoctorOptions
from extender.kube.api_client import ClusterOptions, connected
from extender.kube.errors import Conflict
from extender.kube.lease import is_held
from extender.settings import Configuration
from extender.settings.in_force import InForce


async def look_live(options: ClusterOptions, configuration: Configuration, home: str | None = None) -> Look:
    """Look at the cluster once. Somebody who may not list all pods sees those of ``home``, else of the context."""
    async with connected(options) as client:
        snapshot, ledger = await take_snapshot(
            client,
            InForce(configuration).classify,
            namespace=options.namespace or client.namespace,
            ledger_name=configuration.ledger.name,
            lease_name=configuration.leader_election.name,
            home=home or client.namespace,
        )
    return look_at(snapshot, configuration, source=f"the cluster, {ledger}")


def look_at_snapshot(source: str, configuration: Configuration) -> Look:
    """Look at a snapshot file, or standard input for ``-``. Raises `SnapshotError`."""
    name = source_name(source)
    snapshot = parse_snapshot(read_source(source, SnapshotError), InForce(configuration).classify, source=name)
    return look_at(snapshot, configuration, source=name)


async def recall_live(options: ClusterOptions, subject: Subject, name: str) -> History:
    """Ask the replicas what they remember of a pod or a node, or how a pool in the shadow stands."""
    async with connected(options) as client:
        match subject:
            case Subject.POD:
                return await recall(client, pod=name)
            case Subject.NODE:
                return await recall(client, node=name)
            case Subject.POOL:
                return await recall_shadow(client, name)


async def diagnose_live(options: ClusterOptions, asked: DoctorOptions) -> Diagnosis:
    """Look at the cluster once and make every check."""
    async with connected(options) as client:
        evidence = await gather(client, asked)
    return diagnose(evidence, source=f"the cluster; warmnode's own objects in namespace {evidence.namespace}")


def diagnose_snapshot(source: str, asked: DoctorOptions) -> Diagnosis:
    """Make the checks that a snapshot allows. ``-`` is standard input. Raises `SnapshotError`."""
    name = source_name(source)
    evidence = evidence_of_snapshot(read_source(source, SnapshotError), asked, source=name)
    return diagnose(evidence, source=f"{name}; warmnode's own objects in namespace {evidence.namespace}")


async def clean_up(options: ClusterOptions, configuration: Configuration, *, dry_run: bool) -> list[str]:
    """Remove what warmnode has written and say what it was, unless a reaper leads that would write it anew."""
    election = configuration.leader_election
    async with connected(options) as client:
        namespace = options.namespace or client.namespace
        if not dry_run and await is_held(
            client, namespace=namespace, name=election.name, within=election.lease_duration
        ):
            lease = f"Lease {namespace}/{election.name}"
            raise Conflict(409, "StillRunning", f"a reaper leads still ({lease}): stop warmnode first")
        return await cleanup.clean_up(
            client,
            namespace=namespace,
            ledger=configuration.ledger.name,
            leases=(election.name, configuration.webhook.lease_name),
            dry_run=dry_run,
        )
