"""A watch of the API server that hands every event on, decoded, with the moment at which it came."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence

from scripts.tools.controlplane.client import Json
from scripts.tools.controlplane.cluster import ControlPlane
from scripts.tools.controlplane.following import Follower

Sink = Callable[[float, str, Json], None]
"""Takes monotonic time, type (ADDED, MODIFIED, DELETED) and object."""


class Watch:
    """Follows one collection from its state at `start` on, until `close`.

    ``failure`` says why it ended by itself, None while it goes on: whatever happened since is not known.
    """

    def __init__(self, plane: ControlPlane, path: str, sink: Sink, field_selector: str = "") -> None:
        self._plane, self._path, self._sink = plane, path, sink
        self._query = {"fieldSelector": field_selector} if field_selector else {}
        self._follower: Follower | None = None
        self.failure: str | None = None

    def start(self) -> None:
        """Hand on what is there now as ADDED, then follow."""
        listed = self._plane.api("GET", self._path, params=self._query)
        now = time.monotonic()
        for item in listed["items"]:
            self._sink(now, "ADDED", item)
        self._follower = Follower(
            self._plane.server_url,
            self._plane.api_client.tls,
            self._path,
            {"allowWatchBookmarks": "true", **self._query},
            listed["metadata"]["resourceVersion"],
            self._take,
        )
        self._follower.start()

    def close(self) -> None:
        """End it."""
        if self._follower is not None:
            self._follower.close()

    def _take(self, now: float, lines: Sequence[bytes]) -> str | None:
        version = None
        for line in lines:
            event = json.loads(line)
            if event["type"] == "ERROR":
                self.failure = str(event["object"].get("message"))
                return None
            version = event["object"]["metadata"]["resourceVersion"]
            if event["type"] != "BOOKMARK":
                self._sink(now, event["type"], event["object"])
        return version
