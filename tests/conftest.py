"""Fixtures that every test may ask for: a real control plane, where there can be one."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import settings

from scripts.tools.controlplane.fixtures import control_plane, namespace, require_binaries

__all__ = ["control_plane", "namespace", "require_binaries"]

settings.register_profile("warmnode", deadline=None)  # a busy machine is no mistake of the example
settings.load_profile("warmnode")


@pytest.fixture(scope="session", autouse=True)
def no_spare_event_loop() -> None:
    """Keep asyncio from inventing an event loop: looptime asks for one in tests without, and nobody would close it."""
    asyncio.set_event_loop(None)
