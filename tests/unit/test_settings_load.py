"""How a file is read, and how its mistakes are reported."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extender.settings import Configuration, SettingsError, load_configuration, read_configuration

HEAD = "apiVersion: warmnode.dev/v1alpha1\nkind: Configuration\n"


def lines_of(text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_configuration(text, source="config.yaml")
    lines = str(caught.value).split("\n")
    assert lines == [str(mistake) for mistake in caught.value.mistakes]
    return lines


def line_of(text: str) -> str:
    (line,) = lines_of(text)
    return line


def read_error(path: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        read_configuration(path)
    (mistake,) = caught.value.mistakes
    return str(mistake)


def test_mistake_has_file_line_path_and_value() -> None:
    """The line of a mistake is that of its key."""
    text = (
        HEAD + "# a comment\n\npoolDefaults: {}\npools:\n  - name: a\n    reap:\n      enabled: true\n      floor: -3\n"
    )
    assert line_of(text) == "config.yaml:10: pools[0].reap.floor: must be greater than or equal to 0 (got -3)"


def test_mistakes_are_all_reported_sorted_by_line() -> None:
    """One run shows everything that is wrong, top to bottom, whoever finds it."""
    text = "kind: Pod\nage: x\npools:\n- name: a\n  reap: {floor: -1}\n- name: a\n  name: b\n- {floor: 1}\n"
    places = [line.split(": ", 2)[:2] for line in lines_of(text)]
    assert places == [
        ["config.yaml:1", "apiVersion"],
        ["config.yaml:1", "kind"],
        ["config.yaml:2", "age"],
        ["config.yaml:5", "pools[0].reap.floor"],
        ["config.yaml:6", "pools[1].name"],
        ["config.yaml:7", "pools[1].name"],
        ["config.yaml:8", "pools[2].floor"],
        ["config.yaml:8", "pools[2].name"],
    ]


def test_missing_key_is_on_the_line_of_its_parent() -> None:
    """What is not there has no line of its own."""
    text = HEAD + "poolDefaults:\n  idle:\n    sources:\n      - http:\n          path: /x\n"
    assert line_of(text) == "config.yaml:6: poolDefaults.idle.sources[0].http.port: is missing"


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [("idleTimout", "idleTimeout"), ("idle_timeout", "idleTimeout"), ("IdleTimeout", "idleTimeout"), ("flor", "floor")],
)
def test_unknown_key_gets_a_suggestion_when_one_is_close(key: str, suggestion: str) -> None:
    """A slip, or the Python name, is answered with the right name, on the line of the key."""
    line = line_of(
        HEAD + f"poolDefaults:\n  reap:\n    floor: 1\n    {key}: 1\n".replace("floor: 1\n", "enabled: true\n")
    )
    assert line == f'config.yaml:6: poolDefaults.reap.{key}: unknown key; did you mean "{suggestion}"?'


def test_unknown_key_far_from_all_lists_what_is_known() -> None:
    """Where nothing is close, the message says what there is."""
    assert line_of(HEAD + "ledger: {zzz: 1}") == "config.yaml:3: ledger.zzz: unknown key; known here: name"
    line = line_of(HEAD + "poolDefaults: {idle: {sources: [{annotation: {key: x}}]}}")
    assert line.endswith("annotation.key: unknown key; there is nothing to set here: write {}")


def test_mistake_in_pool_defaults_is_reported_once() -> None:
    """Pools inherit the mistake, but nobody wrote it there."""
    text = (
        HEAD
        + """
poolDefaults:
  reap: {floor: -1, flor: 2}
  claims: {ttl: 2h}
  cacheKey: {window: 0}
  deletionCost:
  idle: {sources: [{http: {}}]}
pools:
  - {name: a, reap: {interval: 1m}, claims: {enabled: false}, cacheKey: {window: 1}}
  - {name: b}
"""
    )
    assert {line.split(":")[1] for line in lines_of(text)} == {"5", "6", "7", "8", "9"}
    assert len(lines_of(text)) == 7


def test_mistake_in_a_pool_is_reported_there_although_pool_defaults_have_the_same() -> None:
    """Two places that are wrong are two lines to mend."""
    text = HEAD + "poolDefaults:\n  reap: {floor: -1}\npools:\n  - name: a\n    reap: {floor: -1}\n"
    assert [line.split(":")[1] for line in lines_of(text)] == ["4", "7"]


def test_conflict_with_an_inherited_value_is_reported_in_the_pool() -> None:
    """The pool's own value is the one that does not fit; the line is that of the value."""
    text = HEAD + "poolDefaults: {claims: {ttl: 10m}}\npools:\n  - name: a\n    claims:\n      maxTtl: 5m\n"
    expected = "config.yaml:7: pools[0].claims.maxTtl: ttl (10m) must not be longer than maxTtl (5m)"
    assert line_of(text) == expected


def test_long_value_is_cut_to_sixty_characters() -> None:
    """A message stays one readable line."""
    line = line_of(HEAD + f"age: {'x' * 61}")
    assert line.endswith(f'(got "{"x" * 59}…")')
    assert line_of(HEAD + f"age: {'x' * 60}").endswith(f'(got "{"x" * 60}")')


@pytest.mark.parametrize(
    "url", ["http://user:hunter2@x", "http://user:hunt/hunter2@x", "http://u:a@hunter2@x", "x://hunter2 hunter2@x"]
)
@pytest.mark.parametrize(
    "body", ["age: '{}'", "poolDefaults: {{idle: {{sources: [{{prometheus: {{url: '{}', query: q}}}}]}}}}", "'{}': 1"]
)
def test_password_in_a_url_never_shows_in_a_message(url: str, body: str) -> None:
    """Wherever a URL with a password was put by mistake, the answer does not repeat it."""
    line = line_of(HEAD + body.format(url))
    assert "hunter2" not in line
    assert "://***@x" in line


def test_url_with_user_and_password_is_refused() -> None:
    """The file is no place for secrets."""
    line = line_of(HEAD + "poolDefaults: {idle: {sources: [{prometheus: {url: 'http://u:p@x', query: q}}]}}")
    assert "prometheus.url: must not hold a user or a password" in line


def test_key_that_is_no_name_is_quoted_in_the_path() -> None:
    """A path can be read although a key has dots and slashes."""
    line = line_of(HEAD + 'pools: [{name: a, selector: {matchLabels: {example.com/app: "a b"}}}]')
    assert ': pools[0].selector.matchLabels["example.com/app"]: must be a label value' in line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1, 2\nb: 3", "config.yaml:2: is not YAML: "),
        ("a:\n\tb: 1", "config.yaml:2: is not YAML: a tab cannot indent"),
        ("a: 1\n---\nb: 2", "config.yaml:2: is not YAML: expected a single document"),
        ("a: *b", "config.yaml:1: is not YAML: found undefined alias"),
        ('\na: "\\UFFFFFFFF"', "config.yaml:2: is not YAML: "),
        ("a: 1\nb: \x01", "config.yaml:2: is not YAML: control characters are not allowed (0x01)"),
        ("- a", "config.yaml:1: must be a mapping that begins with apiVersion and kind (got a list)"),
        ("text", 'config.yaml:1: must be a mapping that begins with apiVersion and kind (got "text")'),
    ],
)
def test_text_that_is_no_configuration_is_refused_in_one_line(text: str, expected: str) -> None:
    """Syntax errors and other shapes have one line, with the line number where there is one."""
    assert line_of(text).startswith(expected)


def test_alias_of_what_holds_it_is_refused() -> None:
    """A value that contains itself has no end."""
    assert line_of(HEAD + "ledger: &a {name: *a}") == "config.yaml:1: has an alias inside of what it stands for"


def test_alias_stands_for_its_value() -> None:
    """Anchors and aliases are fine as such."""
    configuration = load_configuration(
        HEAD + "ending: {expiryHorizon: &t 5m}\npoolDefaults: {reap: {idleTimeout: *t}}", source="config.yaml"
    )
    assert configuration.pool_defaults.reap.idle_timeout == configuration.ending.expiry_horizon


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "---\n", "null", "{}"])
def test_empty_file_lacks_what_every_file_has(text: str) -> None:
    """An empty file is a slip, not a wish for defaults."""
    assert [line.split(": ", 1)[1] for line in lines_of(text)] == [
        "apiVersion: is missing; write apiVersion: warmnode.dev/v1alpha1",
        "kind: is missing; write kind: Configuration",
    ]


def test_duplicate_key_is_on_the_line_of_the_second() -> None:
    """YAML takes the last one silently; here both lines are named."""
    text = HEAD + "poolDefaults:\n  reap:\n    floor: 1\n    floor: 2\n"
    assert line_of(text) == "config.yaml:6: poolDefaults.reap.floor: is already set on line 5; keep one of them"


def test_duplicate_key_does_not_hide_other_mistakes() -> None:
    """The first of two values is checked like any other."""
    text = HEAD + "poolDefaults:\n  reap: {floor: -1}\n  reap: {floor: 1}\n"
    assert [line.split(":")[1] for line in lines_of(text)] == ["4", "5"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("pools: [{name: on}]", "name: must be a string, and YAML reads this as true; put it in quotes (got on)"),
        ("pools: [{name: No}]", "name: must be a string, and YAML reads this as false; put it in quotes (got No)"),
        ("pools: [{name: 123}]", "name: must be a string; put it in quotes (got 123)"),
        ("pools: [{name: ~}]", "name: must be a string (got null)"),
        ("pools: [{name: a, selector: {matchLabels: {a: yes}}}]", "matchLabels.a: must be a string, and YAML reads"),
        (
            "pools: [{name: a, selector: {matchLabels: {on: a}}}]",
            ".on: is a key, which must be a string, and YAML reads this as true",
        ),
        ("1: a", ': ["1"]: is a key, which must be a string; put it in quotes'),
        ("? [a]\n: b", "has a mapping or a list as a key"),
        ("poolDefaults: {<<: {reap: {}}}", 'poolDefaults["<<"]: unknown key'),
        ("poolDefaults: {reap: {floor: 012}}", 'must be a whole number (got "012")'),
        ("poolDefaults: {reap: {floor: 1_0}}", 'must be a whole number (got "1_0")'),
        ("poolDefaults: {reap: {floor: .inf}}", "must be a whole number"),
        (
            "poolDefaults: {reap: {interval: 1:30}}",
            'must be a duration such as "90s", "5m", "1h30m" or "250ms" (got "1:30',
        ),
        ("age: !thing x", 'age: has the tag "!thing"; write the value without a tag'),
        ("age: !!python/object/apply:os.system [x]", "age: has the tag"),
        ("age: !!bool x", 'age: must be "firstSeen" or "created" (got "x")'),
        ("ledger: !!set {name}", "ledger: has the tag"),
        ("poolDefaults: {reap: }", "poolDefaults.reap: must be a mapping (got null)"),
        ("ledger: ", "ledger: must be a mapping (got null)"),
        ("ledger: [a]", "ledger: must be a mapping (got a list)"),
        ("pools: {a: {}}", "pools: must be a list (got a mapping)"),
        ("pools: [a]", 'pools[0]: must be a mapping (got "a")'),
        ("pools: [{name: a, namespaces: b}]", 'namespaces: must be a list (got "b")'),
        ("pools: [{name: a, selector: {matchLabels: []}}]", "matchLabels: must be a mapping (got a list)"),
    ],
)
def test_yaml_trap_is_explained(body: str, expected: str) -> None:
    """What YAML makes of a text that meant something else is said in one line."""
    assert expected in line_of(HEAD + body)


def test_date_as_a_name_stays_text() -> None:
    """As in YAML 1.2, and unlike PyYAML, a date is text."""
    configuration = load_configuration(HEAD + "pools: [{name: 2026-01-01}]", source="config.yaml")
    assert configuration.pools is not None
    assert configuration.pools[0].name == "2026-01-01"


def test_byte_order_mark_is_no_mistake() -> None:
    """Some editors write one."""
    assert load_configuration("\ufeff" + HEAD, source="config.yaml") == Configuration.default()


def test_file_that_is_not_there_is_named_with_the_remedy(tmp_path: Path) -> None:
    """A wrong path is the likely reason."""
    assert read_error(tmp_path / "none.yaml") == (
        f"{tmp_path}/none.yaml: does not exist; check the path, or leave it out to use the defaults"
    )


def test_directory_is_refused(tmp_path: Path) -> None:
    """The name of the file in it was forgotten."""
    assert read_error(tmp_path) == f"{tmp_path}: cannot be read: Is a directory"


def test_file_of_another_user_is_refused(tmp_path: Path) -> None:
    """The mode is the likely reason. Root may read everything, so it becomes nobody for a moment."""
    path = tmp_path / "config.yaml"
    path.write_text(HEAD, encoding="utf-8")
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        assert read_error(path) == f"{path}: cannot be read: Permission denied"
    finally:
        os.seteuid(user)


def test_file_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    """The first wrong byte is shown."""
    path = tmp_path / "config.yaml"
    path.write_bytes(HEAD.encode() + b"age: \xff\n")
    assert read_error(path) == f"{path}:3: is not YAML: invalid leading UTF-8 octet (0xff); save the file as UTF-8"


def is_configuration_or_settings_error(text: str) -> bool:
    """The one property of any text; other exceptions leave this function."""
    try:
        return isinstance(load_configuration(text, source="x"), Configuration)
    except SettingsError as error:
        lines = str(error).split("\n")
        return len(lines) == len(error.mistakes) > 0 and all(line.startswith("x:") for line in lines)


@given(st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_configuration_or_a_settings_error(tmp_path: Path, content: bytes) -> None:
    """Whatever the file holds, there is no traceback."""
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    try:
        is_good = isinstance(read_configuration(path), Configuration)
    except SettingsError as error:
        is_good = bool(error.mistakes)
    assert is_good


@given(st.text(max_size=100) | st.text(alphabet="ab:-[]{},\"'\\&*!|>%@?#<= \n\t~0.u", max_size=60))
@settings(max_examples=300)
def test_any_text_is_a_configuration_or_a_settings_error(text: str) -> None:
    """Also where YAML's own characters meet in ways that nobody meant."""
    assert is_configuration_or_settings_error(text)
    assert is_configuration_or_settings_error(HEAD + text)


KEY_NAMES = """
name namespaces selector matchLabels matchExpressions key operator values reap floor interval idleTimeout idle sources
http port annotation prometheus url query staleAfter claims ttl maxTtl cacheKey label window pools poolDefaults dryRun
leaderElection ledger kind [key] on
"""
KEYS = st.sampled_from(KEY_NAMES.split())
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.dates()
    | st.text(max_size=5)
    | st.sampled_from(["5m", "a", "In", "Exists", "http://a", "auto"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | SCALARS, inner, max_size=4),
    max_leaves=15,
)


@given(st.dictionaries(KEYS, VALUES, max_size=5), st.dictionaries(KEYS, VALUES, max_size=5))
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_any_structure_is_a_configuration_or_a_settings_error(top: dict[str, object], pool: dict[str, object]) -> None:
    """Also where the right keys hold the wrong things, in the file and in a pool."""
    assert is_configuration_or_settings_error(HEAD + yaml.safe_dump(top))
    both = {"apiVersion": "warmnode.dev/v1alpha1", "kind": "Configuration", "poolDefaults": pool, "pools": [pool, top]}
    assert is_configuration_or_settings_error(yaml.safe_dump(both))
