"""The command simulate: what the rules would do with a pool's jobs, before anything is switched on."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random
from textwrap import shorten
from typing import TypeVar

from extender.cli.outcome import CLEAN, BadUsage, fail, refuse, show
from extender.cli.parser import CommandParser, Commands, command
from extender.cli.simulate_flags import AFTERS, add_simulate_flags
from extender.cli.status_line import StatusLine
from extender.inspect.reading import read_source, source_name
from extender.inspect.record.recording import RecordingError, read_recording
from extender.inspect.text import printable
from extender.settings import format_duration
from extender.simulate.chart import draw_frontier
from extender.simulate.jobs_file import JobsFileError, read_jobs
from extender.simulate.picture import to_svg
from extender.simulate.pool import PoolShape
from extender.simulate.recorded import NEVER, ObservedPool, calibrate, observed_pool
from extender.simulate.results_text import Heading, jobs_words, pool_words, render_json, render_table
from extender.simulate.rules import RULES, Rule
from extender.simulate.session_rules import SESSION_RULES, SessionRule, WorkerShape
from extender.simulate.study import Report, Trial, run_study
from extender.simulate.workload import Arrivals, BlockDrawer, DataSets, Job, Traffic, make_jobs

T = TypeVar("T")

_SIMULATE = """\
Places the same jobs by several rules on a simulated pool and shows what each costs (node-hours), how warm it is (the
share of block reads that a node's cache serves), and how long jobs take. The age rules ask the code that answers
kube-scheduler. Jobs are made up, or come from a CSV with the columns arrives, duration, key and, if you like, blocks
and reads.
Examples:

  warmnode simulate
  warmnode simulate --traffic bursts --svg frontier.svg
  warmnode simulate --miss-seconds 0.4 --price 0.76
  warmnode simulate --period 168h --jobs 100000 --consolidate-after 1m,5m,30m
  warmnode simulate --jobs-csv jobs.csv --rules oldest,window:5 -o json
  warmnode simulate --sessions

docs/simulate.md says what the model leaves out, and how to choose the numbers.
"""

_TITLE = "What a worker pool costs, and how warm it is"
_SUBTITLE = 150
"""Characters that fit into the picture."""


def _simulate(parser: CommandParser) -> None:
    command(parser, _SIMULATE, _run)
    add_simulate_flags(parser)


COMMANDS: Commands = {"simulate": _simulate}


def _rules(options: argparse.Namespace) -> Sequence[Rule | SessionRule]:
    """Give the rules that are compared. Raises BadUsage."""
    rules: Sequence[Rule | SessionRule] = options.rules or (SESSION_RULES if options.sessions else RULES)
    if any(isinstance(rule, SessionRule) != options.sessions for rule in rules):
        raise BadUsage("rules for sessions, PLACEMENT+CLAIMS+REAPING, go with --sessions and with no other rule")
    if options.sessions and (options.recorded is not None or options.restart_every is not None):
        raise BadUsage("--sessions goes with neither --recorded nor --restart-every")
    return rules


def _run(options: argparse.Namespace) -> int:
    random = Random(options.seed)  # noqa: S311 - a model, no secret
    data, shape = _taken(options, DataSets), _taken(options, PoolShape)
    workers = _taken(options, WorkerShape) if options.sessions else None
    try:
        rules = _rules(options)
        if options.recorded is not None and options.jobs_csv is not None:
            raise BadUsage("--recorded and --jobs-csv do not go together: give one of them")
        observed = _observed(options, data, random, shape) if options.recorded is not None else None
        if observed is not None:
            shape = _recorded_shape(options, shape, observed)
        jobs, words, parameters = _workload(options, data, random) if observed is None else _replayed(options, observed)
        if options.svg is not None:
            options.svg.open("a").close()  # what cannot be written is told before the runs, not after them
    except JobsFileError as error:
        return refuse(str(error), bare=True)
    except (BadUsage, RecordingError) as error:
        return refuse(str(error))
    except OSError as error:
        return fail(_not_written(error))
    afters = options.afters or AFTERS
    calibration = None
    if observed is not None:
        if options.afters is None:
            afters = [observed.consolidate_after or NEVER]
        shape = replace(shape, first_nodes=observed.first_nodes, watched=observed.period)
        as_ran = replace(shape, consolidate_after=afters[0], miss_seconds=0.0)  # misses are in what was observed
        calibration = calibrate(observed, as_ran, options.ran, seed=options.seed)
    line = StatusLine(silent=options.quiet)
    trials = run_study(jobs, shape, rules, afters, seed=options.seed, workers=workers, report=_reporter(line))
    line.end()
    heading = Heading(
        workload=words,
        parameters=parameters,
        jobs=len(jobs),
        keys=len({job.key for job in jobs if job.key}),
        seed=options.seed,
        price=options.price,
        workers=workers,
        calibration=calibration,
        observed=observed,
    )
    drawn = _draw(options.svg, heading, shape, trials) if options.svg is not None else CLEAN
    render = render_json if options.output == "json" else render_table
    return show(render(heading, shape, trials)) or drawn


def _workload(options: argparse.Namespace, data: DataSets, random: Random) -> tuple[list[Job], str, dict[str, object]]:
    """Make up or read the jobs: them, words for them, and what the JSON form tells. Raises JobsFileError, BadUsage."""
    source = options.jobs_csv
    reading: dict[str, object] = {
        "keyBlocks": data.blocks,
        "keySizes": data.sizes,
        "blockSkew": data.block_skew,
        "reads": data.reads,
    }
    if source is not None:
        name = printable(source_name(source))
        jobs = read_jobs(read_source(source, _not_read), data, random, source=name)
        period = timedelta(seconds=round(jobs[-1].arrives))
        words = f"from {name}, over {format_duration(period)}; seed {options.seed}"
        return jobs, words, {"source": name, "periodSeconds": period.total_seconds(), **reading}
    arrivals = _taken(options, Arrivals)
    jobs = make_jobs(arrivals, data, random)
    if not jobs:
        raise BadUsage("no job arrived: give more --jobs")
    words = (
        f"{arrivals.traffic} traffic over {format_duration(arrivals.period)}, mean duration "
        f"{format_duration(arrivals.duration)}; seed {options.seed}"
    )
    parameters: dict[str, object] = {
        "traffic": arrivals.traffic,
        "periodSeconds": arrivals.period.total_seconds(),
        "meanDurationSeconds": arrivals.duration.total_seconds(),
        "durations": arrivals.durations,
        "keySkew": data.key_skew,
        **reading,
    }
    if arrivals.traffic is Traffic.DAILY:
        parameters["swing"] = arrivals.swing
    if arrivals.traffic is Traffic.BURSTS:
        parameters |= {"burstSeconds": arrivals.burst.total_seconds(), "burstFactor": arrivals.burst_factor}
    return jobs, words, parameters


def _observed(options: argparse.Namespace, data: DataSets, random: Random, shape: PoolShape) -> ObservedPool:
    """Read a recording. Raises RecordingError, BadUsage."""
    name = printable(source_name(options.recorded))
    recording = read_recording(read_source(options.recorded, _not_read), name)
    try:
        return observed_pool(recording, BlockDrawer(data, random), cache_blocks=shape.cache_blocks)
    except RecordingError as error:
        raise RecordingError(f"{name}: {error}") from error


def _recorded_shape(options: argparse.Namespace, shape: PoolShape, observed: ObservedPool) -> PoolShape:
    """Take what was observed for what nobody gave."""
    default = PoolShape()
    slots = observed.slots if shape.slots == default.slots else shape.slots
    boot = (observed.boot or shape.boot) if shape.boot == default.boot else shape.boot
    return replace(shape, slots=slots, boot=boot)


def _replayed(options: argparse.Namespace, observed: ObservedPool) -> tuple[Sequence[Job], str, dict[str, object]]:
    name = printable(source_name(options.recorded))
    period = timedelta(seconds=round(observed.period.total_seconds()))
    words = f"recorded in {name}, over {format_duration(period)}; seed {options.seed}"
    return observed.jobs, words, {"source": name, "periodSeconds": observed.period.total_seconds()}


def _draw(file: Path, heading: Heading, shape: PoolShape, trials: list[Trial]) -> int:
    words = f"{jobs_words(heading)}; {pool_words(shape, heading.workers)}"
    seen = heading.observed
    picture = draw_frontier(
        trials,
        title=_TITLE,
        subtitle=shorten(words, _SUBTITLE),
        by_latency=shape.miss_seconds > 0,
        price=heading.price,
        observed=None if seen is None else (seen.node_hours, seen.hit_ratio),
    )
    try:
        file.write_text(to_svg(picture), encoding="utf-8")
    except OSError as error:
        return fail(_not_written(error))
    return CLEAN


def _not_read(source: str, problem: str) -> BadUsage:
    return BadUsage(f"{printable(source)} cannot be read: {problem}")


def _not_written(error: OSError) -> str:
    return f"{error.filename} cannot be written: {(error.strerror or str(error)).lower()}"


def _reporter(line: StatusLine) -> Report:
    """Say which run is under way, and where the line is written over, how far it is."""

    def report(number: int, runs: int, rule: Rule | SessionRule, after: timedelta, share: float) -> None:
        text = f"run {number} of {runs}: {rule.words}, consolidateAfter {format_duration(after)}"
        line.tell(f"{text}: {share:.0%}" if line.in_place else text)

    return report


def _taken(options: argparse.Namespace, kind: type[T]) -> T:
    """Make a value of the flags that fill its fields."""
    given = vars(options)
    return kind(**{name: given[name] for name in kind.__dataclass_fields__ if name in given})  # type: ignore[attr-defined]
