"""The JSON Schema, the example file and the page about them agree with the models."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from extender.settings import (
    Configuration,
    SettingsError,
    configuration_schema,
    load_configuration,
    read_configuration,
)
from scripts.tools.knobs import example, knobs, page

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "configuration.md").read_text(encoding="utf-8")
EXAMPLE = DOCS / "configuration.example.yaml"
HEAD = {"apiVersion": "warmnode.dev/v1alpha1", "kind": "Configuration"}

# Made once: neither changes.
SCHEMA = configuration_schema()
VALIDATOR = Draft202012Validator(SCHEMA)


def is_loaded(raw: object) -> bool:
    try:
        load_configuration(yaml.safe_dump(raw), source="x")
    except SettingsError:
        return False
    return True


def test_committed_schema_tables_and_example_are_the_generated_ones() -> None:
    """A default, a unit or a reason is written in one place. Make them anew with: python -m scripts.tools.knobs"""
    assert json.loads((DOCS / "configuration.schema.json").read_text(encoding="utf-8")) == SCHEMA
    assert page(SCHEMA, PAGE) == PAGE
    written = EXAMPLE.read_text(encoding="utf-8")
    assert example(SCHEMA, written) == written


def test_schema_is_valid_and_closed() -> None:
    """It is a schema of its dialect, with an id, and no mapping takes unknown keys."""
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$id"].startswith("https://warmnode.dev/")
    models = [part for part in (SCHEMA, *SCHEMA["$defs"].values()) if part["type"] == "object"]
    assert all(model["additionalProperties"] is False for model in models)


def test_schema_describes_every_setting() -> None:
    """Every key has a description, of its own or that of its section."""
    assert [knob.path for knob in EVERY if not knob.field.get("description")] == []


def test_schema_accepts_the_example_and_its_defaults() -> None:
    """Editors show no mistake in what is documented."""
    assert list(VALIDATOR.iter_errors(yaml.safe_load(EXAMPLE.read_text(encoding="utf-8")))) == []
    assert list(VALIDATOR.iter_errors(Configuration.default().model_dump(mode="json", by_alias=True))) == []


@pytest.mark.parametrize(
    "raw",
    [
        {"kind": "Configuration"},
        {**HEAD, "kind": "Pod"},
        {**HEAD, "unknown": 1},
        {**HEAD, "poolDefaults": {"reap": {"floor": -1}}},
        {**HEAD, "poolDefaults": {"reap": {"idleTimeout": 90}}},
        {**HEAD, "poolDefaults": {"reap": {"idleTimeout": ""}}},
        {**HEAD, "poolDefaults": {"reap": {"idleTimeout": "30m1h"}}},
        {**HEAD, "poolDefaults": {"claims": {"ttl": "0s"}}},
        {**HEAD, "poolDefaults": {"reap": None}},
        {**HEAD, "poolDefaults": {"idle": {"sources": []}}},
        {**HEAD, "poolDefaults": {"idle": {"sources": [{}]}}},
        {**HEAD, "poolDefaults": {"idle": {"sources": [{"annotation": None}]}}},
        {**HEAD, "poolDefaults": {"idle": {"sources": [{"annotation": {}, "http": {"port": 1}}]}}},
        {**HEAD, "poolDefaults": {"idle": {"sources": [{"prometheus": {"url": "http://u:p@x", "query": "q"}}]}}},
        {**HEAD, "poolDefaults": {"name": "a"}},
        {**HEAD, "pools": [{}]},
        {**HEAD, "pools": [{"name": "A"}]},
        {**HEAD, "pools": [{"name": "a", "namespaces": []}]},
        {**HEAD, "pools": [{"name": "a", "selector": {"matchLabels": {"a b": "c"}}}]},
        {**HEAD, "pools": [{"name": "a", "selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}]},
        {
            **HEAD,
            "pools": [
                {"name": "a", "selector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}}
            ],
        },
    ],
)
def test_schema_refuses_what_the_loader_refuses(raw: dict[str, Any]) -> None:
    """Mistakes that a schema can see are seen in the editor too."""
    assert not VALIDATOR.is_valid(raw)
    assert not is_loaded(raw)


def test_schema_accepts_a_pool_that_says_only_what_differs() -> None:
    """What poolDefaults has need not be said again, and null is as the global dryRun."""
    raw = {
        **HEAD,
        "poolDefaults": {"cacheKey": {"label": "tenant"}},
        "pools": [{"name": "a", "cacheKey": {"window": 2}, "dryRun": None}],
    }
    assert VALIDATOR.is_valid(raw)
    assert is_loaded(raw)


SMALL = st.sampled_from([None, True, 0, 1, -1, "a", "0", "5m", "0s", "In", [], ["a"], {}, {"a": "b"}, {"port": 1}])


EVERY = [knob for part in knobs(SCHEMA).values() for top in part for knob in top.everything()]
SECTIONS = {"apiVersion", "kind", "poolDefaults", "pools", "idle.sources", "annotation"}
LEAVES = sorted({knob.path for knob in EVERY if not knob.below} - SECTIONS)


@given(st.data())
@settings(max_examples=300)
def test_schema_accepts_whatever_the_loader_accepts(data: st.DataObject) -> None:
    """An editor never complains of a file that works. (The other way round, values that do not fit together pass.)"""
    raw: dict[str, Any] = {**HEAD, "poolDefaults": {}, "pools": [{"name": "a"}]}
    for _ in range(2):
        where = data.draw(st.sampled_from([raw, raw["poolDefaults"], raw["pools"][0]]))
        *sections, key = data.draw(st.sampled_from(LEAVES)).replace("[]", "").split(".")
        for section in sections:
            where = where.setdefault(section, {})
            if not isinstance(where, dict):
                return
        where[key] = data.draw(SMALL)
        if raw.get("pools") is None or not isinstance(raw["pools"], list) or not raw["pools"]:
            break
        if not isinstance(raw["pools"][0], dict):
            break
    if is_loaded(raw):
        assert VALIDATOR.is_valid(raw), raw


def test_example_file_is_the_defaults_and_one_pool() -> None:
    """Every setting is in it, with its default."""
    configuration = read_configuration(EXAMPLE)
    assert configuration.pools is not None
    (pool,) = configuration.pools
    assert configuration.model_copy(update={"pools": None}) == Configuration.default()
    assert (pool.name, pool.namespaces, pool.reap.floor) == ("duckdb", ("analytics",), 2)
    written = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    everything = json.loads(Configuration.default().model_dump_json(by_alias=True))
    assert key_paths(everything) - {("pools",)} <= key_paths(written)


def key_paths(value: object, prefix: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    if not isinstance(value, dict):
        return {prefix}
    return {path for key, inner in value.items() for path in key_paths(inner, (*prefix, key))} | {prefix}


def test_page_shows_real_mistakes() -> None:
    """The output on the page is what the file on the page gives."""
    text = re.search(r"<!-- mistakes: file -->\n```yaml\n(.*?)```", PAGE, re.DOTALL)
    output = re.search(r"<!-- mistakes: output -->\n```text\n(.*?)\n```", PAGE, re.DOTALL)
    assert text is not None
    assert output is not None
    with pytest.raises(SettingsError) as caught:
        load_configuration(text[1], source="config.yaml")
    assert str(caught.value) == output[1]


def test_page_has_a_file_that_loads() -> None:
    """The first file on the page can be copied."""
    texts = re.findall(r"```yaml\n(apiVersion.*?)```", PAGE, re.DOTALL)
    assert load_configuration(texts[0], source="config.yaml").pools


def test_page_has_every_setting_with_its_default() -> None:
    """The tables are complete, and say what the program does without a file."""
    rows = dict(re.findall(r"^\| `([^`]+)` \| (.+?) \| ", PAGE, re.MULTILINE))
    assert {knob.path for knob in EVERY if not knob.is_section} <= set(rows)
    told = {"reap.floor": "`1`", "reap.idleTimeout": "`5m`", "reap.scaleIn": "`auto`", "cacheKey": "`null`"}
    told |= {"idle.sources": "`[{annotation: {}}]`", "http.port": "required", "leaderElection.leaseDuration": "`15s`"}
    assert {path: rows[path] for path in told} == told
