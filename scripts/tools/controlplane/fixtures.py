"""Fixtures for tests that need a real control plane; tests/conftest.py imports them.

Owns the rule for machines that cannot have one: such tests are skipped with the remedy, or fail where
WARMNODE_REQUIRE_CONTROL_PLANE=1 says that there must be one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NoReturn

import pytest

from scripts.tools.controlplane.building import find_or_build
from scripts.tools.controlplane.cluster import ControlPlane, Options
from scripts.tools.controlplane.errors import MissingTool

REQUIRED = "WARMNODE_REQUIRE_CONTROL_PLANE"

RequireBinaries = Callable[[Sequence[str]], None]


@pytest.fixture(scope="session")
def require_binaries() -> RequireBinaries:
    """A function that finds or builds the named programs, and skips the test (or fails it) where neither works."""

    def require(names: Sequence[str]) -> None:
        try:
            find_or_build(names, os.environ, _note)
        except MissingTool as error:
            skip_or_fail(error, os.environ)

    return require


@pytest.fixture(scope="session")
def control_plane(require_binaries: RequireBinaries) -> Iterator[ControlPlane]:
    """One control plane for the whole session, all components but Karpenter. Tests take a namespace of their own."""
    options = Options()
    require_binaries(options.binaries())
    with ControlPlane(options, note=_note) as running:
        yield running


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    """A namespace of the session's control plane, deleted (not waited for) after the test."""
    name = control_plane.create_namespace()
    yield name
    control_plane.api("DELETE", f"/api/v1/namespaces/{name}")


def skip_or_fail(error: MissingTool, environment: Mapping[str, str]) -> NoReturn:
    """Skip the running test with the remedy, or fail it where there must be a control plane."""
    if environment.get(REQUIRED) == "1":
        pytest.fail(f"{REQUIRED}=1: {error}", pytrace=False)
    pytest.skip(str(error))


def _note(line: str) -> None:
    print(line, file=sys.__stderr__, flush=True)
