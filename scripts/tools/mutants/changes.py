"""A mutant, as people read it: which lines it changes into which."""

from __future__ import annotations

import ast
import difflib
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

from scripts.tools.mutants.targets import Function


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """``was`` and ``now`` are lines without indentation. A change is the same one wherever its function has moved."""

    file: str
    function: str
    was: tuple[str, ...]
    now: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """``name`` is mutmut's. ``is_reached``: a test runs its function at least."""

    name: str
    line: int
    change: Change
    is_reached: bool


class MutatedFile:
    """What mutmut writes for a file: each function many times over, as it was and with each of its mutations."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self._nodes: Mapping[str, ast.AST] = {
            node.name: node
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }

    def mutant(self, name: str, function: Function, *, is_reached: bool) -> Mutant:
        was = self._text(f"{function.mangled}__mutmut_orig")
        now = self._text(name.rpartition(".")[2])
        blocks = [
            block
            for block in difflib.SequenceMatcher(None, was, now, autojunk=False).get_opcodes()
            if block[0] != "equal"
        ]
        change = Change(
            file=function.file,
            function=function.name,
            was=tuple(line.strip() for _, first, last, _, _ in blocks for line in was[first:last]),
            now=tuple(line.strip() for _, _, _, first, last in blocks for line in now[first:last]),
        )
        return Mutant(name=name, line=function.first + blocks[0][1], change=change, is_reached=is_reached)

    def is_wording(self, name: str, function: Function) -> bool:
        """Only the wording of a text changes: of a literal with a space in it, which is for people."""
        was, now = self._nodes[f"{function.mangled}__mutmut_orig"], self._nodes[name.rpartition(".")[2]]
        return _without_words(was) == _without_words(now)

    def _text(self, name: str) -> list[str]:
        node = self._nodes[name]
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        lines = self._lines[node.lineno - 1 : node.end_lineno]
        return textwrap.dedent("\n".join(lines).replace(name, "", 1)).splitlines()


class _Words(ast.NodeTransformer):
    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        return ast.Constant("words") if isinstance(node.value, str) and " " in node.value else node


def _without_words(function: ast.AST) -> str:
    """A function's code without its name, which differs from mutant to mutant, and without what it says to people."""
    assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
    copy = ast.parse(ast.unparse(function))
    body = copy.body[0]
    assert isinstance(body, ast.FunctionDef | ast.AsyncFunctionDef)
    body.name = ""
    return ast.dump(_Words().visit(copy))
