"""Shows a diagnosis: a page for people, or JSON for programs. Owns the words around the findings; decides nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from extender.inspect.doctor.diagnose import Diagnosis
from extender.inspect.doctor.findings import Verdict
from extender.inspect.json_form import all_keys, encode_form, keys
from extender.inspect.text import fill, page

SCHEMA = "warmnode.dev/doctor/v1alpha1"
SHOWN_DETAILS = 8
"""So many further lines of a finding are shown; the JSON form has all."""

INDENT = " " * 9
"""As wide as the longest verdict and a space."""


def render_json(diagnosis: Diagnosis) -> str:
    """Write the stable JSON form that docs/doctor.md describes."""
    form = {
        **keys(diagnosis, "now", "source", "namespace", "verdict"),
        "unread": [{"what": what, "why": why} for what, why in diagnosis.unread],
        "checks": [
            {"check": check, "title": check.words, **all_keys(finding)} for check, finding in diagnosis.findings.items()
        ],
    }
    return encode_form(SCHEMA, form)


def render_page(diagnosis: Diagnosis, *, width: int = 80) -> str:
    """Write the page: each check, and below it what is not well and what to do, within ``width`` where words allow."""
    return page(_page(diagnosis, width))


def _page(diagnosis: Diagnosis, width: int) -> Iterator[str]:
    yield from fill(f"looked at {diagnosis.source}; as of {diagnosis.now:%Y-%m-%d %H:%M:%S} UTC", width=width)
    yield ""
    told: dict[str, str] = {}
    for check, finding in diagnosis.findings.items():
        title = check.words
        yield from fill(f"{title}: {finding.summary}", width=width, first=f"{finding.verdict:<8} ", later=INDENT)
        for detail in finding.details[:SHOWN_DETAILS]:
            yield from fill(detail, width=width, first=f"{INDENT}- ", later=f"{INDENT}  ")
        if (hidden := len(finding.details) - SHOWN_DETAILS) > 0:
            yield f"{INDENT}- and {hidden} more (--output json has all)"
        if finding.remedy is not None and finding.verdict is not Verdict.OK:
            before = told.setdefault(finding.remedy, title)
            remedy = finding.remedy if before == title else f"as for {before}, above"
            yield from fill(remedy, width=width, first=f"{INDENT}-> ", later=f"{INDENT}   ")
    yield ""
    yield _sum(diagnosis)


def _sum(diagnosis: Diagnosis) -> str:
    counts = Counter(finding.verdict for finding in diagnosis.findings.values())
    order = (Verdict.PROBLEM, Verdict.WARNING, Verdict.UNKNOWN, Verdict.OK)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in order if counts[verdict])
