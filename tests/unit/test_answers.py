"""An answer that is not what it should be, such as the page of a proxy, is a `KubeError` wherever it is read.

One decoder reads what the API server answers: no bare error of a library comes out, and nothing is taken for done.
"""

from __future__ import annotations

import ast
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

import extender
from extender.inspect.cleanup import clean_up
from extender.inspect.survey.access_reviews import refused, who_am_i
from extender.inspect.survey.permissions import ApiVerb
from extender.inspect.survey.survey_objects import lease_facts
from extender.kube.annotate import annotate
from extender.kube.api_client import KubeClient
from extender.kube.api_request import Lane
from extender.kube.claim_store import ClaimStore
from extender.kube.errors import KubeError
from extender.kube.eviction import EvictionOutcome, Evictor
from extender.kube.lease import LeaseObject, LeaseStore, StoredLease
from extender.kube.ledger_store import LedgerStore
from extender.kube.listing import list_objects
from extender.kube.managed_fields import is_priced_by_karpenter
from extender.kube.mark_store import MarkStore
from extender.kube.objects import PodObject
from extender.kube.webhook_lease import WebhookLease
from extender.policy.election import LeaseRecord
from extender.policy.scheduler_silence import WebhookRecord
from extender.web.authorization import Authorization, Verb
from extender.web.callers import Caller, TokenCallers
from tests.builders import NOW, by_label, worker

PAGE = b"<html><head><title>Sign in</title></head></html>"
NO_OBJECTS = (PAGE, b"", b"null", b"[]", b'"ok"', b"{}", b'{"error": "sign in"}', b"\xff\xfe", b"[" * 100_000)


class Answers(KubeClient):
    """Answers everything with the same bytes and 200. ``by_path`` answers otherwise where the path ends so."""

    def __init__(self, body: bytes, by_path: Mapping[str, bytes] | None = None) -> None:
        self._body = body
        self._by_path = by_path or {}

    def on(self, lane: Lane) -> KubeClient:
        return self

    async def get_bytes(
        self,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        timeout: timedelta = timedelta(),  # noqa: ASYNC109
    ) -> bytes:
        return next((body for end, body in self._by_path.items() if path.endswith(end)), self._body)

    async def send(
        self,
        method: str,
        path: str,
        body: bytes,
        *,
        params: Mapping[str, str] | None = None,
        content_type: str = "",
        timeout: timedelta = timedelta(),  # noqa: ASYNC109
    ) -> bytes:
        return await self.get_bytes(path)


POD = worker("a", node="n")
RECORD = WebhookRecord(holder="me", version="1", written=NOW, last_call=None)
EMPTY_LEASE = StoredLease(record=LeaseRecord(holder="me", renewed=NOW), metadata=msgspec.Raw(b"{}"))
ACCESS = ApiVerb("", "pods", "get")
NOTHING = b'{"metadata": {"resourceVersion": "1"}, "items": []}'


def readers(client: Answers) -> dict[str, Callable[[], Awaitable[object]]]:
    """Everything that reads an answer."""
    claims, marks = ClaimStore(client, by_label), MarkStore(client, by_label)
    lease = LeaseStore(client, namespace="own", name="lease")
    webhook = WebhookLease(client, namespace="own", name="calls")
    ledger = LedgerStore(client, namespace="own", name="ledger")
    caller = Caller(user="front")
    return {
        "authorization": lambda: Authorization(client).decide(caller, Verb.CREATE, pool="p", namespace="n"),
        "token review": lambda: TokenCallers(client)._review("token"),
        "access review": lambda: refused(client, [ACCESS], account=None, namespace="own", names={}),
        "pod before an eviction": lambda: Evictor(client, by_label).read(POD),
        "annotate": lambda: annotate(client, POD, {}, by_label),
        "mark": lambda: marks.read("default", "a"),
        "claim": lambda: claims.read("default", "a"),
        "claims": lambda: claims.find(None, None),
        "list": lambda: list_objects(client, "/api/v1/pods", PodObject, lambda raw: raw),
        "lease": lease.read,
        "new lease": lambda: lease.create(LeaseRecord(holder="me", renewed=NOW)),
        "webhook lease": webhook.read,
        "new webhook lease": lambda: webhook.write(RECORD, None),
        "webhook lease again": lambda: webhook.write(RECORD, EMPTY_LEASE),
        "ledger": ledger.read,
        "new ledger": lambda: ledger.record({"uid": NOW}, None),
        "leases of a survey": lambda: list_objects(client, "/leases", LeaseObject, lease_facts),
        "who wrote a cost": lambda: is_priced_by_karpenter(client, POD),
        "clean-up": lambda: clean_up(client, namespace="own", ledger="ledger", leases=(), dry_run=False),
    }


@pytest.mark.parametrize("body", NO_OBJECTS, ids=lambda body: repr(body[:12]))
async def test_what_is_no_answer_is_a_kube_error_for_everybody_who_reads_it(body: bytes) -> None:
    """Whoever calls knows what to do about a `KubeError`, and nothing about the errors of a JSON library."""
    outcomes = {}
    for name, read in readers(Answers(body)).items():
        try:
            outcomes[name] = f"gave {await read()}"
        except KubeError as error:
            outcomes[name] = "KubeError" if str(error).isprintable() and len(str(error)) < 700 else f"says {error}"
    assert outcomes == dict.fromkeys(outcomes, "KubeError")


@pytest.mark.parametrize("body", NO_OBJECTS, ids=lambda body: repr(body[:12]))
async def test_an_eviction_that_a_proxy_answered_has_failed(body: bytes) -> None:
    """Nothing was evicted; and a budget that cannot be read holds its whole namespace."""
    evictor = Evictor(Answers(body), by_label)
    assert (await evictor.evict(POD)).outcome is EvictionOutcome.FAILED
    assert await evictor.budget_selector("default", "guard") is None
    assert await who_am_i(Answers(body)) is None


@pytest.mark.parametrize("dry_run", [True, False])
async def test_nothing_counts_as_removed_that_a_proxy_answered_for(dry_run: bool) -> None:
    """The ledger stays where it was, so `cleanup` must not say that it is gone."""
    client = Answers(PAGE, {"/api/v1/pods": NOTHING})
    with pytest.raises(KubeError, match="no object"):
        await clean_up(client, namespace="own", ledger="ledger", leases=(), dry_run=dry_run)


# -- one decoder ------------------------------------------------------------------------------------------------------

ROOT = Path(extender.__file__).parent
DECODERS = {
    "kube/codec.py": "the one decoder",
    "kube/errors.py": "a Status that is none is no Status",
    "kube/exec_plugin.py": "what a program printed",
    "kube/objects.py": "the annotation of a claim",
    "sources/http.py": "a worker's answer",
    "sources/prometheus.py": "Prometheus's answer",
    "web/callers.py": "the token of a caller",
    "web/claim_wire.py": "a caller's request",
    "web/idle_api.py": "a worker's request",
    "web/openapi.py": "our own document",
    "web/wire.py": "a scheduler's request",
    "inspect/recall.py": "what a replica of ours counted",
    "inspect/record/recording.py": "a file",
    "inspect/snapshot.py": "a file",
    "inspect/snapshot_time.py": "a file",
    "policy/decisions.py": "what a replica of ours remembers",
    "client.py": "warmnode's own answer, and it needs nothing but Python",
}
"""Who decodes JSON by other means, and what it is: none of it comes from an API server."""


def raw_decodes(tree: ast.AST) -> Iterator[int]:
    """Lines on which JSON is decoded otherwise than by `kube.codec`: by the module, or by a decoder made of it."""
    decoders = {
        target.id if isinstance(target, ast.Name) else target.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign) and "json.Decoder" in ast.unparse(node.value or node)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name | ast.Attribute)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of = ast.unparse(node.func.value)
            is_decode = node.func.attr == "decode" and (of == "msgspec.json" or of.split(".")[-1] in decoders)
            if is_decode or ast.unparse(node.func) in ("json.loads", "json.load"):
                yield node.lineno


def test_only_one_place_decodes_what_the_api_server_answers() -> None:
    """A raw decode of an answer raises something that nobody expects there."""
    found = {
        str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py") if any(raw_decodes(ast.parse(path.read_text())))
    }
    assert found == DECODERS.keys()


@pytest.mark.parametrize(
    "line",
    [
        "msgspec.json.decode(body)",
        "msgspec.json.decode(body, type=X)",
        "_X = msgspec.json.Decoder(X)\n_X.decode(body)",
        "self._x: Y = msgspec.json.Decoder(X)\nself._x.decode(body)",
        "json.loads(body)",
    ],
)
def test_a_raw_decode_is_seen(line: str) -> None:
    assert list(raw_decodes(ast.parse(line)))
