"""The extenders that a kube-scheduler is measured with, each started for its round and configured as shipped.

Owns what an arm changes in manifests/base/kube-scheduler-config.yaml. Measures nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import yaml

from scripts.tools.benchmarks import programs
from scripts.tools.controlplane import ControlPlane, Json
from scripts.tools.controlplane.processes import Spawner
from scripts.tools.serving import Serve, scheduler_config, serving

CONFIGURATION = Path(__file__).resolve().parents[3] / "manifests" / "base" / "kube-scheduler-config.yaml"


class Arm(StrEnum):
    """With which extender the scheduler runs."""

    NONE = "no extender"
    NO_OP = "no-op extender"
    AIOHTTP = "no-op with aiohttp"
    WARMNODE = "warmnode"
    GO = "Go, every host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What every round needs: the cluster, a folder for logs, the Go extender and the node ages that it reads."""

    plane: ControlPlane
    folder: Path
    spawner: Spawner
    goextender: Path
    ages: Path

    @classmethod
    def prepare(cls, plane: ControlPlane, folder: Path, spawner: Spawner, ages: Mapping[str, int]) -> Bench:
        """Build the Go extender and write the ages."""
        ages_file = folder / "ages.json"
        ages_file.write_text(json.dumps(ages))
        binary = programs.build("goextender", folder)
        return cls(plane=plane, folder=folder, spawner=spawner, goextender=binary, ages=ages_file)

    @contextmanager
    def running(self, arm: Arm) -> Iterator[tuple[Json, Serve | None]]:
        """Run the arm's extender; give the scheduler's configuration for it, and warmnode where it is that."""
        log = self.folder / "extender.log"
        if arm == Arm.WARMNODE:
            with serving(kubeconfig=self.plane.kubeconfig, log=log) as serve:
                yield scheduler_config(CONFIGURATION, serve.webhook_port), serve
            return
        if arm == Arm.NONE:
            config: Json = yaml.safe_load(CONFIGURATION.read_text())
            del config["extenders"], config["leaderElection"]
            yield config, None
            return
        if arm == Arm.AIOHTTP:
            process = programs.start_aiohttp_noop(self.spawner, log=log)
        else:
            ages = self.ages if arm == Arm.GO else None
            process = programs.start_extender(self.spawner, self.goextender, ages=ages, log=log)
        try:
            config = scheduler_config(CONFIGURATION, process.port or 0)
            for extender in config["extenders"]:
                del extender["preemptVerb"]
            yield config, None
        finally:
            process.stop()
