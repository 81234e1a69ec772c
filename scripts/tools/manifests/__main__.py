"""Checks the files in manifests/ against every supported version of Kubernetes, without a cluster or a tool.

scripts/check runs it. What kustomize and Helm make of the files is checked in tests/integration/test_manifests.py.
"""

from __future__ import annotations

import sys

import yaml

from scripts.tools.manifests.fields import KINDS, MINORS, read_fields, unknown_fields
from scripts.tools.manifests.rendering import MANIFESTS, Json

NO_OBJECTS = ("chart/", "overlays/eks/placement.yaml")
"""Templates, and a patch without what it does not change."""


def shipped_objects() -> list[tuple[str, Json]]:
    """Every object of Kubernetes' own kinds in manifests/, with the file that it is in."""
    found: list[tuple[str, Json]] = []
    for file in sorted(MANIFESTS.rglob("*.yaml")):
        name = str(file.relative_to(MANIFESTS))
        if not name.startswith(NO_OBJECTS):
            items = [item for item in yaml.safe_load_all(file.read_text()) if item]
            found += [(name, item) for item in items if (item.get("apiVersion"), item.get("kind")) in KINDS]
    return found


def main() -> int:
    """Print what some version does not know; exit code 1 if there is anything."""
    known = read_fields()
    unknown = [
        f"{file}: Kubernetes 1.{minor} does not know {field}"
        for file, item in shipped_objects()
        for minor in MINORS
        for field in unknown_fields(item, minor, known)
    ]
    print("\n".join(unknown), file=sys.stderr, end="\n" if unknown else "")
    return 1 if unknown else 0


if __name__ == "__main__":
    sys.exit(main())
