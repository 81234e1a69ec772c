"""Reads a KubeSchedulerConfiguration, wherever people keep it: its file, a ConfigMap, or what kubectl prints of one.

Owns what counts as one, and kube-scheduler's defaults for what it leaves out. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec
import yaml

from extender.inspect.doctor.evidence import Extender, Profile, SchedulerConfig
from extender.inspect.text import printable
from extender.kube.objects import parse_go_duration

SCHEDULER_KIND = "KubeSchedulerConfiguration"
DEFAULT_SCHEDULER = "default-scheduler"
DEFAULT_SCORE_WEIGHTS = {
    "TaintToleration": 3,
    "NodeAffinity": 2,
    "PodTopologySpread": 2,
    "InterPodAffinity": 2,
    "NodeResourcesFit": 1,
    "NodeResourcesBalancedAllocation": 1,
    "ImageLocality": 1,
}
"""pkg/scheduler/apis/config/v1/default_plugins.go."""
DEFAULT_PREEMPTION_PERCENTAGE = 10
"""DefaultPreemptionArgs.minCandidateNodesPercentage."""

_REMEDY = "give the file that kube-scheduler's flag --config names, or the ConfigMap that holds it"


class SchedulerConfigError(Exception):
    """No scheduler's configuration could be read. The message is one line with the remedy."""

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(printable(f"{source}: {' '.join(problem.split())[:300]}; {_REMEDY}"))


class _PluginRef(msgspec.Struct):
    name: str = ""
    weight: int | None = None


class _PluginSet(msgspec.Struct):
    enabled: list[_PluginRef] | None = None
    disabled: list[_PluginRef] | None = None


class _Plugins(msgspec.Struct, rename="camel"):
    multi_point: _PluginSet | None = None
    score: _PluginSet | None = None


class _PluginConfig(msgspec.Struct):
    name: str = ""
    args: dict[str, object] | None = None


class _Profile(msgspec.Struct, rename="camel"):
    scheduler_name: str = DEFAULT_SCHEDULER
    percentage_of_nodes_to_score: int | None = None
    plugins: _Plugins | None = None
    plugin_config: list[_PluginConfig] | None = None


class _ManagedResource(msgspec.Struct):
    name: str = ""


class _TLSConfig(msgspec.Struct, rename="camel"):
    insecure: bool | None = None
    ca_file: str | None = None
    ca_data: str | None = None


class _Extender(msgspec.Struct, rename="camel"):
    url_prefix: str = ""
    prioritize_verb: str | None = None
    preempt_verb: str | None = None
    filter_verb: str | None = None
    bind_verb: str | None = None
    weight: int | None = None
    http_timeout: str | None = None
    enable_https: bool | None = msgspec.field(name="enableHTTPS", default=None)
    tls_config: _TLSConfig | None = None
    node_cache_capable: bool | None = None
    ignorable: bool | None = None
    managed_resources: list[_ManagedResource] | None = None


class _LeaderElection(msgspec.Struct, rename="camel"):
    leader_elect: bool | None = None
    resource_name: str | None = None
    resource_namespace: str | None = None


class _Configuration(msgspec.Struct, rename="camel"):
    api_version: str = ""
    leader_election: _LeaderElection | None = None
    profiles: list[_Profile] | None = None
    extenders: list[_Extender] | None = None
    percentage_of_nodes_to_score: int | None = None


def parse_scheduler_configs(text: str, *, source: str) -> list[SchedulerConfig]:
    """Read every configuration in a text: one itself, several documents, ConfigMaps, or a List of them.

    Raises:
        SchedulerConfigError: it is no YAML, there is none in it, or one has a value of the wrong type.
    """
    found: list[SchedulerConfig] = []
    kinds: set[str] = set()
    try:
        for document in yaml.safe_load_all(text):
            for where, tree in _configurations(document, source, kinds):
                found.append(_config_from(tree, where))
    except yaml.YAMLError as error:
        raise SchedulerConfigError(source, f"it is not YAML: {error}") from error
    except (msgspec.ValidationError, RecursionError) as error:
        raise SchedulerConfigError(source, f"it cannot be read: {error}") from error
    if not found:
        held = ", ".join(sorted(kinds)) or "nothing that has a kind"
        raise SchedulerConfigError(source, f"there is no {SCHEDULER_KIND} in it (it holds {held})")
    return found


def _configurations(tree: object, source: str, kinds: set[str]) -> Iterator[tuple[str, Mapping[object, object]]]:
    if not isinstance(tree, dict):
        return
    kind = tree.get("kind")
    kinds.add(str(kind)) if kind else None
    if kind == SCHEDULER_KIND:
        yield source, tree
    elif kind == "ConfigMap" and isinstance(data := tree.get("data"), dict):
        for key, text in data.items():
            if isinstance(text, str) and SCHEDULER_KIND in text:
                for document in yaml.safe_load_all(text):
                    yield from _configurations(document, f"{source} ({key})", kinds)
    elif isinstance(items := tree.get("items"), list):
        for item in items:
            yield from _configurations(item, source, kinds)


def _config_from(tree: Mapping[object, object], source: str) -> SchedulerConfig:
    raw = msgspec.convert(tree, _Configuration)
    return SchedulerConfig(
        source=source,
        api_version=raw.api_version,
        profiles=tuple(_profile_from(each) for each in raw.profiles or [_Profile()]),
        extenders=tuple(_extender_from(each) for each in raw.extenders or ()),
        percentage=raw.percentage_of_nodes_to_score or 0,
        lease=_lease(raw.leader_election or _LeaderElection()),
    )


def _lease(raw: _LeaderElection) -> str | None:
    """pkg/scheduler/apis/config/v1/defaults.go: it elects a leader unless told otherwise."""
    if raw.leader_elect is False:
        return None
    return f"{raw.resource_namespace or 'kube-system'}/{raw.resource_name or 'kube-scheduler'}"


def _profile_from(raw: _Profile) -> Profile:
    percentage = DEFAULT_PREEMPTION_PERCENTAGE
    for config in raw.plugin_config or ():
        if config.name == "DefaultPreemption":
            given = (config.args or {}).get("minCandidateNodesPercentage")
            percentage = given if isinstance(given, int) else percentage
    return Profile(
        scheduler_name=raw.scheduler_name,
        score_weights=_score_weights(raw.plugins or _Plugins()),
        percentage=raw.percentage_of_nodes_to_score,
        preemption_percentage=percentage,
    )


def _score_weights(plugins: _Plugins) -> dict[str, int]:
    """Merge as framework.expandMultiPointPlugins does: what ``score`` says goes over ``multiPoint`` and defaults.

    A plugin that is enabled at all points counts only where it is known to score, or has a weight.
    """
    weights = dict(DEFAULT_SCORE_WEIGHTS)
    everywhere, score = plugins.multi_point or _PluginSet(), plugins.score or _PluginSet()
    _disable(weights, everywhere)
    for each in everywhere.enabled or ():
        if each.weight or each.name in DEFAULT_SCORE_WEIGHTS:
            weights[each.name] = each.weight or DEFAULT_SCORE_WEIGHTS[each.name]
    _disable(weights, score)
    for each in score.enabled or ():
        weights[each.name] = each.weight or 1
    return weights


def _disable(weights: dict[str, int], plugins: _PluginSet) -> None:
    for each in plugins.disabled or ():
        if each.name == "*":
            weights.clear()
        weights.pop(each.name, None)


def _extender_from(raw: _Extender) -> Extender:
    timeout = parse_go_duration(raw.http_timeout) if raw.http_timeout else None
    tls = raw.tls_config or _TLSConfig()
    return Extender(
        url=raw.url_prefix,
        prioritize_verb=raw.prioritize_verb or "",
        preempt_verb=raw.preempt_verb or "",
        filter_verb=raw.filter_verb or "",
        bind_verb=raw.bind_verb or "",
        weight=raw.weight or 0,
        node_cache_capable=bool(raw.node_cache_capable),
        ignorable=bool(raw.ignorable),
        timeout=timeout if timeout else None,
        managed_resources=tuple(each.name for each in raw.managed_resources or ()),
        enable_https=bool(raw.enable_https),
        insecure=bool(tls.insecure),
        has_ca=bool(tls.ca_file or tls.ca_data),
    )
