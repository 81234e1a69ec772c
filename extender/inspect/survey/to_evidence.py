"""Objects as they were found, and how they become evidence. The same for a cluster and for a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from extender.inspect.doctor.evidence import (
    AccessFacts,
    ClockReading,
    ConfigurationFacts,
    Evidence,
    KeptNode,
    Kind,
    PoolFacts,
    Program,
    SchedulerConfig,
)
from extender.inspect.survey.karpenter_version import image_version, karpenter_facts
from extender.inspect.survey.scheduler_config import SCHEDULER_KIND, SchedulerConfigError, parse_scheduler_configs
from extender.inspect.survey.survey_objects import LeaseFacts, PodDisruptionBudgetObject, PodFacts, budget_facts
from extender.kube.karpenter_events import EventObject
from extender.kube.ledger_store import COMPONENT_LABEL, LEDGER_LABELS
from extender.kube.objects import ConfigMapObject, ledger_from
from extender.model import Ledger, Node, NodeClaim, NodePool, PlacementMode
from extender.settings import Configuration, SettingsError, load_configuration
from extender.settings.in_force import InForce
from extender.settings.models import API_VERSION

CONFIG_VARIABLE = "WARMNODE_CONFIG"


@dataclass(kw_only=True)
class Material:
    """What was found. None: it could not be read, and ``unread`` says why. ConfigMaps and Leases are those of
    ``namespace``, where warmnode lives."""

    namespace: str
    nodes: list[Node] | None = None
    pods: list[PodFacts] | None = None
    config_maps: list[ConfigMapObject] | None = None
    leases: list[LeaseFacts] | None = None
    node_leases: list[LeaseFacts] | None = None
    budgets: list[PodDisruptionBudgetObject] | None = None
    node_pools: list[NodePool] | None = None
    node_claims: list[NodeClaim] | None = None
    events: list[EventObject] | None = None
    has_balanced: bool | None = None
    server_version: tuple[int, int] | None = None
    unread: dict[Kind, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The configuration that the checks go by, and what is to be said about it. ``is_default``: none was found."""

    configuration: Configuration
    facts: ConfigurationFacts
    is_default: bool = False


def choose_configuration(
    given: Configuration | None, source: str | None, config_maps: Iterable[ConfigMapObject], namespace: str
) -> Chosen:
    """Take the file that was given, else the one in a ConfigMap of warmnode's namespace, else the defaults."""
    if given is not None:
        return _chosen(given, source or "the file that was given")
    for config_map in sorted(config_maps, key=lambda each: each.metadata.name):
        for key, text in sorted((config_map.data or {}).items()):
            if API_VERSION in text and "kind: Configuration" in text:
                where = f"ConfigMap {namespace}/{config_map.metadata.name} ({key})"
                try:
                    return _chosen(load_configuration(text, source=key), where)
                except SettingsError as error:
                    problem = str(error).splitlines()[0]
                    facts = ConfigurationFacts(source=where, problem=problem)
                    return Chosen(configuration=Configuration.default(), facts=facts)
    return _chosen(Configuration.default(), "the defaults: pools by the label warmnode.dev/pool", is_default=True)


def _chosen(configuration: Configuration, source: str, *, is_default: bool = False) -> Chosen:
    facts = ConfigurationFacts(source=source, dry_run=configuration.dry_run)
    return Chosen(configuration=configuration, facts=facts, is_default=is_default)


def _why_settings_are_not_known(material: Material, chosen: Chosen) -> str | None:
    """Say why warmnode may go by something else than the defaults, None where it does not, or a file was found."""
    if not chosen.is_default:
        return None
    for kind in (Kind.CONFIG_MAPS, Kind.PODS):
        if kind in material.unread:
            return f"{kind}: {material.unread[kind]}"
    for program in (program for each in material.pods or () for program in each.programs):
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
    chosen: Chosen,
    now: datetime,
    *,
    scheduler_configs: tuple[SchedulerConfig, ...] | None = None,
    clocks: tuple[ClockReading, ...] | None = None,
    access: AccessFacts | None = None,
    kept_nodes: tuple[KeptNode, ...] | None = None,
) -> Evidence:
    """Make the evidence. ``scheduler_configs`` None: those of the ConfigMaps."""
    configuration = chosen.configuration
    problem: str | None = None
    if scheduler_configs is None:
        scheduler_configs, problem = scheduler_configs_in(material.config_maps or (), material.namespace)
    pods = material.pods
    if (missing := _why_settings_are_not_known(material, chosen)) is not None:
        material.unread[Kind.SETTINGS] = missing
    workers = None if pods is None else tuple(each.worker for each in pods if each.worker is not None)
    programs = None if pods is None else tuple(program for each in pods for program in each.programs)
    leases = {lease.name: lease for lease in material.leases or ()}
    webhook = leases.get(configuration.webhook.lease_name)
    leader = leases.get(configuration.leader_election.name)
    return Evidence(
        now=now,
        namespace=material.namespace,
        age=configuration.age,
        schedulers=frozenset(configuration.webhook.schedulers),
        ledger_name=configuration.ledger.name,
        webhook_lease=configuration.webhook.lease_name,
        leader_lease=configuration.leader_election.name,
        configuration=chosen.facts,
        nodes=None if material.nodes is None else tuple(material.nodes),
        workers=workers,
        programs=programs,
        pools=_pool_facts(configuration, {worker.pod.pool or "" for worker in workers or ()}),
        ledger=_ledger(material.config_maps or (), configuration.ledger.name),
        scheduler_configs=scheduler_configs,
        scheduler_config_problem=problem,
        scheduler_version=_scheduler_version(programs or ()) or material.server_version,
        webhook=None if webhook is None else webhook.webhook(),
        leader=None if leader is None else leader.leader(),
        budgets=None if material.budgets is None else tuple(map(budget_facts, material.budgets)),
        node_pools=None if material.node_pools is None else tuple(material.node_pools),
        kept_nodes=kept_nodes,
        node_claims={claim.uid: claim for claim in material.node_claims or ()},
        karpenter=karpenter_facts(programs or (), has_balanced=material.has_balanced),
        access=access,
        clocks=clocks,
        unread=material.unread,
    )


def clocks_of(material: Material, configuration: Configuration) -> list[ClockReading]:
    """Read the clocks of those who renew Leases."""
    names = {configuration.webhook.lease_name: "warmnode serve", configuration.leader_election.name: "warmnode reap"}
    found = [lease.clock(names[lease.name]) for lease in material.leases or () if lease.name in names]
    found += [lease.clock(f"node {lease.name}") for lease in material.node_leases or ()]
    return [reading for reading in found if reading is not None]


def scheduler_configs_in(
    config_maps: Iterable[ConfigMapObject], namespace: str
) -> tuple[tuple[SchedulerConfig, ...], str | None]:
    """Read every scheduler's configuration in ConfigMaps, and say which one cannot be read."""
    found: list[SchedulerConfig] = []
    problem = None
    for config_map in config_maps:
        for key, text in (config_map.data or {}).items():
            if SCHEDULER_KIND in text:
                try:
                    found += parse_scheduler_configs(
                        text, source=f"ConfigMap {namespace}/{config_map.metadata.name} ({key})"
                    )
                except SchedulerConfigError as error:
                    problem = str(error)
    return tuple(found), problem


def _ledger(config_maps: Iterable[ConfigMapObject], name: str) -> Ledger | None:
    return next((ledger_from(each) for each in config_maps if each.metadata.name == name), None)


def is_ledger(config_map: ConfigMapObject) -> bool:
    """True for a ConfigMap that carries the ledger's labels."""
    return (config_map.metadata.labels or {}).get(COMPONENT_LABEL) == LEDGER_LABELS[COMPONENT_LABEL]


def _pool_facts(configuration: Configuration, names: Iterable[str]) -> Mapping[str, PoolFacts]:
    in_force = InForce(configuration)
    found = {}
    for name in names:
        settings = in_force.settings(name)
        found[name] = PoolFacts(
            reap_enabled=settings.reap.enabled,
            floor=settings.reap.floor,
            deletion_costs=settings.deletion_cost.enabled,
            dry_run=settings.dry_run,
            shadow=settings.placement is PlacementMode.SHADOW,
            pending_for=settings.reap.pending_for,
        )
    return found
