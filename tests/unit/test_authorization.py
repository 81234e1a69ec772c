"""Who may do what with claims: what is asked of the API server, and what is not."""

from __future__ import annotations

from datetime import timedelta

from extender.web.authorization import Authorization, Verb
from extender.web.callers import LOCAL


class Nobody:
    """Is never asked."""

    async def send(self, method: str, path: str, body: bytes, *, timeout: timedelta = timedelta(1)) -> bytes:  # noqa: ASYNC109
        raise AssertionError("the API server knows nothing of a caller that nobody asked who it is")


async def test_on_a_listener_that_only_this_machine_reaches_everything_is_allowed() -> None:
    """Whoever is in the pod, or on the laptop, is let in without a token: there is nobody to ask about."""
    for verb in Verb:
        assert (await Authorization(Nobody()).decide(LOCAL, verb, pool="ducks", namespace="warmnode")).allowed
