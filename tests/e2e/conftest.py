"""Fixtures of the end-to-end tests. scripts/e2e says which cluster it is; without that there are no tests here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.kubectl import Cluster, reach
from tests.e2e.stage import Stage

KUBECONFIG = "WARMNODE_E2E_KUBECONFIG"

if KUBECONFIG not in os.environ:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster, as its administrator."""
    with reach(Path(os.environ[KUBECONFIG]), tmp_path_factory.mktemp("cluster")) as reached:
        yield reached


@pytest.fixture(scope="module")
def stage(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Fake nodes of known ages and a namespace for workers, before anything is installed."""
    made = Stage(cluster, tmp_path_factory.mktemp("stage"))
    made.build()
    yield made
    made.close()
