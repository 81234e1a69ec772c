"""Which Karpenter it is: its API does not say, so its pods and its CRDs have to."""

from __future__ import annotations

import re
from collections.abc import Iterable

from extender.inspect.doctor.evidence import KarpenterFacts, Program, Sureness

FEATURE_GATES = "FEATURE_GATES"
_VERSION = re.compile(r"v?(\d{1,4})\.(\d{1,4})(?:\.\d+)?(?:[-+.].*)?")

BALANCED = b'"Balanced"'
"""The consolidation policy that came with Karpenter 1.14, as the NodePool's schema names it."""


def karpenter_facts(programs: Iterable[Program], *, has_balanced: bool | None) -> KarpenterFacts:
    """Find out the version: 1. the image of a pod that runs; 2. its label; and what the CRD knows."""
    pods = sorted((each for each in programs if each.program == "karpenter"), key=lambda each: each.name)
    told = [_gates(pod) for pod in pods]
    gates: dict[str, bool] | None = {} if pods and None not in told else None
    for each in told:
        gates = None if gates is None else gates | (each or {})
    for sureness in (Sureness.IMAGE, Sureness.LABEL):
        for pod in pods:
            version = image_version(pod.image) if sureness is Sureness.IMAGE else parse_version(pod.version_label)
            if version is not None:
                where = f"pod {pod.namespace}/{pod.name}"
                return KarpenterFacts(
                    version=version,
                    sureness=sureness,
                    where=where,
                    has_balanced=has_balanced,
                    feature_gates=gates,
                    is_running=True,
                )
    sure = None if has_balanced is None else Sureness.SCHEMA
    return KarpenterFacts(sureness=sure, has_balanced=has_balanced, feature_gates=gates, is_running=bool(pods))


def parse_version(text: str) -> tuple[int, int] | None:
    """Read major and minor out of 1.14.1, v1.14.1 or 1.14.1-eksbuild.2; None for anything else."""
    found = _VERSION.fullmatch(text)
    return None if found is None else (int(found.group(1)), int(found.group(2)))


def image_version(image: str) -> tuple[int, int] | None:
    """Read major and minor out of an image's tag."""
    return parse_version(_tag(image))


def _tag(image: str) -> str:
    """Give the tag of an image, empty where it has only a digest or none."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[2]


def _gates(pod: Program) -> dict[str, bool] | None:
    """Read what a pod was told, None where that stands in another object."""
    flag = next((word.partition("=")[2] for word in pod.arguments if word.startswith("--feature-gates=")), "")
    text = flag or pod.environment.get(FEATURE_GATES, "")
    if text is None:
        return None
    pairs = (pair.partition("=") for pair in text.split(","))
    return {name.strip(): value.strip().lower() == "true" for name, _, value in pairs if name.strip()}
