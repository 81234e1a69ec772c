"""Processes that talk to one API server in an order that a random number generator chooses, call by call.

Owns the order. Each call waits twice: before it reaches the server, and before its answer is back. The server is the
store of the fakes, which has the preconditions of a real one (`tests/contract/test_api_server_contract.py`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from random import Random
from typing import Any

import msgspec

from extender.kube.api_client import TIMEOUT, KubeClient, Params
from extender.kube.api_request import Lane
from extender.kube.errors import Unavailable, failure
from tests.fakes.selectors import selection
from tests.fakes.store import PODS, Refusal, Store

HEARD = 0.3
"""How many of the steps may be that of a watch. With fewer some watches are behind by all that is done in a race."""


class Stepper:
    """Runs tasks to their end, one step of one of them at a time. In between, what was told late arrives in order."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._waiting: list[asyncio.Future[None]] = []
        self._asleep: list[asyncio.Future[None]] = []
        self._late: list[tuple[deque[Any], Callable[[Any], None]]] = []
        self.steps = 0

    async def turn(self) -> None:
        """Wait until it is this task's turn."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future

    async def sleep(self, seconds: float) -> None:
        """Sleep for longer than any call takes: until nobody else has a turn to wait for."""
        future = asyncio.get_running_loop().create_future()
        self._asleep.append(future)
        await future

    def tell_late(self, hear: Callable[[Any], None]) -> Callable[[Any], None]:
        """Give a function that hands on what it is called with some steps later, in order."""
        queue: deque[Any] = deque()
        self._late.append((queue, hear))
        return queue.append

    def tell_all(self) -> None:
        """Hand on now what was to be told late."""
        for queue, hear in self._late:
            while queue:
                hear(queue.popleft())

    async def run(self, *work: Coroutine[Any, Any, Any]) -> None:
        """Run all of these, interleaved. Raises what one of them raises."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
            while not all(task.done() for task in tasks):
                await self._settle()
                if self._asleep and not self._waiting:
                    self._asleep.pop(0).set_result(None)
                    continue
                is_heard = not self._waiting or self._random.random() < HEARD
                late = [entry for entry in self._late if entry[0] and is_heard]
                chosen = self._random.randrange(len(self._waiting) + len(late) or 1)
                if chosen < len(self._waiting):
                    self.steps += 1
                    self._waiting.pop(chosen).set_result(None)
                elif late:
                    queue, hear = late[chosen - len(self._waiting)]
                    hear(queue.popleft())

    async def _settle(self) -> None:
        """Let every task go on to where it waits for its turn, or for another task."""
        for _ in range(3):
            await asyncio.sleep(0)


class SteppingClient(KubeClient):
    """A client of a store of pods, without a network. ``loses`` says of each answer to a patch whether it is lost."""

    def __init__(self, store: Store, stepper: Stepper, loses: Callable[[], bool] = lambda: False) -> None:
        self.namespace = "default"
        self._store = store
        self._stepper = stepper
        self._loses = loses

    def on(self, lane: Lane) -> KubeClient:
        """The same: there are no connections."""
        return self

    async def get_bytes(self, path: str, *, params: Params | None = None, timeout: timedelta = TIMEOUT) -> bytes:  # noqa: ASYNC109
        """Read a pod or list pods."""
        return await self._stepped("GET", path, b"", params or {})

    async def send(
        self,
        method: str,
        path: str,
        body: bytes,
        *,
        params: Params | None = None,
        content_type: str = "application/json",
        timeout: timedelta = TIMEOUT,  # noqa: ASYNC109
    ) -> bytes:
        """Patch or evict a pod."""
        return await self._stepped(method, path, body, params or {})

    async def _stepped(self, method: str, path: str, body: bytes, params: Mapping[str, str]) -> bytes:
        await self._stepper.turn()
        try:
            answer, status = self._serve(method, path, body, params), 200
        except Refusal as refusal:
            answer, status = msgspec.json.encode(refusal.status()), refusal.code
        await self._stepper.turn()
        if method == "PATCH" and self._loses():
            raise Unavailable(0, "Reset", "the connection broke before the answer")
        error = failure(status, answer, {})
        if error is not None:
            raise error
        return answer

    def _serve(self, method: str, path: str, body: bytes, params: Mapping[str, str]) -> bytes:
        _, _, _, *rest = path.split("/")  # "", "api", "v1", ...
        namespace, rest = (rest[1], rest[2:]) if rest[0] == "namespaces" else ("", rest)
        match method, rest:
            case "GET", ["pods"]:
                return self._list(namespace, params)
            case "GET", ["pods", name]:
                return self._store.get(PODS, (namespace, name)).raw
            case "PATCH", ["pods", name]:
                return self._store.patch(PODS, (namespace, name), msgspec.json.decode(body)).raw
            case "POST", ["pods", name, "eviction"]:
                wanted = msgspec.json.decode(body)["deleteOptions"]["preconditions"]
                return self._store.delete(PODS, (namespace, name), wanted).raw
        raise AssertionError(f"{method} {path}")

    def _list(self, namespace: str, params: Mapping[str, str]) -> bytes:
        chosen = selection(params)
        if params.get("resourceVersionMatch") == "Exact":
            found = self._store.select_as_of(PODS, namespace, int(params["resourceVersion"]))
        else:
            found = self._store.select(PODS, namespace)
        items = b",".join(each.raw for each in found if chosen(each.tree))
        return b'{"metadata":{"resourceVersion":"%d"},"items":[%b]}' % (self._store.version, items)
