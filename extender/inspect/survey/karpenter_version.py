"""Which Karpenter it is: its API does not say, so its pods and its CRDs have to."""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Iterable
from dataclasses import replace

from extender.inspect.doctor.evidence import KarpenterFacts, Program

FEATURE_GATES = "FEATURE_GATES"
_VERSION = re.compile(r"v?(\d{1,4})\.(\d{1,4})(?:\.\d+)?(?:[-+.].*)?")

BALANCED = b'"Balanced"'
"""The consolidation policy that came with Karpenter 1.14, as the NodePool's schema names it."""


def karpenter_facts(programs: Iterable[Program], *, has_balanced: bool | None) -> KarpenterFacts:
    """Find out the version: 1. the image of a pod that runs; 2. its label; and what the CRD knows."""
    pods = sorted((each for each in programs if each.program == "karpenter"), key=lambda each: each.name)
    by_image = [(image_version(pod.image), "the image that runs", pod) for pod in pods]
    by_label = [(parse_version(pod.version_label), "a label, not the image", pod) for pod in pods]
    known = [(version, how, pod) for version, how, pod in (*by_image, *by_label) if version is not None]
    told = [gates for gates in map(_gates, pods) if gates is not None]
    facts = KarpenterFacts(
        has_balanced=has_balanced,
        feature_gates=dict(ChainMap(*reversed(told))) if pods and len(told) == len(pods) else None,
        is_running=bool(pods),
    )
    if not known:
        return facts
    version, how, pod = known[0]
    return replace(facts, version=version, where=f"{how}, pod {pod.namespace}/{pod.name}")


def parse_version(text: str) -> tuple[int, int] | None:
    """Read major and minor out of 1.14.1, v1.14.1 or 1.14.1-eksbuild.2; None for anything else."""
    found = _VERSION.fullmatch(text)
    return None if found is None else (int(found.group(1)), int(found.group(2)))


def image_version(image: str) -> tuple[int, int] | None:
    """Read major and minor out of an image's tag; None where it has only a digest or none."""
    return parse_version(image.partition("@")[0].rpartition("/")[2].partition(":")[2])


def _gates(pod: Program) -> dict[str, bool] | None:
    """Read what a pod was told, None where that stands in another object."""
    flag = next((word.partition("=")[2] for word in pod.arguments if word.startswith("--feature-gates=")), "")
    text = flag or pod.environment.get(FEATURE_GATES, "")
    if text is None:
        return None
    pairs = (pair.partition("=") for pair in text.split(","))
    return {name.strip(): value.strip().lower() == "true" for name, _, value in pairs if name.strip()}
