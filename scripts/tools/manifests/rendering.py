"""Rendering what is shipped: kustomize (as kubectl has it built in) and Helm, to lists of objects.

Owns the variants that are tested, each once for kustomize and once for Helm, and what may differ between the two.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from scripts.tools.controlplane.building import find_or_build

Json = dict[str, Any]

MANIFESTS = Path(__file__).parents[3] / "manifests"
NAMESPACE = "warmnode"
KUBERNETES = "v1.37.2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way to install: kustomize ``base`` with ``components`` and ``pools``, and the chart's ``values`` for it."""

    base: str = "base"
    components: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)


VARIANTS = {
    "plain": Variant(),
    "tls": Variant(components=("tls",), values={"tls": {"enabled": True}}),
    "everything": Variant(
        components=("tls", "tls-cert-manager", "claims", "monitoring"),
        pools=("analytics", "games"),
        values={
            "tls": {"enabled": True, "certManager": True},
            "claims": {"enabled": True, "namespaces": ["analytics", "games"]},
            "monitoring": {"enabled": True},
        },
    ),
    "kind": Variant(base="overlays/kind", values={"image": {"tag": "dev"}}),
    "eks": Variant(
        base="overlays/eks",
        values={
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "karpenter.sh/nodepool", "operator": "DoesNotExist"}]}
                    ]
                }
            },
            "tolerations": [{"key": "CriticalAddonsOnly", "operator": "Exists"}],
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "topology.kubernetes.io/zone",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": {"app.kubernetes.io/name": "warmnode"}},
                }
            ],
        },
    ),
}


def read_objects(*files: str | Path) -> list[Json]:
    """Read the objects of files in manifests/."""
    return [item for file in files for item in _objects((MANIFESTS / file).read_text())]


def kustomize(variant: Variant, folder: Path) -> list[Json]:
    """Build a variant with kustomize, in an empty ``folder``."""
    return kustomize_folder(write_kustomization(variant, folder))


def write_kustomization(variant: Variant, folder: Path, *, images: Mapping[str, str] | None = None) -> Path:
    """Write a kustomization as a user would have it. ``images`` are new tags by image name."""

    def shipped(path: str, start: Path = folder) -> str:
        return os.path.relpath(MANIFESTS / path, start)

    content: Json = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [shipped(variant.base)],
        "components": [shipped(f"components/{name}") for name in variant.components],
        "images": [{"name": name, "newTag": tag} for name, tag in (images or {}).items()],
    }
    for pool in variant.pools:
        place = folder / pool
        place.mkdir()
        pool_content = {"namespace": pool, "resources": [shipped("components/claims/pool", place)]}
        (place / "kustomization.yaml").write_text(yaml.safe_dump(pool_content))
        content["resources"].append(pool)
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(content))
    return folder


def kustomize_folder(folder: Path) -> list[Json]:
    """Build a folder with kustomize."""
    return _objects(run("kubectl", "kustomize", str(folder)))


def helm(variant: Variant, folder: Path, *arguments: str, hooks: bool = False) -> list[Json]:
    """Render the chart with the values of a variant. Hooks (cleanup, tests) are objects of their own."""
    values = folder / "values.json"
    values.write_text(json.dumps(variant.values))
    out = run(
        *("helm", "template", "warmnode", str(MANIFESTS / "chart"), "--namespace", NAMESPACE),
        *("--kube-version", KUBERNETES, "--values", str(values), *arguments),
    )
    return [item for item in _objects(out) if is_hook(item) == hooks]


def is_hook(item: Json) -> bool:
    """True for what Helm creates at a moment of its own."""
    return "helm.sh/hook" in (item["metadata"].get("annotations") or {})


def run(program: str, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """Run kubectl or helm and give its output. Raises with what it said."""
    path = find_or_build([program], os.environ, lambda line: None)[program]
    done = subprocess.run(
        [str(path), *arguments],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"{program} {' '.join(arguments)}: {done.stderr.strip()}{done.stdout[-2000:]}")
    return done.stdout


def comparable(items: Sequence[Json]) -> dict[str, Json]:
    """Give the objects by name without what must differ between kustomize and Helm.

    1. The Namespace: Helm makes it, or not, with --create-namespace. 2. Helm's own labels. 3. How a new scheduler
    configuration replaces the pods: by the ConfigMap's name, or by a checksum in an annotation.
    """
    found: dict[str, Json] = {}
    for each in items:
        if each["kind"] == "Namespace":
            continue
        item = json.loads(re.sub(r"(warmnode-kube-scheduler)-[0-9a-z]{10}(?=\")", r"\1", json.dumps(each)))
        metadata = item["metadata"]
        for label in ("app.kubernetes.io/managed-by", "helm.sh/chart"):
            metadata.get("labels", {}).pop(label, None)
        template = item.get("spec", {}).get("template", {}).get("metadata", {}).get("annotations")
        if template is not None:
            template.pop("checksum/kube-scheduler-config", None)
        if item["kind"] == "ConfigMap":
            item["data"] = {key: _loaded(key, text) for key, text in item["data"].items()}
        found[f"{item['kind']} {metadata.get('namespace', '')}/{metadata['name']}"] = item
    return found


def _loaded(key: str, text: str) -> Any:
    return json.loads(text) if key.endswith(".json") else yaml.safe_load(text)


def _objects(text: str) -> list[Json]:
    return [item for item in yaml.safe_load_all(text) if item]
