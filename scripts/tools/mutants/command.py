"""The command line of scripts/mutants: 0 every mutant was noticed, 1 one was not, 2 bad usage or tests that fail."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from scripts.tools.mutants.changes import Mutant
from scripts.tools.mutants.equivalents import LIST, Equivalent, read_equivalents
from scripts.tools.mutants.running import Outcome, Trial, run
from scripts.tools.mutants.targets import Function, Imports, Unusable, all_functions, touched_functions

ROOT = Path(__file__).parents[3]
DESCRIPTION = f"""\
Changes one thing at a time in the functions that a change touches (a < into a <=, an argument into None), and runs the
tests: a mutant that no test notices is a rule that nothing holds, or code that does nothing.

Asked first are the test modules that import the changed module; then, for what is left, those one step further away.
Tests that need a control plane are not run. Left alone are the wording of texts for people, code outside of functions,
functions with decorators other than staticmethod and classmethod, and the mutants of {LIST}.
Modules are imported before a mutant is switched on: what runs only then is never noticed.
"""
EPILOG = f"""\
What to do with a mutant: write the test that it is missing; or delete the code that does nothing; or where nothing can
tell the difference, note it with the reason in {LIST}.

  scripts/mutants                          what the branch changed, on main the last commit; and what is not committed
  scripts/mutants --since HEAD~3           what changed since then
  scripts/mutants extender/policy/ages.py  all of a file, or of a folder

Exit codes: 0 all were noticed, 1 some were not, 2 bad usage, or the tests fail without a mutant.
"""
QUICK, THOROUGH = "mutants", "mutants-left"
"""Profiles of Hypothesis: few examples for all mutants, and as many as usual for those that are left."""


def main() -> int:
    """Run mutants and tell of those that live."""
    options = _options()
    for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(each, _end)
    try:
        functions = all_functions(ROOT, options.paths) if options.paths else touched_functions(ROOT, options.since)
        equivalents = read_equivalents((ROOT / LIST).read_text())
        outcome = _try(functions, equivalents, options.jobs)
    except Unusable as error:
        print(f"mutants: {error}", file=sys.stderr)
        return 2
    if options.output == "json":
        print(json.dumps({"tried": outcome.tried, "unnoticed": _json(outcome.unnoticed)}, indent=1))
    else:
        print(_text(outcome))
    return 1 if outcome.unnoticed else 0


def _try(functions: Sequence[Function], equivalents: Sequence[Equivalent], jobs: int) -> Outcome:
    """Give how many mutants there are, and those that neither the nearest tests nor the next ones notice."""
    imports = Imports(ROOT)
    tried, left = 0, tuple[Mutant, ...]()
    names = [each.pattern for each in functions]
    for further, profile in enumerate((QUICK, THOROUGH)):
        if not names:
            break
        tests = {test for each in functions for test in imports.tests_of(each.file, further=further)}
        print(f"mutants: of {len(functions)} functions, by {len(tests)} test modules", file=sys.stderr, flush=True)
        outcome = run(ROOT, Trial(functions=functions, names=names, tests=tests, profile=profile, jobs=jobs))
        tried = tried or outcome.tried
        left = tuple(each for each in outcome.unnoticed if not any(known.covers(each.change) for known in equivalents))
        names = [each.name for each in left]
        places = {(each.change.file, each.change.function) for each in left}
        functions = [each for each in functions if (each.file, each.name) in places]
    return Outcome(tried=tried, unnoticed=left)


def _text(outcome: Outcome) -> str:
    lines = []
    for each in outcome.unnoticed:
        note = "" if each.is_reached else "  (no test runs this function)"
        lines.append(f"{each.change.file}:{each.line} {each.change.function}{note}")
        lines += [f"  - {line}" for line in each.change.was] + [f"  + {line}" for line in each.change.now]
    return "\n".join([*lines, f"{outcome.tried} mutants, {len(outcome.unnoticed)} that no test notices"])


def _json(mutants: Sequence[Mutant]) -> list[dict[str, object]]:
    return [asdict(each.change) | {"line": each.line, "isReached": each.is_reached} for each in mutants]


def _end(number: int, _: object) -> None:
    sys.exit(128 + number)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/mutants",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="*", metavar="PATH", help="files or folders to mutate, whatever changed in them")
    parser.add_argument("--since", metavar="COMMIT", help="mutate what changed since this commit")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="mutants tried side by side")
    parser.add_argument("--output", choices=["text", "json"], default="text")
    options = parser.parse_args()
    if options.paths and options.since is not None:
        parser.error("--since: names the functions to mutate, and so do paths; give one of them")
    if options.jobs < 1:
        parser.error("--jobs: at least 1")
    return options
