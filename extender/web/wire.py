"""The extender/v1 wire format: bytes to values and back. Pure; owns every byte that a scheduler reads from us.

Keys are Go field names (the upstream structs have no JSON tags: staging/src/k8s.io/kube-scheduler/extender/v1). The
scheduler sends them exactly so; Go matches keys in any case and so do we. What is sent back can never hurt: a null in
a preempt answer would crash kube-scheduler, a float or a foreign host would make it discard the whole answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from extender.model import Victims
from extender.policy.resources import Resources, quantity, requests_in_all


class BadRequest(ValueError):
    """A body that is not a valid request. The message is one line and says what is wrong."""


class _Meta(Struct, gc=False):
    namespace: str | None = None
    name: str | None = None
    uid: str | None = None
    labels: dict[str, str | None] | None = None


class _Pod(Struct, gc=False):
    metadata: _Meta | None = None


class _WholePod(_Pod, gc=False):
    spec: Raw = msgspec.field(default_factory=Raw)


class _NodeList(Struct, gc=False):
    items: list[_Pod | None] | None = None


class _Amounts(Struct, gc=False):
    requests: dict[str, str | int | float] | None = None


class _Container(Struct, rename="camel", gc=False):
    resources: _Amounts | None = None
    restart_policy: str | None = None


class PodRequests(Struct, rename="camel", gc=False):
    """What a pod asks for, as it is written: see `requests_of`. Those of pods of one template are equal."""

    containers: list[_Container] | None = None
    init_containers: list[_Container] | None = None
    resources: _Amounts | None = None
    overhead: dict[str, str | int | float] | None = None

    def requests(self) -> Resources:
        """Sum it up. What cannot be read asks for nothing that is known."""
        before = ((_amounts(each.resources), each.restart_policy == "Always") for each in self.init_containers or ())
        found = requests_in_all((_amounts(each.resources) for each in self.containers or ()), before)
        whole, overhead = _amounts(self.resources), _read(self.overhead)
        return requests_in_all(({**found, **whole}, overhead))  # requests of the pod as a whole go over its parts'


class _Args(Struct, gc=False):
    pod: _WholePod | UnsetType | None = msgspec.field(default=UNSET, name="Pod")
    nodes: _NodeList | UnsetType | None = msgspec.field(default=UNSET, name="Nodes")
    node_names: list[str] | UnsetType | None = msgspec.field(default=UNSET, name="NodeNames")


class _MetaPod(Struct, gc=False):
    uid: str | UnsetType | None = msgspec.field(default=UNSET, name="UID")


class _MetaVictims(Struct, gc=False):
    pods: list[_MetaPod | None] | UnsetType | None = msgspec.field(default=UNSET, name="Pods")
    violations: int | UnsetType | None = msgspec.field(default=UNSET, name="NumPDBViolations")


class _Victims(Struct, gc=False):
    pods: list[_Pod | None] | UnsetType | None = msgspec.field(default=UNSET, name="Pods")
    violations: int | UnsetType | None = msgspec.field(default=UNSET, name="NumPDBViolations")


class _PreemptionArgs(Struct, gc=False):
    pod: _Pod | UnsetType | None = msgspec.field(default=UNSET, name="Pod")
    victims: dict[str, _Victims | None] | UnsetType | None = msgspec.field(default=UNSET, name="NodeNameToVictims")
    meta: dict[str, _MetaVictims | None] | UnsetType | None = msgspec.field(default=UNSET, name="NodeNameToMetaVictims")


_NO_SPEC = Raw(b"{}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PodReference:
    """The pod that is being scheduled, as the request describes it. ``spec`` is not decoded: see `requests_of`."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    uid: str = ""
    spec: Raw = field(default_factory=lambda: _NO_SPEC)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrioritizeRequest:
    """A prioritize call: the pod and the names of the feasible nodes, in no particular order."""

    pod: PodReference
    node_names: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreemptRequest:
    """A preempt call: the preemptor and its candidates, victims by node name."""

    pod: PodReference
    candidates: Mapping[str, Victims]


_S = TypeVar("_S", bound=Struct)
_args = msgspec.json.Decoder(_Args)
_spec = msgspec.json.Decoder(PodRequests | None)
_preemption = msgspec.json.Decoder(_PreemptionArgs)
_anything = msgspec.json.Decoder()
_encode = msgspec.json.Encoder().encode

MAX_INT64 = 2**63 - 1


def decode_prioritize(body: bytes) -> PrioritizeRequest:
    """Read ExtenderArgs: names from ``NodeNames``, or from ``Nodes`` where those are null; both null is no node.

    Raises:
        BadRequest: the body is not JSON, or a value has the wrong type, or there is no pod.
    """
    args = _decode(body, _args.decode)
    if args.pod is UNSET or args.nodes is UNSET or args.node_names is UNSET:
        args = _decode(body, _in_any_case(_Args))
    if args.node_names:
        names: Sequence[str] = args.node_names
    elif args.nodes and args.nodes.items:
        metas = [item.metadata for item in args.nodes.items if item is not None]
        names = [meta.name for meta in metas if meta is not None and meta.name]
    else:
        names = ()
    return PrioritizeRequest(pod=_pod(args.pod), node_names=names)


def encode_priorities(scores: Sequence[tuple[str, int]]) -> bytes:
    """Write a HostPriorityList: a JSON array, one entry a host, whole scores."""
    return _encode([{"Host": host, "Score": score} for host, score in scores])


def decode_preempt(body: bytes) -> PreemptRequest:
    """Read ExtenderPreemptionArgs from whichever of its two maps is given. A null entry is a node without victims.

    Raises:
        BadRequest: as `decode_prioritize`; also a victim without UID, or a violation count that no Go int64 holds.
    """
    args = _decode(body, _preemption.decode)
    if _is_incomplete(args):
        args = _decode(body, _in_any_case(_PreemptionArgs))
    candidates: dict[str, Victims] = {}
    if args.meta:
        for name, entry in args.meta.items():
            pods = (entry.pods or ()) if entry is not None else ()
            candidates[name] = _victims(name, [pod.uid if pod is not None else None for pod in pods], entry)
    elif args.victims:
        for name, full in args.victims.items():
            metas = [pod.metadata if pod is not None else None for pod in (full.pods or ())] if full is not None else []
            candidates[name] = _victims(name, [meta.uid if meta is not None else None for meta in metas], full)
    return PreemptRequest(pod=_pod(args.pod), candidates=candidates)


def encode_preemption(candidates: Mapping[str, Victims], nodes: Sequence[str]) -> bytes:
    """Write an ExtenderPreemptionResult with these of the candidates, their victims as they came.

    Holds no null, ever: kube-scheduler dereferences node values and pods unchecked.
    """
    answer = {
        name: {
            "Pods": [{"UID": uid} for uid in candidates[name].pod_uids],
            "NumPDBViolations": candidates[name].pdb_violations,
        }
        for name in nodes
    }
    return _encode({"NodeNameToMetaVictims": answer})


def _decode(body: bytes, read: Callable[[bytes], _S]) -> _S:
    try:
        return read(body)
    except msgspec.ValidationError as error:
        # a key in another case may be of any type for the exact structs; the caller's second look says what is wrong
        raise BadRequest(f"the body is not what a kube-scheduler sends: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # the second look: also in what the first skipped over
        raise BadRequest(f"the body is not JSON: {error}" if body else "the body is empty") from error
    except RecursionError as error:
        raise BadRequest("the body is nested too deeply") from error


_KEYS = {
    name.lower(): name
    for name in (
        "Pod",
        "Nodes",
        "NodeNames",
        "NodeNameToVictims",
        "NodeNameToMetaVictims",
    )
}
_VICTIM_KEYS = {name.lower(): name for name in ("Pods", "NumPDBViolations")}


def _in_any_case(struct: type[_S]) -> Callable[[bytes], _S]:
    """Read with keys folded to the upstream case, as Go's decoder does it. Slow, for old clients only."""

    def read(body: bytes) -> _S:
        tree = _fold(_anything.decode(body), _KEYS)
        if isinstance(tree, dict) and isinstance(tree.get("Pod"), dict) and "spec" in tree["Pod"]:
            tree["Pod"]["spec"] = Raw(_encode(tree["Pod"]["spec"]))
        for key in ("NodeNameToVictims", "NodeNameToMetaVictims"):
            entries = tree.get(key)
            if isinstance(entries, dict):
                folded = {name: _fold(entry, _VICTIM_KEYS) for name, entry in entries.items()}
                if key == "NodeNameToMetaVictims":
                    for entry in folded.values():
                        if isinstance(entry, dict) and isinstance(entry.get("Pods"), list):
                            entry["Pods"] = [_fold(pod, {"uid": "UID"}) for pod in entry["Pods"]]
                tree[key] = folded
        return msgspec.convert(tree, struct)

    return read


def _fold(tree: Any, keys: Mapping[str, str]) -> Any:
    return {keys.get(key.lower(), key): value for key, value in tree.items()} if isinstance(tree, dict) else tree


def _is_incomplete(args: _PreemptionArgs) -> bool:
    """Say whether a key that Go always sends is absent: then it is there in another case, or nowhere."""
    if args.pod is UNSET or args.victims is UNSET or args.meta is UNSET:
        return True
    for entry in (*(args.meta or {}).values(), *(args.victims or {}).values()):
        if entry is not None and (entry.pods is UNSET or entry.violations is UNSET):
            return True
    return any(
        pod is not None and pod.uid is UNSET
        for entry in (args.meta or {}).values()
        if entry is not None
        for pod in entry.pods or ()
    )


def _pod(pod: _Pod | _WholePod | UnsetType | None) -> PodReference:
    if not pod:
        raise BadRequest("the body has no Pod")
    meta = pod.metadata or _Meta()
    labels = {key: value or "" for key, value in (meta.labels or {}).items()}
    spec = pod.spec if isinstance(pod, _WholePod) and len(pod.spec) else _NO_SPEC
    return PodReference(
        namespace=meta.namespace or "", name=meta.name or "", labels=labels, uid=meta.uid or "", spec=spec
    )


def requests_of(pod: PodReference) -> PodRequests:
    """Read what a pod asks for. One that cannot be read fits nowhere, so that each node holds one more."""
    try:
        return _spec.decode(pod.spec) or PodRequests()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return PodRequests(overhead={"": ""})


def _amounts(resources: _Amounts | None) -> Resources:
    return _read(resources.requests if resources is not None else None)


def _read(stated: Mapping[str, object] | None) -> Resources:
    return {name: quantity(text) for name, text in (stated or {}).items()}


def _victims(node: str, uids: Sequence[str | UnsetType | None], entry: _MetaVictims | _Victims | None) -> Victims:
    violations = (entry.violations or 0) if entry is not None else 0
    if not -MAX_INT64 - 1 <= violations <= MAX_INT64:
        raise BadRequest(f"NumPDBViolations of node {node!r} is no 64-bit integer")
    known = tuple(uid for uid in uids if uid)
    if len(known) != len(uids):
        raise BadRequest(f"a victim on node {node!r} has no UID")
    return Victims(pod_uids=known, pdb_violations=violations)
