"""pydantic's errors in the words of the file.

Owns which pydantic error means what to a user, and suggestions for unknown keys. Knows no lines.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import is_dataclass, replace
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from extender.settings.mistakes import FieldMistake, Inconsistent, KeyPath

_MAPPING_WANTED = frozenset({"model_type", "model_attributes_type", "dataclass_type", "dict_type", "mapping_type"})
_LIST_WANTED = frozenset({"tuple_type", "list_type", "set_type", "frozen_set_type", "iterable_type"})
_UNKNOWN_KEY = frozenset({"extra_forbidden", "unexpected_keyword_argument"})
_KEY_MARK = "[key]"


def findings(error: ValidationError, model: type) -> Iterator[FieldMistake]:
    """Each single mistake in a validation of ``model``."""
    for details in error.errors(include_url=False):
        path: KeyPath = tuple(details["loc"])
        cause = details.get("ctx", {}).get("error")
        if details["type"] == "default_factory_not_called":
            continue  # a default made from another field, whose own mistake is reported
        if isinstance(cause, Inconsistent):
            for conflict in cause.conflicts:
                yield replace(conflict, fields=tuple(path + field for field in conflict.fields))
        elif path and path[-1] == _KEY_MARK:
            yield FieldMistake(fields=(path[:-1],), problem=f"the key {_problem(details)}")
        elif details["type"] == "missing":
            yield FieldMistake(fields=(path,), problem=_missing(model, path))
        elif details["type"] in _UNKNOWN_KEY:
            yield FieldMistake(fields=(path,), problem=_unknown_key(model, path))
        else:
            yield FieldMistake(fields=(path,), problem=_problem(details), with_value=True)


def _problem(details: ErrorDetails) -> str:
    kind, value = details["type"], details["input"]
    cause = details.get("ctx", {}).get("error")
    if isinstance(cause, ValueError):
        return str(cause)
    if kind in _MAPPING_WANTED:
        return "must be a mapping"
    if kind in _LIST_WANTED:
        return "must be a list"
    if kind == "int_type":
        return "must be a whole number"
    if kind == "bool_type":
        return "must be true or false"
    if kind == "string_type":
        if isinstance(value, bool):
            return f"must be a string, and YAML reads this as {str(value).lower()}; put it in quotes"
        return "must be a string; put it in quotes" if isinstance(value, int | float) else "must be a string"
    message = details["msg"]
    if message.startswith("Input should be"):
        message = message.replace("Input should be", "must be", 1).replace("'", '"')
    return message


def _missing(model: type, path: KeyPath) -> str:
    wanted = get_args(_keys(_section_at(model, path[:-1])).get(str(path[-1])))
    is_constant = len(wanted) == 1 and isinstance(wanted[0], str)
    return f"is missing; write {path[-1]}: {wanted[0]}" if is_constant else "is missing"


def _unknown_key(model: type, path: KeyPath) -> str:
    known = sorted(_keys(_section_at(model, path[:-1])))
    if not known:
        return "unknown key; there is nothing to set here: write {}"
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(str(path[-1]).lower().replace("_", ""), by_lower, n=1)
    if close:
        return f'unknown key; did you mean "{by_lower[close[0]]}"?'
    return f"unknown key; known here: {', '.join(known)}"


def _section_at(section: type | None, path: KeyPath) -> type | None:
    """The type that checks the mapping at ``path`` below ``section``; None where there is none."""
    for step in path:
        if isinstance(step, str):
            section = _first_section(_keys(section).get(step))
    return section


def _keys(section: type | None) -> dict[str, Any]:
    """Each key that a section has, with its type."""
    fields = getattr(section, "model_fields", None) or getattr(section, "__dataclass_fields__", {})
    hints = get_type_hints(section) if fields else {}
    return {to_camel(name): hints[name] for name in fields}


def _first_section(annotation: Any) -> type | None:
    """The section in ``X``, ``X | None``, ``tuple[X, ...]``."""
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or is_dataclass(annotation)):
        return annotation
    return next((found for part in get_args(annotation) if (found := _first_section(part)) is not None), None)
