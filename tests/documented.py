"""Holds answers of the claims listener against the document that callers make clients from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator

from extender.web.openapi import document

DOCUMENT = document()
HEADERS = ("Location", "Retry-After", "WWW-Authenticate")
"""All that an answer may have and its body does not tell."""


def holds(schema: str, tree: Any) -> None:
    """Hold a body against one of the schemas."""
    components = DOCUMENT["components"]
    Draft202012Validator({"$ref": f"#/components/schemas/{schema}", "components": components}).validate(tree)


def is_promised(method: str, path: str, status: int, tree: Any, headers: Mapping[str, str]) -> None:
    """Hold an answer against what is said of its operation: status, body, headers, and the reason of a refusal."""
    item = next(item for template, item in DOCUMENT["paths"].items() if _matches(template, path.partition("?")[0]))
    said = item[method.lower()]["responses"][str(status)]
    for kind, content in said.get("content", {}).items():
        assert headers["Content-Type"].partition(";")[0] == kind
        Draft202012Validator({**content["schema"], "components": DOCUMENT["components"]}).validate(tree)
    if status >= 400:
        assert tree["status"] == status
        assert f"{tree['reason']}: " in said["description"]
    if status < 400 or tree["reason"] != "callerGone":
        assert {each for each in HEADERS if each in headers} == said.get("headers", {}).keys()


def _matches(template: str, path: str) -> bool:
    return re.fullmatch(re.sub(r"{[a-z]+}", "[^/]+", template), path) is not None
