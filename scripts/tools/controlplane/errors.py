"""What can go wrong with a control plane. Every message is one for people: what happened and the remedy."""

from __future__ import annotations


class ControlPlaneError(Exception):
    """Base class: the control plane could not do what was asked."""


class MissingTool(ControlPlaneError):
    """A binary is neither on this machine nor can it be built here. The message says what to install."""


class StartFailed(ControlPlaneError):
    """A component ended or did not become ready. The message has the end of its log."""


class ApiError(ControlPlaneError):
    """The API server refused a request: ``status`` is the HTTP code, ``message`` and ``reason`` its Status."""

    def __init__(self, status: int, message: str, reason: str = "") -> None:
        super().__init__(f"{status} {reason}: {message}" if reason else f"{status}: {message}")
        self.status = status
        self.message = message
        self.reason = reason
