"""The command record: what a cluster does, written to a file for as long as is asked."""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

from extender.cli.flags import cluster_flags, cluster_options, path
from extender.cli.look_source import looks_once
from extender.cli.outcome import CLEAN, BadUsage, fail
from extender.cli.parser import CommandParser, Commands, command
from extender.cli.status_line import StatusLine
from extender.inspect.record.recorder import Progress, RecordOptions, record
from extender.inspect.record.recording import RecordingError
from extender.inspect.text import count, span
from extender.kube.api_client import connected
from extender.kube.objects import Classify
from extender.model import Membership
from extender.settings import parse_duration, read_configuration
from extender.settings.in_force import InForce

_RECORD = """\
Follows the workers of the pools, or of a selector, and all nodes, and writes what becomes of them to a file that
warmnode simulate --recorded replays. Lists and watches only; nothing is written into the cluster, and nothing has to be
installed. Ends after --for, or with Ctrl-C; started again with the same file it goes on. Examples:

  warmnode record --for 24h day.jsonl
  warmnode record --selector app=x --cache-key tenant --anonymize day.jsonl
"""

TOLD_EVERY = timedelta(minutes=1)


def _record_flags(parser: CommandParser) -> None:
    command(parser, _RECORD, looks_once(_record))
    parser.add_argument("file", metavar="FILE", help="where to; a recording that is there is continued")
    parser.add_argument("--for", dest="length", default="24h", metavar="DURATION", help="how long (default: 24h)")
    parser.add_argument("--selector", default="", metavar="LABELS", help="pods to follow, in place of configured pools")
    parser.add_argument("--cache-key", metavar="LABEL", help="with --selector: the label whose value is the cache key")
    parser.add_argument("--anonymize", action="store_true", help="write hashes in place of names and keys")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")
    cluster_flags(parser)


COMMANDS: Commands = {"record": _record_flags}


def _record(options: argparse.Namespace) -> int:
    try:
        length = parse_duration(options.length)
    except ValueError as error:
        raise BadUsage(f"--for: {error} (got {options.length!r})") from error
    asked = RecordOptions(
        file=Path(options.file),
        length=length,
        classify=_classify(options),
        selector=options.selector,
        anonymize=options.anonymize,
    )
    try:
        done = asyncio.run(_run(options, asked))
    except RecordingError as error:
        raise BadUsage(str(error)) from error
    except OSError as error:
        return fail(f"{options.file} cannot be written: {(error.strerror or str(error)).lower()}")
    print(
        f"recorded {count(done.seen, 'worker')} over {span(done.since)}; replay it: "
        f"warmnode simulate --recorded {options.file}",
        flush=True,
    )
    return CLEAN


def _classify(options: argparse.Namespace) -> Classify:
    if not options.selector:
        if options.cache_key:
            raise BadUsage("--cache-key is for --selector: the configuration names the labels of its pools")
        return InForce(read_configuration(path(options.config))).classify

    def selected(namespace: str, labels: Mapping[str, str]) -> Membership:
        return Membership(pool=options.selector, cache_key=labels.get(options.cache_key or "") or None)

    return selected


async def _run(options: argparse.Namespace, asked: RecordOptions) -> Progress:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    line = StatusLine(silent=options.quiet)
    async with connected(cluster_options(options)) as client:
        done = await record(client, asked, _teller(options.length, line), stopping)
    line.end()
    return done


def _teller(length: str, line: StatusLine) -> Callable[[Progress], None]:
    """Say how far it is: where the line is not written over, once a minute."""
    due = timedelta(0)

    def tell(now: Progress) -> None:
        nonlocal due
        if not line.in_place and now.since < due:
            return
        due = now.since + TOLD_EVERY
        text = (
            f"{span(now.since)} of {length}: {count(now.running, 'worker')} on {count(now.nodes, 'node')} now, "
            f"{now.seen:,} seen" + (f"; {now.problem}" if now.problem else "")
        )
        line.tell(text[:100] if line.in_place else text)

    return tell
