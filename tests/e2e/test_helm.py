"""Installed with Helm: it works as with kustomize, its own test passes, and uninstalling leaves nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from scripts.tools.manifests.rendering import MANIFESTS, NAMESPACE
from tests.e2e.stage import NEWEST, OLDEST, Stage

CHART = str(MANIFESTS / "chart")


@pytest.fixture(scope="module")
def released(stage: Stage) -> Iterator[Stage]:
    """A release with the values of a user."""
    try:
        stage.cluster.helm(
            *("install", "warmnode", CHART, "--namespace", NAMESPACE, "--values", str(stage.values())),
            *("--wait", "--timeout", "90s"),
        )
    except AssertionError as error:
        pods = stage.cluster.kubectl("describe", "pods", "--namespace", NAMESPACE)
        raise AssertionError(f"{error}\n{pods[-6000:]}") from error
    yield stage
    stage.cluster.helm("uninstall", "warmnode", "--namespace", NAMESPACE, "--ignore-not-found", "--no-hooks")


def test_helm_test_passes(released: Stage) -> None:
    """`helm test` sees the cluster with the permissions of serve."""
    said = released.cluster.helm("test", "warmnode", "--namespace", NAMESPACE, "--logs")
    assert "Succeeded" in said
    assert OLDEST in said


def test_workers_go_to_the_oldest_node(released: Stage) -> None:
    """The installed scheduler asks the installed warmnode."""
    released.worker("first")
    assert released.node_of("first") == OLDEST
    released.worker("floor", node=OLDEST, idle=True)
    released.wait_ready(["floor"])  # else a pass may take this one
    released.worker("idle", node=NEWEST, idle=True)
    released.wait(lambda: set(released.pods()) == {"first", "floor"}, lambda: f"{list(released.pods())}")


def test_uninstalling_leaves_nothing(released: Stage) -> None:
    """The hook removes what was written on workers; the namespace is the user's."""
    released.wait(lambda: any("deletion-cost" in each for each in released.ours()), lambda: f"{released.ours()}")
    released.cluster.helm("uninstall", "warmnode", "--namespace", NAMESPACE, "--wait", "--timeout", "90s")
    assert released.ours() == []
    assert set(released.pods()) == {"first", "floor"}
