"""The OpenAPI document: it is what is committed, and what it says of bodies is what is taken."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import ValidationError

from extender.policy.claims import PoolClaims
from extender.policy.defaults import ClaimRules, PoolCosts
from extender.web.claim_wire import LONGEST_WAIT, decode_claim, decode_wait
from extender.web.claims_api import COLLECTION
from extender.web.refusals import CallRefused, Reason
from scripts.tools.api_document import COMMITTED
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


VALUES = [None, 1, "", "a", "-", "q 1", "a_b.C-9", ".a", *("x" * each for each in (63, 64, 256, 257)), "\u00e9"]


@pytest.mark.parametrize("value", VALUES, ids=repr)
@pytest.mark.parametrize("key", ["claimant", "cacheKey", "cache_key"])
def test_what_the_document_says_of_a_claim_is_what_is_taken(key: str, value: object) -> None:
    """Bounds and patterns of names, in both directions; what a life and a printable name is stands in words."""
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
