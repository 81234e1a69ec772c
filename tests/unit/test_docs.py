"""The docs answer what the program asks: a section for each alert and check, words for each status, links that work."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from extender.inspect.doctor.diagnose import Check
from extender.policy.scheduler_silence import HandshakeFailure
from scripts.tools.manifests.rendering import MANIFESTS, read_objects

ROOT = MANIFESTS.parent
DOCS = ROOT / "docs"
TROUBLESHOOTING = (DOCS / "troubleshooting.md").read_text()
PAGES = [*ROOT.glob("*.md"), ROOT / "client/README.md", *DOCS.rglob("*.md")]


def anchors_of(page: Path) -> set[str]:
    """What a heading's link is: lower case, no punctuation, dashes for spaces."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def alerts() -> Iterator[dict[str, object]]:
    (rule,) = read_objects("components/monitoring/prometheusrule.yaml")
    for group in rule["spec"]["groups"]:
        yield from group["rules"]


def test_each_alert_leads_to_its_section() -> None:
    """Whoever is woken by it, and knows nothing of warmnode, needs the next step."""
    anchors = anchors_of(DOCS / "troubleshooting.md")
    chart = (MANIFESTS / "chart/templates/monitoring.yaml").read_text()
    for alert in alerts():
        place = f"troubleshooting.md#{str(alert['alert']).lower()}"
        assert place.partition("#")[2] in anchors
        annotations = alert["annotations"]
        assert isinstance(annotations, dict)
        assert annotations["runbook_url"] == f"docs/{place}"
        assert f"runbook_url: {{{{ $docs }}}}/{place}\n" in chart
    assert len(list(alerts())) == chart.count("- alert: ")


def test_each_check_of_doctor_has_its_section() -> None:
    """By the name that stands in its JSON form."""
    headings = " ".join(re.findall(r"^### (.+)$", (DOCS / "doctor.md").read_text(), flags=re.MULTILINE))
    assert set(Check) <= set(re.findall(r"\w+", headings))


def test_each_status_of_the_api_and_each_handshake_has_a_line() -> None:
    """In the tables of what is refused and why."""
    rows = " ".join(re.findall(r"^\| ([^|]+) \|", TROUBLESHOOTING, flags=re.MULTILINE))
    operations = [
        operation
        for path in json.loads((DOCS / "openapi.json").read_text())["paths"].values()
        for operation in path.values()
        if isinstance(operation, dict)
    ]
    statuses = {status for operation in operations for status in operation["responses"] if status >= "400"}
    assert len(statuses) > 5
    assert statuses | set(HandshakeFailure) <= set(re.findall(r"\w+", rows))


def test_each_threat_names_tests_that_there_are() -> None:
    """By file and function: a line whose test was renamed or removed has to be looked at again."""
    rows = re.findall(r"^\|.*\|$", (DOCS / "security.md").read_text().partition("## What an attacker gains")[2], re.M)
    tests = {
        (file.stem, name)
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), flags=re.MULTILINE)
    }
    for row in rows[2:]:
        named = re.findall(r"`(test_\w+)::(test_\w+)`", row)
        assert named, row
        assert set(named) <= tests, set(named) - tests


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """To a file that is there, and to a heading in it."""
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", page.read_text()):
        if "://" in target:
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor in anchors_of(file), f"{target}#{anchor}"
