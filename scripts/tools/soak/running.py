"""One soak: everything side by side, until the time is over or somebody asks it to end.

Owns what runs at the same time, and when each part begins and ends.
"""

from __future__ import annotations

import asyncio
import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from scripts.tools.benchmarks import machine
from scripts.tools.controlplane import ApiError, ControlPlaneError
from scripts.tools.soak import karpenter_objects
from scripts.tools.soak.asking import Asking, Places
from scripts.tools.soak.autoscaler import Autoscaler
from scripts.tools.soak.crew import Crew
from scripts.tools.soak.ears import Ears
from scripts.tools.soak.facts import Mishap, Record, Rule, Sample, Span, Starved, Unsettled
from scripts.tools.soak.faults import CONFIG_BROKEN, FAULTS, Scene
from scripts.tools.soak.gate import FAIR
from scripts.tools.soak.invariants import Violation, invariants, is_disturbed
from scripts.tools.soak.observer import FLEET, Observer
from scripts.tools.soak.schedule import LONGEST_SESSION, Planned, plan_faults, plan_jobs, plan_sessions
from scripts.tools.soak.settling import unsettled
from scripts.tools.soak.stage import FLOOR, MOST_PER_PASS, Stage
from scripts.tools.soak.timing import Timing

SETTLE_SECONDS = 60.0
KARPENTER_SECONDS = 90.0
"""So much longer it takes with Karpenter: it looks at an empty node every ten seconds, and once more after fifteen."""
LOOK_EACH, CHECK_EACH = 3.0, 10.0
KILLED = -9
REFUSES_CONFIG = 2
"""What starts while the configuration is broken says so and ends, and whoever started it does so again."""
NAP_SECONDS, STARVED_SECONDS = 0.02, 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is asked for. ``at_once``: jobs that run at once on average; ``fleet``: the Deployment's largest size;
    ``faults``: their names.
    """

    seconds: float
    seed: int
    faults: Sequence[str]
    workers: int = 60
    at_once: float = 5.0
    fleet: int = 40
    defect: str | None = None

    @property
    def disturbed_until(self) -> float:
        """When the last fault is over and the last job has begun."""
        return max(0.0, self.seconds - SETTLE_SECONDS)


@dataclass(slots=True)
class Soak:
    """One run over a stage. ``record`` and ``violations`` are what came of it; ``tell`` takes lines of progress."""

    stage: Stage
    plan: Plan
    tell: Callable[[str], None]
    record: Record = field(default_factory=Record)
    timing: Timing = field(default_factory=Timing)
    counts: Counter[str] = field(default_factory=Counter)
    _under_way: set[str] = field(default_factory=set)
    _read: dict[str, int] = field(default_factory=dict)
    _suspected: set[tuple[Rule, float]] = field(default_factory=set)

    def violations(self) -> list[Violation]:
        """Ask all rules."""
        rules = invariants(keep=FLOOR, most_per_pass=MOST_PER_PASS)
        return sorted((each for rule in rules.values() for each in rule(self.record)), key=lambda each: each.at)

    async def run(self, stop: asyncio.Event) -> None:
        """Run to the end, until ``stop``, or until a defect is caught."""
        stage, plan, timing = self.stage, self.plan, self.timing
        observer = Observer(self.record, now=timing.now, time=time.time)
        tls = stage.plane.api_client.tls
        listeners = tuple(f"http://127.0.0.1:{each.claims_port}" for each in stage.serves)
        server, namespace = stage.plane.server_url, stage.namespace
        places = Places(server=server, namespace=namespace, pods=stage.pods, tls=tls, listeners=listeners)
        loop = asyncio.get_running_loop()
        async with (
            Asking(places, Random(f"{plan.seed} asking")) as asking,
            Crew(asking, self.record, timing, seed=plan.seed, most=2 * plan.workers) as crew,
        ):
            self.counts = crew.counts
            ears = Ears(
                stage.plane,
                stage.pods,
                observer,
                hear=lambda kind, item: loop.call_soon_threadsafe(crew.heard, kind, item),
                keep_only=lambda uids: loop.call_soon_threadsafe(crew.keep_only, uids),
            )
            if not stage.has_karpenter:
                await asyncio.to_thread(karpenter_objects.create_all, stage.plane)
            await asyncio.to_thread(ears.open)
            await crew.begin(plan.workers)
            parts = [
                asyncio.create_task(crew.compare()),
                asyncio.create_task(crew.remark()),
                asyncio.create_task(Autoscaler(asking, timing, stage.deployment, most=plan.fleet).follow()),
                asyncio.create_task(self._look(ears, observer, crew)),
                asyncio.create_task(self._act(crew, observer)),
                asyncio.create_task(self._check(stop)),
            ]
            ending, awake = asyncio.create_task(stop.wait()), threading.Event()
            threading.Thread(target=self._nap, args=(awake,), name="naps", daemon=True).start()
            try:
                await asyncio.wait([ending, *parts], return_when=asyncio.FIRST_COMPLETED)
            finally:
                awake.set()
                for each in (*parts, ending):
                    each.cancel()
                results = await asyncio.gather(*parts, ending, return_exceptions=True)
                await asyncio.to_thread(ears.close)
                self.counts["observerInterruptions"] = ears.interruptions
            for result in results:
                if isinstance(result, Exception):
                    raise result

    async def _act(self, crew: Crew, observer: Observer) -> None:
        """Have jobs come and faults happen, then wait until all is quiet."""
        plan = self.plan
        tasks = plan_jobs(at_once=plan.at_once, burst=plan.workers // 2, seed=plan.seed, until=plan.disturbed_until)
        sessions = plan_sessions(at_once=plan.fleet / 4, seed=plan.seed, until=plan.disturbed_until - LONGEST_SESSION)
        jobs = asyncio.gather(crew.work(tasks), crew.work(sessions, FLEET))
        planned = plan_faults(FAULTS, plan.faults, seed=plan.seed, until=plan.disturbed_until)
        await asyncio.gather(jobs, *(self._disturb(each, observer) for each in planned), self._until_quiet())
        crew.working = False
        await asyncio.to_thread(self._make_fair)
        await self._settle()

    async def _until_quiet(self) -> None:
        await self.timing.until(self.plan.disturbed_until)

    async def _disturb(self, planned: Planned, observer: Observer) -> None:
        await self.timing.until(planned.at)
        fault = FAULTS[planned.name]
        scene = Scene(self.stage, observer, Random(f"{self.plan.seed} {planned.number}"))
        span = Span(at=self.timing.now(), end=None, fault=planned.name, excuses=fault.excuses)
        self.record.add(span)
        self._under_way.add(planned.name)
        try:
            end = await asyncio.to_thread(fault.begin, scene)
            await asyncio.sleep(planned.seconds)
            await asyncio.to_thread(end)
        except (ApiError, ControlPlaneError, OSError, TimeoutError, http.client.HTTPException) as error:
            self.tell(f"fault {planned.name} went wrong by itself: {str(error).partition(chr(10))[0]}")
            self.counts["faultsThatFailed"] += 1
        finally:
            self._under_way.discard(planned.name)
            self.record.end(span, self.timing.now())

    def _make_fair(self) -> None:
        for replica in self.stage.replicas.values():
            replica.gate.weather = FAIR
            replica.gate.mend()
            replica.clock.ahead(0)
        for program in self.stage.programs.values():
            program.resume()

    async def _settle(self) -> None:
        deadline = self.timing.now() + SETTLE_SECONDS + (KARPENTER_SECONDS if self.stage.has_karpenter else 0.0)
        while True:
            try:
                left = await asyncio.to_thread(lambda: list(unsettled(self.stage)))
            except (ApiError, OSError, http.client.HTTPException) as error:
                left = [f"the API server does not answer: {error}"]
            if not left:
                return
            if self.timing.now() > deadline:
                self.record.add(*(Unsettled(at=self.timing.now(), what=each) for each in left))
                return
            await asyncio.sleep(1)

    async def _look(self, ears: Ears, observer: Observer, crew: Crew) -> None:
        """Sample processes, notice deaths and tracebacks, and tell how it goes."""
        told = -CHECK_EACH
        while True:
            for name in await asyncio.to_thread(self._sample):
                await asyncio.to_thread(self._start_again, name)
            await asyncio.to_thread(ears.mend)
            if self.timing.now() - told >= CHECK_EACH:
                told = self.timing.now()
                census = ", ".join(f"{count} {name}" for name, count in observer.census().items())
                now = f"; {', '.join(sorted(self._under_way))}" if self._under_way else ""
                self.tell(f"{told:5.0f} s: {census}, {crew.busy} busy, {crew.counts['jobs']} jobs{now}")
            await asyncio.sleep(LOOK_EACH)

    def _nap(self, ended: threading.Event) -> None:
        """Notice how late a thread is woken, the worst of each second. Runs in a thread of its own."""
        worst, second = 0.0, int(self.timing.now())
        while not ended.is_set():
            before = self.timing.now()
            time.sleep(NAP_SECONDS)
            worst = max(worst, self.timing.now() - before - NAP_SECONDS)
            if int(before) != second:
                if worst > STARVED_SECONDS:
                    self.record.add(Starved(at=before, seconds=worst))
                worst, second = 0.0, int(before)

    async def _check(self, stop: asyncio.Event) -> None:
        """Ask the rules now and then: what they say twice is told, and ends a run with a defect."""
        told: set[tuple[Rule, float]] = set()
        while True:
            await asyncio.sleep(CHECK_EACH)
            found = {(each.rule, each.at): each for each in await asyncio.to_thread(self.violations)}
            for key in sorted((found.keys() & self._suspected) - told, key=lambda one: one[1]):
                self.tell(f"BROKEN {found[key].rule} at {found[key].at:.1f} s: {found[key].what}")
                told.add(key)
            if told and self.plan.defect is not None:
                stop.set()
            self._suspected = set(found)

    def _sample(self) -> list[str]:
        """Look at all processes. Gives the names of those to start again: what is not warmnode's and ended by itself,
        as one does that cannot renew its Lease, and what refused a broken configuration.
        """
        at, ended = self.timing.now(), []
        for name, program in self.stage.programs.items():
            code, is_ours = program.exit_code, name in self.stage.replicas
            if code is not None:
                is_refusal = code == REFUSES_CONFIG and is_disturbed(self.record, at, CONFIG_BROKEN)
                if code != KILLED and (is_refusal or not is_ours):
                    ended.append(name)
                elif code != KILLED and name not in self._read_deaths():
                    self.record.add(Mishap(at=at, program=name, what=f"ended with code {code}"))
                    self._read[f"{name} died"] = 1
                continue
            if not is_ours:
                continue
            with suppress(OSError, IndexError):
                files = sum(1 for _ in Path(f"/proc/{program.pid}/fd").iterdir())
                resident = machine.usage(program.pid).resident_mib
                self.record.add(Sample(at=at, program=name, pid=program.pid, resident_mib=resident, files=files))
            self._look_for_tracebacks(name, program.log, at)
        return ended

    def _start_again(self, name: str) -> None:
        self.counts["startedAgain"] += 1
        self.tell(f"{name} ended: starting it again")
        with suppress(ControlPlaneError, OSError):  # not ready yet: the API server may be down
            self.stage.start_again(name)

    def _read_deaths(self) -> set[str]:
        return {each.removesuffix(" died") for each in self._read if each.endswith(" died")}

    def _look_for_tracebacks(self, name: str, log: Path, at: float) -> None:
        with log.open("rb") as stream:
            stream.seek(self._read.get(name, 0))
            content = stream.read()
        whole = content.rpartition(b"\n")[0]
        self._read[name] = self._read.get(name, 0) + len(whole)
        if b"Traceback" in whole:
            line = next(each for each in whole.splitlines() if b"Traceback" in each)
            self.record.add(Mishap(at=at, program=name, what=line.decode(errors="replace")[-400:]))
