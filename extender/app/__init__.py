"""Composition root of the processes that stay: builds everything a role needs, runs it, and stops it in order.

With `extender.inspect.commands` the only place where parts meet.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal

from extender.app.options import CLAIMS, WEBHOOK, Role, RunOptions
from extender.app.process import Process
from extender.kube.api_client import connected
from extender.web.tls import ServerTls

__all__ = ["Role", "RunOptions", "run"]

log = logging.getLogger("warmnode")


async def run(options: RunOptions) -> None:
    """Run the roles until SIGTERM or SIGINT.

    Stops in order: readiness off, the callers' listeners stop listening and finish their answers, the loops end and the
    Lease is given up, the operations listener closes last.

    Raises:
        ConfigurationProblem: the API server cannot be addressed.
        ListenerProblem: an address cannot be had.
        TlsProblem: TLS files do not load.
    """
    gc.freeze()  # what was imported stays: looking through it would take 10 ms of a scheduling cycle, each time
    tls = _tls(options)
    stopping = _on_signals(asyncio.Event())
    async with connected(options.cluster) as client:
        await Process(options, client, tls, stopping).run()
    log.info("stopped")


def _tls(options: RunOptions) -> dict[str, ServerTls]:
    """Read the TLS files for each listener. A caller of claims may show a token in place of a client certificate."""
    if options.tls_cert_file is None or options.tls_key_file is None:
        return {}
    return {
        listener: ServerTls(
            cert_file=options.tls_cert_file,
            key_file=options.tls_key_file,
            client_ca_file=options.client_ca_file,
            client_may_lack_one=listener == CLAIMS,
        )
        for listener in (WEBHOOK, CLAIMS)
    }


def _on_signals(stopping: asyncio.Event) -> asyncio.Event:
    """Set the event on SIGTERM or SIGINT. A second one ends the process at once, as if nobody listened.

    To be called before anything that takes time: the kernel ignores a SIGTERM for a process 1 that has no handler.
    """
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)

    def stop() -> None:
        stopping.set()
        for number in signals:
            loop.remove_signal_handler(number)

    for number in signals:
        loop.add_signal_handler(number, stop)
    return stopping
