"""The command line of scripts/experiment: plan, run, report, calibrate.

Owns arguments, signals, exit codes (0 done, 1 failure, 2 bad usage, 128 + signal) and what people read.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

from scripts.tools.controlplane import ControlPlaneError, Options
from scripts.tools.controlplane.binaries import ROOT
from scripts.tools.controlplane.building import find_or_build
from scripts.tools.experiment import calibrating, matrix, record, report
from scripts.tools.experiment.arms import ARMS
from scripts.tools.experiment.batches import SIDE_BY_SIDE, TRIES, run_all
from scripts.tools.experiment.loop import Stopped
from scripts.tools.experiment.onerun import run_one
from scripts.tools.experiment.stage import KARPENTER
from scripts.tools.experiment.workloads import WORKLOADS, Kind

PROGRAM = "scripts/experiment"
RECORDS = ROOT / "docs" / "experiment"

DESCRIPTION = f"""\
The same seeded work on a real kube-scheduler, a real Karpenter {KARPENTER} and fake (KWOK) nodes, under
different rules: the default scheduler, MostAllocated, warmnode. A task takes longer where its node has not
the model that it needs. docs/experiment.md has what came out.

  {PROGRAM} plan                 which runs there are, and which of them are done
  {PROGRAM} run                  carry out those that are missing: one file each in docs/experiment
  {PROGRAM} report               write the tables and plots of docs/experiment.md from the files
  {PROGRAM} calibrate            how far warmnode simulate is off what really ran, in the files

A run takes {matrix.SECONDS / 60:.0f} minutes, about a tenth of a core and 1 GiB; {SIDE_BY_SIDE} go on side by side,
which two cores and 24 GiB carry. Ctrl-C ends it and leaves the runs that are done: the next `run` goes on
with the others. One that fails is repeated after all others, {TRIES - 1} times at most. To see whether it works here:

  {PROGRAM} run --seed 1 --workload jobs2 --arm default --consolidate-after 10 --seconds 120 --to /tmp/trial

Seeds below {matrix.FIRST_REPORTED_SEED} are for trials: the report does not read them. Needs Linux, and the programs
that `scripts/control-plane build --karpenter {KARPENTER} --scheduler 1.34` makes.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code."""
    options = _parser().parse_args(arguments)
    stop = threading.Event()
    caught: list[int] = []

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup has a say
            signal.signal(number, ask_to_stop)
    try:
        return _COMMANDS[options.command](options, stop)
    except Stopped:
        _note("ended by a signal; what is done is kept, the next run goes on from there")
        return 128 + (caught[0] if caught else signal.SIGTERM)
    except BrokenPipeError:  # the reader has gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ControlPlaneError, ValueError, OSError) as error:
        _note(str(error))
        return 1


def _plan(options: argparse.Namespace, stop: threading.Event) -> int:
    for run in _runs(options):
        print(f"{'done' if _file(options.to, run).exists() else 'missing':8}{run.id}")
    return 0


def _run(options: argparse.Namespace, stop: threading.Event) -> int:
    options.to.mkdir(parents=True, exist_ok=True)
    missing = [run for run in _runs(options) if not _file(options.to, run).exists()]
    schedulers = sorted({ARMS[run.arm].binary for run in missing})
    find_or_build([*dict.fromkeys([*Options(karpenter=KARPENTER).binaries(), *schedulers])], os.environ, _note)
    failed = run_all(missing, options.to, options.parallel, stop, _note, with_recordings=options.record)
    return 1 if failed else 0


def _one(options: argparse.Namespace, stop: threading.Event) -> int:
    os.environ.setdefault("GOGC", "200")  # of all programs: less time for garbage, more memory
    run = replace(matrix.Run.parse(options.id), seconds=options.seconds, warm_up=options.warm_up, tries=options.tries)
    recording = options.to / f"{run.id}.jsonl" if options.record else None
    record.write(run_one(run, stop, _note, recording), _file(options.to, run))
    return 0


def _report(options: argparse.Namespace, stop: threading.Event) -> int:
    records = [
        record.read(file)
        for file in sorted(options.to.glob(f"*{matrix.SUFFIX}"))
        if matrix.Run.parse(file.name.removesuffix(matrix.SUFFIX)).seed >= matrix.FIRST_REPORTED_SEED
    ]
    for path in report.write(records, ROOT / "docs"):
        _note(f"wrote {path}")
    return 0


def _calibrate(options: argparse.Namespace, stop: threading.Event) -> int:
    for file in sorted(options.to.glob(f"{Kind.JOBS}*.json.?z")):
        found = record.read(file)
        if found.run.arm in calibrating.RULES:
            each, gone = calibrating.calibrated(found)
            nodes = f"{gone} of {len(found.nodes)} nodes went"
            hours = f"{each.observed:.2f} node-hours observed, {each.simulated:.2f} simulated ({each.off:+.1%})"
            print(f"{found.run.id:24}  {hours}; {nodes}")
    return 0


_COMMANDS: dict[str, Callable[[argparse.Namespace, threading.Event], int]] = {
    "plan": _plan,
    "run": _run,
    "one": _one,
    "report": _report,
    "calibrate": _calibrate,
}


def _runs(options: argparse.Namespace) -> list[matrix.Run]:
    runs = matrix.plan(
        options.workload or tuple(WORKLOADS),
        options.consolidate_after or matrix.CONSOLIDATE_AFTER,
        options.seed or matrix.SEEDS,
        options.arm or tuple(ARMS),
    )
    return [replace(run, seconds=options.seconds, warm_up=min(options.warm_up, options.seconds / 2)) for run in runs]


def _file(folder: Path, run: matrix.Run) -> Path:
    return folder / f"{run.id}{matrix.SUFFIX}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    plan = commands.add_parser("plan", help="list the runs, and which are done")
    run = commands.add_parser("run", help="carry out the missing ones")
    one = commands.add_parser("one")  # what `run` starts; not for people, so without help
    one.add_argument("id")
    one.add_argument("--tries", type=_number, default=1)
    for each in (plan, run):
        each.add_argument("--workload", action="append", choices=list(WORKLOADS), help="only this (may be repeated)")
        each.add_argument("--arm", action="append", choices=list(ARMS), help="only this (may be repeated)")
        each.add_argument(
            "--seed", action="append", type=_number, metavar="N", help=f"instead of {_list(matrix.SEEDS)}"
        )
        each.add_argument(
            "--consolidate-after",
            action="append",
            type=_number,
            metavar="SECONDS",
            help=f"instead of {_list(matrix.CONSOLIDATE_AFTER)}",
        )
    run.add_argument(
        "--parallel", type=_number, default=SIDE_BY_SIDE, metavar="N", help="runs side by side (default: %(default)d)"
    )
    for each in (plan, run, one):
        each.add_argument(
            "--seconds", type=float, default=matrix.SECONDS, help="length of a run (default: %(default)g)"
        )
        each.add_argument(
            "--warm-up", type=float, default=matrix.WARM_UP, help="of it not counted (default: %(default)g)"
        )
    for each in (run, one):
        each.add_argument(
            "--record", action="store_true", help="have warmnode record write RUN.jsonl beside the record"
        )
    read = commands.add_parser("report", help="write docs/experiment.md")
    calibration = commands.add_parser("calibrate", help="say how far warmnode simulate is off the runs of jobs")
    for each in (plan, run, one, read, calibration):
        each.add_argument(
            "--to",
            type=Path,
            default=RECORDS,
            metavar="FOLDER",
            help="where the records are (default: docs/experiment)",
        )
    return parser


def _number(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from 1 on")
    return int(text)


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _note(line: str) -> None:
    print(f"{PROGRAM}: {line}", file=sys.stderr, flush=True)
