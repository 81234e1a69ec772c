"""The command line of scripts/soak: 0 all rules held, 1 one did not or something failed, 2 bad usage."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.tools.controlplane.binaries import KARPENTER_MODULES
from scripts.tools.controlplane.errors import ControlPlaneError
from scripts.tools.soak.defects import DEFECTS
from scripts.tools.soak.faults import FAULTS, WITH_KARPENTER, WITHOUT_KARPENTER
from scripts.tools.soak.invariants import invariants
from scripts.tools.soak.report import Run, as_json, as_text, never_asked
from scripts.tools.soak.running import Plan, Soak
from scripts.tools.soak.stage import FLOOR, MOST_PER_PASS, Stage

DESCRIPTION = """\
Runs warmnode for a while as it is used, with everything that can go wrong going wrong: a real control plane, fake
(KWOK) nodes, two replicas of `warmnode serve` and two of `warmnode reap`, workers that follow the protocol, claimants,
a Deployment with an autoscaler, and a schedule of faults that the seed decides. What must hold is checked all the time
from the API server's record.

Needs about 1.5 GiB of memory and a core. docs/reliability.md says what is checked.
"""
SHORTEST, USUAL = 90.0, 240.0
"""In seconds. The usual one is what CI runs, with seed 1."""
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def main() -> int:
    """Run a soak, or with a defect until it is noticed."""
    options = _options()
    plan = Plan(
        seconds=options.seconds,
        seed=options.seed,
        faults=options.faults,
        workers=options.workers,
        at_once=options.at_once,
        fleet=options.fleet,
        defect=options.defect,
    )
    try:
        stage = Stage(nodes=options.nodes, spare=options.fleet // 2, karpenter=options.karpenter, defect=plan.defect)
        return asyncio.run(_soak(plan, stage, logs=options.logs, file=options.json))
    except (ControlPlaneError, OSError) as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1


async def _soak(plan: Plan, stage: Stage, *, logs: Path | None, file: Path | None) -> int:
    stop, numbers = asyncio.Event(), list[int]()
    loop = asyncio.get_running_loop()

    def end(number: int) -> None:
        numbers.append(number)
        stop.set()

    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(each, end, each)
    _tell(f"starting a control plane; seed {plan.seed}")
    await asyncio.to_thread(stage.__enter__)
    try:
        soak = Soak(stage, plan, _tell)
        if not stop.is_set():
            await soak.run(stop)
        violations = soak.violations()
        rules = [str(each) for each in invariants(keep=FLOOR, most_per_pass=MOST_PER_PASS)]
        run = Run(seed=plan.seed, seconds=soak.timing.now(), defect=plan.defect, counts=soak.counts, rules=rules)
        found = as_json(run, soak.record, violations)
    finally:
        if logs is not None:
            shutil.copytree(stage.plane.directory / "logs", logs, dirs_exist_ok=True)
        await asyncio.to_thread(stage.__exit__, None, None, None)
    if file is not None:
        await asyncio.to_thread(file.write_text, json.dumps(found, indent=1) + "\n")
    print(as_text(found), flush=True)
    if numbers:
        _tell("ended by a signal before its time")
        return 128 + numbers[0]
    if plan.defect is not None:
        caught_by = DEFECTS[plan.defect].caught_by
        is_caught = any(each.rule == caught_by for each in violations)
        print(f"the defect {plan.defect} was {'' if is_caught else 'NOT '}noticed by {caught_by}")
        return 0 if is_caught else 1
    if nothing := never_asked(soak.record):
        print(f"this says little: in this run there was no {', no '.join(nothing)}")
    if violations:
        print(f"to see it again: scripts/soak --seed {plan.seed} --for {plan.seconds:g}s")
    return 1 if violations or nothing else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/soak", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--for", dest="seconds", type=_seconds, default=USUAL, metavar="TIME", help="such as 1h (usual: 4m)"
    )
    parser.add_argument("--seed", type=int, default=1, help="decides jobs and faults (default 1)")
    parser.add_argument("--faults", type=_faults, default=None, metavar="A,B", help=f"these only: {', '.join(FAULTS)}")
    parser.add_argument("--workers", type=int, default=60, help="workers to begin with; twice as many at most")
    parser.add_argument("--at-once", type=float, default=5.0, metavar="N", help="jobs that run at once on average")
    parser.add_argument(
        "--fleet", type=int, default=40, metavar="N", help="workers of the Deployment at most, half of them at least"
    )
    parser.add_argument("--nodes", type=int, help="fake nodes, for 16 workers each (12, with Karpenter 3)")
    parser.add_argument(
        "--karpenter",
        choices=list(KARPENTER_MODULES),
        metavar="VERSION",
        help="have Karpenter make what lacks of nodes",
    )
    parser.add_argument("--defect", choices=sorted(DEFECTS), help="build in a defect, and see that it is noticed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON too")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="copy the logs of all programs there at the end")
    options = parser.parse_args()
    if options.faults is None:
        defect = DEFECTS.get(options.defect or "")
        without = WITHOUT_KARPENTER if options.karpenter else WITH_KARPENTER
        options.faults = [each for each in (FAULTS if defect is None else defect.faults) if each not in without]
    options.nodes = options.nodes or (3 if options.karpenter else 12)
    if options.seconds < SHORTEST:
        parser.error(f"--for: at least {SHORTEST:g}s: the last minute is for settling")
    if not options.karpenter and 16 * options.nodes < 2 * options.workers:
        parser.error("--workers: twice as many must fit on the nodes, 16 on each")
    return options


def _seconds(text: str) -> float:
    try:
        return float(text[:-1]) * UNITS[text[-1:]]
    except (ValueError, KeyError):
        raise argparse.ArgumentTypeError(f"write a time such as 90s, 4m or 1h (got {text!r})") from None


def _faults(text: str) -> Sequence[str]:
    names = [each for each in text.split(",") if each]
    if unknown := [each for each in names if each not in FAULTS]:
        raise argparse.ArgumentTypeError(f"no such fault: {', '.join(unknown)}")
    return names


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
