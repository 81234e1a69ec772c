"""The recorded requests are what the scheduler at hand sends today: recorded again, they have the same shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.tools.controlplane.fixtures import RequireBinaries
from scripts.tools.record_requests import INDEX, OPTIONS, RECORDED, record

pytestmark = pytest.mark.controlplane


def test_what_the_scheduler_sends_has_the_shape_of_the_records(
    require_binaries: RequireBinaries, tmp_path: Path
) -> None:
    """Keys, types, nulls and heads; names, times and UIDs differ. Red after an upgrade: run scripts/record-requests."""
    require_binaries([*OPTIONS.binaries(), "kube-scheduler"])
    names = record(tmp_path)
    assert names == sorted(path.name for path in RECORDED.glob("*.json") if path.name != INDEX)
    for name in names:
        assert shape(tmp_path / name) == shape(RECORDED / name), name
    assert heads(tmp_path) == heads(RECORDED)


def shape(file: Path) -> Any:
    """A body without its values, and lists by their different elements."""
    return shape_of(json.loads(file.read_bytes()))


def shape_of(tree: Any) -> Any:
    match tree:
        case dict():
            return {key: shape_of(value) for key, value in tree.items() if key not in VARYING}
        case list():
            shapes = [shape_of(value) for value in tree]
            return [each for position, each in enumerate(shapes) if each not in shapes[:position]]
    return type(tree).__name__


VARYING = {"managedFields", "status", "annotations"}
"""Who wrote what last, and how far KWOK has got: nothing that we read."""


def heads(folder: Path) -> dict[str, Any]:
    """Method, path and names of the headers of each request."""
    requests = json.loads((folder / INDEX).read_text())["requests"]
    return {
        name: (request["method"], request["path"], sorted(request["headers"])) for name, request in requests.items()
    }
