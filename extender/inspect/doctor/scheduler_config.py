"""Reads a KubeSchedulerConfiguration, wherever people keep it: its file, a ConfigMap, or what kubectl prints of one.

Owns what counts as one, and kube-scheduler's defaults for what it leaves out. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any

import msgspec
import yaml

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
PREEMPTION = "DefaultPreemption"
DEFAULT_PREEMPTION_PERCENTAGE = 10
"""DefaultPreemptionArgs.minCandidateNodesPercentage."""

_REMEDY = "give the file that kube-scheduler's flag --config names, or the ConfigMap that holds it"


class SchedulerConfigError(Exception):
    """No scheduler's configuration could be read. The message is one line with the remedy."""

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(printable(f"{source}: {' '.join(problem.split())[:300]}; {_REMEDY}"))


class PluginRef(msgspec.Struct, frozen=True):
    name: str = ""
    weight: int = 0


class PluginSet(msgspec.Struct, frozen=True):
    enabled: tuple[PluginRef, ...] = ()
    disabled: tuple[PluginRef, ...] = ()


class Plugins(msgspec.Struct, rename="camel", frozen=True):
    multi_point: PluginSet = PluginSet()
    score: PluginSet = PluginSet()


class PluginConfig(msgspec.Struct, frozen=True):
    name: str = ""
    args: dict[str, object] = {}


class Profile(msgspec.Struct, rename="camel", frozen=True):
    """One profile. ``percentage`` None: the global one counts."""

    scheduler_name: str = DEFAULT_SCHEDULER
    percentage: int | None = msgspec.field(name="percentageOfNodesToScore", default=None)
    plugins: Plugins = Plugins()
    plugin_config: tuple[PluginConfig, ...] = ()

    @property
    def preemption_percentage(self) -> int:
        given = [each.args.get("minCandidateNodesPercentage") for each in self.plugin_config if each.name == PREEMPTION]
        return next((each for each in given if isinstance(each, int)), DEFAULT_PREEMPTION_PERCENTAGE)

    @property
    def score_weights(self) -> Mapping[str, int]:
        """The score plugins' weights by name, merged as framework.expandMultiPointPlugins does.

        What ``score`` says goes over ``multiPoint`` and defaults. A plugin that is enabled at all points counts only
        where it is known to score, or has a weight.
        """
        weights = dict(DEFAULT_SCORE_WEIGHTS)
        _disable(weights, self.plugins.multi_point)
        for each in self.plugins.multi_point.enabled:
            if each.weight or each.name in DEFAULT_SCORE_WEIGHTS:
                weights[each.name] = each.weight or DEFAULT_SCORE_WEIGHTS[each.name]
        _disable(weights, self.plugins.score)
        for each in self.plugins.score.enabled:
            weights[each.name] = each.weight or 1
        return weights


def _disable(weights: dict[str, int], plugins: PluginSet) -> None:
    for each in plugins.disabled:
        if each.name == "*":
            weights.clear()
        weights.pop(each.name, None)


class ManagedResource(msgspec.Struct, frozen=True):
    name: str = ""


class TlsConfig(msgspec.Struct, rename="camel", frozen=True):
    insecure: bool = False
    ca_file: str = ""
    ca_data: str = ""

    @property
    def has_ca(self) -> bool:
        """True where it holds a CA, or says where one is."""
        return bool(self.ca_file or self.ca_data)


class Extender(msgspec.Struct, rename="camel", frozen=True):
    """One entry of ``extenders``. Verbs are empty where they are not set."""

    url: str = msgspec.field(name="urlPrefix", default="")
    prioritize_verb: str = ""
    preempt_verb: str = ""
    filter_verb: str = ""
    bind_verb: str = ""
    weight: int = 0
    http_timeout: str = ""
    enable_https: bool = msgspec.field(name="enableHTTPS", default=False)
    tls_config: TlsConfig = TlsConfig()
    node_cache_capable: bool = False
    ignorable: bool = False
    managed_resources: tuple[ManagedResource, ...] = ()

    @property
    def timeout(self) -> timedelta | None:
        """How long a pod waits for an answer, None where it does not say: kube-scheduler's 5 s."""
        return (parse_go_duration(self.http_timeout) if self.http_timeout else None) or None


class LeaderElection(msgspec.Struct, rename="camel", frozen=True):
    """pkg/scheduler/apis/config/v1/defaults.go: it elects a leader unless told otherwise."""

    leader_elect: bool = True
    resource_name: str = ""
    resource_namespace: str = ""


class SchedulerConfig(msgspec.Struct, rename="camel", frozen=True):
    """A KubeSchedulerConfiguration. ``source`` says in words where it was found. ``percentage`` 0:
    kube-scheduler's own choice. A field that is left out has kube-scheduler's default, one that is null too.
    """

    source: str
    api_version: str = ""
    leader_election: LeaderElection = LeaderElection()
    profiles: tuple[Profile, ...] = ()
    extenders: tuple[Extender, ...] = ()
    percentage: int = msgspec.field(name="percentageOfNodesToScore", default=0)

    @property
    def lease(self) -> str | None:
        """The Lease that it leads by, as namespace/name, None: it does not elect a leader."""
        if not self.leader_election.leader_elect:
            return None
        election = self.leader_election
        return f"{election.resource_namespace or 'kube-system'}/{election.resource_name or 'kube-scheduler'}"


def parse_scheduler_configs(text: str, *, source: str) -> list[SchedulerConfig]:
    """Read every configuration in a text: one itself, several documents, ConfigMaps, or a List of them.

    Raises:
        SchedulerConfigError: it is no YAML, there is none in it, or one has a value of the wrong type.
    """
    try:
        objects = list(_objects_in(yaml.safe_load_all(text), source))
        found = [_config_from(tree, where) for where, tree in objects if tree.get("kind") == SCHEDULER_KIND]
    except yaml.YAMLError as error:
        raise SchedulerConfigError(source, f"it is not YAML: {error}") from error
    except (msgspec.ValidationError, RecursionError) as error:
        raise SchedulerConfigError(source, f"it cannot be read: {error}") from error
    if not found:
        held = ", ".join(sorted({str(tree["kind"]) for _, tree in objects if tree.get("kind")}))
        held = held or "nothing that has a kind"
        raise SchedulerConfigError(source, f"there is no {SCHEDULER_KIND} in it (it holds {held})")
    return found


def _objects_in(trees: Iterable[object], source: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Give objects, with where each stands: those of Lists and of texts in ConfigMaps, too."""
    for tree in trees:
        if isinstance(tree, dict):
            yield source, tree
            data, items = tree.get("data"), tree.get("items")
            if tree.get("kind") == "ConfigMap" and isinstance(data, dict):
                for key, text in data.items():
                    if isinstance(text, str) and SCHEDULER_KIND in text:
                        yield from _objects_in(yaml.safe_load_all(text), f"{source} ({key})")
            elif isinstance(items, list):
                yield from _objects_in(items, source)


def _config_from(tree: Mapping[str, Any], source: str) -> SchedulerConfig:
    config = msgspec.convert({**_without_nulls(tree), "source": source}, SchedulerConfig)
    return config if config.profiles else msgspec.structs.replace(config, profiles=(Profile(),))


def _without_nulls(tree: Any) -> Any:
    """Take away what is null: to Go that is as if it were not there."""
    if isinstance(tree, dict):
        return {key: _without_nulls(value) for key, value in tree.items() if value is not None}
    return list(map(_without_nulls, tree)) if isinstance(tree, list) else tree
