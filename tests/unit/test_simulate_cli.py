"""`warmnode simulate`: what it prints, draws and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from extender import cli
from extender.simulate.rules import RULES
from extender.simulate.session_rules import SESSION_RULES

SMALL = ("simulate", "--jobs", "400", "--consolidate-after", "1m,10m")


def simulate(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    """Run it: standard output and standard error."""
    assert cli.main((*SMALL, *arguments)) == cli.CLEAN
    written = capsys.readouterr()
    return written.out, written.err


def test_table_and_progress(capsys: pytest.CaptureFixture[str]) -> None:
    """A row for each rule and consolidateAfter on standard output, a line for each run on standard error."""
    out, err = simulate(capsys)
    for rule in RULES:
        assert sum(line.startswith(f"{rule.words} ") for line in out.splitlines()) == 2
    assert len(err.splitlines()) == 8
    assert err.splitlines()[-1] == "run 8 of 8: working set, slack 0.1, consolidateAfter 10m"
    assert simulate(capsys, "--quiet") == (out, "")


def test_json_has_what_the_table_has(capsys: pytest.CaptureFixture[str]) -> None:
    """The stable form: what was simulated, and every trial."""
    out, _ = simulate(capsys, "--output", "json", "--rules", "oldest,set:0.2", "--traffic", "bursts", "--seed", "3")
    tree = json.loads(out)
    assert tree["schema"] == "warmnode.dev/simulation/v1alpha1"
    assert tree["workload"]["traffic"] == "bursts"
    assert tree["workload"]["burstSeconds"] == 1200
    assert 50 < tree["workload"]["keys"] <= 60
    assert tree["workload"]["seed"] == 3
    assert tree["pool"] == {
        "slots": 8,
        "bootSeconds": 45.0,
        "cacheBlocks": 1000,
        "missSeconds": 0.0,
        "restartEverySeconds": None,
    }
    shown = [(each["rule"], each["slack"], each["consolidateAfterSeconds"]) for each in tree["trials"]]
    assert shown == [("oldest", None, 60), ("oldest", None, 600), ("set:0.2", 0.2, 60), ("set:0.2", 0.2, 600)]
    assert all(each["hits"] / each["reads"] == pytest.approx(each["hitRatio"], abs=1e-5) for each in tree["trials"])
    assert all(each["nodeHours"] > 0 for each in tree["trials"])


def test_a_price_and_what_misses_cost_are_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The price of a node-hour makes a column; with misses that cost time the picture shows latency."""
    svg = tmp_path / "a.svg"
    out, _ = simulate(capsys, "--rules", "oldest", "--price", "2", "--miss-seconds", "3", "--svg", str(svg))
    head, row, _ = (line for line in out.splitlines() if line.startswith(("RULE", "oldest")))
    assert "COST" in head
    hours, cost = float(row.split()[3]), float(row.split()[4])
    assert cost == pytest.approx(2 * hours, abs=0.2)
    assert "3s for a block that is not there" in out
    assert "mean latency" in svg.read_text()
    assert "better: down and to the left" in svg.read_text()
    plain, _ = simulate(capsys, "--rules", "oldest", "--durations", "heavy")
    assert "COST" not in plain


def test_picture(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """An SVG where it was asked for, in place of what stood there, and the table as ever."""
    svg = tmp_path / "a.svg"
    svg.write_text("what was there before")
    out, _ = simulate(capsys, "--svg", str(svg), "--rules", "oldest")
    assert svg.read_text().startswith("<svg ")
    assert out == simulate(capsys, "--rules", "oldest")[0]


def test_picture_that_cannot_be_written_is_told_before_the_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Runs may take minutes: nothing of them, and no table that is lost."""
    assert cli.main((*SMALL, "--svg", "/nowhere/a.svg")) == cli.FAILURE
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err == "warmnode: /nowhere/a.svg cannot be written: no such file or directory\n"


def test_jobs_from_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What is exported is simulated; a bad row ends with 2 and its line, and nothing on standard output."""
    file = tmp_path / "jobs.csv"
    file.write_text("arrives,duration,key\n2026-11-24T09:00:00Z,5m,a\n2026-11-24T10:00:00Z,60,b\n")
    out, _ = simulate(capsys, "--jobs-csv", str(file), "--rules", "oldest")
    assert out.startswith(f"2 jobs of 2 keys: from {file}, over 1h; seed 1\n")
    file.write_text("arrives,duration,key\nsoon,5m,a\n")
    assert cli.main((*SMALL, "--jobs-csv", str(file))) == cli.BAD_USAGE
    written = capsys.readouterr()
    assert (written.out, written.err.splitlines()) == (
        "",
        [f"{file}:2: arrives: must be a time such as 2026-11-24T09:30:00Z, or seconds (got 'soon')"],
    )


def test_a_miss_costs_as_much_as_its_key_is_large(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A key of 30 blocks that is read as a whole takes 30 times as long to load as one of one block."""
    file = tmp_path / "jobs.csv"
    file.write_text("arrives,duration,key,blocks\n0,10,big,30\n1000,10,small,1\n1200,10,big,\n")
    flags = (
        "--key-blocks",
        "2",
        "--reads",
        "2",
        "--boot",
        "0s",
        "--miss-seconds",
        "4",
        "--rules",
        "oldest",
        "-o",
        "json",
    )
    out, _ = simulate(capsys, "--jobs-csv", str(file), "--consolidate-after", "30m", *flags)
    (trial,) = json.loads(out)["trials"]
    assert (trial["reads"], trial["hits"]) == (61, 30)
    assert trial["meanLatencySeconds"] == pytest.approx(10 + (30 + 1) * 4 / 3, abs=0.001)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--slots", "0"), 2, "argument --slots: must be a whole number from 1 to 10,000 (got '0')"),
        (("--jobs", "1e3"), 2, "argument --jobs: must be a whole number from 1 to 10,000,000 (got '1e3')"),
        (("--swing", "nan"), 2, "argument --swing: must be a number from 0 to 1 (got 'nan')"),
        (("--period", "0s"), 2, "argument --period: must be longer than zero (got '0s')"),
        (("--boot", "45"), 2, "argument --boot: must be a duration such as"),
        (("--traffic", "rush"), 2, "argument --traffic: choose from daily, bursts, constant (got 'rush')"),
        (("--key-sizes", "huge"), 2, "argument --key-sizes: choose from equal, exponential, heavy (got 'huge')"),
        (("--rules", "oldest,newest"), 2, "argument --rules: must be spread, most-allocated, most-alloc"),
        (("--consolidate-after", "1m,"), 2, "argument --consolidate-after: must be a duration such as"),
        (("--jobs-csv", "/nowhere/jobs.csv"), 2, "warmnode: /nowhere/jobs.csv cannot be read: no such file"),
        (("--quiet", "--svg", "/nowhere/a.svg"), 1, "warmnode: /nowhere/a.svg cannot be written: no such file"),
        (("--svg", "a.png"), 2, "argument --svg: pictures are SVG only, which browsers show and convert (got 'a.png')"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, told: str
) -> None:
    """Bad usage ends with 2, a failure with 1; no traceback."""
    try:
        ended = cli.main((*SMALL, *arguments))
    except SystemExit as exit_code:
        ended = exit_code.code if isinstance(exit_code.code, int) else 99
    assert ended == code
    written = capsys.readouterr()
    assert written.out == ""
    assert told in written.err.splitlines()[-1]


def test_sessions_have_rules_of_their_own_and_tell_how_many_workers_were_started(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Table, picture and JSON form; how workers live is told in all."""
    flags = ("--sessions", "--idle-timeout", "2m", "--floor", "3", "--quiet")
    out, _ = simulate(capsys, *flags, "--svg", str(tmp_path / "a.svg"))
    assert "sessions of" in out
    assert "go after 2m of idleness but for 3" in out
    for rule in SESSION_RULES:
        assert sum(line.startswith(f"{rule.words} ") for line in out.splitlines()) == 2
        assert f"{rule.words}, consolidateAfter 10m" in (tmp_path / "a.svg").read_text()
    form, _ = simulate(capsys, *flags, "-o", "json", "--rules", "most-allocated+last-used+longest-idle")
    tree = json.loads(form)
    assert tree["workers"] == {"startSeconds": 5.0, "idleTimeoutSeconds": 120.0, "floor": 3}
    trial = tree["trials"][0]
    assert [trial[key] for key in ("placement", "claims", "reaping")] == ["most-allocated", "last-used", "longest-idle"]
    assert 0 < trial["workers"] < tree["workload"]["jobs"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--sessions", "--rules", "oldest"), "go with --sessions and with no other rule"),
        (("--rules", "oldest+oldest+newest-node"), "go with --sessions"),
        (("--sessions", "--restart-every", "1h"), "--sessions goes with neither"),
        (("--sessions", "--rules", "oldest+newest"), "must be PLACEMENT+CLAIMS+REAPING"),
    ],
)
def test_what_does_not_go_with_sessions_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    """In one line, with exit code 2."""
    try:
        code = cli.main((*SMALL, *arguments))
    except SystemExit as ended:
        code = int(ended.code or 0)
    assert (code, words in capsys.readouterr().err) == (2, True)
