"""Writes the JSON of an answer. Fields of values become keys in camelCase, in the order in which they are named."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


def keys(value: object, *names: str) -> dict[str, object]:
    """Give fields of a value as they are called in JSON."""
    return {_camel(name): getattr(value, name) for name in names}


def all_keys(value: object) -> dict[str, object]:
    """Give all fields of a dataclass as they are called in JSON."""
    return keys(value, *value.__dataclass_fields__)  # type: ignore[attr-defined]


def encode_form(schema: str, form: Mapping[str, object]) -> str:
    """Write a form for programs and people: its schema first, indented. Dataclasses in it are objects."""
    return msgspec.json.format(msgspec.json.encode({"schema": schema, **form}), indent=2).decode()


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(map(str.capitalize, rest))
