"""How many connections a listener takes, of all and of one address. Owns the counting; closes nothing."""

from __future__ import annotations

import resource
from collections import Counter
from dataclasses import dataclass
from ipaddress import ip_address


@dataclass(frozen=True, slots=True)
class Places:
    """How many connections a listener takes at a time, without and with TLS.

    By memory: all listeners filled, on the largest cluster, are to stay well below the limit of the manifests. asyncio
    gives each TLS connection a buffer of 256 KiB for as long as it is open (`SSLProtocol.max_size`).
    """

    plain: int
    tls: int

    @property
    def kib(self) -> int:
        """What they take when all are held, whichever costs more."""
        return max(self.plain * PLAIN_KIB, self.tls * TLS_KIB)


PLAIN_KIB, TLS_KIB = 12, 300
"""What a place takes at most that is held in silence; 7 and 285 were seen."""

PLACES = Places(plain=1024, tls=128)
"""kube-scheduler has two to the webhook; without TLS they come from the same pod."""
OPERATIONS_PLACES = Places(plain=128, tls=128)
"""kubelet and Prometheus have one each. Anybody reaches it, and each place may fill with a long head."""
CLAIMS_PLACES = Places(plain=8192, tls=512)
"""Workers and claimants, who may keep theirs open. Without TLS they are in the same pod."""

OPEN_FILES = 16_384
"""What all listeners may take, and what the process itself needs: container runtimes give 1,024 by default."""


def allow_open_files() -> None:
    """Raise the process's own limit of open files to what the listeners may take, as far as it may be raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Admission:
    """Takes ``most`` connections, and half as many of one address: who opens as many as it can keeps nobody else out.

    Loopback has no half: in a pod the scheduler comes from there, and every ``port-forward``.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._of: Counter[str] = Counter()

    def admits(self, address: str) -> bool:
        """Take a connection, which is to `leave` later; False where there is no place for it."""
        most = self._most if is_loopback(address) else self._most // 2
        if self._of.total() >= self._most or self._of[address] >= most:
            return False
        self._of[address] += 1
        return True

    def leave(self, address: str) -> None:
        """Know that a connection that was admitted has ended."""
        self._of[address] -= 1
        if not self._of[address]:
            del self._of[address]


def is_loopback(address: str) -> bool:
    """True for an IP address that only this machine, or this pod, can reach; names are none."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
