"""The command line: exit codes, one line of text per mistake, environment variables."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from extender import __version__, cli
from extender.settings import configuration_schema

ROOT = Path(__file__).parents[2]
SNAPSHOT = str(ROOT / "docs" / "examples" / "snapshot.json")
CONFIGURATION = "apiVersion: warmnode.dev/v1alpha1\nkind: Configuration\n"


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither this machine's variables nor its kubeconfig reach a test."""
    for name in [name for name in os.environ if name.startswith(("WARMNODE_", "KUBE"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KUBECONFIG", "/nowhere/kubeconfig")


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """`serve` takes the root logger for itself."""
    root, quiet = logging.getLogger(), logging.getLogger("asyncio")
    before = root.handlers, root.level, quiet.level
    yield
    root.handlers, root.level = before[:2]
    quiet.setLevel(before[2])


Captured = pytest.CaptureFixture[str]


def refusal(capsys: Captured, *arguments: str, code: int = cli.BAD_USAGE) -> str:
    """Run a command that refuses: its one line on standard error. Nothing is on standard output."""
    assert cli.main(arguments) == code
    written = capsys.readouterr()
    assert written.out == ""
    (line,) = written.err.splitlines()
    return line


def usage_mistake(capsys: Captured, *arguments: str) -> str:
    """Run a command line that is no good: the last line on standard error, after the usage."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == cli.BAD_USAGE
    written = capsys.readouterr()
    assert written.out == ""
    return written.err.splitlines()[-1]


def output(capsys: Captured, *arguments: str) -> str:
    """Run a command that succeeds: its standard output. Nothing is on standard error."""
    assert cli.main(arguments) == cli.CLEAN
    written = capsys.readouterr()
    assert written.err == ""
    return written.out


# -- usage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "mistake"),
    [
        ((), "warmnode: error: the following arguments are required: COMMAND"),
        (("fly",), "warmnode: error: argument COMMAND: invalid choice: 'fly'"),
        (("plan", "--fly"), "warmnode plan: error: unrecognized arguments: --fly"),
        (("plan", "--output", "xml"), "warmnode plan: error: argument -o/--output: invalid choice: 'xml'"),
        (
            ("serve", "--log-level", "loud"),
            "warmnode serve: error: argument --log-level: choose from debug, info, warning, error (got 'loud')",
        ),
        (("config", "check"), "warmnode config check: error: the following arguments are required: FILE"),
    ],
)
def test_bad_usage_ends_with_2_and_the_mistake(capsys: Captured, arguments: tuple[str, ...], mistake: str) -> None:
    """On standard error, below the usage."""
    assert usage_mistake(capsys, *arguments).startswith(mistake)


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("plam",), "plan"),
        (("plan", "--snaphot", "x"), "--snapshot"),
        (("serve", "--webhook-listn=:1"), "--webhook-listen"),
        (("config", "chek"), "check"),
    ],
)
def test_a_word_that_is_nearly_one_is_told(capsys: Captured, arguments: tuple[str, ...], meant: str) -> None:
    """Of the command that was chosen: the flags of the others are no help."""
    assert usage_mistake(capsys, *arguments).endswith(f"; did you mean {meant}?")


COMMANDS = [
    "serve",
    "reap",
    "run",
    "plan",
    "explain",
    "top",
    "page",
    "doctor",
    "record",
    "simulate",
    "config",
    "cleanup",
    "completion",
    "version",
]


@pytest.mark.parametrize("command", ["", *COMMANDS, "config check", "config schema"])
def test_every_command_has_help_that_fits_a_terminal(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """On standard output, exit code 0, with 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        cli.main([*command.split(), "--help"])
    assert ended.value.code == cli.CLEAN
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"usage: warmnode {command} [-h]".replace("  ", " "))
    assert [line for line in lines if len(line) > 80] == []


def test_help_names_every_command(capsys: Captured) -> None:
    """In the order in which one meets them."""
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    shown = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("    ")]
    assert [name for name in shown if name in COMMANDS] == COMMANDS


def test_command_is_called_as_kubectl_calls_it(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same executable is a kubectl plugin, and its usage says so."""
    monkeypatch.setattr(sys, "argv", ["/usr/local/bin/kubectl-warmnode"])
    assert usage_mistake(capsys).startswith("kubectl warmnode: error: ")


def test_flags_are_named_in_help_with_their_variable_and_default(capsys: Captured) -> None:
    """What can be set is found without the documentation."""
    with pytest.raises(SystemExit):
        cli.main(["serve", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert (
        "--webhook-listen HOST:PORT address of the webhook (default: 127.0.0.1:8888) [WARMNODE_WEBHOOK_LISTEN]" in text
    )


# -- top, page --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("page", "--page-listen", "0.0.0.0:80"), "warmnode: --page-listen 0.0.0.0:80 can be reached"),
        (("page", "--page-listen", "here"), "warmnode: --page-listen: write host:port"),
        (("top", "--price", "big"), "warmnode: --price: write TYPE=DOLLARS, like m7i.2xlarge=0.40 (got 'big')"),
        (("page", "--price", "big=-1"), "warmnode: --price: write TYPE=DOLLARS, like"),
        (("page", "--price", "big=nan"), "warmnode: --price: write TYPE=DOLLARS, like"),
        (("top",), "warmnode: no kubeconfig at /nowhere/kubeconfig: "),
        (("page", "--config", "/nowhere/file"), "warmnode: /nowhere/file: "),
    ],
)
def test_a_live_view_that_cannot_begin_says_why(capsys: Captured, arguments: tuple[str, ...], told: str) -> None:
    """In one line; and the page has no users, so it is on loopback or nowhere."""
    assert refusal(capsys, *arguments).startswith(told)


# -- completion, colours ----------------------------------------------------------------------------------------------


def completed(script: str, line: str) -> list[str]:
    """What bash offers for a line, as readline asks a completion function."""
    *before, word = line.split(" ")
    ask = f"{script}\nCOMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _warmnode warmnode '{word}' '{before[-1]}'"
    command = ["bash", "-uc", f'{ask}; printf "%s\\n" "${{COMPREPLY[@]}}"', "bash", *before, word]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_commands_flags_and_values_are_completed(capsys: Captured, shell: str) -> None:
    """Where nothing is known, bash offers files. The script of zsh is the one of bash, after a line of its own."""
    script = output(capsys, "completion", shell)
    if shell == "zsh":
        head, _, script = script.partition("\n")
        assert "bashcompinit" in head
    assert completed(script, "warmnode ") == COMMANDS
    for line, offered in {
        "warmnode ex": ["explain"],
        "warmnode explain ": ["pod", "node", "pool"],
        "warmnode config ": ["check", "schema"],
        "warmnode config check -": ["-h", "--help"],
        "warmnode config check ": [],
        "warmnode plan --out": ["--output"],
        "warmnode plan -o ": ["table", "json"],
        "warmnode plan --output = j": ["json"],
        "warmnode plan --output =": ["table", "json"],
        "warmnode plan --snapshot ": [],
        "warmnode serve --log-level w": ["warning"],
    }.items():
        assert completed(script, line) == offered, line


def test_fish_is_told_of_every_command_and_flag(capsys: Captured) -> None:
    """With what each is for; of a command below another only there."""
    lines = output(capsys, "completion", "fish").splitlines()
    assert all(line.startswith("complete -c warmnode -n '__fish_") for line in lines)
    text = "\n".join(lines)
    for name in COMMANDS:
        assert f"'__fish_use_subcommand' -f -a {name} -d '" in text
    assert "from plan' -s o -l output -x -a 'table json' -d" in text
    assert "from serve' -l dry-run -l no-dry-run -d 'write nothing outside warmnode\\'s own namespace'" in text
    assert "'__fish_seen_subcommand_from config; and not __fish_seen_subcommand_from check schema' -f -a check" in text


class Terminal(io.StringIO):
    """A screen."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    "command", ["plan", "explain pool transcode", "explain node ip-10-0-9-64.ec2.internal", "doctor"]
)
def test_colours_are_for_terminals_and_never_say_anything_alone(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Without them the text is the same; NO_COLOR, a dumb terminal, a pipe and JSON have none."""
    words = (*command.split(), "--snapshot", SNAPSHOT)
    cli.main(words)
    plain = capsys.readouterr().out

    def on_screen(*more: str, **variables: str) -> str:
        screen = Terminal()
        with monkeypatch.context() as changed:
            changed.setattr(sys, "stdout", screen)
            changed.delenv("NO_COLOR", raising=False)
            for name, value in {"TERM": "xterm", "COLUMNS": "80", **variables}.items():
                changed.setenv(name, value)
            cli.main((*words, *more))
        return screen.getvalue()

    coloured = on_screen()
    assert coloured != plain
    assert re.sub(r"\x1b\[\d+m", "", coloured) == plain
    assert on_screen(NO_COLOR="1") == on_screen(TERM="dumb") == plain
    assert "\x1b" not in on_screen("--output", "json")


def test_a_verdict_has_a_colour_of_its_own(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """Problems are red, warnings yellow, what is well green; the head of a table is bold."""
    monkeypatch.setattr(sys, "stdout", screen := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    cli.outcome.show_page("problem  a: b\nwarning  c\nok       d\nunknown  e\nPOOL  ON NODES\nproblems\nA node")
    assert screen.getvalue() == (
        "\x1b[31mproblem\x1b[0m  a: b\n\x1b[33mwarning\x1b[0m  c\n\x1b[32mok\x1b[0m       d\n"
        "\x1b[35munknown\x1b[0m  e\n"
        "\x1b[1mPOOL  ON NODES\x1b[0m\nproblems\nA node\n"
    )


# -- version, config --------------------------------------------------------------------------------------------------


def test_version_is_the_package_version(capsys: Captured) -> None:
    """As text for people, as JSON for programs."""
    assert output(capsys, "version") == f"warmnode {__version__}\n"
    assert json.loads(output(capsys, "version", "--output", "json")) == {"version": __version__}
    assert output(capsys, "version", "-o", "json") == output(capsys, "version", "--output", "json")
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (cli.CLEAN, f"warmnode {__version__}\n")


def test_config_schema_is_the_schema_of_the_models(capsys: Captured) -> None:
    """For editors: `warmnode config schema > schema.json`."""
    assert json.loads(output(capsys, "config", "schema")) == configuration_schema()


def test_config_check_says_which_pools_a_good_file_has(capsys: Captured, tmp_path: Path) -> None:
    """A file without pools means the label."""
    label, pools = tmp_path / "label.yaml", tmp_path / "pools.yaml"
    label.write_text(CONFIGURATION)
    pools.write_text(CONFIGURATION + "pools: [{name: a}, {name: b}]\n")
    assert output(capsys, "config", "check", str(label), str(pools)).splitlines() == [
        f"{label}: good, pools by the label warmnode.dev/pool",
        f"{pools}: good, 2 pools: a, b",
    ]


def test_config_check_reports_every_mistake_of_every_file(capsys: Captured, tmp_path: Path) -> None:
    """Good files are named too; one bad one makes the exit code 2."""
    bad, good, missing = tmp_path / "bad.yaml", tmp_path / "good.yaml", tmp_path / "missing.yaml"
    bad.write_text(CONFIGURATION + "age: old\ndryRun: maybe\n")
    good.write_text(CONFIGURATION)
    assert cli.main(["config", "check", str(bad), str(good), str(missing)]) == cli.BAD_USAGE
    written = capsys.readouterr()
    assert [line.partition(": ")[0] for line in written.err.splitlines()] == [f"{bad}:3", f"{bad}:4", str(missing)]
    assert written.out.startswith(f"{good}: good")


# -- plan -------------------------------------------------------------------------------------------------------------


def test_plan_of_a_snapshot_is_a_table_or_json(capsys: Captured) -> None:
    """What is in them is for the tests of the plan."""
    assert output(capsys, "plan", "--snapshot", SNAPSHOT).startswith("9 nodes, ")
    assert len(json.loads(output(capsys, "plan", "--snapshot", SNAPSHOT, "--output", "json"))["nodes"]) == 9


def test_plan_takes_workers_by_labels_that_they_have(capsys: Captured, tmp_path: Path) -> None:
    """Before anybody has named a pool."""
    labels = {"warmnode.dev/pool": "duckdb"}
    text = output(capsys, "plan", "--snapshot", SNAPSHOT, "--selector", ",".join(map("=".join, labels.items())))
    assert "selected" in text
    assert "transcode" not in text
    for wrong in ("app", "=x", "a=b=c", "", "a=b,,"):
        line = refusal(capsys, "plan", "--snapshot", SNAPSHOT, "--selector", wrong)
        assert line == f"warmnode: --selector: write LABEL=VALUE, several with commas between (got {wrong!r})"
    assert "--selector" in refusal(capsys, "plan", "--snapshot", SNAPSHOT, "--selector", "a b=c")
    file = str(tmp_path / "x.yaml")
    assert "do not go together" in refusal(capsys, "top", "--selector", "a=b", "--config", file)


def test_plan_takes_pools_from_the_configuration(capsys: Captured, tmp_path: Path) -> None:
    """Workers are found by labels that they have anyway."""
    config = tmp_path / "config.yaml"
    config.write_text(CONFIGURATION + "pools: [{name: media, selector: {matchLabels: {app: transcoder}}}]\n")
    command = ("plan", "--snapshot", SNAPSHOT, "--output", "json")
    (pool,) = json.loads(output(capsys, *command, "--config", str(config)))["pools"]
    assert (pool["name"], pool["idle"] + pool["busy"]) == ("media", 10)


def test_variable_stands_for_its_flag_and_the_flag_wins(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A file that a variable names is taken for one that was named on the command line."""
    config = tmp_path / "config.yaml"
    config.write_text(CONFIGURATION)
    command = ("plan", "--snapshot", SNAPSHOT)
    monkeypatch.setenv("WARMNODE_CONFIG", "/nowhere/config.yaml")
    assert refusal(capsys, *command).startswith("warmnode: /nowhere/config.yaml: does not exist")
    assert output(capsys, *command, "--config", str(config))
    monkeypatch.setenv("WARMNODE_CONFIG", "")
    assert output(capsys, *command)


def test_plan_of_a_bad_snapshot_ends_with_2(capsys: Captured) -> None:
    """One line, which says how to make a good one."""
    line = refusal(capsys, "plan", "--snapshot", "/nowhere/snapshot.json")
    assert line.startswith("warmnode: /nowhere/snapshot.json: no such file or directory; make one with: kubectl get ")


@pytest.mark.parametrize("command", [("plan",), ("doctor",), ("explain", "pool", "duckdb")])
@pytest.mark.parametrize("flag", ["context", "kubeconfig"])
def test_a_cluster_beside_a_snapshot_is_refused(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], flag: str
) -> None:
    """Whoever names both would read of one what is true of the other. A variable is for all commands, and may stay."""
    snapshot = (*command, "--snapshot", SNAPSHOT)
    assert refusal(capsys, *snapshot, f"--{flag}", "mine").startswith(f"warmnode: --{flag} and --snapshot do not go ")
    monkeypatch.setenv(f"WARMNODE_{flag.upper()}", "mine")
    cli.main(snapshot)
    assert "do not go together" not in capsys.readouterr().err


def test_plan_with_bad_settings_ends_with_2(capsys: Captured, tmp_path: Path) -> None:
    """Settings are read before anything else."""
    config = tmp_path / "config.yaml"
    config.write_text(CONFIGURATION + "age: old\n")
    assert f"{config}:3: age: " in refusal(capsys, "plan", "--snapshot", "/nowhere", "--config", str(config))


def test_plan_without_a_kubeconfig_ends_with_2(capsys: Captured) -> None:
    """Nobody asked the cluster yet: that is bad usage."""
    assert refusal(capsys, "plan") == (
        "warmnode: no kubeconfig at /nowhere/kubeconfig: pass --kubeconfig FILE or set KUBECONFIG"
    )


def test_plan_of_a_cluster_that_does_not_answer_ends_with_1(capsys: Captured, tmp_path: Path) -> None:
    """And names the way that needs no access from here. Port 1 of this machine answers nobody."""
    kubeconfig = tmp_path / "kubeconfig"
    cluster = {"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    content = {
        "clusters": [cluster],
        "contexts": [context],
        "users": [{"name": "u", "user": {}}],
        "current-context": "c",
    }
    kubeconfig.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **content}))
    line = refusal(capsys, "plan", "--kubeconfig", str(kubeconfig), code=cli.FAILURE)
    assert line.startswith("warmnode: the cluster cannot be read: ")
    assert line.endswith("; or try --snapshot with what kubectl prints")


# -- serve ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["--webhook-listen", "--ops-listen", "--history-listen"])
@pytest.mark.parametrize("address", ["8888", "localhost", "localhost:http", "localhost:65536", "localhost:-1", "a:b:c"])
def test_listen_address_must_be_host_and_port(capsys: Captured, flag: str, address: str) -> None:
    """The message says what to write, and what was written."""
    assert refusal(capsys, "serve", flag, address) == (
        f'warmnode: {flag}: write host:port, like "127.0.0.1:8888" or "[::1]:8888" (got {address!r})'
    )


@pytest.mark.parametrize("address", ["0.0.0.0:8888", ":8888", "[::]:8888", "10.0.0.1:8888", "example.com:8888"])
def test_plain_http_beyond_loopback_is_refused(capsys: Captured, address: str) -> None:
    """Whoever reaches the webhook could have workers placed anywhere: it needs TLS, or to stay on this machine."""
    line = refusal(capsys, "serve", "--webhook-listen", address)
    assert "can be reached from other machines: give --tls-cert-file and --tls-private-key-file" in line


@pytest.mark.parametrize("address", ["0.0.0.0:9889", ":9889", "10.0.0.1:9889"])
@pytest.mark.parametrize("role", ["serve", "reap", "run"])
def test_decisions_are_told_on_loopback_only(capsys: Captured, role: str, address: str) -> None:
    """They name pods and who claimed them, and nobody is asked there who he is. TLS would not change that."""
    line = refusal(capsys, role, "--history-listen", address)
    assert line.startswith(f"warmnode: --history-listen {address} can be reached from other machines")


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.8.0.1:0", "[::1]:0", "localhost:0"])
def test_plain_http_on_loopback_is_accepted(capsys: Captured, address: str) -> None:
    """It gets as far as asking for the cluster."""
    assert refusal(capsys, "serve", "--webhook-listen", address).startswith("warmnode: no kubeconfig at ")


@pytest.mark.parametrize(
    ("flags", "mistake"),
    [
        (("--tls-cert-file", "a"), "--tls-cert-file and --tls-private-key-file go together: give both or none"),
        (("--tls-private-key-file", "a"), "--tls-cert-file and --tls-private-key-file go together: give both or none"),
        (("--client-ca-file", "a"), "--client-ca-file needs --tls-cert-file and --tls-private-key-file"),
    ],
)
def test_tls_flags_go_together(capsys: Captured, flags: tuple[str, ...], mistake: str) -> None:
    """A half-given TLS set-up is not taken for none."""
    assert refusal(capsys, "serve", *flags) == f"warmnode: {mistake}"


def test_tls_files_that_do_not_load_end_with_1(capsys: Captured) -> None:
    """That is no bad usage: they may be there at the next start."""
    flags = ("--tls-cert-file", "/nowhere/tls.crt", "--tls-private-key-file", "/nowhere/tls.key")
    line = refusal(capsys, "serve", *flags, "--webhook-listen", "0.0.0.0:0", code=cli.FAILURE)
    assert line == "warmnode: TLS files do not load (/nowhere/tls.crt, /nowhere/tls.key): No such file or directory"


def test_tls_files_that_do_not_load_are_told_in_words(capsys: Captured, tmp_path: Path) -> None:
    """Neither lines of Python's source nor names of its objects."""
    ca = trustme.CA()
    one, other = (ca.issue_cert(name) for name in ("one.example", "other.example"))
    certificate, key, junk = (tmp_path / name for name in ("tls.crt", "tls.key", "junk"))
    one.cert_chain_pems[0].write_to_path(certificate)
    other.private_key_pem.write_to_path(key)
    junk.write_text("junk")
    for files, told in (
        ((certificate, key), "key values mismatch"),
        ((junk, key), "what is in one of them is not PEM, or not what it should be"),
        ((certificate, certificate), "what is in one of them is not PEM, or not what it should be"),
    ):
        flags = ("--tls-cert-file", str(files[0]), "--tls-private-key-file", str(files[1]))
        line = refusal(capsys, "serve", *flags, "--webhook-listen", "0.0.0.0:0", code=cli.FAILURE)
        assert line.startswith(f"warmnode: TLS files do not load ({files[0]}, {files[1]}): {told}")


@pytest.mark.parametrize(
    ("variable", "value", "mistake"),
    [
        (
            "WARMNODE_LOG_LEVEL",
            "loud",
            "argument --log-level: choose from debug, info, warning, error (got 'loud') [WARMNODE_LOG_LEVEL]",
        ),
        (
            "WARMNODE_DRY_RUN",
            "maybe",
            "argument --dry-run/--no-dry-run: WARMNODE_DRY_RUN: write true or false (got 'maybe')",
        ),
    ],
)
def test_variable_with_a_bad_value_is_named(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, mistake: str
) -> None:
    """In a manifest nobody sees a flag: the message has the name of the variable."""
    monkeypatch.setenv(variable, value)
    assert usage_mistake(capsys, "serve") == f"warmnode serve: error: {mistake}"


def test_variable_of_one_command_does_not_stop_another(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake that only ``serve`` would make is no reason not to tell the version."""
    monkeypatch.setenv("WARMNODE_DRY_RUN", "maybe")
    assert cli.main(["version"]) == cli.CLEAN


@pytest.mark.parametrize("variable", ["WARMNODE_LOG_LEVEL", "WARMNODE_DRY_RUN", "WARMNODE_WEBHOOK_LISTEN"])
def test_empty_variable_counts_as_absent(capsys: Captured, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """Whatever kind of value it has: manifests leave variables empty. The command gets as far as the cluster."""
    monkeypatch.setenv(variable, "")
    assert refusal(capsys, "serve").startswith("warmnode: no kubeconfig at ")


def test_listen_address_comes_from_its_variable(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the manifests set it."""
    monkeypatch.setenv("WARMNODE_OPS_LISTEN", "9888")
    assert refusal(capsys, "serve").endswith("(got '9888')")


# -- the real process -------------------------------------------------------------------------------------------------

COMMAND = [sys.executable, "-m", "extender"]


def test_process_passes_exit_code_and_streams_on() -> None:
    """`python -m extender` is the command."""
    done = subprocess.run([*COMMAND, "plan", "--snapshot", "-"], input="", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (cli.BAD_USAGE, "")
    assert done.stderr.startswith("warmnode: standard input: it is empty (did kubectl fail?); ")


@pytest.mark.parametrize(
    ("command", "unneeded"),
    [
        (["version"], {"aiohttp", "asyncio", "msgspec", "pydantic", "yaml"}),
        (["plan", "--snapshot", SNAPSHOT], {"aiohttp"}),
        (["explain", "pool", "duckdb", "--snapshot", SNAPSHOT], {"aiohttp"}),
        (["doctor", "--snapshot", SNAPSHOT], {"aiohttp"}),
        (["config", "schema"], {"aiohttp"}),
    ],
)
def test_a_command_loads_no_more_than_it_needs(command: list[str], unneeded: set[str]) -> None:
    """The version is told without the settings, a file is read without HTTP: what it takes is Python's start."""
    loaded = f"import sys; from extender.cli import main; main({command}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert not unneeded & set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("command", ["serve", "reap", "run"])
def test_a_process_that_stays_never_loads_what_is_for_people(command: str) -> None:
    """Plan, explain, doctor and simulate are for people: their code takes no memory beside a scheduler."""
    script = (
        "import sys; from extender.cli import main\n"
        f"try: main(['{command}', '--help'])\n"
        "except SystemExit: print('|', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = done.stdout.rpartition("|")[2].split()
    assert "extender.app.process" in loaded
    assert [name for name in loaded if name.startswith(("extender.inspect", "extender.simulate"))] == []


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_process_whose_reader_has_gone_ends_without_a_word(unbuffered: str) -> None:
    """As with `| head`: no traceback. The pipe is closed before anything is written to it."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        command = [*COMMAND, "plan", "--snapshot", SNAPSHOT]
        environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (cli.FAILURE, "")
