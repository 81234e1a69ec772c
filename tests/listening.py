"""A listener of ours in a thread of its own, for tests that talk to it over real sockets from outside its loop."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, TypeVar

from extender.cluster.history import DecisionHistory
from extender.cluster.state import ClusterState
from extender.model import BusyVictims, Ledger, Node, Pod, Pool
from extender.policy.pools import PoolsInForce
from extender.policy.scheduler_silence import HandshakeFailure
from extender.telemetry import Metrics
from extender.web.admission import PLACES, Places
from extender.web.requests import Handler
from extender.web.server import Address, Listener, TurnedAway
from extender.web.tls import ServerTls
from extender.web.webhook import Webhook
from tests.builders import NOW, clock_of

T = TypeVar("T")
SECONDS = 30.0


def synced_state(nodes: Sequence[Node] = (), pods: Sequence[Pod] = (), ledger: Ledger | None = None) -> ClusterState:
    """A state that has all this and may answer; its clock stands still at `builders.NOW`."""
    state = ClusterState(clock=lambda: NOW)
    state.replace_nodes(nodes)
    state.replace_pods(pods)
    state.take_ledger(ledger)
    state.begin()
    return state


def webhook_over(state: ClusterState, *, pools: PoolsInForce | None = None, metrics: Metrics | None = None) -> Webhook:
    """A webhook over this state; without ``pools`` the label names them."""
    return Webhook(
        state=state,
        pools=pools or PoolsInForce(Pool(name="", busy_victims=BusyVictims.LAST_RESORT)),
        metrics=metrics or Metrics(),
        history=DecisionHistory(now=lambda: NOW),
        clock=clock_of(lambda: NOW),
    )


class Listening:
    """Runs a `Listener` while used as a context manager.

    ``logged`` holds what was logged meanwhile, ``handshake_failures`` why TLS connections did not come about.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        tls: ServerTls | None = None,
        refused: Callable[[HTTPStatus], None] = lambda status: None,
        places: Places = PLACES,
    ) -> None:
        self.handshake_failures: list[HandshakeFailure] = []
        self.listener = Listener(
            name="test",
            address=Address("127.0.0.1", 0),
            handler=handler,
            tls=tls,
            turned_away=TurnedAway(refused=refused, handshake_failed=self.handshake_failures.append),
            places=places,
        )
        self.logged: list[logging.LogRecord] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="listening")
        self._log = logging.getLogger()
        self._recorder = _Recorder(self.logged)

    def __enter__(self) -> Self:
        self._log.addHandler(self._recorder)
        self._thread.start()
        self.run(self.listener.start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run(self.listener.stop())
        self.run(_closed())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(SECONDS)
        self._loop.close()
        self._log.removeHandler(self._recorder)

    @property
    def port(self) -> int:
        """Port of the listener."""
        return self.listener.address.port

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run something on the listener's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(SECONDS)

    def connect(self, context: ssl.SSLContext | None = None, *, name: str = "localhost") -> socket.socket:
        """Open a connection."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS)
        if context is None:
            return plain
        try:
            return context.wrap_socket(plain, server_hostname=name)
        except BaseException:
            plain.close()
            raise

    def mistakes(self) -> list[str]:
        """What was logged that is a mistake of ours: tracebacks and errors."""
        return [
            f"{record.name}: {record.getMessage()} {record.exc_info and record.exc_info[1]!r}"
            for record in self.logged
            if record.exc_info or record.levelno >= logging.ERROR
        ]


async def _closed() -> None:
    """Give connections a second to close by themselves, and cancel what is left."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=1)
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    for _ in range(5):  # a socket that is no longer listened to is closed in one of the next turns
        await asyncio.sleep(0)


class _Recorder(logging.Handler):
    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__()
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)
