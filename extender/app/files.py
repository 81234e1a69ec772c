"""Files that change while we run: the configuration and the TLS files. Bad ones are refused and told once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

from extender.logs import fields
from extender.policy.scheduler_silence import EXPIRES_SOON
from extender.settings import Configuration, ConfigurationFile, SettingsError
from extender.telemetry import Metrics
from extender.web.tls import ServerTls, TlsProblem

log = logging.getLogger("warmnode")

POLL_INTERVAL = timedelta(seconds=5)
"""How often the files are looked at."""


async def follow_files(
    file: ConfigurationFile,
    tls: Sequence[ServerTls],
    metrics: Metrics,
    take: Callable[[Configuration], None],
    now: Callable[[], datetime],
) -> None:
    """Look at the files for ever. ``take`` puts a new configuration in force."""
    first = file.configuration
    told: str | None = None
    while True:
        await asyncio.sleep(POLL_INTERVAL.total_seconds())
        try:  # in a thread: 300 pools take 50 ms, and a scheduler waits for answers meanwhile
            new = await asyncio.to_thread(file.poll)
        except SettingsError as error:
            metrics.config_valid.set(0)
            metrics.config_reloads.labels("refused").inc()
            log.error("configuration refused, the old one stays in force", extra=fields(problem=str(error)))
        else:
            if new is not None:
                metrics.config_valid.set(1)
                metrics.config_reloads.labels("accepted").inc()
                take(new)
                log.info("configuration reloaded", extra=fields(needs_restart=_needs_restart(first, new)))
        told = _follow_tls(tls, told, now())


def _follow_tls(tls: Sequence[ServerTls], told: str | None, now: datetime) -> str | None:
    """Reload the TLS files where they changed, and give the problem that was told last."""
    try:
        reloaded = [each.reload() for each in tls]
        if any(reloaded):
            log.info("TLS files reloaded")
            tell_certificates(tls, now)
    except TlsProblem as problem:
        if str(problem) != told:
            log.error("TLS files refused, the old ones stay in force", extra=fields(problem=str(problem)))
        return str(problem)
    return None


def tell_certificates(tls: Iterable[ServerTls], now: datetime) -> None:
    """Log when the certificate ends, loudly where that is soon, or was: callers refuse it then, and say nothing."""
    ends = min((each.ends for each in tls if each.ends is not None), default=None)
    if ends is not None:
        left = ends - now
        level, text = logging.INFO, "the TLS certificate is valid"
        if left < EXPIRES_SOON:
            level, text = logging.WARNING, "the TLS certificate expires soon"
        if left <= timedelta(0):
            level, text = logging.ERROR, "the TLS certificate has expired: callers refuse it"
        log.log(level, text, extra=fields(until=ends))


def _needs_restart(old: Configuration, new: Configuration) -> list[str]:
    """Name the settings that are read at the start only and differ now."""
    fixed = ("age", "ledger", "leader_election")
    names = [name for name in fixed if getattr(old, name) != getattr(new, name)]
    return names if old.webhook.lease_name == new.webhook.lease_name else [*names, "webhook.leaseName"]
