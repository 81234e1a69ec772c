"""What stands for a pod in an answer and is none is an outcome, not a bug."""

from __future__ import annotations

import pytest

from extender.kube.annotate import decode_pod
from extender.kube.errors import Unavailable


@pytest.mark.parametrize("body", [b"<html>", b"", b"[]", b'{"kind": "Pod", "metadata": 3}', b'"\xff"', b"[" * 100_000])
def test_a_success_that_is_no_pod_is_an_unreadable_answer(body: bytes) -> None:
    """A proxy may put its own page in between: whoever asked waits and asks again."""
    with pytest.raises(Unavailable, match="no pod"):
        decode_pod(body)
