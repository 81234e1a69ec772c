"""YAML text to plain values, and the line of each.

Owns everything about YAML: its syntax and its traps (``on`` is true, ``012`` is 10, the second of two equal keys wins).
Knows nothing of settings. Built on the node tree, so that no tag ever constructs an object.
"""

from __future__ import annotations

import re

import yaml

from extender.settings.mistakes import KeyPath, Mistake, SettingsError, shown

_TAG = "tag:yaml.org,2002:"
_TAGS = {
    f"{_TAG}{name}" for name in ("map", "seq", "str", "null", "bool", "int", "float", "timestamp", "merge", "value")
}
_BOOLEANS = {"yes": True, "no": False, "true": True, "false": False, "on": True, "off": False}
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FRACTION = re.compile(r"[-+]?[0-9]+\.[0-9]*([eE][-+]?[0-9]+)?")


class Document:
    """A YAML file. ``value`` is made of dict, list, str, int, float, bool and None.

    ``mistakes`` are those of the text: duplicate keys, keys that are no strings, tags. SettingsError, with its one
    mistake, where it is no YAML.
    """

    def __init__(self, text: str | bytes, *, source: str) -> None:
        self.source = source
        self.mistakes: list[Mistake] = []
        self._places: dict[KeyPath, tuple[int, yaml.Node]] = {}  # the line of its key, in a list of itself
        root = _compose(text.encode(errors="replace") if isinstance(text, str) else text, source)
        try:
            self.value = None if root is None else self._convert(root, (), _line(root))
        except RecursionError as error:
            raise SettingsError([self.mistake((), "has an alias inside of what it stands for")]) from error

    def mistake(self, path: KeyPath, problem: str, *, with_value: bool = False, line: int | None = None) -> Mistake:
        """A mistake at ``path``, on the line of the deepest part of the path that is in the file."""
        known = path
        while known and known not in self._places:
            known = known[:-1]
        found, node = self._places.get(known, (1, None))
        got = _written(node) if with_value and node is not None and known == path else None
        return Mistake(source=self.source, line=line or found, path=path, problem=problem, got=got)

    def has(self, path: KeyPath) -> bool:
        """Say whether there is something at ``path``, and be it null."""
        return path in self._places

    def _convert(self, node: yaml.Node, path: KeyPath, line: int) -> object:
        self._places[path] = line, node
        if node.tag not in _TAGS:
            self._complain(path, node, f"has the tag {shown(node.tag)}; write the value without a tag")
            return None
        match node:
            case yaml.MappingNode():
                return self._mapping(node, path)
            case yaml.SequenceNode():
                return [self._convert(item, (*path, at), _line(item)) for at, item in enumerate(node.value)]
            case _:
                return _scalar(node)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, object]:
        lines: dict[str, int] = {}
        mapping: dict[str, object] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._complain(path, key_node, "has a mapping or a list as a key; write a name")
                continue
            key: str = key_node.value
            value = _scalar(key_node)
            if not isinstance(value, str):
                means = f", and YAML reads this as {str(value).lower()}" if isinstance(value, bool) else ""
                self._complain((*path, key), key_node, f"is a key, which must be a string{means}; put it in quotes")
            if key in mapping:
                self._complain((*path, key), key_node, f"is already set on line {lines[key]}; keep one of them")
                continue
            lines[key] = _line(key_node)
            mapping[key] = self._convert(value_node, (*path, key), lines[key])
        return mapping

    def _complain(self, path: KeyPath, node: yaml.Node, problem: str) -> None:
        self.mistakes.append(self.mistake(path, problem, line=_line(node)))


def _compose(content: bytes, source: str) -> yaml.Node | None:
    try:
        return yaml.CSafeLoader(content).get_single_node()
    except yaml.reader.ReaderError as error:
        line = content.count(b"\n", 0, error.position)
        problem = f"{error.reason} (0x{error.character:02x}); save the file as UTF-8"
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        lines = content.decode(errors="replace").splitlines() or [""]
        line = min(mark.line if mark is not None else 0, len(lines) - 1)
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        if mark is not None and lines[line][mark.column : mark.column + 1] == "\t":
            problem = "a tab cannot indent or start a value; write spaces"
    raise SettingsError([Mistake(source=source, line=line + 1, problem=f"is not YAML: {problem}")])


def _line(node: yaml.Node) -> int:
    line: int = node.start_mark.line
    return line + 1


def _written(node: yaml.Node) -> str:
    match node:
        case yaml.MappingNode():
            return "a mapping"
        case yaml.SequenceNode():
            return "a list"
    value = _scalar(node)
    return "null" if value is None else shown(node.value, quoted=isinstance(value, str))


def _scalar(node: yaml.Node) -> object:
    """The value by its tag. What YAML 1.1 and 1.2 read differently (``012``, ``1_0``, ``12:30``, dates) stays text."""
    text: str = node.value
    match node.tag.removeprefix(_TAG):
        case "null":
            return None
        case "bool":
            return _BOOLEANS.get(text.lower(), text)
        case "int" if _DECIMAL.fullmatch(text):
            return int(text)
        case "float" if _FRACTION.fullmatch(text):
            return float(text)
        case _:
            return text
