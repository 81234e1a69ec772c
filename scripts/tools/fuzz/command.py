"""The command line of scripts/fuzz: 0 nothing was found, 1 something was, 2 bad usage."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import NoReturn

from scripts.tools.controlplane.binaries import cache_directory
from scripts.tools.fuzz.calls import fuzz_calls
from scripts.tools.fuzz.targets import CORPUS, TARGETS

CALLS = "calls"
DESCRIPTION = """\
Sends what nobody sends, to see whether what is promised holds for it too.

  prioritize, preempt  bodies to the webhook: each is answered as a kube-scheduler can read it, or refused in one line,
                       and two replicas that know the same answer the same
  watch                events of an API server: the state is that of its objects, and policies can judge it
  calls                calls to the claims listener of a real `warmnode serve`, as docs/openapi.json allows and as it
                       forbids them: answers are as it says, what it allows is taken, and what it forbids is not

The first three are guided by what they reach (atheris), begin with the inputs in tests/corpus, and keep what reached
something new in the user's cache: the next run goes on from there. The last is schemathesis.
"""
EPILOG = """\
What is found in bytes is left as a file in tests/corpus: `scripts/test tests/unit/test_fuzz_corpus.py` replays it, now
and from then on. What schemathesis finds is printed, with a curl command.

  scripts/fuzz                                         all of them for a minute and a half
  scripts/fuzz --seconds 3600 prioritize               an hour of one
  scripts/fuzz --seconds 0 --runs 1000000 preempt      a million inputs
  scripts/fuzz --seconds 0 --runs 100 --seed 7 calls   a hundred calls of each operation, the same each time

Exit codes: 0 nothing was found, 1 something was, 2 bad usage.
"""
USUAL_SECONDS = 20
MEMORY_MIB = 1024
"""What grows with each input gets there."""
LONGEST_BYTES = 16_384
LONGEST_SECONDS = 120
"""For one input, by the clock of the wall, on a machine that does something else."""


def main() -> int:
    """Fuzz one target after the other."""
    options = _options()
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, _end)
    found = False
    for target in options.targets:
        if target == CALLS:
            found |= not fuzz_calls(seconds=options.seconds, runs=options.runs, seed=options.seed)
        elif importlib.util.find_spec("atheris") is None:
            print(f"{target}: not run: atheris is there for Linux on x86-64 only")
        else:
            found |= not _fuzz_bytes(target, options)
    return 1 if found else 0


def _fuzz_bytes(target: str, options: argparse.Namespace) -> bool:
    """Run libFuzzer in a process of its own. True where nothing was found.

    What reached something new is kept for the next run, unless it is to have the same inputs.
    """
    if options.seed:
        with tempfile.TemporaryDirectory(prefix="warmnode-fuzz-") as name:
            return _fuzz_from(target, Path(name), options)
    kept = cache_directory(os.environ).parent / "fuzz" / target
    kept.mkdir(parents=True, exist_ok=True)
    return _fuzz_from(target, kept, options)


def _fuzz_from(target: str, kept: Path, options: argparse.Namespace) -> bool:
    before = set((CORPUS / target).iterdir())
    arguments = {
        "runs": options.runs,
        "max_total_time": options.seconds,
        "seed": options.seed,
        "artifact_prefix": f"{CORPUS / target}/",
        "rss_limit_mb": MEMORY_MIB,
        "max_len": LONGEST_BYTES,
        "timeout": LONGEST_SECONDS,
        "report_slow_units": LONGEST_SECONDS,
    }
    command = [sys.executable, "-P", "-m", "scripts.tools.fuzz.guided", target]
    command += [f"-{name}={value}" for name, value in arguments.items()]
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        child = subprocess.Popen([*command, str(kept), str(CORPUS / target)], stdout=log, stderr=log)
        try:
            status = child.wait()
        finally:
            child.kill()
            child.wait()
        log.seek(0)
        said = log.read()
    if status == 0:
        print(f"{target}: {_summary(said)}", flush=True)
        return True
    inputs = sorted(set((CORPUS / target).iterdir()) - before)
    told = [line for line in said.splitlines() if not line.startswith("INFO: ")]
    print(*told[-60:], sep="\n", file=sys.stderr)
    print(f"{target}: FOUND, see above: {', '.join(map(str, inputs)) or f'it ended with {status}'}", flush=True)
    return False


def _summary(said: str) -> str:
    runs = re.findall(r"^Done (\d+) runs in (\d+) second", said, re.MULTILINE)
    reached = re.findall(r"\bcov: (\d+)", said)
    return (
        f"{int(runs[-1][0]):,} inputs in {runs[-1][1]} s, {reached[-1]} branches reached, nothing found" if runs else ""
    )


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """End as the signal asks: what was started is ended on the way out."""
    raise SystemExit(128 + number)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [*TARGETS, CALLS]
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"these only: {', '.join(names)}")
    parser.add_argument(
        "--seconds", type=int, default=USUAL_SECONDS, help=f"for each target (usual: {USUAL_SECONDS}; 0: no limit)"
    )
    parser.add_argument(
        "--runs", type=int, default=-1, help="inputs for each target at most; calls: for each operation"
    )
    parser.add_argument("--seed", type=int, default=0, help="the same gives the same inputs, about; nothing is kept")
    options = parser.parse_args()
    if unknown := sorted(set(options.targets) - set(names)):
        parser.error(f"no such target: {', '.join(unknown)}")
    if options.seconds < 0 or (options.seconds == 0 and options.runs < 0):
        parser.error("--seconds: a whole number; 0 only with --runs, or it never ends")
    options.targets = options.targets or names
    return options
