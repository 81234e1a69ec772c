"""The OpenAPI document: it is what is committed, and what it says of bodies is what is taken."""

from __future__ import annotations

import contextlib
import json
import secrets
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError

from extender.app.serve_role import NONCE_BYTES
from extender.policy.claims import OBJECT_NAME, PoolClaims, claim_id
from extender.policy.defaults import ClaimRules, PoolCosts
from extender.web.claim_wire import LONGEST_WAIT, decode_claim, decode_renewal, decode_wait
from extender.web.claims_api import COLLECTION, ITEM
from extender.web.refusals import CallRefused, Reason
from scripts.tools.api_document import COMMITTED
from tests.builders import worker
from tests.documented import DOCUMENT, holds

SETTINGS = PoolClaims(rules=ClaimRules(), costs=PoolCosts(), dry_run=False, is_by_label=True)
CLAIM_CALL = DOCUMENT["paths"][COLLECTION]["post"]


def test_the_committed_document_is_the_one_that_is_served() -> None:
    """Callers make clients from it. After a change on purpose: python -m scripts.tools.api_document."""
    assert json.loads(COMMITTED.read_text()) == DOCUMENT


def test_every_reason_of_a_refusal_is_an_outcome_of_an_operation() -> None:
    """Each is told of where it may come, with its own status; badRequest has more of them, for bodies."""
    told = {
        (reason, status)
        for path in DOCUMENT["paths"].values()
        for operation in path.values()
        if isinstance(operation, dict)
        for status, answer in operation["responses"].items()
        for reason in Reason
        if f"{reason}: {reason.meaning}" in answer["description"]
    }
    assert told == {(each, str(int(each.status))) for each in Reason} | {
        (Reason.BAD_REQUEST, status) for status in ("408", "413", "415")
    }


NAMES = st.from_regex(OBJECT_NAME, fullmatch=True).filter(lambda name: len(name) < 64)
SHOWN = ["\u00e9", "a\nb", "\x1b[2J", "\u202etxt", "\u200b", "\u00a0", "\U0001f986"]
VALUES = [None, 1, "", "a", "-", "q 1", "a_b.C-9", ".a", *("x" * each for each in (63, 64, 256, 257)), *SHOWN]


@pytest.mark.parametrize("value", VALUES, ids=repr)
@pytest.mark.parametrize("key", ["claimant", "cacheKey", "cache_key"])
def test_what_the_document_says_of_a_claim_is_what_is_taken(key: str, value: object) -> None:
    """Bounds and patterns of names, in both directions."""
    body = {"claimant": "query-42", "ttl": "30s"} | {key: value}
    try:
        holds("ClaimRequest", body)
        is_valid = True
    except ValidationError:
        is_valid = False
    try:
        decode_claim(json.dumps(body).encode(), SETTINGS)
        is_taken = True
    except CallRefused:
        is_taken = False
    assert is_taken == is_valid


SCHEMAS = DOCUMENT["components"]["schemas"]
TTL = SCHEMAS["RenewRequest"]["properties"]["ttl"]["anyOf"][0]
BOUNDS = "must be longer than 0s and at most 1h|must be at most 8760h"


@given(st.from_regex(TTL["pattern"], fullmatch=True).filter(lambda text: len(text) >= TTL["minLength"]))
def test_what_the_document_says_of_a_ttl_is_a_duration(ttl: str) -> None:
    """It may be too long for the pool, or nothing at all: how long is for the pool's settings to say."""
    with contextlib.suppress(CallRefused):
        decode_renewal(json.dumps({"ttl": ttl}).encode(), SETTINGS)
        return
    with pytest.raises(CallRefused, match=BOUNDS):
        decode_renewal(json.dumps({"ttl": ttl}).encode(), SETTINGS)


@pytest.mark.parametrize(("count", "at_least"), [(None, None), (None, 1), (3, None), (3, 1), (3, 3)])
def test_what_the_document_says_of_several_is_what_is_taken(count: int | None, at_least: int | None) -> None:
    """At least so many of how many."""
    body = {"claimant": "q", "count": count, "atLeast": at_least}
    for tree in (body, {key: value for key, value in body.items() if value is not None}):
        if at_least is not None and count is None:
            with pytest.raises(ValidationError):
                holds("ClaimRequest", tree)
            with pytest.raises(CallRefused, match="atLeast says how many of count"):
                decode_claim(json.dumps(tree).encode(), SETTINGS)
        else:
            holds("ClaimRequest", tree)
            decode_claim(json.dumps(tree).encode(), SETTINGS)


@given(st.builds(claim_id, st.builds(worker, name=NAMES, namespace=NAMES), st.just(secrets.token_hex(NONCE_BYTES))))
def test_every_id_of_a_claim_is_one_by_the_document(id: str) -> None:
    """With a link of an answer a client has it from us."""
    (of_id,) = (each["schema"] for each in DOCUMENT["paths"][ITEM]["parameters"] if each["name"] == "id")
    Draft202012Validator(of_id).validate(id)


@given(st.from_regex(CLAIM_CALL["parameters"][1]["schema"]["pattern"], fullmatch=True))
def test_what_the_document_says_of_a_wait_is_taken(wait: str) -> None:
    """Whoever makes calls from the document makes none that is refused."""
    assert timedelta(0) <= decode_wait(wait) <= LONGEST_WAIT


def test_a_new_claim_is_linked_to_what_is_done_with_it() -> None:
    """Each link names an operation that there is, with parameters that it takes."""
    takes = {
        operation["operationId"]: {each["name"] for each in path["parameters"]}
        for path in DOCUMENT["paths"].values()
        for operation in path.values()
        if isinstance(operation, dict)
    }
    answers = CLAIM_CALL["responses"]
    for status in ("200", "201"):
        links = answers[status]["links"]
        assert set(links) == {"renewClaim", "releaseClaim"}
        assert all(set(each["parameters"]) == takes[each["operationId"]] for each in links.values())
