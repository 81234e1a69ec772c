"""The OpenAPI document of the claims listener, ``GET /openapi.json``. Owns what is promised to callers.

Bodies come from the structs that are decoded and encoded (`web.api_bodies`), and each operation names the reasons for
which it refuses. The committed copy is docs/openapi.json, which ``python -m scripts.tools.api_document`` writes.
"""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from extender.policy.claims import OBJECT_NAME
from extender.web import api_bodies, claims_api, idle_api
from extender.web.refusals import Reason
from extender.web.requests import Handler, json_response

DOCUMENT_PATH = "/openapi.json"
VERSION = "v1"
"""Of the API, as in its paths: not of the program."""

Json = dict[str, Any]

_DESCRIPTION = """\
Hands out idle workers of a pool, the one on the warmest node first, and lets workers say that they are idle.

A claim is kept on the pod: replicas share nothing else, and any of them answers any request. The same user, pool and
claimant get the same worker again, so a request without an answer is repeated, and says so. docs/claims.md and
docs/workers.md are written for people.
"""
_SERVER = {
    "url": "https://{host}:{port}",
    "description": "The Service that the component claims installs.",
    "variables": {"host": {"default": "warmnode.warmnode.svc"}, "port": {"default": "8889"}},
}
_SECURITY_SCHEMES = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "A service account token of the cluster, audience warmnode.",
    },
    "certificate": {
        "type": "mutualTLS",
        "description": "With --client-ca-file: the common name is the user, the organizations are groups.",
    },
}
_ALWAYS = (Reason.BAD_REQUEST, Reason.NOT_AUTHENTICATED, Reason.RATE_LIMITED, Reason.UNAVAILABLE, Reason.CRASHED)
_OF_POOLS = (*_ALWAYS, Reason.FORBIDDEN, Reason.TOO_MANY, Reason.NOT_SYNCED)
_OF_WORKERS = (
    *_ALWAYS,
    Reason.NO_POD_IN_TOKEN,
    Reason.NOT_YOUR_POD,
    Reason.NOT_FOUND,
    Reason.NO_WORKER,
    Reason.CHANGING,
)
_BODY_STATUSES = (400, 408, 413, 415)
"""With which a body is refused: all of them are a bad request."""

_CLAIM_ID = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
"""Names of objects, and what `policy.claims.claim_id` puts behind them."""
_NEEDS_COUNT = {
    "if": {"required": ["atLeast"], "properties": {"atLeast": {"type": "integer"}}},
    "then": {"required": ["count"], "properties": {"count": {"type": "integer"}}},
}
"""And is no more than that, which no schema can tell."""
_WAIT = {"pattern": "^(1m|(60|[1-5]?[0-9])s|[0-9]{1,4}ms)$", "examples": ["10s", "1m"]}
"""What is taken beside it, such as 0m30s, nobody has to know."""
_HEADERS = {
    "401": {"WWW-Authenticate": {"schema": {"type": "string"}, "description": "What to send, as in RFC 6750."}},
    "429": {"Retry-After": {"schema": {"type": "integer"}, "description": "How many seconds to wait."}},
}
_HEADERS["503"] = _HEADERS["429"]


def document_handler() -> Handler:
    body = msgspec.json.encode(document())

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return json_response(body)

    return handle


def document() -> Json:
    pool = _parameter("pool", "Name of the pool.", pattern=f"^{api_bodies.LABEL_VALUE.pattern}$")
    claim = _parameter("id", "ID of the claim.", pattern=_CLAIM_ID, maxLength=claims_api.LONGEST_ID)
    a_name = {"pattern": f"^{OBJECT_NAME.pattern}$"}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "warmnode",
            "version": VERSION,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [_SERVER],
        "security": [{"token": []}, {"certificate": []}],
        "paths": {
            claims_api.COLLECTION: {"parameters": [pool], **_claims()},
            claims_api.WANTED: {"parameters": [pool], **_wanted()},
            claims_api.ITEM: {"parameters": [pool, claim], **_claim()},
            idle_api.PATH: {
                "parameters": [
                    _parameter("namespace", "Namespace of the pod.", **a_name),
                    _parameter("name", "Name of the pod.", **a_name),
                ],
                **_mark(),
            },
        },
        "components": {"securitySchemes": _SECURITY_SCHEMES, "schemas": _schemas()},
    }


def _claims() -> Json:
    created = _answer("A worker, claimed; with count a list.", "Claim")
    held = _answer("The worker that the claimant holds already. Its claim lasts at least ttl from now.", "Claim")
    for given in (created, held):
        where = "Path of the claim; with count that of all claims."
        given["headers"] = {"Location": {"schema": {"type": "string"}, "description": where}}
        given["content"]["application/json"]["schema"] = {"oneOf": [_reference("Claim"), _reference("ClaimList")]}
        given["links"] = {each: _link(each) for each in ("renewClaim", "releaseClaim")}
    refusals = (
        *_OF_POOLS,
        Reason.NONE_IDLE,
        Reason.UNKNOWN_POOL,
        Reason.DRY_RUN,
        Reason.DISABLED,
        Reason.CHANGING,
        Reason.CALLER_GONE,
        Reason.STOPPING,
    )
    return {
        "post": {
            "operationId": "createClaim",
            "summary": "Claim the first idle worker, or get the one that the claimant holds already, prolonged.",
            "parameters": [
                _option("header", claims_api.IDEMPOTENCY_KEY, "Whatever it says: as retry in the body."),
                _option(
                    "query", "wait", "How long to wait for a worker, at most 1m: first come, first served.", **_WAIT
                ),
            ],
            "requestBody": _body("ClaimRequest", required=True),
            "responses": {"201": created, "200": held, **_refusals(*refusals)},
        },
        "get": {
            "operationId": "listClaims",
            "summary": "List the claims that the user holds in the pool.",
            "responses": {
                "200": _answer("The claims, by ID.", "ClaimList"),
                **_refusals(*_OF_POOLS, Reason.UNKNOWN_POOL),
            },
        },
    }


def _link(operation: str) -> Json:
    """Say that the claim in the answer is what ``operation`` is for."""
    parameters = {"pool": "$request.path.pool", "id": "$response.body#/id"}
    told = "With count the answer is a list, and each claim in it has an id."
    return {"operationId": operation, "parameters": parameters, "description": told}


def _wanted() -> Json:
    told = _answer("What is in use, who waits, and what is to be had ready.", "Wanted")
    return {
        "get": {
            "operationId": "wantedWorkers",
            "summary": "Say how many workers the pool should have, for whatever makes workers.",
            "responses": {"200": told, **_refusals(*_OF_POOLS, Reason.UNKNOWN_POOL)},
        },
    }


def _claim() -> Json:
    refusals = (*_OF_POOLS, Reason.NO_CLAIM, Reason.DRY_RUN, Reason.CHANGING)
    renewed = _refusals(*refusals, Reason.UNKNOWN_POOL, Reason.TERMINATING, Reason.DISABLED)
    return {
        "put": {
            "operationId": "renewClaim",
            "summary": "Let a claim last at least ttl from now. It never ends sooner than it would have.",
            "requestBody": _body("RenewRequest"),
            "responses": {"200": _answer("The claim, prolonged.", "Claim"), **renewed},
        },
        "delete": {
            "operationId": "releaseClaim",
            "summary": "End a claim: the worker can be claimed by others at once.",
            "responses": {"204": {"description": "Released."}, **_refusals(*refusals)},
        },
    }


def _mark() -> Json:
    marked, unmarked = _answer("The pod, marked.", "Worker"), _answer("The pod, without a mark.", "Worker")
    return {
        "put": {
            "operationId": "markIdle",
            "summary": "A worker says that it is idle. A mark that is there stays, unless the body has a time.",
            "requestBody": _body("IdleRequest"),
            "responses": {
                "200": marked,
                **_refusals(*_OF_WORKERS, Reason.DRY_RUN, Reason.NO_SOURCE, Reason.CALLER_GONE),
            },
        },
        "delete": {
            "operationId": "removeIdleMark",
            "summary": "A worker says that it is busy. It may accept work after a 200, and after nothing else.",
            "responses": {"200": unmarked, **_refusals(*_OF_WORKERS, Reason.TERMINATING)},
        },
    }


def _schemas() -> Json:
    """Make schemas of the structs, which are called Body because the client has a class Claim of its own."""
    structs = [struct for name, struct in vars(api_bodies).items() if name.endswith("Body")]
    _, schemas = msgspec.json.schema_components(structs, ref_template="#/components/schemas/{name}")
    found: Json = msgspec.json.decode(msgspec.json.encode(schemas).replace(b'Body"', b'"'))
    found["ClaimRequest"] |= _NEEDS_COUNT
    found["Problem"]["properties"]["reason"]["enum"] = sorted(Reason)
    return found


def _refusals(*reasons: Reason) -> Json:
    """Give an answer for each status with which one of these reasons comes."""
    told: dict[str, list[str]] = {}
    for reason in reasons:
        for status in _BODY_STATUSES if reason is Reason.BAD_REQUEST else (reason.status,):
            told.setdefault(str(int(status)), []).append(f"{reason}: {reason.meaning}")
    return {
        status: _answer(" ".join(lines), "Problem", "application/problem+json")
        | ({"headers": _HEADERS[status]} if status in _HEADERS else {})
        for status, lines in sorted(told.items())
    }


def _answer(description: str, schema: str, media: str = "application/json") -> Json:
    return {"description": description, "content": {media: {"schema": _reference(schema)}}}


def _body(schema: str, *, required: bool = False) -> Json:
    return {"required": required, "content": {"application/json": {"schema": _reference(schema)}}}


def _reference(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _option(where: str, name: str, description: str, **bounds: object) -> Json:
    schema = {"type": "string", **bounds}
    return {"name": name, "in": where, "required": False, "description": description, "schema": schema}


def _parameter(name: str, description: str, **bounds: object) -> Json:
    schema = {"type": "string", **bounds}
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}
