"""Label and field selectors of the fake API server: from query parameters to a predicate on objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

from tests.fakes.store import Json, Refusal

Matches: TypeAlias = Callable[[Json], bool]

_SET = re.compile(r"(?P<key>\S+)\s+(?P<operator>in|notin)\s+\((?P<values>[^)]*)\)")
_FIELDS = {"metadata.name", "metadata.namespace", "spec.nodeName", "spec.schedulerName", "status.phase"}


def selection(query: Mapping[str, str]) -> Matches:
    """What ``labelSelector`` and ``fieldSelector`` choose. Raises 400 for what a real server would not take."""
    terms = [_label_term(each) for each in re.split(r",(?![^(]*\))", query.get("labelSelector", "")) if each.strip()]
    terms += [_field_term(each) for each in query.get("fieldSelector", "").split(",") if each.strip()]
    return lambda tree: all(term(tree) for term in terms)


def _label_term(text: str) -> Matches:
    text = text.strip()
    if found := _SET.fullmatch(text):
        key, values = found["key"], {value.strip() for value in found["values"].split(",")}
        wanted = found["operator"] == "in"
        return lambda tree: (_labels(tree).get(key) in values) == wanted
    if "!=" in text:
        key, value = text.split("!=", 1)
        return lambda tree: _labels(tree).get(key.strip()) != value.strip()
    if "=" in text:
        key, value = text.replace("==", "=").split("=", 1)
        return lambda tree: _labels(tree).get(key.strip()) == value.strip()
    if text.startswith("!"):
        return lambda tree: text[1:].strip() not in _labels(tree)
    return lambda tree: text in _labels(tree)


def _field_term(text: str) -> Matches:
    wanted = "!=" not in text
    field, _, value = (part.strip() for part in text.replace("!=", "=").replace("==", "=").partition("="))
    if field not in _FIELDS:
        raise Refusal(400, "BadRequest", f"field label not supported: {field}")
    return lambda tree: (_value(tree, field) == value) == wanted


def _labels(tree: Json) -> Mapping[str, str]:
    labels: Mapping[str, str] = tree["metadata"].get("labels") or {}
    return labels


def _value(tree: Json, field: str) -> str:
    section, name = field.split(".")
    return str((tree.get(section) or {}).get(name) or "")
