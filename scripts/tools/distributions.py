"""What the files of a release hold: ``python -m scripts.tools.distributions FOLDER`` ends with 1 where it is too much.

Owns the limits. Recorded runs are for those who read the repository: an sdist has the few that its tests read.
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

LARGEST_FILE = 200_000
PACKAGES = {"extender", "warmnode_client"}
LARGEST_SUM = {".gz": 7_000_000, ".whl": 2_000_000}
"""Bytes before compression, of an sdist and of a wheel."""


def sizes(distribution: Path) -> dict[str, int]:
    """Bytes of each file in a wheel or an sdist, by its name there."""
    if distribution.suffix == ".whl":
        with zipfile.ZipFile(distribution) as archive:
            return {each.filename: each.file_size for each in archive.infolist()}
    with tarfile.open(distribution) as archive:
        return {each.name: each.size for each in archive.getmembers() if each.isfile()}


def faults(name: str, found: Mapping[str, int]) -> list[str]:
    """Say what is wrong with a distribution that holds these files."""
    kind = Path(name).suffix
    told = [f"{each} has {size:,} bytes" for each, size in found.items() if size > LARGEST_FILE]
    if sum(found.values()) > LARGEST_SUM[kind]:
        told.append(f"its files have {sum(found.values()):,} bytes, more than {LARGEST_SUM[kind]:,}")
    if kind == ".whl":
        told += [f"{each} is no module of ours" for each in found if not _is_ours(each)]
    return [f"{name}: {each}" for each in told]


def _is_ours(file: str) -> bool:
    """In one of the packages, and code or what a module reads; or about the distribution."""
    room, _, rest = file.partition("/")
    return room.endswith(".dist-info") or (room in PACKAGES and not rest.endswith((".gz", ".xz", ".jsonl")))


def main() -> int:
    """Look at each distribution of a folder."""
    files = [file for file in sorted(Path(sys.argv[1]).iterdir()) if file.suffix in LARGEST_SUM]
    told = [fault for file in files for fault in faults(file.name, sizes(file))]
    for fault in told:
        print(fault, file=sys.stderr)
    return 1 if told or not files else 0


if __name__ == "__main__":
    sys.exit(main())
