"""The command line of scripts/bench: webhook, scheduler, memory, claims, reap, page, keys.

Owns arguments, exit codes (0 done, 1 failure, 2 bad usage) and where a report goes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar

from scripts.tools.benchmarks import claims, keys, live_view, machine, memory, reaping, scheduler, webhook
from scripts.tools.benchmarks.report import Report, with_section
from scripts.tools.controlplane import ControlPlaneError

PROGRAM = "scripts/bench"
DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "benchmarks.md"

DESCRIPTION = f"""\
Measures warmnode and writes the numbers in docs/benchmarks.md.

  webhook    latency and throughput of a prioritize call, beside a minimal extender in Go      about 12 minutes
  scheduler  pods a second of a real kube-scheduler without and with extenders; preemption     about 20 minutes
  memory     resident memory, first sync and CPU at 5,000 nodes and 100,000 pods               about 5 minutes
  claims     latency of a claim and claims a second, before a real API server                  about 5 minutes
  keys       memory and prioritize with cache keys, beside the same without                    about 7 minutes
  page       time of a frame of `warmnode page` at 1,000 nodes, in a Chromium               about 3 minutes
  reap       CPU of a pass of the reaper over 100,000 workers, and how long others wait        about 1 minute

First try:           {PROGRAM} webhook --quick
To keep the result:  {PROGRAM} webhook --write
For a program:       {PROGRAM} webhook --output json >webhook.json

Needs Linux, two cores, Go, and the programs that `scripts/control-plane build` makes. Those that are compared take
turns in every round: trust the ratios more than the times, and the times only on a machine that does nothing else
(load average of the last minute up to {machine.QUIET_LOAD}).
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one benchmark and return the exit code."""
    options = _parser().parse_args(arguments)
    if options.write and options.quick:
        print(f"{PROGRAM}: --quick measures too little to be written down: leave one of them out", file=sys.stderr)
        return 2
    if machine.load() > machine.QUIET_LOAD:
        _note(f"the machine is not quiet (load average {machine.load():.2f}): trust the ratios only")
    try:
        report = _BENCHMARKS[options.benchmark](options)
        if options.quick:
            report = replace(report, targets=(), notes=(*report.notes, "a quick run says nothing about the targets"))
        if options.write:
            DOCUMENT.write_text(with_section(DOCUMENT.read_text(), report.name, report.markdown()))
            _note(f"wrote the section {report.name} of {DOCUMENT}")
    except (ControlPlaneError, ValueError, OSError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted; nothing was left behind", file=sys.stderr)
        return 130
    as_json = options.output == "json"
    print(report.text(), file=sys.stderr if as_json else sys.stdout)
    if as_json:
        print(json.dumps(asdict(report), indent=2))
    return 0


class _Size(Protocol):
    """How much a benchmark measures: a dataclass that has ``rounds``."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def rounds(self) -> int: ...


_S = TypeVar("_S", bound=_Size)
_Benchmark: TypeAlias = Callable[[argparse.Namespace], Report]


def _benchmark(full: _S, quick: _S, measure: Callable[[_S, Callable[[str], None]], Report]) -> _Benchmark:
    """Measure ``full``, or ``quick`` where that is asked for, in as many rounds as the arguments say."""

    def run(options: argparse.Namespace) -> Report:
        size = quick if options.quick else full
        return measure(replace(size, rounds=options.rounds or size.rounds), _note)

    return run


_BENCHMARKS: dict[str, _Benchmark] = {
    "webhook": _benchmark(webhook.FULL, webhook.QUICK, webhook.measure),
    "scheduler": _benchmark(scheduler.FULL, scheduler.QUICK, scheduler.measure),
    "memory": _benchmark(memory.FULL, memory.QUICK, memory.measure),
    "claims": _benchmark(claims.FULL, claims.QUICK, claims.measure),
    "reap": _benchmark(reaping.FULL, reaping.QUICK, reaping.measure),
    "page": _benchmark(live_view.FULL, live_view.QUICK, live_view.measure),
    "keys": _benchmark(keys.FULL, keys.QUICK, keys.measure),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("benchmark", choices=list(_BENCHMARKS))
    parser.add_argument("--rounds", type=_count, metavar="N", help="how often (default: 3 to 10, by the benchmark)")
    parser.add_argument("--quick", action="store_true", help="one small round, to see whether it runs")
    parser.add_argument("--write", action="store_true", help="write the section of docs/benchmarks.md")
    parser.add_argument(
        "--output", choices=("table", "json"), default="table", help="json: every round, the table on standard error"
    )
    return parser


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from 1 on")
    return int(text)


def _note(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
