"""How the benchmarks write down what they found."""

import pytest

from scripts.tools.benchmarks.report import Report, Table, Target, with_section

TABLE = Table(title="Speed", head=("who", "ms"), rows=(("warmnode", "0.3"), ("Go", "12.5")))
DOCUMENT = "# Benchmarks\n\n<!-- begin speed -->\nold\n<!-- end speed -->\n\n## More\n"


def test_a_table_for_a_terminal_is_aligned_words_left_and_numbers_right() -> None:
    assert TABLE.text().splitlines() == [
        "Speed",
        "who         ms",
        "--------------",
        "warmnode   0.3",
        "Go        12.5",
    ]


def test_a_table_in_markdown_has_its_title_and_its_alignment() -> None:
    rows = ["**Speed**", "", "| who | ms |", "| :-- | --: |", "| warmnode | 0.3 |", "| Go | 12.5 |"]
    assert TABLE.markdown().splitlines() == rows


@pytest.mark.parametrize(("met", "word"), [(True, "| met |"), (False, "| **missed** |"), (None, "| not measured |")])
def test_a_report_shows_its_targets_first_and_says_where_one_was_missed(met: bool | None, word: str) -> None:
    target = Target(what="p50", wanted="<= 0.6", measured="0.7", met=met)
    report = Report(name="speed", conditions=("2 cores", "Go 1"), tables=(TABLE,), targets=(target,), notes=("why",))
    written = report.markdown()
    assert written.startswith("2 cores  \nGo 1\n\n**Targets**")
    assert f"| p50 | <= 0.6 | 0.7 {word}" in written
    assert written.index("**Targets**") < written.index("**Speed**") < written.index("why")


def test_a_section_replaces_what_is_between_its_markers_and_nothing_else() -> None:
    new = with_section(DOCUMENT, "speed", "line \\1\n")
    assert new == DOCUMENT.replace("\nold\n", "\n\nline \\1\n\n")
    assert with_section(new, "speed", "line \\1") == new


@pytest.mark.parametrize(
    "document",
    ["", f"{DOCUMENT}<!-- begin speed -->", f"{DOCUMENT}<!-- end speed -->", "<!-- end speed --><!-- begin speed -->"],
)
def test_a_document_without_the_markers_is_refused(document: str) -> None:
    with pytest.raises(ValueError, match="<!-- begin speed -->"):
        with_section(document, "speed", "new")
