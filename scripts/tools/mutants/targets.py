"""What is mutated, and by which tests: the functions that a change touches, and the test modules nearest to them.

Reads sources only; starts nothing but git.
"""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

SOURCES = "extender"
TESTS = ("tests/unit/test_", "tests/contract/test_")
MUTATED_DECORATORS = {"staticmethod", "classmethod"}
"""mutmut leaves functions with any other decorator alone, properties among them."""


class Unusable(Exception):
    """What was asked for cannot be done; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function, or a method as ``Class.method``, with its first and last line, decorators not counted."""

    file: str
    name: str
    first: int
    last: int

    @property
    def mangled(self) -> str:
        """What mutmut calls it."""
        owner, _, name = self.name.rpartition(".")
        return f"xǁ{owner}ǁ{name}" if owner else f"x_{name}"

    @property
    def pattern(self) -> str:
        """What mutmut calls its mutants."""
        return f"{module_of(self.file)}.{self.mangled}__mutmut_*"


def functions_of(root: Path, file: str) -> list[Function]:
    """Those that can be mutated."""
    found = []

    def visit(body: Iterable[ast.stmt], owner: str) -> None:
        for each in body:
            if isinstance(each, ast.ClassDef):
                visit(each.body, f"{owner}{each.name}.")
            elif isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                decorators = [ast.unparse(decorator) for decorator in each.decorator_list]
                if not decorators or (len(decorators) == 1 and decorators[0] in MUTATED_DECORATORS):
                    last = each.end_lineno or each.lineno
                    found.append(Function(file=file, name=owner + each.name, first=each.lineno, last=last))

    visit(_parsed(root / file).body, "")
    return found


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text())
    except SyntaxError as error:
        raise Unusable(f"{path}:{error.lineno}: {error.msg}") from None


def all_functions(root: Path, paths: Iterable[str]) -> list[Function]:
    """Those of files, and of all files in folders."""
    found = []
    for path in paths:
        absolute = Path(path).resolve()
        files = sorted(absolute.rglob("*.py")) if absolute.is_dir() else [absolute]
        for file in files:
            if not file.is_relative_to(root / SOURCES) or file.suffix != ".py" or not file.is_file():
                raise Unusable(f"{path}: not a Python file or a folder in {SOURCES}/")
            found.extend(functions_of(root, file.relative_to(root).as_posix()))
    return found


def touched_functions(root: Path, since: str | None) -> list[Function]:
    """Those with a line that is not as it was at ``since``, files that git does not know yet included.

    None: since the branch left main, or since the last commit's parent where there is no such branch.
    """
    reference = since if since is not None else _start_of_branch(root)
    options = ("--unified=0", "--no-color", "--no-ext-diff", "--dst-prefix=b/")
    difference = _git(root, "diff", *options, reference, "--", SOURCES)
    lines = changed_lines(difference)
    new = _git(root, "ls-files", "--others", "--exclude-standard", "--", SOURCES).splitlines()
    touched = [each for file in new if file.endswith(".py") for each in functions_of(root, file)]
    for file, changed in lines.items():
        if file.endswith(".py"):
            touched += [
                each for each in functions_of(root, file) if not changed.isdisjoint(range(each.first, each.last + 1))
            ]
    return touched


def changed_lines(difference: str) -> Mapping[str, set[int]]:
    """Lines that a diff without context changed, by file, by today's numbers. Where lines went: the one before them."""
    lines: dict[str, set[int]] = {}
    file = ""
    for line in difference.splitlines():
        if line.startswith("+++ "):
            file = line.removeprefix("+++ b/")
        elif line.startswith("@@ ") and file != "+++ /dev/null":
            first, _, count = line.split()[2].removeprefix("+").partition(",")
            lines.setdefault(file, set()).update(range(int(first), int(first) + max(1, int(count or "1"))))
    return lines


def _start_of_branch(root: Path) -> str:
    try:
        start = _git(root, "merge-base", "HEAD", "main").strip()
    except Unusable:
        return "HEAD~1"
    return start if start != _git(root, "rev-parse", "HEAD").strip() else "HEAD~1"


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unusable(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


def module_of(file: str) -> str:
    """``extender/policy/brakes.py`` is ``extender.policy.brakes``."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


class Imports:
    """Which modules import which, of extender/ and tests/."""

    def __init__(self, root: Path) -> None:
        self._importers: dict[str, set[str]] = {}
        for folder in (SOURCES, "tests"):
            for path in sorted((root / folder).rglob("*.py")):
                file = path.relative_to(root).as_posix()
                for module in _imported(path):
                    self._importers.setdefault(module, set()).add(file)

    def tests_of(self, file: str, *, further: int = 0) -> set[str]:
        """The test modules that import it; or where there are none, those that import a module that does, and so on.

        ``further``: those that need so many steps more, too.
        """
        seen, layer, tests, left = {file}, {file}, set[str](), further
        while layer and (not tests or left):
            left -= 1 if tests else 0
            layer = {each for one in layer for each in self._importers.get(module_of(one), ())} - seen
            seen |= layer
            tests |= {each for each in layer if each.startswith(TESTS)}
        return tests


def _imported(path: Path) -> set[str]:
    modules = set[str]()
    for node in ast.walk(_parsed(path)):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
            modules.update(f"{node.module}.{alias.name}" for alias in node.names)
    return modules
