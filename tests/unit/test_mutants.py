"""scripts/mutants: what is mutated by which tests, how a mutant is shown, and which are known to be equivalent."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.tools.mutants.changes import Change, MutatedFile
from scripts.tools.mutants.equivalents import LIST, Equivalent, read_equivalents, stale
from scripts.tools.mutants.targets import (
    Function,
    Imports,
    Unusable,
    all_functions,
    changed_lines,
    functions_of,
    touched_functions,
)

ROOT = Path(__file__).parents[2]
CODE = """\
LIMIT = 3

def least(a, b):
    \"\"\"The lesser.\"\"\"
    return min(a, b)

class Pool:
    @property
    def size(self):
        return 1

    async def fill(self, room):
        if room < 0:
            raise ValueError(f"no room: {room} left")
        return room
"""
FILL = Function(file="extender/pools.py", name="Pool.fill", first=12, last=15)
MUTATED = """\
class Pool:
    async def xǁPoolǁfill__mutmut_orig(self, room):
        if room < 0:
            raise ValueError(f"no room: {room} left")
        return room

    async def xǁPoolǁfill__mutmut_1(self, room):
        if room <= 0:
            raise ValueError(f"no room: {room} left")
        return room

    async def xǁPoolǁfill__mutmut_2(self, room):
        if room < 0:
            raise ValueError(f"NO ROOM: {room} LEFT")
        return room
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository: a module, one that uses it, and tests of either."""
    for file, text in {
        "extender/pools.py": CODE,
        "extender/reaping.py": "from extender.pools import Pool\n",
        "extender/web/page.py": "import extender.reaping\n",
        "tests/unit/test_reaping.py": "from extender import reaping\n",
        "tests/unit/test_page.py": "from extender.web.page import show\n",
        "tests/integration/test_all.py": "from extender.pools import Pool\n",
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    commit(tmp_path)
    return tmp_path


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e@x.y", *arguments], cwd=folder, check=True)


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=m")


def test_functions_are_found_by_their_lines_and_decorated_ones_are_left_out(project: Path) -> None:
    """Under the names that mutmut gives to their mutants."""
    least, fill = functions_of(project, "extender/pools.py")
    assert (least.name, least.first, least.last) == ("least", 3, 5)
    assert fill == FILL
    assert (least.pattern, fill.pattern) == ("extender.pools.x_least__mutmut_*", "extender.pools.xǁPoolǁfill__mutmut_*")


def test_a_change_touches_the_functions_that_its_lines_stand_in(project: Path) -> None:
    """On a branch since it left main; on main since the last commit's parent; what is not committed counts too."""
    path = project / "extender/pools.py"
    path.write_text(path.read_text().replace("min(a, b)", "max(a, b)"))
    commit(project)
    assert [each.name for each in touched_functions(project, None)] == ["least"]
    git(project, "switch", "--quiet", "--create=branch")
    path.write_text(path.read_text().replace("        return room\n", ""))
    (project / "extender/new.py").write_text("def new():\n    return 1\n")
    commit(project)
    (project / "extender/newer.py").write_text("def newer():\n    return 1\n")
    assert {each.name for each in touched_functions(project, None)} == {"Pool.fill", "new", "newer"}
    assert {each.name for each in touched_functions(project, "main~1")} == {"least", "Pool.fill", "new", "newer"}


def test_a_commit_that_is_none_is_refused(project: Path) -> None:
    """With what git says of it."""
    with pytest.raises(Unusable, match=r"git diff: .*nowhere"):
        touched_functions(project, "nowhere")


def test_only_pythons_files_of_the_package_are_mutated(project: Path) -> None:
    """Whole folders of them too."""
    assert [each.name for each in all_functions(project, [str(project / "extender")])] == ["least", "Pool.fill"]
    for path in ("tests", "extender/gone.py", "README.md"):
        with pytest.raises(Unusable, match="not a Python file or a folder in extender/"):
            all_functions(project, [str(project / path)])


def test_a_file_that_is_no_python_is_refused(project: Path) -> None:
    """With its line."""
    (project / "extender/pools.py").write_text("x = 1\ndef f(\n")
    with pytest.raises(Unusable, match=r"extender/pools\.py:2: '\(' was never closed"):
        all_functions(project, [str(project / "extender")])


def test_lines_that_went_are_the_line_before_them() -> None:
    """And a file that went has none."""
    text = "+++ b/x.py\n@@ -3,2 +2,0 @@\n@@ -9 +7,2 @@ def f():\n+++ /dev/null\n@@ -1,3 +0,0 @@\n"
    assert changed_lines(text) == {"x.py": {2, 7, 8}}


def test_tests_of_a_module_are_those_nearest_to_it(project: Path) -> None:
    """By imports: what needs a control plane is never among them. One step further there are more."""
    imports = Imports(project)
    assert imports.tests_of("extender/reaping.py") == {"tests/unit/test_reaping.py"}
    assert imports.tests_of("extender/pools.py") == {"tests/unit/test_reaping.py"}
    assert imports.tests_of("extender/pools.py", further=1) == {"tests/unit/test_reaping.py", "tests/unit/test_page.py"}
    assert imports.tests_of("extender/nobody.py", further=1) == set()


def test_a_mutant_is_shown_by_the_lines_that_it_changes() -> None:
    """With the line's number in the file as it is now."""
    mutant = MutatedFile(MUTATED).mutant("extender.pools.xǁPoolǁfill__mutmut_1", FILL, is_reached=True)
    assert mutant.line == 13
    change = Change(file=FILL.file, function="Pool.fill", was=("if room < 0:",), now=("if room <= 0:",))
    assert mutant.change == change


def test_what_is_said_to_people_may_be_worded_otherwise() -> None:
    """A mutant that changes nothing but a text with spaces in it is none."""
    file = MutatedFile(MUTATED)
    assert not file.is_wording("extender.pools.xǁPoolǁfill__mutmut_1", FILL)
    assert file.is_wording("extender.pools.xǁPoolǁfill__mutmut_2", FILL)


ENTRY = """\
# a comment

extender/pools.py Pool.fill
  - if room < 0:
  + if room <= 0:
  Room is never 0:
  it begins with 1.
"""


def test_an_equivalent_mutant_is_written_as_it_is_shown() -> None:
    """File and function, what was, what is, and the reason."""
    (entry,) = read_equivalents(ENTRY)
    assert entry == Equivalent(
        line=3,
        change=Change(file="extender/pools.py", function="Pool.fill", was=("if room < 0:",), now=("if room <= 0:",)),
        reason="Room is never 0: it begins with 1.",
    )


def test_an_entry_covers_its_change_and_without_a_new_line_any_change_of_the_old_one() -> None:
    """Of the same lines in the same function."""
    (entry,), (any_change,) = read_equivalents(ENTRY), read_equivalents(ENTRY.replace("  + if room <= 0:\n", ""))
    same = entry.change
    assert entry.covers(same)
    assert any_change.covers(same)
    another = replace(same, now=("if room > 0:",))
    assert not entry.covers(another)
    assert any_change.covers(another)
    for elsewhere in (replace(same, function="Pool.empty"), replace(same, was=("if room < 1:",))):
        assert not any_change.covers(elsewhere)


@pytest.mark.parametrize("left_out", ["extender/pools.py Pool.fill", "  Room is never 0:\n  it begins with 1.\n"])
def test_an_equivalent_mutant_without_a_place_or_a_reason_is_refused(left_out: str) -> None:
    """The line is named."""
    with pytest.raises(Unusable, match=r"equivalent-mutants\.txt:\d+: an entry is"):
        read_equivalents(ENTRY.replace(left_out, ""))


def test_an_equivalent_mutant_whose_line_is_gone_is_stale(project: Path) -> None:
    """It may move, but must stand in its function still; and it is noted once."""
    path = project / "extender/pools.py"
    path.write_text("\n" + path.read_text())
    entries = read_equivalents(ENTRY)
    assert stale(project, entries) == []
    assert stale(project, entries * 2) == [f"{LIST}:3: stands there already"]
    path.write_text(path.read_text().replace("room < 0", "room < 1"))
    assert stale(project, entries) == [f"{LIST}:3: extender/pools.py Pool.fill has no such line any more"]
    path.unlink()
    assert stale(project, entries) == [f"{LIST}:3: extender/pools.py Pool.fill has no such line any more"]


def test_no_equivalent_mutant_is_stale() -> None:
    """One whose line is gone says nothing any more: take it out, and see whether its successor is another."""
    assert stale(ROOT, read_equivalents((ROOT / LIST).read_text())) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["README.md"], "README.md: not a Python file or a folder in extender/"),
        (["--since", "nowhere"], "git diff: "),
        (["--since", "HEAD", "extender"], "give one of them"),
        (["--jobs", "0"], "at least 1"),
    ],
)
def test_bad_usage_is_refused_before_anything_is_mutated(arguments: list[str], says: str) -> None:
    """With what is wrong, and exit code 2."""
    command = [sys.executable, "-P", "-m", "scripts.tools.mutants", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr
