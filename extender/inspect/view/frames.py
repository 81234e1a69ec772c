"""What is sent to a page: a whole view at first, and then what has changed. Pure.

docs/live-view.md says what is drawn of it. The form is the page's and no interface for others.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from datetime import timedelta

import msgspec

from extender.inspect.view.view_model import View

KEPT_FOR = timedelta(hours=1)
KEPT_EVERY = timedelta(seconds=10)


def frame_of(view: View, *, before: View | None, begun: View) -> bytes:
    """Write what a page has to draw that shows ``before`` now, None: nothing yet. One line of JSON.

    It has the fields of a view, of ``columns`` those that changed. ``order`` are all nodes by UID, null: as before;
    ``begun`` is the earliest moment to which one can go back.
    """
    order = tuple(column.uid for column in view.columns)
    known = {id(column) for column in before.columns} if before is not None else set()
    is_same_order = before is not None and order == tuple(column.uid for column in before.columns)
    changed = tuple(column for column in view.columns if id(column) not in known)
    told = {"begun": begun.now, "order": None if is_same_order else order, "columns": changed}
    return msgspec.json.encode({**{name: getattr(view, name) for name in View.__dataclass_fields__}, **told})


class Past:
    """Views of the last hour, one each ten seconds. What did not change from one to the next is there once."""

    def __init__(self) -> None:
        self._views: deque[View] = deque()

    def note(self, view: View) -> None:
        """Keep a view, unless the last one kept is too young."""
        if self._views and view.now - self._views[-1].now < KEPT_EVERY:
            return
        if self._views:
            view = _sharing(view, self._views[-1])
        self._views.append(view)
        while view.now - self._views[0].now > KEPT_FOR:
            self._views.popleft()

    @property
    def begun(self) -> View | None:
        """The oldest view that is kept."""
        return self._views[0] if self._views else None

    def ago(self, age: timedelta) -> View | None:
        """Give the youngest view that is at least so old, the oldest where none is, None where nothing was kept."""
        if not self._views:
            return None
        at = self._views[-1].now - age
        return next((view for view in reversed(self._views) if view.now <= at), self._views[0])


def _sharing(view: View, before: View) -> View:
    """Take over columns that are equal, where the view in between had others."""
    known = {column.uid: column for column in before.columns}
    return replace(
        view,
        columns=tuple(same if (same := known.get(column.uid)) == column else column for column in view.columns),
    )
