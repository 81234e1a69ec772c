"""Objects as they were found, and how they become evidence. The same for a cluster and for a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from extender.cluster.state import ClusterState
from extender.inspect.doctor.evidence import (
    AccessFacts,
    ChosenConfiguration,
    ClockReading,
    Evidence,
    KeptNode,
    Kind,
    Program,
)
from extender.inspect.doctor.scheduler_config import (
    SCHEDULER_KIND,
    SchedulerConfig,
    SchedulerConfigError,
    parse_scheduler_configs,
)
from extender.inspect.survey.karpenter_version import image_version, karpenter_facts
from extender.inspect.survey.survey_objects import LeaseFacts, PodFacts
from extender.kube.karpenter_events import EventObject, last_words
from extender.kube.objects import ConfigMapObject, ledger_from
from extender.kube.reaper_notes import brakes_from
from extender.kube.webhook_lease import webhook_record_from
from extender.model import Node, NodeClaim, NodePool, PodBudget
from extender.policy.judging import judge
from extender.policy.node_pool_budgets import PodBudgets, what_keeps
from extender.policy.recheck import Circumstances
from extender.settings import Configuration, SettingsError, load_configuration
from extender.settings.in_force import InForce
from extender.settings.models import API_VERSION

CONFIG_VARIABLE = "WARMNODE_CONFIG"


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorOptions:
    """What the command line says. None: find it out."""

    namespace: str | None = None
    configuration: Configuration | None = None
    configuration_source: str | None = None
    scheduler_configs: tuple[SchedulerConfig, ...] | None = None


@dataclass(kw_only=True)
class Material:
    """What was found; ``unread`` says why something could not be read. ConfigMaps and Leases are those of
    ``namespace``, where warmnode lives."""

    namespace: str
    config_maps: Sequence[ConfigMapObject]
    nodes: Sequence[Node] = ()
    pods: Sequence[PodFacts] = ()
    leases: Sequence[LeaseFacts] = ()
    budgets: Sequence[PodBudget] = ()
    node_pools: Sequence[NodePool] = ()
    node_claims: Sequence[NodeClaim] = ()
    events: Sequence[EventObject] = ()
    has_balanced: bool | None = None
    server_version: tuple[int, int] | None = None
    unread: dict[Kind, str]

    @property
    def programs(self) -> list[Program]:
        return [program for each in self.pods for program in each.programs]


def choose_configuration(
    asked: DoctorOptions, config_maps: Iterable[ConfigMapObject], namespace: str
) -> ChosenConfiguration:
    """Take the file that was given, else the one in a ConfigMap of warmnode's namespace, else the defaults."""
    if asked.configuration is not None:
        source = asked.configuration_source or "the file that was given"
        return ChosenConfiguration(in_force=InForce(asked.configuration), source=source)
    defaults = InForce(Configuration.default())
    for where, key, text in _texts_in(config_maps, namespace):
        if API_VERSION in text and "kind: Configuration" in text:
            try:
                return ChosenConfiguration(in_force=InForce(load_configuration(text, source=key)), source=where)
            except SettingsError as error:
                return ChosenConfiguration(in_force=defaults, source=where, problem=str(error).splitlines()[0])
    source = "the defaults: pools by the label warmnode.dev/pool"
    return ChosenConfiguration(in_force=defaults, source=source, is_default=True)


def _texts_in(config_maps: Iterable[ConfigMapObject], namespace: str) -> Iterator[tuple[str, str, str]]:
    """Give what ConfigMaps hold, by name: where it stands in words, its key, the text."""
    for config_map in sorted(config_maps, key=lambda each: each.metadata.name):
        for key, text in sorted((config_map.data or {}).items()):
            yield f"ConfigMap {namespace}/{config_map.metadata.name} ({key})", key, text


def _why_settings_are_not_known(material: Material) -> str | None:
    """Say why warmnode may go by something else than the defaults where no file was found, None where it does not."""
    for kind in (Kind.CONFIG_MAPS, Kind.PODS):
        if kind in material.unread:
            return f"{kind}: {material.unread[kind]}"
    for program in material.programs:
        has_flag = any(word.startswith("--config") for word in program.arguments)
        if program.program == "warmnode" and (has_flag or CONFIG_VARIABLE in program.environment):
            return f"{program.name} has a file that is in no ConfigMap of namespace {material.namespace}"
    return None


def _scheduler_version(programs: Iterable[Program]) -> tuple[int, int] | None:
    """Read kube-scheduler's version out of the image that runs beside warmnode, None where none does."""
    images = (each.image for each in programs if "kube-scheduler" in each.image)
    return next((version for version in map(image_version, images) if version is not None), None)


def evidence_from(
    material: Material,
    chosen: ChosenConfiguration,
    now: datetime,
    asked: DoctorOptions,
    *,
    clocks: Sequence[ClockReading] | None = None,
    access: AccessFacts | None = None,
) -> Evidence:
    """Make the evidence. The schedulers' configurations are those of ConfigMaps where none was given."""
    settings, programs = chosen.in_force.configuration, material.programs
    if chosen.is_default and (missing := _why_settings_are_not_known(material)) is not None:
        material.unread[Kind.SETTINGS] = missing
    scheduler_configs, problem = asked.scheduler_configs, None
    if scheduler_configs is None:
        scheduler_configs, problem = _scheduler_configs(material)
    leases = {lease.name: lease for lease in material.leases}
    webhook, leader = leases.get(settings.webhook.lease_name), leases.get(settings.leader_election.name)
    ledgers = (ledger_from(each) for each in material.config_maps if each.metadata.name == settings.ledger.name)
    return Evidence(
        now=now,
        namespace=material.namespace,
        configuration=chosen,
        nodes=material.nodes,
        workers=[each.worker for each in material.pods if each.worker is not None],
        programs=programs,
        ledger=next(ledgers, None),
        scheduler_configs=scheduler_configs,
        scheduler_config_problem=problem,
        scheduler_version=_scheduler_version(programs) or material.server_version,
        webhook=None if webhook is None else webhook_record_from(webhook.stored),
        leader=None if leader is None else leader.stored.record,
        brakes=None if leader is None else brakes_from(leader.stored),
        budgets=material.budgets,
        node_pools=material.node_pools,
        kept_nodes=_kept_nodes(material, now),
        node_claims={claim.uid: claim for claim in material.node_claims},
        karpenter=karpenter_facts(programs, has_balanced=material.has_balanced),
        access=access,
        clocks=clocks,
        unread=material.unread,
    )


def _scheduler_configs(material: Material) -> tuple[tuple[SchedulerConfig, ...], str | None]:
    """Read every scheduler's configuration in ConfigMaps, and say which one cannot be read."""
    found: list[SchedulerConfig] = []
    problem = None
    for where, _, text in _texts_in(material.config_maps, material.namespace):
        if SCHEDULER_KIND in text:
            try:
                found += parse_scheduler_configs(text, source=where)
            except SchedulerConfigError as error:
                problem = str(error)
    return tuple(found), problem


def _kept_nodes(material: Material, now: datetime) -> Sequence[KeptNode]:
    """Give the nodes with workers that would stay without them, and the empty ones that stay, as a pass judges them.

    Leaving nodes are left out. None is known where nodes, pods or NodePools were not read.
    """
    if not {Kind.NODES, Kind.PODS, Kind.NODE_POOLS}.isdisjoint(material.unread):
        return ()
    state = ClusterState(clock=lambda: now)
    state.replace_node_claims(material.node_claims)
    state.objects.replace_node_pools(material.node_pools)
    state.replace_nodes(material.nodes)
    state.replace_pods(each.pod for each in material.pods)
    budgets = PodBudgets(material.budgets)
    judgement = judge(state, Circumstances(rules=InForce(Configuration.default()).settings, budgets=budgets), (), now)
    found = {name: (0, kept) for name, kept in judgement.stuck.items()}
    for name in state.where.names_with_workers():
        workers = sum(not worker.terminating for worker in state.where.workers_on(name).values())
        kept = what_keeps(state, name, now, budgets)
        if workers and kept is not None and state.departure(name) is None:
            found[name] = (workers, kept)
    said = last_words(material.events)
    return [
        KeptNode(name=name, workers=workers, kept=kept, said=said.get(name))
        for name, (workers, kept) in sorted(found.items())
    ]
