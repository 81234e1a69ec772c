"""What a caller may do with the claims of a pool: the cluster's own RBAC is asked.

Owns the question, a SubjectAccessReview for the resource ``claims`` of the group ``warmnode.dev``. No such resource
exists; RBAC answers all the same. Both answers are remembered for some seconds.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum

import msgspec
from cachetools import TTLCache

from extender.kube.codec import decode_answer
from extender.web.callers import REMEMBERED, REVIEW_TIMEOUT, Caller, Sender

GROUP = "warmnode.dev"
RESOURCE = "claims"
REMEMBERED_ANSWERS = 16_384

_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


class Verb(StrEnum):
    """The verbs of RBAC for the four requests."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    LIST = "list"


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether it is allowed, and what the authorizer says about it, which may be nothing."""

    allowed: bool
    reason: str = ""


class Authorization:
    """Asks the API server whether a caller may."""

    def __init__(self, client: Sender) -> None:
        self._client = client
        self._known: TTLCache[bytes, Decision] = TTLCache(REMEMBERED_ANSWERS, REMEMBERED.total_seconds())

    async def decide(self, caller: Caller, verb: Verb, *, pool: str, namespace: str) -> Decision:
        """Say whether ``caller`` may do this with the claims of ``pool``. Raises `KubeError` where nobody can tell now.

        Whoever was not asked who they are may do everything: only this machine reaches such a listener.
        """
        if not caller.authenticated:
            return Decision(True)
        attributes = _Attributes(group=GROUP, resource=RESOURCE, verb=verb, name=pool, namespace=namespace)
        spec = _Spec(
            user=caller.user,
            uid=caller.uid,
            groups=caller.groups,
            extra={key: tuple(values) for key, values in sorted(caller.extra.items())},
            resource_attributes=attributes,
        )
        question = msgspec.json.encode(_Review(spec=spec))
        key = hashlib.sha256(question).digest()
        known = self._known.get(key)
        if known is None:
            answer = await self._client.send("POST", _REVIEWS, question, timeout=REVIEW_TIMEOUT)
            status = decode_answer(answer, _ANSWER, "no SubjectAccessReview").status
            known = self._known[key] = Decision(status.allowed and not status.denied, status.reason)
        return known


class _Attributes(msgspec.Struct):
    group: str
    resource: str
    verb: str
    name: str
    namespace: str


class _Spec(msgspec.Struct, rename="camel", omit_defaults=True):
    user: str
    resource_attributes: _Attributes
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: dict[str, tuple[str, ...]] = {}


class _Review(msgspec.Struct, rename="camel"):
    spec: _Spec
    api_version: str = "authorization.k8s.io/v1"
    kind: str = "SubjectAccessReview"


class _Status(msgspec.Struct):
    allowed: bool
    denied: bool = False
    reason: str = ""


class _Answer(msgspec.Struct):
    status: _Status


_ANSWER = msgspec.json.Decoder(_Answer)
