"""YAML text to plain values, with the line of each.

Owns everything about YAML: its syntax, its traps (``on`` is true, ``012`` is 10, the second of two equal keys wins) and
its bombs. Knows nothing of settings. Built on the node tree, so that no tag ever constructs an object.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import yaml

from extender.settings.mistakes import KeyPath, Mistake, SettingsError, shown

MAX_SIZE = 1024 * 1024
TOO_LARGE = f"is larger than {MAX_SIZE // 1024} KiB, so it is hardly a configuration; check the path"
MAX_VALUES = 20_000
MAX_DEPTH = 32

_TAG = "tag:yaml.org,2002:"
_BOOLEANS = {"yes": True, "no": False, "true": True, "false": False, "on": True, "off": False}
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a value is, for messages: the line of its key (of itself in a list) and the value as it was written."""

    line: int
    got: str


@dataclass(slots=True, kw_only=True)
class Document:
    """A YAML file. ``value`` is made of dict, list, str, int, float, bool and None; ``places`` has each path in it.

    ``mistakes`` are those of the text: duplicate keys, keys and values that YAML or this program cannot take. Such
    values have their path in ``unread`` and are None, those of a wrong key what they are.
    """

    source: str
    value: object = None
    places: dict[KeyPath, Place] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)
    unread: set[KeyPath] = field(default_factory=set)

    def mistake(self, path: KeyPath, problem: str, *, got: str | None = None, line: int | None = None) -> Mistake:
        """A mistake at ``path``, on the line of the deepest part of the path that is in the file."""
        known = path
        while known and known not in self.places:
            known = known[:-1]
        if line is None:
            line = self.places[known].line if known in self.places else 1
        return Mistake(source=self.source, line=line, path=path, problem=problem, got=got)


def parse_document(text: str, *, source: str) -> Document:
    """Read one YAML document. SettingsError, with its one mistake, where the text is no YAML or too much of it."""
    if len(text) > MAX_SIZE:
        raise SettingsError([Mistake(source=source, problem=TOO_LARGE)])
    root = _compose(text, source)
    document = Document(source=source)
    if root is not None:
        document.value = _Converter(document).convert(root, (), root.start_mark.line + 1)
    return document


class _BoundedLoader(yaml.SafeLoader):
    """Composes nodes, but only so many and so deep: the composer recurses, and each recursion must end."""

    depth = 0
    count = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        self.count += 1
        if self.depth > MAX_DEPTH or self.count > MAX_VALUES:
            limit = f"deeper than {MAX_DEPTH} levels" if self.depth > MAX_DEPTH else f"more than {MAX_VALUES} values"
            raise yaml.composer.ComposerError(None, None, f"{limit} are not a configuration", self.get_mark())
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _compose(text: str, source: str) -> yaml.Node | None:
    def refusal(line: int, problem: str) -> SettingsError:
        return SettingsError([Mistake(source=source, line=line, problem=problem)])

    try:
        loader = _BoundedLoader(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise refusal(line, f"is not YAML: the character U+{error.character:04X} is not allowed") from error
    try:
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        raise refusal(line, _yaml_problem(error)) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # chr() of an escape such as "\UFFFFFFFF" in PyYAML's scanner
        raise refusal(loader.get_mark().line + 1, f"is not YAML: {shown(str(error), quoted=False)}") from error
    finally:
        loader.dispose()


def _yaml_problem(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or error.context or "unknown error"
    if "'\\t'" in problem:
        return "is not YAML: a tab cannot indent or start a value; write spaces"
    if problem == "but found another document":
        return "has more than one YAML document; keep one, and give each other one a file of its own"
    context = f"{error.context}, " if error.context and error.context != problem else ""
    return f"is not YAML: {shown(f'{context}{problem}', quoted=False, longest=200)}"


class _Converter:
    """Node tree to values. Counts what it makes: an alias may stand for a large part of the file, many times."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._count = 0

    def convert(self, node: yaml.Node, path: KeyPath, line: int) -> object:
        self._count += 1
        if self._count > MAX_VALUES:
            problem = f"is more than {MAX_VALUES} values with its aliases written out; use fewer aliases"
            raise SettingsError([self._document.mistake((), problem, line=line)])
        if len(path) > MAX_DEPTH:
            self._refuse(path, line, f"is nested deeper than {MAX_DEPTH} levels, or an alias of what holds it")
            return None
        match node:
            case yaml.MappingNode() if node.tag == f"{_TAG}map":
                self._document.places[path] = Place(line=line, got="a mapping")
                return self._mapping(node, path)
            case yaml.SequenceNode() if node.tag == f"{_TAG}seq":
                self._document.places[path] = Place(line=line, got="a list")
                return [
                    self.convert(item, (*path, position), item.start_mark.line + 1)
                    for position, item in enumerate(node.value)
                ]
            case yaml.ScalarNode():
                return self._scalar(node, path, line)
            case _:
                self._refuse(path, line, f"has the tag {shown(node.tag)}; write the value without a tag")
                return None

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, object]:
        mapping: dict[str, object] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = self._key(key_node, path, line)
            if key is None:
                continue
            if key in mapping:
                first = self._document.places[(*path, key)].line
                self._complain((*path, key), line, f"is already set on line {first}; keep one of them")
                continue
            mapping[key] = self.convert(value_node, (*path, key), line)
        return mapping

    def _key(self, node: yaml.Node, path: KeyPath, line: int) -> str | None:
        """The key, or None where there is none to take. What is no string is noted, and taken as it is written."""
        if not isinstance(node, yaml.ScalarNode):
            self._complain(path, line, "has a mapping or a list as a key; write a name")
            return None
        if node.tag == f"{_TAG}merge":
            self._complain(path, line, "has a merge key (<<), which is not supported; use poolDefaults")
            return None
        value = _scalar_value(node)
        key: str = node.value
        if not _is_text(key):
            self._complain(path, line, "has a key with half of a surrogate pair, which is no character")
            return None
        if isinstance(value, str):
            return key
        text = shown(key, quoted=False)
        means = f", which YAML reads as {str(value).lower()}" if isinstance(value, bool) else ""
        self._complain(path, line, f'has the key {text}{means}; a key is a string: write "{text}"')
        self._document.unread.add((*path, key))
        return key

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath, line: int) -> object:
        value = _scalar_value(node)
        quoted = isinstance(value, str)
        got = "null" if value is None else shown(node.value, quoted=quoted)
        self._document.places[path] = Place(line=line, got=got)
        if value is _UNREADABLE:
            problem = "must be a number in plain decimal digits, at most 18, or a quoted string"
            if not node.tag.startswith((f"{_TAG}int", f"{_TAG}float")):
                problem = f"has the tag {shown(node.tag)}, which does not fit; write the value without a tag"
            self._refuse(path, line, problem, got=got)
            return None
        if isinstance(value, str) and not _is_text(value):
            self._refuse(path, line, "has half of a surrogate pair, which is no character", got=got)
            return None
        return value

    def _refuse(self, path: KeyPath, line: int, problem: str, *, got: str | None = None) -> None:
        self._document.places.setdefault(path, Place(line=line, got=got or "this"))
        self._document.unread.add(path)
        self._complain(path, line, problem, got=got)

    def _complain(self, path: KeyPath, line: int, problem: str, *, got: str | None = None) -> None:
        self._document.mistakes.append(self._document.mistake(path, problem, got=got, line=line))


_UNREADABLE = object()


def _scalar_value(node: yaml.ScalarNode) -> object:
    """The value by its tag, or `_UNREADABLE`.

    YAML 1.1 as PyYAML resolves it, but times and base 60 (``12:30``) stay strings as in YAML 1.2, and numbers that the
    two versions read differently (``012``, ``1_000``) are unreadable.
    """
    text: str = node.value
    match node.tag.removeprefix(_TAG):
        case "str" | "timestamp" | "value" | "merge":
            return text
        case "null":
            return None
        case "bool":
            return _BOOLEANS.get(text.lower(), _UNREADABLE)
        case "int" | "float" if ":" in text:
            return text
        case "int":
            return int(text) if _DECIMAL.fullmatch(text) else _UNREADABLE
        case "float":
            try:
                return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
            except ValueError:
                return _UNREADABLE
        case _:
            return _UNREADABLE


def _is_text(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)
