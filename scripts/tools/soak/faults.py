"""The faults: what each does, how long it lasts, and what need not hold meanwhile. One table, one line for each.

Owns what is done to a cluster. When which fault comes is `schedule`'s to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from random import Random

from scripts.tools.controlplane import ApiError, Component
from scripts.tools.proxy import Refusal
from scripts.tools.soak import karpenter_objects
from scripts.tools.soak.facts import Rule
from scripts.tools.soak.gate import FAIR
from scripts.tools.soak.observer import FOREIGN_KEY, Observer
from scripts.tools.soak.stage import CONFIG_MAPS, LEDGER, LEDGER_PATH, SCHEDULER, Stage

CONFIG_BROKEN = "config-broken"
GARBAGE = b'{"kind":"Status","metadata":{},"items":[{"metadata":\xff\xfe'
FULL_KEYS, FULL_BYTES = 4, 250_000


@dataclass(frozen=True, slots=True)
class Scene:
    """What a fault works on. ``random`` chooses among replicas, and by how much."""

    stage: Stage
    observer: Observer
    random: Random


End = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """``begin`` does it, and returns what ends it. ``seconds``: how long it lasts, at least and at most."""

    begin: Callable[[Scene], End]
    seconds: tuple[float, float] = (4.0, 8.0)
    excuses: frozenset[Rule] = frozenset()


def _leader(scene: Scene) -> str:
    """Name the reaper that leads, any where none does."""
    reaps = scene.stage.reaps
    return next((each.name for each in reaps if each.leads()), scene.random.choice(reaps).name)


def _serve(scene: Scene) -> str:
    return scene.random.choice(scene.stage.serves).name


def _named(name: str) -> Callable[[Scene], str]:
    return lambda scene: name


def _killed(whose: Callable[[Scene], str]) -> Callable[[Scene], End]:
    def begin(scene: Scene) -> End:
        name = whose(scene)
        scene.stage.programs[name].kill()

        return lambda: scene.stage.start_again(name)

    return begin


def _stopped(whose: Callable[[Scene], str]) -> Callable[[Scene], End]:
    def begin(scene: Scene) -> End:
        program = scene.stage.programs[whose(scene)]
        program.pause()
        return program.resume

    return begin


def _weather(**choices: object) -> Callable[[Scene], End]:
    """Have bad weather before one replica, the leader more often than others. Of a tuple one value is chosen."""

    def begin(scene: Scene) -> End:
        changed = {key: scene.random.choice(each) if isinstance(each, tuple) else each for key, each in choices.items()}
        name = _leader(scene) if scene.random.random() < 0.5 else scene.random.choice(sorted(scene.stage.replicas))
        gate = scene.stage.replicas[name].gate
        gate.set_weather(**changed)
        return lambda: gate.set_weather(**{each: getattr(FAIR, each) for each in changed})

    return begin


def _partition(scene: Scene) -> End:
    gate = scene.stage.replicas[scene.random.choice(sorted(scene.stage.replicas))].gate
    gate.cut()
    return gate.mend


def _clock_jump(scene: Scene) -> End:
    clock = scene.stage.replicas[scene.random.choice(sorted(scene.stage.replicas))].clock
    clock.ahead(scene.random.choice([-7200.0, -60.0, -4.0, 4.0, 60.0, 7200.0]))
    return lambda: clock.ahead(0)


def _expired(scene: Scene) -> End:
    gate = scene.stage.replicas[scene.random.choice(sorted(scene.stage.replicas))].gate
    gate.expire_certificate(True)
    return lambda: gate.expire_certificate(False)


def _authority_replaced(scene: Scene) -> End:
    scene.stage.replicas[scene.random.choice(sorted(scene.stage.replicas))].gate.replace_authority()
    return lambda: None


def _ledger_deleted(scene: Scene) -> End:
    scene.observer.others_take_ledger()
    try:
        scene.stage.plane.api("DELETE", LEDGER_PATH)
    except ApiError as error:
        if error.status in (HTTPStatus.FORBIDDEN, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS):  # surely not done
            scene.observer.others_leave_ledger()
    return lambda: _note_key(scene)


def _ledger_filled(scene: Scene) -> End:
    """Somebody else's values leave hardly any room."""
    keys = [f"filler-{number}" for number in range(FULL_KEYS)]
    with suppress(ApiError):
        scene.stage.plane.api("PATCH", LEDGER_PATH, {"data": dict.fromkeys(keys, "x" * FULL_BYTES)})

    def end() -> None:
        with suppress(ApiError):
            scene.stage.plane.api("PATCH", LEDGER_PATH, {"data": dict.fromkeys(keys)})

    return end


def _note_key(scene: Scene) -> None:
    """Put somebody else's key into whatever ledger there is."""
    plane, data = scene.stage.plane, {FOREIGN_KEY: "keep me"}
    try:
        plane.api("PATCH", LEDGER_PATH, {"data": data})
    except ApiError:
        metadata = {"name": LEDGER, "namespace": CONFIG_MAPS.split("/")[4]}
        with suppress(ApiError):
            plane.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


def _config_broken(scene: Scene) -> End:
    scene.stage.write_config(scene.random.choice(["", "pools: [", "kind: Configuration\nfloor: 3\n", "\x00\xff"]))
    return scene.stage.write_config


def _crds_removed(scene: Scene) -> End:
    karpenter_objects.remove_definitions(scene.stage.plane)
    return lambda: karpenter_objects.create_all(scene.stage.plane)


def _node_pool_deleted(scene: Scene) -> End:
    karpenter_objects.delete_node_pool(scene.stage.plane)
    return lambda: karpenter_objects.create_node_pool(scene.stage.plane)


def _cordoned(scene: Scene) -> End:
    """Two nodes take no new work, as before a drain."""
    names = scene.random.sample(scene.stage.node_names, 2)

    def set_to(value: bool) -> None:
        for name in names:
            with suppress(ApiError):
                scene.stage.plane.api("PATCH", f"/api/v1/nodes/{name}", {"spec": {"unschedulable": value}})

    set_to(True)
    return lambda: set_to(False)


def _rolled_out(scene: Scene) -> End:
    """Somebody deletes a third of the workers, whatever they are at, as a rollout does."""
    plane, pods = scene.stage.plane, scene.stage.pods
    names = [each["metadata"]["name"] for each in plane.api("GET", pods)["items"]]
    workers = sorted(each for each in names if each.startswith("worker-"))
    for name in workers[: len(workers) // 3]:
        scene.observer.others_delete(name)
        with suppress(ApiError):
            plane.api("DELETE", f"{pods}/{name}")
    return lambda: None


def _restarted(scene: Scene) -> End:
    """The Deployment gets a new template, as by `kubectl rollout restart`."""
    note = {"example.com/restarted": str(scene.random.random())}
    with suppress(ApiError):
        spec = {"template": {"metadata": {"annotations": note}}}
        scene.stage.plane.api("PATCH", scene.stage.deployment, {"spec": spec})
    return lambda: None


_API = frozenset({Rule.BOUND_IN_TIME})
_UNHEARD = frozenset({Rule.FLOOR})
_THROTTLED = Refusal(status=429, retry_after=1)

FAULTS: Mapping[str, Fault] = {
    "kill-leader": Fault(begin=_killed(_leader)),
    "stop-leader": Fault(begin=_stopped(_leader), seconds=(8.0, 14.0)),
    "kill-serve": Fault(begin=_killed(_serve)),
    "stop-serve": Fault(begin=_stopped(_serve)),
    "kill-scheduler": Fault(begin=_killed(_named(SCHEDULER)), excuses=_API),
    "stop-scheduler": Fault(begin=_stopped(_named(SCHEDULER)), excuses=_API),
    "kill-api-server": Fault(begin=_killed(_named(Component.API_SERVER)), seconds=(1.0, 4.0), excuses=_API),
    "stop-api-server": Fault(begin=_stopped(_named(Component.API_SERVER)), excuses=_API),
    "kill-etcd": Fault(begin=_killed(_named(Component.ETCD)), seconds=(1.0, 4.0), excuses=_API),
    "stop-etcd": Fault(begin=_stopped(_named(Component.ETCD)), excuses=_API),
    "kill-controllers": Fault(begin=_killed(_named(Component.CONTROLLER_MANAGER))),
    "stop-controllers": Fault(begin=_stopped(_named(Component.CONTROLLER_MANAGER))),
    "kill-kwok": Fault(begin=_killed(_named(Component.KWOK))),
    "stop-kwok": Fault(begin=_stopped(_named(Component.KWOK))),
    "api-429": Fault(begin=_weather(refusal=_THROTTLED)),
    "api-500": Fault(begin=_weather(refusal=Refusal(status=500))),
    "api-garbage": Fault(begin=_weather(refusal=Refusal(status=200, body=GARBAGE))),
    "api-silence": Fault(begin=_weather(hangs=True), seconds=(8.0, 14.0)),
    "latency": Fault(begin=_weather(delay=(0.5, 2.0)), seconds=(10.0, 15.0)),
    "partition": Fault(begin=_partition, seconds=(8.0, 14.0)),
    "watch-silent": Fault(begin=_weather(silent=True), seconds=(10.0, 20.0), excuses=_UNHEARD),
    "watch-torn": Fault(begin=_weather(torn=True)),
    "watch-gone": Fault(begin=_weather(gone=True)),
    "clock-jump": Fault(begin=_clock_jump, seconds=(6.0, 12.0)),
    "certificate-expired": Fault(begin=_expired),
    "authority-replaced": Fault(begin=_authority_replaced, seconds=(1.0, 1.0)),
    "ledger-deleted": Fault(begin=_ledger_deleted, seconds=(1.0, 4.0)),
    "ledger-filled": Fault(begin=_ledger_filled),
    "ledger-forbidden": Fault(begin=_weather(no_ledger=True), seconds=(6.0, 12.0)),
    CONFIG_BROKEN: Fault(begin=_config_broken, seconds=(6.0, 12.0)),
    "crds-removed": Fault(begin=_crds_removed, seconds=(6.0, 12.0)),
    "node-pool-deleted": Fault(begin=_node_pool_deleted, seconds=(6.0, 12.0)),
    "workers-rolled-out": Fault(begin=_rolled_out, seconds=(1.0, 1.0)),
    "deployment-restarted": Fault(begin=_restarted, seconds=(1.0, 1.0)),
    "nodes-cordoned": Fault(begin=_cordoned, seconds=(6.0, 12.0)),
    "kill-karpenter": Fault(begin=_killed(_named(Component.KARPENTER))),
    "stop-karpenter": Fault(begin=_stopped(_named(Component.KARPENTER))),
}
WITH_KARPENTER = frozenset({"kill-karpenter", "stop-karpenter"})
WITHOUT_KARPENTER = frozenset({"crds-removed", "node-pool-deleted"})
"""With its NodePool Karpenter takes all nodes of it, whatever runs there."""
