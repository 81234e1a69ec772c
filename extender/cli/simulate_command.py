"""The command simulate: what the rules would do with a pool's jobs, before anything is switched on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from random import Random
from textwrap import shorten
from typing import Any, TypeVar

from extender.cli.outcome import CLEAN, BadUsage, fail, refuse, show
from extender.cli.parser import CommandParser, Commands, command, output_flag
from extender.inspect.reading import read_source, source_name
from extender.inspect.record.recording import RecordingError, read_recording
from extender.inspect.text import printable
from extender.settings import format_duration, parse_duration
from extender.simulate.chart import draw_frontier
from extender.simulate.jobs_file import JobsFileError, read_jobs
from extender.simulate.picture import to_svg
from extender.simulate.recorded import NEVER, ObservedPool, calibrate, observed_pool
from extender.simulate.results_text import Heading, pool_words, render_json, render_table
from extender.simulate.rules import RULES, Rule, parse_rule
from extender.simulate.run import PoolShape
from extender.simulate.study import Trial, run_study
from extender.simulate.workload import Arrivals, BlockDrawer, DataSets, Durations, Job, Traffic, make_jobs

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)

_SIMULATE = """\
Places the same jobs by several rules on a simulated pool and shows what each costs (node-hours), how warm it is (the
share of block reads that a node's cache serves), and how long jobs take. The age rules ask the code that answers
kube-scheduler. Jobs are made up, or come from a CSV with the columns arrives, duration, key and, if you like, reads.
Examples:

  warmnode simulate
  warmnode simulate --traffic bursts --svg frontier.svg
  warmnode simulate --miss-seconds 0.4 --price 0.76
  warmnode simulate --period 168h --jobs 100000 --consolidate-after 1m,5m,30m
  warmnode simulate --jobs-csv jobs.csv --rules oldest,window:5 -o json

docs/simulate.md says what the model leaves out, and how to choose the numbers.
"""

_CONSOLIDATE_AFTER = "1m,5m,15m"
_TITLE = "What a worker pool costs, and how warm it is"
_SUBTITLE = 150
"""Characters that fit into the picture."""


def _simulate_flags(parser: CommandParser) -> None:
    command(parser, _SIMULATE, _run)
    arrivals, data, shape = Arrivals(), DataSets(), PoolShape()

    jobs = parser.add_argument_group("jobs that are made up")
    _value(jobs, "--traffic", _one_of(Traffic), arrivals.traffic, "daily, bursts (each hour) or constant")
    _value(jobs, "--period", _positive_duration, arrivals.period, "how long jobs arrive")
    _value(jobs, "--jobs", _whole(1, 10_000_000), arrivals.jobs, "how many are expected in it")
    _value(jobs, "--job-duration", _positive_duration, arrivals.duration, "mean duration", "duration")
    _value(jobs, "--durations", _one_of(Durations), arrivals.durations, "exponential, or heavy: a few are very long")
    _value(jobs, "--swing", _real(0, 1), arrivals.swing, "daily: 0.7 is a peak of 1.7 times the mean")
    _value(jobs, "--burst", _positive_duration, arrivals.burst, "bursts: how long in each hour")
    _value(jobs, "--burst-factor", _real(1, 1000), arrivals.burst_factor, "bursts: arrivals in one against the rest")
    _value(jobs, "--keys", _whole(1, 1_000_000), data.keys, "keys, such as tenants")
    _value(jobs, "--key-skew", _real(0, 10), data.key_skew, "Zipf exponent of their popularity; 0: all the same")

    text = "replay what warmnode record wrote; slots, boot and consolidateAfter are then as recorded unless given"
    _value(parser, "--recorded", str, None, text, metavar="FILE")
    text = "with --recorded: the rule that placed the workers, for the calibration"
    _value(parser, "--ran", _checked(parse_rule), str(RULES[0]), text, metavar="RULE")
    _value(parser, "--jobs-csv", str, None, "read the jobs from a CSV instead; - is standard input", metavar="FILE")

    reading = parser.add_argument_group("what a job reads")
    _value(reading, "--key-blocks", _whole(1, 1_000_000), data.blocks, "blocks that a key has", "blocks")
    _value(reading, "--block-skew", _real(0, 10), data.block_skew, "Zipf exponent of their popularity")
    _value(reading, "--reads", _whole(0, 100_000), data.reads, "blocks that a job draws; one drawn twice is read once")

    pool = parser.add_argument_group("the pool")
    _value(pool, "--slots", _whole(1, 10_000), shape.slots, "jobs that a node takes")
    _value(pool, "--boot", _duration, shape.boot, "from launching a node until it takes jobs")
    _value(pool, "--cache-blocks", _whole(1, 100_000_000), shape.cache_blocks, "blocks that a node's cache holds")
    _value(pool, "--miss-seconds", _real(0, 86_400), shape.miss_seconds, "a block that is not there makes a job longer")
    _value(pool, "--price", _real(0, 1_000_000), None, "of an hour of a node: shows what each rule costs")
    _value(pool, "--restart-every", _positive_duration, None, "restart warmnode so often: it forgets key counts")
    text = "values of Karpenter's consolidateAfter, with commas"
    _value(pool, "--consolidate-after", _several(_duration), _CONSOLIDATE_AFTER, text, "afters")

    rules = ",".join(map(str, RULES))
    text = "rules to compare, with commas: spread, most-allocated[-listed], oldest, set:SLACK, window:N"
    _value(parser, "--rules", _several(_checked(parse_rule)), rules, text)
    _value(parser, "--seed", _whole(0, 2**63 - 1), 1, "for all that is random")
    output_flag(parser, "table", "json")
    _value(parser, "--svg", _picture, None, "draw node-hours against hit ratio into this file", metavar="FILE")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")


COMMANDS: Commands = {"simulate": _simulate_flags}


def _run(options: argparse.Namespace) -> int:
    random = Random(options.seed)  # noqa: S311 - a model, no secret
    data, shape = _taken(options, DataSets), _taken(options, PoolShape)
    try:
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
    afters = options.afters
    calibration = None
    if observed is not None:
        if options.afters == _several(_duration)(_CONSOLIDATE_AFTER):
            afters = [observed.consolidate_after or NEVER]
        shape = replace(shape, first_nodes=observed.first_nodes, watched=observed.period)
        as_ran = replace(shape, consolidate_after=afters[0], miss_seconds=0.0)  # misses are in what was observed
        calibration = calibrate(observed, as_ran, options.ran, seed=options.seed)
    progress = _Progress(silent=options.quiet)
    trials = run_study(jobs, shape, options.rules, afters, seed=options.seed, report=progress.report)
    progress.end()
    heading = Heading(
        workload=words,
        parameters=parameters,
        jobs=len(jobs),
        keys=len({job.key for job in jobs if job.key}),
        seed=options.seed,
        price=options.price,
        calibration=calibration,
        observed=observed,
    )
    drawn = _draw(options.svg, heading, shape, trials) if options.svg is not None else CLEAN
    render = render_json if options.output == "json" else render_table
    return show(render(heading, shape, trials)) or drawn


def _workload(options: argparse.Namespace, data: DataSets, random: Random) -> tuple[list[Job], str, dict[str, object]]:
    """Make up or read the jobs: them, words for them, and what the JSON form tells. Raises JobsFileError, BadUsage."""
    source = options.jobs_csv
    reading: dict[str, object] = {"keyBlocks": data.blocks, "blockSkew": data.block_skew, "reads": data.reads}
    if source is not None:
        name = printable(source_name(source))
        jobs = read_jobs(
            read_source(source, _not_read), BlockDrawer(data, random), source=name, default_reads=data.reads
        )
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
        return observed_pool(recording, BlockDrawer(data, random), reads=data.reads, cache_blocks=shape.cache_blocks)
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
    words = f"{heading.jobs:,} jobs of {heading.keys:,} keys: {heading.workload}; {pool_words(shape)}"
    seen = heading.observed
    picture = draw_frontier(
        trials,
        title=_TITLE,
        subtitle=shorten(words, _SUBTITLE),
        by_latency=shape.miss_seconds > 0,
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


class _Progress:
    """Says on standard error which run is under way: one line that is written over on a terminal, else a line a run."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self._in_place = sys.stderr is not None and sys.stderr.isatty()
        self._shown = ""

    def report(self, number: int, runs: int, rule: Rule, after: timedelta, share: float) -> None:
        """See `simulate.study.Report`."""
        text = f"run {number} of {runs}: {rule.words}, consolidateAfter {format_duration(after)}"
        if self._in_place:
            text += f": {share:.0%}"
        if self._silent or text == self._shown:
            return
        if self._in_place:
            print(f"\r{text.ljust(len(self._shown))}", end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)
        self._shown = text

    def end(self) -> None:
        """Leave a clean line."""
        if self._in_place and self._shown:
            print(f"\r{' ' * len(self._shown)}\r", end="", file=sys.stderr, flush=True)


def _value(
    parser: Any,
    name: str,
    read: Callable[[str], object],
    default: object,
    text: str,
    field: str | None = None,
    *,
    metavar: str | None = None,
) -> None:
    """Add a flag with its default shown as it is written. ``field`` is what it fills, where that has another name."""
    shown = format_duration(default) if isinstance(default, timedelta) else default
    plain = name.removeprefix("--").replace("-", "_")
    help_text = text if default is None else f"{text} (default: {shown})"
    # argparse reads a default that is a string as if it had been given
    parser.add_argument(
        name, type=read, default=default, dest=field or plain, metavar=metavar or plain.upper(), help=help_text
    )


def _taken(options: argparse.Namespace, kind: type[T]) -> T:
    """Make a value of the flags that fill its fields."""
    given = vars(options)
    return kind(**{name: given[name] for name in kind.__dataclass_fields__ if name in given})  # type: ignore[attr-defined]


def _checked(read: Callable[[str], T]) -> Callable[[str], T]:
    """Make argparse show what a reader says about a bad value."""

    def check(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{error} (got {text!r})") from error

    return check


def _several(read: Callable[[str], T]) -> Callable[[str], list[T]]:
    """Read values with commas between them, each once."""
    return lambda text: list(dict.fromkeys(read(part.strip()) for part in text.split(",")))


def _one_of(kind: type[E]) -> Callable[[str], E]:
    def read(text: str) -> E:
        if text not in tuple(kind):
            raise argparse.ArgumentTypeError(f"choose from {', '.join(kind)} (got {text!r})")
        return kind(text)

    return read


def _picture(text: str) -> Path:
    if text.lower().endswith((".png", ".jpg", ".pdf")):
        raise argparse.ArgumentTypeError(f"pictures are SVG only, which browsers show and convert (got {text!r})")
    return Path(text)


_duration = _checked(parse_duration)


def _positive_duration(text: str) -> timedelta:
    duration = _duration(text)
    if not duration:
        raise argparse.ArgumentTypeError(f"must be longer than zero (got {text!r})")
    return duration


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"must be a whole number from {least:,} to {most:,} (got {text!r})")
        return int(text)

    return read


def _real(least: float, most: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"must be a number from {least:g} to {most:g} (got {text!r})")
        return number

    return read
