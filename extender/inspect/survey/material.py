"""What a look at a cluster for `warmnode doctor` finds, and what it is told to go by. Owns the values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from extender.inspect.doctor.evidence import DisruptionBudgetFacts, Kind, Program
from extender.inspect.doctor.scheduler_config import SchedulerConfig
from extender.inspect.survey.survey_objects import LeaseFacts, PodFacts
from extender.kube.karpenter_events import EventObject
from extender.kube.objects import ConfigMapObject
from extender.model import Node, NodeClaim, NodePool
from extender.settings import Configuration


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
    budgets: Sequence[DisruptionBudgetFacts] = ()
    node_pools: Sequence[NodePool] = ()
    node_claims: Sequence[NodeClaim] = ()
    events: Sequence[EventObject] = ()
    has_balanced: bool | None = None
    server_version: tuple[int, int] | None = None
    unread: dict[Kind, str]

    @property
    def programs(self) -> list[Program]:
        """The containers of warmnode and of Karpenter."""
        return [program for each in self.pods for program in each.programs]
