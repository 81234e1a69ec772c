"""pydantic's errors in the words of the file.

Owns which pydantic error means what to a user, and suggestions for unknown keys. Knows no lines.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from extender.settings.mistakes import Inconsistent, KeyPath, shown

_MAPPING_WANTED = frozenset({"model_type", "model_attributes_type", "dict_type", "mapping_type"})
_LIST_WANTED = frozenset({"tuple_type", "list_type", "set_type", "frozen_set_type", "iterable_type"})
_KEY_MARK = "[key]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is wrong. ``fields`` are all paths that take part; ``with_value``: the value at the path helps to see it.

    ``missing``: the path is not in the file, which is the mistake.
    """

    fields: tuple[KeyPath, ...]
    problem: str
    with_value: bool = False
    missing: bool = False


def findings(error: ValidationError, model: type[BaseModel]) -> Iterator[Finding]:
    """Each single mistake in a validation of ``model``."""
    for details in error.errors(include_url=False):
        path: KeyPath = tuple(details["loc"])
        cause = details.get("ctx", {}).get("error")
        if details["type"] == "default_factory_not_called":
            continue  # a default made from another field, whose own mistake is reported
        if isinstance(cause, Inconsistent):
            for conflict in cause.conflicts:
                yield Finding(fields=tuple(path + field for field in conflict.fields), problem=conflict.problem)
        elif path and path[-1] == _KEY_MARK:
            yield Finding(fields=(path[:-1],), problem=f"the key {_problem(details)}")
        elif details["type"] == "missing":
            yield Finding(fields=(path,), problem=_missing(model, path), missing=True)
        elif details["type"] == "extra_forbidden":
            yield Finding(fields=(path,), problem=_unknown_key(model, path))
        else:
            yield Finding(fields=(path,), problem=_problem(details), with_value=True)


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


def _missing(model: type[BaseModel], path: KeyPath) -> str:
    owner = _model_at(model, path[:-1])
    for field in owner.model_fields.values() if owner is not None else ():
        if field.alias == path[-1] and isinstance(field.annotation, object):
            literal = [value for value in get_args(field.annotation) if isinstance(value, str)]
            if len(literal) == 1:
                return f"is missing; write {path[-1]}: {literal[0]}"
    return "is missing"


def _unknown_key(model: type[BaseModel], path: KeyPath) -> str:
    owner, key = _model_at(model, path[:-1]), str(path[-1])
    known = sorted(str(field.alias) for field in owner.model_fields.values()) if owner is not None else []
    if not known:
        return "unknown key; there is nothing to set here: write {}"
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(key[:60].lower().replace("_", ""), by_lower, n=1)
    if close:
        return f"unknown key; did you mean {shown(by_lower[close[0]])}?"
    return f"unknown key; known here: {', '.join(known)}"


def _model_at(model: type[BaseModel] | None, path: KeyPath) -> type[BaseModel] | None:
    """The model that checks the mapping at ``path`` below ``model``; None where there is none."""
    for step in path:
        if isinstance(step, int) or model is None:
            continue
        field = next((field for field in model.model_fields.values() if field.alias == step), None)
        model = _first_model(field.annotation) if field is not None else None
    return model


def _first_model(annotation: Any) -> type[BaseModel] | None:
    """The model in ``X``, ``X | None``, ``tuple[X, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _first_model(part)) is not None), None)
