"""The OpenAPI document of the claims listener, ``GET /openapi.json``. Owns what is promised to callers.

The committed copy is docs/openapi.json; tests hold every answer against it.
"""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from extender.web import claim_wire, claims_api, idle_api
from extender.web.requests import Handler, json_response

DOCUMENT_PATH = "/openapi.json"
VERSION = "v1"
"""Of the API, as in its paths: not of the program."""

Json = dict[str, Any]

_TIME = {"type": "string", "format": "date-time", "examples": ["2026-11-01T12:00:00.000Z"]}
_DURATION = {"type": "string", "examples": ["60s", "5m", "1h30m", "250ms"]}
_DESCRIPTION = """\
Hands out idle workers of a pool, the one on the warmest node first, and lets workers say that they are idle.

A claim is kept on the pod: replicas share nothing else, and any of them answers any request. The same user, pool and
claimant get the same worker again, so a request without an answer is simply repeated. docs/claims.md and
docs/workers.md are written for people.
"""


def document_handler() -> Handler:
    """Make the handler of ``GET /openapi.json``."""
    body = msgspec.json.encode(document())

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return json_response(body)

    return handle


def document() -> Json:
    """Make the document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "warmnode",
            "version": VERSION,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0"},
        },
        "security": [{"token": []}, {"certificate": []}],
        "paths": {
            claims_api.COLLECTION: {
                "parameters": [_parameter("pool", "Name of the pool.")],
                "post": _create(),
                "get": _list(),
            },
            claims_api.ITEM: {
                "parameters": [_parameter("pool", "Name of the pool."), _parameter("id", "ID of the claim.")],
                "put": _renew(),
                "delete": _release(),
            },
            idle_api.PATH: {
                "parameters": [
                    _parameter("namespace", "Namespace of the pod."),
                    _parameter("name", "Name of the pod."),
                ],
                "put": _mark(),
                "delete": _unmark(),
            },
        },
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A service account token of the cluster, audience warmnode.",
                },
                "certificate": {
                    "type": "mutualTLS",
                    "description": "With --client-ca-file: the common name is the user, the organizations are groups.",
                },
            },
            "schemas": _schemas(),
        },
    }


def _create() -> Json:
    return {
        "operationId": "createClaim",
        "summary": "Claim the first idle worker, or get the one that the claimant holds already, prolonged.",
        "requestBody": _body("ClaimRequest"),
        "responses": {
            "201": {
                **_answer("A worker, claimed.", "Claim"),
                "headers": {"Location": {"schema": {"type": "string"}, "description": "Path of the claim."}},
            },
            "200": _answer(
                "The worker that the claimant holds already. Its claim lasts at least ttl from now.", "Claim"
            ),
            **_refusals("400", "401", "403", "409", "413", "429", "503"),
            "404": _problem("No worker can be handed out (noneIdle), or there is no such pool (unknownPool)."),
        },
    }


def _list() -> Json:
    return {
        "operationId": "listClaims",
        "summary": "List the claims that the user holds in the pool.",
        "responses": {
            "200": _answer("The claims, by ID.", "ClaimList"),
            **_refusals("400", "401", "403", "404", "429", "503"),
        },
    }


def _renew() -> Json:
    return {
        "operationId": "renewClaim",
        "summary": "Let a claim last at least ttl from now. It never ends sooner than it would have.",
        "requestBody": _body("RenewRequest", required=False),
        "responses": {
            "200": _answer("The claim, prolonged.", "Claim"),
            **_refusals("400", "401", "403", "413", "429", "503"),
            "404": _problem("No such claim (noClaim): it expired, was released, or is another user's. Or unknownPool."),
            "409": _problem("The worker is being deleted (terminating). Or dryRun, or disabled."),
        },
    }


def _release() -> Json:
    return {
        "operationId": "releaseClaim",
        "summary": "End a claim: the worker can be claimed by others at once.",
        "responses": {
            "204": {"description": "Released."},
            **_refusals("400", "401", "403", "429", "503"),
            "404": _problem("No such claim (noClaim): it is over already, or is another user's."),
            "409": _problem("The pool is in dry-run (dryRun): the claim ends by itself."),
        },
    }


def _mark() -> Json:
    return {
        "operationId": "markIdle",
        "summary": "A worker says that it is idle. A mark that is there stays, unless the body has a time.",
        "requestBody": _body("IdleRequest", required=False),
        "responses": {
            "200": _answer("The pod, marked.", "Worker"),
            **_refusals("400", "401", "403", "404", "413", "429", "503"),
            "409": _problem("The pool is in dry-run (dryRun): nothing is written."),
        },
    }


def _unmark() -> Json:
    return {
        "operationId": "removeIdleMark",
        "summary": "A worker says that it is busy. It may accept work after a 200, and after nothing else.",
        "responses": {
            "200": _answer("The pod, without a mark.", "Worker"),
            **_refusals("400", "401", "403", "404", "413", "429", "503"),
            "409": _problem("The pod is being deleted (terminating): refuse the work. Its mark is removed."),
        },
    }


def _schemas() -> Json:
    text: Json = {"type": "string"}
    reasons = sorted(
        map(str, {*claim_wire.ClaimOutcome, *idle_api.IdleOutcome} - claim_wire.SUCCESSES - idle_api.SUCCESSES)
    )
    return {
        "ClaimRequest": {
            "type": "object",
            "additionalProperties": False,
            "required": ["claimant"],
            "properties": {
                "claimant": {
                    **text,
                    "minLength": 1,
                    "maxLength": claim_wire.LONGEST_CLAIMANT,
                    "description": "Names whoever will use the worker: the same again when the request is repeated.",
                },
                "ttl": {**_DURATION, "description": "Life of the claim, at most the pool's maxTtl. Default: its ttl."},
                "cacheKey": {
                    **text,
                    "minLength": 1,
                    "maxLength": 63,
                    "description": "Whose cache is used: among the oldest nodes with an idle worker the one that knows "
                    "it comes first. Without effect in a pool without cacheKey.",
                },
            },
        },
        "RenewRequest": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"ttl": {**_DURATION, "description": "As in ClaimRequest."}},
        },
        "Claim": _object(
            id={**text, "description": "Of the claim: to renew and to release it."},
            pool=text,
            claimant=text,
            namespace=text,
            pod={**text, "description": "Name of the worker."},
            uid={**text, "description": "UID of the worker: names come again."},
            ip={"type": ["string", "null"], "description": "Of the worker."},
            node={"type": ["string", "null"]},
            firstSeen={**_or_null(_TIME), "description": "When a worker was first Ready on the node."},
            since={**_TIME, "description": "When it was claimed."},
            expires={**_TIME, "description": "When the claim ends by itself, by the clock of the replica."},
        ),
        "ClaimList": _object(claims={"type": "array", "items": _reference("Claim")}),
        "IdleRequest": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"idleSince": {**_TIME, "description": "At most 30 s in the future. Default: now."}},
        },
        "Worker": _object(
            namespace=text,
            name=text,
            uid=text,
            resourceVersion=text,
            idleSince=_or_null(_TIME),
            terminating={"type": "boolean", "description": "The pod is being deleted."},
        ),
        "Problem": {
            "type": "object",
            "description": "RFC 9457. detail is for people, reason for programs.",
            "required": ["type", "title", "status", "detail", "reason"],
            "properties": {
                "type": text,
                "title": text,
                "status": {"type": "integer"},
                "detail": text,
                "reason": {
                    **text,
                    "enum": reasons,
                },
                "workers": {
                    "type": "object",
                    "description": "With noneIdle: why not, counted by reason. busy and claimed are always there.",
                    "additionalProperties": {"type": "integer"},
                },
            },
        },
    }


_REFUSALS = {
    "400": "What was sent makes no sense; detail says why (badRequest).",
    "401": "Nobody knows who calls: no token, an expired one, or one for somebody else (notAuthenticated).",
    "403": "The caller may not do this (forbidden).",
    "404": "There is no such thing: see reason.",
    "409": "The pool is in dry-run (dryRun), or hands out no workers (disabled): nothing is written.",
    "413": "The body is too large (badRequest).",
    "429": "The user, or the pod, calls too often (rateLimited); for claims also: all together do (tooMany). "
    "Wait as long as Retry-After says.",
    "500": "A bug of warmnode (crashed): its log has the traceback. Nobody knows what was done.",
    "503": "Not done, or nobody knows (notSynced, changing, unavailable). The same request again is right.",
}


_RETRY_AFTER = {"Retry-After": {"schema": {"type": "integer"}, "description": "How many seconds to wait."}}


def _refusals(*statuses: str) -> Json:
    return {
        status: _problem(_REFUSALS[status]) | ({"headers": _RETRY_AFTER} if status in ("429", "503") else {})
        for status in sorted({*statuses, "500"})
    }


def _problem(description: str) -> Json:
    return {"description": description, "content": {"application/problem+json": {"schema": _reference("Problem")}}}


def _answer(description: str, schema: str) -> Json:
    return {"description": description, "content": {"application/json": {"schema": _reference(schema)}}}


def _body(schema: str, *, required: bool = True) -> Json:
    return {"required": required, "content": {"application/json": {"schema": _reference(schema)}}}


def _object(**properties: Json) -> Json:
    return {"type": "object", "required": list(properties), "properties": properties}


def _or_null(schema: Json) -> Json:
    return {**schema, "type": [schema["type"], "null"]}


def _reference(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _parameter(name: str, description: str) -> Json:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": {"type": "string"}}
