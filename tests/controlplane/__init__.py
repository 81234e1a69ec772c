"""A real Kubernetes control plane on this machine without containers, for tests, the demo and benchmarks.

`ControlPlane` is the interface; `python -m tests.controlplane` (scripts/control-plane) is the same for the shell.
"""

from tests.controlplane.client import Api, Json, wait_for
from tests.controlplane.cluster import ControlPlane, Options
from tests.controlplane.components import Component
from tests.controlplane.errors import ApiError, ControlPlaneError, MissingTool, StartFailed
from tests.controlplane.processes import Process

__all__ = [
    "Api",
    "ApiError",
    "Component",
    "ControlPlane",
    "ControlPlaneError",
    "Json",
    "MissingTool",
    "Options",
    "Process",
    "StartFailed",
    "wait_for",
]
