"""What the files of a release may hold."""

from __future__ import annotations

import pytest

from scripts.tools.distributions import faults

WHEEL, SDIST = "warmnode-1.0.0-py3-none-any.whl", "warmnode-1.0.0.tar.gz"


@pytest.mark.parametrize(
    ("name", "files"),
    [
        (WHEEL, {"extender/model.py": 1, "extender/py.typed": 0, "warmnode-1.0.0.dist-info/METADATA": 1}),
        (SDIST, {"warmnode-1.0.0/docs/run.json.gz": 1, "warmnode-1.0.0/tests/unit/test_a.py": 1}),
    ],
)
def test_what_belongs_into_a_distribution_is_no_fault(name: str, files: dict[str, int]) -> None:
    assert faults(name, files) == []


@pytest.mark.parametrize(
    ("name", "files", "fault"),
    [
        (WHEEL, {"tests/unit/test_a.py": 1}, "tests/unit/test_a.py is no module of ours"),
        (WHEEL, {"extender/run.json.gz": 1}, "extender/run.json.gz is no module of ours"),
        (SDIST, {"warmnode-1.0.0/a": 200_001}, "warmnode-1.0.0/a has 200,001 bytes"),
        (SDIST, {f"a/{n}": 100_000 for n in range(71)}, "its files have 7,100,000 bytes, more than 7,000,000"),
    ],
)
def test_what_nobody_should_have_to_download_is_a_fault(name: str, files: dict[str, int], fault: str) -> None:
    assert faults(name, files) == [f"{name}: {fault}"]
