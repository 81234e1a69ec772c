"""The wire format: what is accepted, and what can never be sent."""

from __future__ import annotations

import contextlib
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.model import Victims
from extender.web.wire import (
    BadRequest,
    decode_preempt,
    decode_prioritize,
    encode_preemption,
    encode_priorities,
    requests_of,
)
from tests.builders import victims

META_OF_POD = {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "x"}, "creationTimestamp": None}
POD: dict[str, Any] = {"metadata": META_OF_POD}


def body(**keys: Any) -> bytes:
    return json.dumps(keys).encode()


def test_prioritize_reads_names() -> None:
    """nodeCacheCapable: true sends ``NodeNames`` and a null ``Nodes``."""
    request = decode_prioritize(body(Pod=POD, Nodes=None, NodeNames=["a", "b"]))
    assert list(request.node_names) == ["a", "b"]
    pod = request.pod
    assert (pod.namespace, pod.name, pod.uid, pod.labels) == ("ns", "p", "u", {"app": "x"})


def test_prioritize_reads_node_objects() -> None:
    """nodeCacheCapable: false sends ``Nodes`` and null ``NodeNames``."""
    nodes = {"metadata": {}, "items": [{"metadata": {"name": "a", "managedFields": [1]}}, {"metadata": {"name": "b"}}]}
    assert list(decode_prioritize(body(Pod=POD, Nodes=nodes, NodeNames=None)).node_names) == ["a", "b"]


@pytest.mark.parametrize(
    "keys", [("pod", "nodes", "nodenames"), ("POD", "NODES", "NODENAMES"), ("Pod", "nodes", "nodeNames")]
)
def test_prioritize_reads_keys_in_any_case(keys: tuple[str, str, str]) -> None:
    """Go matches keys in any case, so do we."""
    request = decode_prioritize(body(**dict(zip(keys, (POD, None, ["a"]), strict=True))))
    assert list(request.node_names) == ["a"]
    assert request.pod.name == "p"


def test_what_a_pod_asks_for_is_read_with_keys_in_any_case() -> None:
    """The keys of its own have JSON tags: clients of every age send them as they are."""
    spec = {"containers": [{"resources": {"requests": {"cpu": "2"}}}]}
    found = [decode_prioritize(body(**{key: {**POD, "spec": spec}, "NodeNames": ["a"]})).pod for key in ("Pod", "pod")]
    assert [requests_of(pod).requests() for pod in found] == [{"cpu": Decimal(2)}] * 2


@pytest.mark.parametrize("nothing", [None, []])
def test_prioritize_without_nodes_has_no_names(nothing: object) -> None:
    """Both forms null or empty is a request about no node."""
    assert list(decode_prioritize(body(Pod=POD, Nodes=None, NodeNames=nothing)).node_names) == []


def test_pod_without_labels_or_metadata_is_a_pod() -> None:
    """A pod may lack apiVersion, kind, labels, and a creation time."""
    assert decode_prioritize(body(Pod={"metadata": {"labels": None}}, Nodes=None, NodeNames=[])).pod.labels == {}
    assert decode_prioritize(body(Pod={}, Nodes=None, NodeNames=[])).pod.name == ""


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"{",
        b"null",
        b"7",
        b'"x"',
        b"[]",
        b"\xff\xfe",
        b'{"Pod":{"metadata":{"name":"\xff"}}}',
        b'{"Pod":null,"Nodes":null,"NodeNames":[]}',
        b'{"Pod":{},"Nodes":null,"NodeNames":"a"}',
        b'{"Pod":{},"Nodes":null,"NodeNames":[null]}',
        b'{"Pod":{},"Nodes":null,"NodeNames":[1]}',
        b'{"Pod":{},"Nodes":[],"NodeNames":null}',
        b'{"pod":{},"nodes":null,"nodenames":[7]}',
        b'{"Pod":7}',
        b'{"Nodes":null}',
        b"[" * 100_000,
        b'{"x":' * 100_000,
        b'{"Pod":' + b'{"a":' * 1_000_000 + b"1" + b"}" * 1_000_000 + b',"Nodes":null,"NodeNames":[]}',  # Python 3.14
        b"{} trailing",
        b'{"Pod":{},"Nodes":null,"NodeNames":["\\ud800"]}',
        b'{"pod":{"metadata":{"name":"\xff"}},"nodes":null,"nodenames":[]}',
        b'{"pod":' + b"[" * 900 + b"]" * 900 + b"}",
    ],
)
def test_bad_body_is_one_line(bad: bytes) -> None:
    """Whatever is wrong with a body is said in one line."""
    with pytest.raises(BadRequest) as raised:
        decode_prioritize(bad)
    assert "\n" not in str(raised.value)
    assert 0 < len(str(raised.value)) < 500


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "Pod",
                        "pod",
                        "Nodes",
                        "items",
                        "NodeNames",
                        "NodeNameToMetaVictims",
                        "nodenametovictims",
                        "Pods",
                        "pods",
                        "UID",
                        "uid",
                        "metadata",
                        "labels",
                        "NumPDBViolations",
                    ]
                )
                | st.text(),
                inner,
            )
        ),
        max_leaves=20,
    ).map(lambda tree: json.dumps(tree).encode())
)
def test_any_body_is_a_request_or_refused(data: bytes) -> None:
    """There is no third outcome: every body is a request or a `BadRequest`, and every request can be answered."""
    with contextlib.suppress(BadRequest):
        encode_priorities([(name, 10) for name in decode_prioritize(data).node_names])
    try:
        request = decode_preempt(data)
        encode_preemption(request.candidates, tuple(request.candidates))
    except BadRequest:
        pass


def test_priorities_are_an_array_of_host_and_whole_score() -> None:
    """HostPriorityList: keys Host and Score, integers."""
    assert encode_priorities([("a", 10), ("b", 9)]) == b'[{"Host":"a","Score":10},{"Host":"b","Score":9}]'
    assert encode_priorities([]) == b"[]"


META = {
    "n1": {"Pods": [{"UID": "u1"}, {"UID": "u2"}], "NumPDBViolations": 1},
    "n2": {"Pods": [], "NumPDBViolations": 0},
}


def test_preempt_reads_meta_victims() -> None:
    """nodeCacheCapable: true sends UIDs, whose order is the order of importance."""
    request = decode_preempt(body(Pod=POD, NodeNameToVictims=None, NodeNameToMetaVictims=META))
    assert request.candidates == {"n1": victims("u1", "u2", violations=1), "n2": victims()}


def test_preempt_reads_full_victims() -> None:
    """nodeCacheCapable: false sends pods; the answer still holds UIDs."""
    full = {"n1": {"Pods": [{"metadata": {"uid": "u1"}}, {"metadata": {"uid": "u2"}}], "NumPDBViolations": 1}}
    request = decode_preempt(body(Pod=POD, NodeNameToVictims=full, NodeNameToMetaVictims=None))
    assert request.candidates == {"n1": victims("u1", "u2", violations=1)}


def test_preempt_reads_keys_in_any_case() -> None:
    """Old clients wrote lower-case tags."""
    meta = {"n1": {"pods": [{"uid": "u1"}], "numPDBViolations": 2}}
    request = decode_preempt(body(pod=POD, nodeNameToVictims=None, nodeNameToMetaVictims=meta))
    assert request.candidates == {"n1": victims("u1", violations=2)}
    full = {"n1": {"pods": [{"metadata": {"uid": "u1"}}], "numPDBViolations": 2}}
    assert decode_preempt(body(pod=POD, nodeNameToVictims=full)).candidates == {"n1": victims("u1", violations=2)}


@pytest.mark.parametrize(
    "entry",
    [
        {"pods": [{"UID": "u1"}], "NumPDBViolations": 2},
        {"Pods": [{"UID": "u1"}], "numPDBViolations": 2},
        {"Pods": [{"uid": "u1"}], "NumPDBViolations": 2},
    ],
)
def test_preempt_reads_any_one_key_in_another_case(entry: object) -> None:
    """However deep it stands."""
    request = decode_preempt(body(Pod=POD, NodeNameToVictims=None, NodeNameToMetaVictims={"n1": entry}))
    assert request.candidates == {"n1": victims("u1", violations=2)}


@pytest.mark.parametrize("entry", [None, {"Pods": None, "NumPDBViolations": 0}, {}])
def test_preempt_null_entries_become_empty_ones(entry: object) -> None:
    """A null would crash kube-scheduler if it came back: it becomes a node without victims."""
    request = decode_preempt(body(Pod=POD, NodeNameToVictims=None, NodeNameToMetaVictims={"n1": entry}))
    answer = json.loads(encode_preemption(request.candidates, ("n1",)))
    assert answer == {"NodeNameToMetaVictims": {"n1": {"Pods": [], "NumPDBViolations": 0}}}


@pytest.mark.parametrize(
    "entry",
    [
        {"Pods": [None], "NumPDBViolations": 0},
        {"Pods": [{}], "NumPDBViolations": 0},
        {"Pods": [{"UID": "u"}], "NumPDBViolations": 2**63},
    ],
)
def test_preempt_victims_that_cannot_be_echoed_are_refused(entry: object) -> None:
    """A victim without UID, or a number that no Go int64 holds, is no request."""
    with pytest.raises(BadRequest):
        decode_preempt(body(Pod=POD, NodeNameToVictims=None, NodeNameToMetaVictims={"n1": entry}))


candidates = st.dictionaries(
    st.text(min_size=1),
    st.builds(
        Victims,
        pod_uids=st.lists(st.text(min_size=1), max_size=4).map(tuple),
        pdb_violations=st.integers(-(2**63), 2**63 - 1),
    ),
)


@given(candidates, st.data())
def test_preempt_answer_is_a_subset_with_victims_unchanged(known: dict[str, Victims], data: st.DataObject) -> None:
    """What goes out is what came in, for some of the nodes: no null, no other node, UIDs in their order."""
    meta = {
        name: {"Pods": [{"UID": uid} for uid in entry.pod_uids], "NumPDBViolations": entry.pdb_violations}
        for name, entry in known.items()
    }
    request = decode_preempt(body(Pod=POD, NodeNameToVictims=None, NodeNameToMetaVictims=meta))
    assert request.candidates == known
    chosen = data.draw(st.lists(st.sampled_from(sorted(known)), unique=True)) if known else []
    sent = encode_preemption(request.candidates, chosen)
    assert json.loads(sent) == {"NodeNameToMetaVictims": {name: meta[name] for name in chosen}}
