"""Objects as they were found, and how they become evidence. The same for a cluster and for a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from extender.inspect.doctor.evidence import (
    AccessFacts,
    ChosenConfiguration,
    ClockReading,
    Evidence,
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
from extender.inspect.survey.kept_nodes import kept_nodes_of
from extender.inspect.survey.material import DoctorOptions, Material
from extender.kube.objects import ConfigMapObject, ledger_from
from extender.kube.reaper_notes import brakes_from
from extender.kube.webhook_lease import stored_record_from
from extender.settings import Configuration, SettingsError, load_configuration
from extender.settings.in_force import InForce
from extender.settings.models import API_VERSION

CONFIG_VARIABLE = "WARMNODE_CONFIG"


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
        webhook=None if webhook is None else stored_record_from(webhook.stored).record,
        leader=None if leader is None else leader.stored.record,
        brakes=None if leader is None else brakes_from(leader.stored),
        budgets=material.budgets,
        node_pools=material.node_pools,
        kept_nodes=kept_nodes_of(material, now),
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
