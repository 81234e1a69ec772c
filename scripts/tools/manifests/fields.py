"""Which fields Kubernetes knows in each supported minor version, and whether an object uses others.

Owns fields.json: the types that our kinds are made of, merged over the minors, from the schemas that client-go carries
for server-side apply. The newest minor is checked by a real API server; this is for the others. It knows fields and
shapes, not which are required. To make it anew, with Go and a network: python -m scripts.tools.manifests.fields
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from scripts.tools.controlplane.binaries import TOOL_MODULES

MINORS = (33, 34, 35, 36, 37)
FILE = Path(__file__).with_name("fields.json")
KINDS = {
    ("v1", "ConfigMap"): "core.v1.ConfigMap",
    ("v1", "Namespace"): "core.v1.Namespace",
    ("v1", "Pod"): "core.v1.Pod",
    ("v1", "Secret"): "core.v1.Secret",
    ("v1", "Service"): "core.v1.Service",
    ("v1", "ServiceAccount"): "core.v1.ServiceAccount",
    ("apps/v1", "DaemonSet"): "apps.v1.DaemonSet",
    ("apps/v1", "Deployment"): "apps.v1.Deployment",
    ("batch/v1", "Job"): "batch.v1.Job",
    ("coordination.k8s.io/v1", "Lease"): "coordination.v1.Lease",
    ("networking.k8s.io/v1", "NetworkPolicy"): "networking.v1.NetworkPolicy",
    ("policy/v1", "PodDisruptionBudget"): "policy.v1.PodDisruptionBudget",
    ("rbac.authorization.k8s.io/v1", "ClusterRole"): "rbac.v1.ClusterRole",
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"): "rbac.v1.ClusterRoleBinding",
    ("rbac.authorization.k8s.io/v1", "Role"): "rbac.v1.Role",
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): "rbac.v1.RoleBinding",
    ("scheduling.k8s.io/v1", "PriorityClass"): "scheduling.v1.PriorityClass",
}
_PREFIX = re.compile(r"^io\.k8s\.(?:api|apimachinery\.pkg\.apis|apimachinery\.pkg)\.")

Shape = Any
"""A scalar's name, a type's name, ``[shape]`` for a list, ``{"*": shape}`` for a map with any keys."""


def unknown_fields(item: Mapping[str, Any], minor: int, known: Mapping[str, Any]) -> list[str]:
    """Name the fields of an object that version 1.``minor`` does not know, or knows in another shape."""
    kind = KINDS.get((item["apiVersion"], item["kind"]))
    if kind is None:
        return [f"{item['apiVersion']} {item['kind']} is no known kind"]
    return [f"{item['kind']} {item['metadata']['name']}: {path}" for path in _unknown(item, kind, minor, known, "")]


def _unknown(value: Any, shape: Shape, minor: int, known: Mapping[str, Any], path: str) -> Iterator[str]:
    if value is None:
        return
    if isinstance(shape, str) and shape in known:
        if not isinstance(value, dict):
            yield f"{path} is no object"
            return
        fields = known[shape]["fields"]
        for name, inner in value.items():
            field = fields.get(name)
            if field is None or not field.get("since", 0) <= minor <= field.get("until", minor):
                yield f"{path}.{name}"
            else:
                yield from _unknown(inner, field["shape"], minor, known, f"{path}.{name}")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield f"{path} is no list"
            return
        for number, inner in enumerate(value):
            yield from _unknown(inner, shape[0], minor, known, f"{path}[{number}]")
    elif isinstance(shape, dict):
        for name, inner in value.items() if isinstance(value, dict) else [("", None)]:
            yield from _unknown(inner, shape["*"], minor, known, f"{path}.{name}")
    elif isinstance(value, dict | list) and shape != "untyped":
        yield f"{path} is no {shape}"


def read_fields() -> dict[str, Any]:
    """Read fields.json."""
    fields: dict[str, Any] = json.loads(FILE.read_text())
    return fields


def _generate() -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for minor in MINORS:
        types = _schema(minor)
        for name in sorted(_reachable(types)):
            fields = merged.setdefault(name, {"fields": {}})["fields"]
            for field, shape in types[name].items():
                known = fields.setdefault(field, {"shape": shape, "minors": []})
                if known["shape"] != shape:
                    raise SystemExit(f"{name}.{field} has another shape in 1.{minor}: {known['shape']}, {shape}")
                known["minors"].append(minor)
    for each in merged.values():
        for field in each["fields"].values():
            minors = field.pop("minors")
            if minors[0] != MINORS[0]:
                field["since"] = minors[0]
            if minors[-1] != MINORS[-1]:
                field["until"] = minors[-1]
    return merged


def _schema(minor: int) -> dict[str, dict[str, Shape]]:
    module = f"k8s.io/client-go@v0.{minor}.0"
    done = subprocess.run(
        ["go", "mod", "download", "-json", module],
        cwd=TOOL_MODULES / "kubernetes",
        env={**os.environ, "GOFLAGS": "-mod=mod"},
        capture_output=True,
        text=True,
        check=True,
    )
    source = Path(json.loads(done.stdout)["Dir"]) / "applyconfigurations" / "internal" / "internal.go"
    text = source.read_text().partition("typed.YAMLObject(`")[2].partition("`)")[0]
    types = yaml.load(text, yaml.CSafeLoader)["types"]
    return {
        _PREFIX.sub("", each["name"]): {
            field["name"]: _shape(field["type"]) for field in (each.get("map") or {}).get("fields") or []
        }
        for each in types
        if "map" in each and "fields" in each["map"]
    }


def _shape(kind: Mapping[str, Any]) -> Shape:
    if "namedType" in kind:
        return _PREFIX.sub("", kind["namedType"])
    if "list" in kind:
        return [_shape(kind["list"]["elementType"])]
    if "map" in kind:
        return {"*": _shape(kind["map"]["elementType"])} if "elementType" in kind["map"] else "untyped"
    return kind["scalar"]


def _reachable(types: Mapping[str, Mapping[str, Shape]]) -> set[str]:
    found: set[str] = set()
    waiting: list[Shape] = list(KINDS.values())
    while waiting:
        shape = waiting.pop()
        if isinstance(shape, list):
            waiting.append(shape[0])
        elif isinstance(shape, dict):
            waiting.append(shape["*"])
        elif shape in types and shape not in found:
            found.add(shape)
            waiting += [inner for field, inner in types[shape].items() if field not in ("status", "managedFields")]
    return found


if __name__ == "__main__":
    FILE.write_text(json.dumps(_generate(), separators=(",", ":"), sort_keys=True).replace('},"', '},\n"') + "\n")
    print(f"wrote {FILE}", file=sys.stderr)
