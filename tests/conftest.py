"""Fixtures that every test may ask for: a real control plane, where there can be one. And how tests are dealt out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import Phase, settings

from scripts.tools.controlplane.fixtures import control_plane, namespace, require_binaries
from tests.sharing import Sharing, arrange, own_cores, workers_for

__all__ = ["control_plane", "namespace", "require_binaries"]

settings.register_profile("warmnode", deadline=None)  # a busy machine is no mistake of the example
# For scripts/mutants, which asks whether a test fails: to look for the simplest failure takes minutes.
_fails = settings(deadline=None, derandomize=True, database=None, phases=(Phase.explicit, Phase.generate))
settings.register_profile("mutants", _fails, max_examples=25)
settings.register_profile("mutants-left", _fails)
settings.load_profile("warmnode")


@pytest.fixture(scope="session", autouse=True)
def no_spare_event_loop() -> None:
    """Keep asyncio from inventing an event loop: looptime asks for one in tests without, and nobody would close it."""
    asyncio.set_event_loop(None)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    return workers_for(config.args, own_cores())


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Sharing:
    return Sharing(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    arrange(items)
