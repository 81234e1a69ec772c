"""A scheduler's configuration, wherever people keep it, and kube-scheduler's defaults for what it leaves out."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from extender.inspect.doctor.scheduler_config import (
    DEFAULT_SCORE_WEIGHTS,
    SchedulerConfig,
    SchedulerConfigError,
    parse_scheduler_configs,
)
from scripts.tools.serving import SCHEDULER_CONFIG

HEAD = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"


def only(text: str) -> SchedulerConfig:
    (found,) = parse_scheduler_configs(text, source="f")
    return found


def weights(plugins: Any) -> Any:
    return only(HEAD + yaml.safe_dump({"profiles": [{"plugins": plugins}]})).profiles[0].score_weights


def test_the_shipped_file_is_read_whole() -> None:
    """Every value that a check needs."""
    found = only(SCHEDULER_CONFIG.read_text())
    (profile,), (extender,) = found.profiles, found.extenders
    assert (profile.scheduler_name, profile.preemption_percentage, found.percentage) == (
        "warmnode",
        100,
        100,
    )
    assert (extender.url, extender.weight, extender.timeout) == (
        "http://127.0.0.1:8888",
        200,
        timedelta(milliseconds=250),
    )
    assert (extender.prioritize_verb, extender.preempt_verb, extender.filter_verb) == ("prioritize", "preempt", "")
    assert extender.node_cache_capable
    assert extender.ignorable


def test_what_is_left_out_is_what_kube_scheduler_takes() -> None:
    """One profile called default-scheduler, default plugins, its own sample, five seconds."""
    found = only(HEAD + "extenders: [{urlPrefix: http://a, prioritizeVerb: p}]")
    (profile,), (extender,) = found.profiles, found.extenders
    assert (profile.scheduler_name, profile.percentage, found.percentage) == (
        "default-scheduler",
        None,
        0,
    )
    assert (profile.score_weights, profile.preemption_percentage) == (DEFAULT_SCORE_WEIGHTS, 10)
    assert (extender.timeout, extender.weight, extender.node_cache_capable) == (None, 0, False)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda text: text,
        lambda text: f"# a comment\n---\nkind: Other\n---\n{text}",
        lambda text: yaml.safe_dump({"kind": "ConfigMap", "data": {"a.yaml": text, "b": "nothing"}}),
        lambda text: yaml.safe_dump(
            {"kind": "List", "items": [{"kind": "ConfigMap", "data": {"a": text}}, {"kind": "Pod"}]}
        ),
        lambda text: yaml.safe_dump({"kind": "ConfigMapList", "items": [yaml.safe_load(text)]}),
    ],
)
def test_it_is_found_in_whatever_holds_it(wrap: Any) -> None:
    """The file, one of several documents, a ConfigMap, a List as kubectl prints it; JSON is YAML."""
    assert only(wrap(HEAD + "percentageOfNodesToScore: 7")).percentage == 7


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it holds nothing"),
        ("kind: Pod", "it holds Pod"),
        ("a: [", "not YAML"),
        ("&a {kind: List, items: [*a]}", "cannot be read"),
        ("\x00", "not YAML"),
        (HEAD + "profiles: 7", "cannot be read"),
        (HEAD + "extenders: [{weight: heavy}]", "cannot be read"),
        ("- 1\n- 2", "it holds nothing"),
    ],
)
def test_what_is_no_configuration_is_refused_in_one_line(text: str, said: str) -> None:
    """With what it is, and with the remedy."""
    with pytest.raises(SchedulerConfigError, match=said) as caught:
        parse_scheduler_configs(text, source="f")
    assert "\n" not in str(caught.value)
    assert "give the file" in str(caught.value)


def test_plugins_are_merged_as_kube_scheduler_does() -> None:
    """Disabled ones go, * takes all away, a weight for scoring goes over one for all points."""
    assert weights({"score": {"disabled": [{"name": "ImageLocality"}]}}).keys() == {
        *DEFAULT_SCORE_WEIGHTS.keys() - {"ImageLocality"}
    }
    only_fit = {"score": {"disabled": [{"name": "*"}], "enabled": [{"name": "NodeResourcesFit", "weight": 9}]}}
    assert weights(only_fit) == {"NodeResourcesFit": 9}
    both = {
        "multiPoint": {"enabled": [{"name": "NodeAffinity", "weight": 5}, {"name": "DefaultPreemption"}]},
        "score": {"enabled": [{"name": "NodeAffinity", "weight": 6}]},
    }
    assert weights(both) == {**DEFAULT_SCORE_WEIGHTS, "NodeAffinity": 6}
    assert weights({"multiPoint": {"disabled": [{"name": "*"}]}}) == {}


@given(st.text(max_size=200))
@settings(max_examples=200)
def test_any_text_is_a_configuration_or_refused(text: str) -> None:
    """Never another error: it comes from anybody."""
    for content in (text, HEAD + text):
        with suppress(SchedulerConfigError):
            parse_scheduler_configs(content, source="f")
