"""Access reviews: would the API server let somebody do this? Asks, and stores nothing.

Owns the requests of SelfSubjectAccessReview and SubjectAccessReview. What is asked for is `permissions`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from extender.inspect.survey.permissions import ApiVerb
from extender.kube.api_client import KubeClient
from extender.kube.codec import decode_answer
from extender.kube.errors import KubeError

AT_ONCE = 8
_SELF = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_OTHERS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
_WHO = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


@dataclass(frozen=True, slots=True, order=True)
class ServiceAccount:
    """Who a pod is to the API server."""

    namespace: str
    name: str

    @property
    def user(self) -> str:
        return f"system:serviceaccount:{self.namespace}:{self.name}"

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups that every service account is in."""
        return "system:serviceaccounts", f"system:serviceaccounts:{self.namespace}", "system:authenticated"

    def __str__(self) -> str:
        return f"service account {self.namespace}/{self.name}"


class _Status(msgspec.Struct, frozen=True):
    allowed: bool


class _Review(msgspec.Struct):
    status: _Status


class _UserInfo(msgspec.Struct, frozen=True):
    username: str = ""


class _SelfStatus(msgspec.Struct, rename="camel", frozen=True):
    user_info: _UserInfo = _UserInfo()


class _SelfReview(msgspec.Struct):
    status: _SelfStatus = _SelfStatus()


_REVIEW = msgspec.json.Decoder(_Review)
_SELF_REVIEW = msgspec.json.Decoder(_SelfReview)


async def who_am_i(client: KubeClient) -> str | None:
    """Ask for our own user name, None where the API server does not say (before 1.28, or not allowed)."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    try:
        answer = await client.send("POST", _WHO, msgspec.json.encode(body))
        return decode_answer(answer, _SELF_REVIEW, "no SelfSubjectReview").status.user_info.username or None
    except KubeError:
        return None


async def refused(
    client: KubeClient,
    accesses: Iterable[ApiVerb],
    *,
    account: ServiceAccount | None,
    namespace: str,
    names: Mapping[str, str],
) -> set[ApiVerb]:
    """Select what would be refused to ``account``, None: to us. ``names`` are those of warmnode's own objects.

    Raises:
        KubeError: it cannot be asked.
    """
    limit = asyncio.Semaphore(AT_ONCE)

    async def is_refused(access: ApiVerb) -> bool:
        spec: dict[str, object] = {"resourceAttributes": _attributes(access, namespace, names)}
        if account is not None:
            spec |= {"user": account.user, "groups": account.groups}
        kind = "SelfSubjectAccessReview" if account is None else "SubjectAccessReview"
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}
        async with limit:
            answer = await client.send("POST", _SELF if account is None else _OTHERS, msgspec.json.encode(body))
        return not decode_answer(answer, _REVIEW, f"no {kind}").status.allowed

    wanted = list(accesses)
    answers = await asyncio.gather(*map(is_refused, wanted), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return {access for access, no in zip(wanted, answers, strict=True) if no}


def _attributes(access: ApiVerb, namespace: str, names: Mapping[str, str]) -> dict[str, str]:
    resource, _, subresource = access.resource.partition("/")
    attributes = {"group": access.group, "resource": resource, "subresource": subresource, "verb": access.verb}
    if access.own:
        attributes["namespace"] = namespace
        if access.verb != "create":  # RBAC cannot limit it to a name
            attributes["name"] = names[access.own]
    return attributes
