"""docs/images/burst.svg: how many nodes there are while bursts come and go, under three rules, by the kept records.

``python -m scripts.tools.experiment.timeline`` writes it.
"""

from __future__ import annotations

from math import inf
from pathlib import Path

from scripts.tools.experiment.plots import Panel, Series, draw
from scripts.tools.experiment.record import Record, read
from scripts.tools.experiment.workloads import BOOT_SECONDS

DOCS = Path(__file__).parents[3] / "docs"
PICTURE = DOCS / "images" / "burst.svg"
RULES = {"default": "default scheduler", "packing": "MostAllocated", "placement": "oldest first (warmnode)"}
SEED = 201


def main() -> None:
    """Write the picture."""
    PICTURE.write_text(picture(DOCS / "experiment-age"))


def picture(records: Path) -> str:
    """Draw the runs of jobs with one seed: a panel for each consolidateAfter."""
    return draw(
        [
            Panel(
                title=f"consolidateAfter {after} s",
                x="minutes; a burst each four, lower is better",
                y="nodes that are paid for",
                series=tuple(
                    Series(name=name, steps=steps(read(records / f"jobs-{after}s-{arm}-{SEED}.json.gz")))
                    for arm, name in RULES.items()
                ),
            )
            for after in (15, 90)
        ]
    )


def steps(record: Record) -> tuple[tuple[float, float], ...]:
    """Count the nodes from the end of the warm-up on, in minutes of the run: each from its launch to its end."""
    begin, end = record.run.warm_up, record.run.seconds
    spans = [(node.added - BOOT_SECONDS, inf if node.deleted is None else node.deleted) for node in record.nodes]
    times = sorted({begin, end, *(time for span in spans for time in span if begin < time < end)})
    return tuple((time / 60, float(sum(came <= time < gone for came, gone in spans))) for time in times)


if __name__ == "__main__":
    main()
