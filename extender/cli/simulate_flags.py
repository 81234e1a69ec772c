"""The flags of the command simulate, and how their values are read."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from extender.cli.parser import CommandParser, output_flag
from extender.settings import format_duration, parse_duration
from extender.simulate.pool import PoolShape
from extender.simulate.rules import RULES, Rule, parse_rule
from extender.simulate.session_rules import ClaimOrder, ReapOrder, SessionRule, WorkerShape, parse_session_rule
from extender.simulate.workload import MOST_BLOCKS, Arrivals, DataSets, Distribution, Traffic

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)

AFTERS = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 15))
"""Values of consolidateAfter where nobody says."""


def add_simulate_flags(parser: CommandParser) -> None:
    """Add all flags."""
    arrivals, data, shape = Arrivals(), DataSets(), PoolShape()

    jobs = parser.add_argument_group("jobs that are made up")
    _value(jobs, "--traffic", _one_of(Traffic), arrivals.traffic, "daily, bursts (each hour) or constant")
    _value(jobs, "--period", _positive_duration, arrivals.period, "how long jobs arrive")
    _value(jobs, "--jobs", _whole(1, 10_000_000), arrivals.jobs, "how many are expected in it")
    _value(jobs, "--job-duration", _positive_duration, arrivals.duration, "mean duration", "duration")
    text = "equal, exponential, or heavy: a few are very long"
    _value(jobs, "--durations", _one_of(Distribution), arrivals.durations, text)
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
    _value(reading, "--key-blocks", _whole(1, MOST_BLOCKS), data.blocks, "blocks that a key has, in the mean", "blocks")
    text = "equal, exponential, or heavy: a few have very many"
    _value(reading, "--key-sizes", _one_of(Distribution), data.sizes, text, "sizes")
    _value(reading, "--block-skew", _real(0, 10), data.block_skew, "Zipf exponent of their popularity")
    text = "blocks that a job draws of a key of mean size, of others in proportion; one drawn twice is read once"
    _value(reading, "--reads", _whole(0, 100_000), data.reads, text)

    pool = parser.add_argument_group("the pool")
    _value(pool, "--slots", _whole(1, 10_000), shape.slots, "jobs that a node takes")
    _value(pool, "--boot", _duration, shape.boot, "from launching a node until it takes jobs")
    _value(pool, "--cache-blocks", _whole(1, 100_000_000), shape.cache_blocks, "blocks that a node's cache holds")
    _value(pool, "--miss-seconds", _real(0, 86_400), shape.miss_seconds, "a block that is not there makes a job longer")
    _value(pool, "--price", _real(0, 1_000_000), None, "of an hour of a node: shows what each rule costs")
    _value(pool, "--restart-every", _positive_duration, None, "restart warmnode so often: it forgets key counts")
    shown = ",".join(map(format_duration, AFTERS))
    text = f"values of Karpenter's consolidateAfter, with commas (default: {shown}; with --recorded what was observed)"
    _value(pool, "--consolidate-after", _several(_duration), None, text, "afters")

    sessions, workers = parser.add_argument_group("sessions on long-lived workers"), WorkerShape()
    text = "the jobs are sessions: each claims an idle worker, or one is started"
    sessions.add_argument("--sessions", action="store_true", help=text)
    _value(sessions, "--worker-start", _duration, workers.start, "from a worker's placement until it is ready", "start")
    _value(sessions, "--idle-timeout", _duration, workers.idle_timeout, "idle workers are evicted after it")
    _value(sessions, "--floor", _whole(0, 100_000), workers.floor, "so many idle workers are kept")

    text = (
        "rules to compare, with commas: spread, most-allocated[-listed], oldest, set:SLACK, window:N; for sessions "
        f"PLACEMENT+CLAIMS+REAPING, with claims {', '.join(ClaimOrder)} and reaping {', '.join(ReapOrder)}"
    )
    _value(parser, "--rules", _several(_checked(_any_rule)), None, text)
    _value(parser, "--seed", _whole(0, 2**63 - 1), 1, "for all that is random")
    output_flag(parser, "table", "json")
    _value(parser, "--svg", _picture, None, "draw node-hours against hit ratio into this file", metavar="FILE")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")


def _any_rule(text: str) -> Rule | SessionRule:
    return parse_session_rule(text) if "+" in text else parse_rule(text)


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
