"""A real Kubernetes control plane on this machine without containers, for tests, the demo and benchmarks.

`ControlPlane` is the interface; `scripts/control-plane` is the same for the shell.
"""

from scripts.tools.controlplane.client import Api, Json, wait_for
from scripts.tools.controlplane.cluster import ControlPlane, Options
from scripts.tools.controlplane.components import Component
from scripts.tools.controlplane.errors import ApiError, ControlPlaneError, MissingTool, StartFailed
from scripts.tools.controlplane.processes import Process

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
