"""Runs mutmut (https://mutmut.readthedocs.io) on chosen functions with chosen tests, in a folder that is thrown away.

mutmut writes all mutants of a file side by side, runs the tests once to see which reach which function, and then forks
a process for each mutant, with everything imported already: a quarter of a second of CPU each.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from configparser import ConfigParser
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from scripts.tools.mutants.changes import Mutant, MutatedFile
from scripts.tools.mutants.targets import SOURCES, Function, Unusable

UNREACHED = (None, 5, 33)
"""How mutmut says that no test runs a mutant's function: it was not run, pytest found no test, none is known."""
HARMLESS = ("could not find any test case for any mutant", "but nothing matches")
"""What mutmut says when it ends early because no test runs what it changed, or nothing can be changed."""
ALLOWANCE = 4
"""Seconds that a mutant may take longer than its tests did, times 15, before it counts as one that hangs."""
TELL_EVERY = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Mutants of ``functions``, those with one of ``names`` (patterns, as mutmut's), each tried by ``tests``."""

    functions: Sequence[Function]
    names: Sequence[str]
    tests: Iterable[str]
    profile: str
    """Of Hypothesis, see tests/conftest.py."""
    jobs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How many mutants there were, and those that no test noticed."""

    tried: int
    unnoticed: tuple[Mutant, ...]


def run(root: Path, trial: Trial) -> Outcome:
    """Try the mutants of a trial; those that change nothing but what is said to people are not counted.

    Raises:
        Unusable: when the tests fail without a mutant.
    """
    with tempfile.TemporaryDirectory(prefix="warmnode-mutants-") as name:
        folder = Path(name)
        _lay_out(root, folder, trial)
        code, output = _mutmut(folder, trial)
        if code and not any(each in output for each in HARMLESS):
            remedy = "tests that fail there and pass by themselves need a machine that does nothing else"
            raise Unusable(f"mutmut gave up; what it said last:\n{output}\n{remedy}")
        return _outcome(folder, trial)


def _lay_out(root: Path, folder: Path, trial: Trial) -> None:
    """Everything as it is in the repository, and a configuration of mutmut's own: it makes its copy from this."""
    listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout
    tops = sorted({path.partition("/")[0] for path in listed.splitlines()})
    for top in tops:
        (folder / top).symlink_to(root / top)
    (folder / "mutants").mkdir()  # before Python looks for it there: it remembers where nothing was
    options: Mapping[str, str | Sequence[str]] = {
        "source_paths": [SOURCES],
        "only_mutate": sorted({each.file for each in trial.functions}),
        "also_copy": [top for top in tops if top not in (SOURCES, ".git")],
        "pytest_add_cli_args_test_selection": sorted(trial.tests),
        "pytest_add_cli_args": [
            *("-m", "not controlplane", "-p", "no:cacheprovider"),
            f"--hypothesis-profile={trial.profile}",
        ],
        "process_isolation": "forkserver",  # so that no cache knows what the code before the mutation said
        "timeout_constant": str(ALLOWANCE),
        "do_not_mutate_patterns": [r"assert_never\("],  # never runs, which mypy holds
    }
    parser = ConfigParser(interpolation=None)
    parser["mutmut"] = {
        name: value if isinstance(value, str) else "\n".join(("", *value)) for name, value in options.items()
    }
    with (folder / "setup.cfg").open("w") as file:
        parser.write(file)


def _mutmut(folder: Path, trial: Trial) -> tuple[int, str]:
    command = [sys.executable, "-P", "-m", "mutmut", "run", f"--max-children={trial.jobs}", *trial.names]
    environment = os.environ | {"PYTHONPATH": str(folder / "mutants"), "PYTHONUNBUFFERED": "1"}
    last = deque[str](maxlen=60)
    with _process(command, folder, environment) as process:
        told = time.monotonic()
        assert process.stdout is not None
        for line in process.stdout:  # progress ends with a carriage return, which is an end of line here
            last.append(line)
            if time.monotonic() - told >= TELL_EVERY:
                told = time.monotonic()
                print(f"mutants: {line.strip()}", file=sys.stderr, flush=True)
    return process.returncode, "".join(last)


@contextmanager
def _process(command: Sequence[str], folder: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process, which is ended with all that it forked when this block is left."""
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            yield process
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise


def _outcome(folder: Path, trial: Trial) -> Outcome:
    tried, unnoticed = 0, []
    for file in sorted({each.file for each in trial.functions}):
        codes = json.loads((folder / "mutants" / f"{file}.meta").read_text())["exit_code_by_key"]
        mutated = MutatedFile((folder / "mutants" / file).read_text())
        for function in (each for each in trial.functions if each.file == file):
            for name, code in codes.items():
                if not fnmatchcase(name, function.pattern) or not any(fnmatchcase(name, each) for each in trial.names):
                    continue
                tried += 1
                if (code == 0 or code in UNREACHED) and not mutated.is_wording(name, function):
                    unnoticed.append(mutated.mutant(name, function, is_reached=code == 0))
    return Outcome(tried=tried, unnoticed=tuple(unnoticed))
