"""The ledger: first-seen times in one ConfigMap, ``node UID: epoch seconds``.

Owns its format on the API server and its writes. Every write names the resourceVersion that it is based on, so two
replicas that write at once lose nothing: the second one reads again and merges, as `policy.ledger_merge` says. What to
write is decided in `loops`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

import msgspec

from extender.kube.api_client import KubeClient
from extender.kube.codec import decode_answer
from extender.kube.errors import Conflict, NotFound
from extender.kube.objects import ConfigMapObject, ledger_from
from extender.model import Ledger
from extender.policy.ledger_merge import missing_from

LIMIT_BYTES = 1024 * 1024
"""What a ConfigMap may hold (core/validation ValidateConfigMap: MaxSecretSize)."""
COMPONENT_LABEL = "app.kubernetes.io/component"
LEDGER_LABELS = {"app.kubernetes.io/name": "warmnode", COMPONENT_LABEL: "ledger"}
"""By these labels `warmnode plan` finds an installed ledger in any namespace."""

_MERGE_PATCH = "application/merge-patch+json"
_ATTEMPTS = 3
_CONFIG_MAP = msgspec.json.Decoder(ConfigMapObject)


class LedgerFull(Exception):
    """The ledger cannot take more nodes: what is missing stays in memory only.

    ``ledger`` is what was written all the same, None where nothing was.
    """

    def __init__(self, text: str, ledger: Ledger | None = None) -> None:
        super().__init__(text)
        self.ledger = ledger


class LedgerStore:
    """Reads and writes the ledger ConfigMap ``name`` in ``namespace``."""

    def __init__(self, client: KubeClient, *, namespace: str, name: str) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._collection = f"/api/v1/namespaces/{namespace}/configmaps"
        self._path = f"{self._collection}/{name}"

    async def read(self) -> Ledger | None:
        """Read the ledger, None where there is none. Raises `KubeError` for everything but 404."""
        try:
            return _decode(await self._client.get_bytes(self._path))
        except NotFound:
            return None

    async def record(self, first_seen: Mapping[str, datetime], based_on: Ledger | None) -> Ledger:
        """Write these times, keeping what is recorded earlier or makes no sense; give the ledger as it is then.

        Raises:
            Conflict: others wrote three times meanwhile; nothing is lost, try again later.
            LedgerFull: the ConfigMap would pass 1 MiB. What fits is written, the nodes seen first before others.
            KubeError: the API server refused or was not there.
        """
        known = based_on
        for _ in range(_ATTEMPTS):
            recorded = known.first_seen if known is not None else {}
            ignored = known.ignored if known is not None else ()
            missing = {
                uid: str(int(seen.timestamp()))
                for uid, seen in missing_from(recorded, first_seen).items()
                if uid not in ignored
            }
            if known is not None and not missing:
                return known
            fitting = _fitting(missing, recorded, LIMIT_BYTES - (known.size_bytes if known is not None else 0))
            left = len(missing) - len(fitting)
            full = f"{left} nodes do not fit into the ConfigMap {self._name}"
            if left and not fitting:
                raise LedgerFull(full)
            try:
                ledger = await (self._create(fitting) if known is None else self._patch(fitting, known))
            except (Conflict, NotFound):
                known = await self.read()
                continue
            if left:
                raise LedgerFull(full, ledger)
            return ledger
        raise Conflict(409, "Conflict", f"ConfigMap {self._namespace}/{self._name} was changed by others all the time")

    async def prune(self, uids: Collection[str], based_on: Ledger) -> Ledger:
        """Remove entries. Raises `Conflict` where the ledger changed since: read again and decide again."""
        return await self._patch(dict.fromkeys(uids), based_on)

    async def _create(self, data: Mapping[str, str]) -> Ledger:
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": self._name, "namespace": self._namespace, "labels": LEDGER_LABELS},
            "data": data,
        }
        return _decode(await self._client.send("POST", self._collection, msgspec.json.encode(body)))

    async def _patch(self, data: Mapping[str, str | None], based_on: Ledger) -> Ledger:
        body = {"metadata": {"resourceVersion": based_on.resource_version, "labels": LEDGER_LABELS}, "data": data}
        return _decode(
            await self._client.send("PATCH", self._path, msgspec.json.encode(body), content_type=_MERGE_PATCH)
        )


def _fitting(missing: Mapping[str, str], recorded: Collection[str], room: int) -> dict[str, str]:
    """Select what fits into so many bytes, the earliest times first. What is only moved needs no room."""
    fitting: dict[str, str] = {}
    for uid, text in sorted(missing.items(), key=lambda item: (int(item[1]), item[0])):
        size = 0 if uid in recorded else len(uid) + len(text)
        if size <= room:
            fitting[uid] = text
            room -= size
    return fitting


def _decode(body: bytes) -> Ledger:
    return ledger_from(decode_answer(body, _CONFIG_MAP, "no ConfigMap"))
