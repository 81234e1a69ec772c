"""What the simulation says of work that really ran, from the records that the documentation speaks of."""

from __future__ import annotations

import pytest

from scripts.tools.controlplane.binaries import ROOT
from scripts.tools.experiment.calibrating import calibrated
from scripts.tools.experiment.record import read


@pytest.mark.parametrize(("run", "came_and_went"), [("jobs-15s-default-202", 2), ("jobs-90s-packing-201", 13)])
def test_the_model_matches_what_really_ran(run: str, came_and_went: int) -> None:
    """Node-hours within 10 %, by the rule of the scheduler that placed the jobs."""
    calibration, gone = calibrated(read(ROOT / "docs" / "experiment-age" / f"{run}.json.gz"))
    assert calibration.is_close
    assert calibration.observed > 1
    assert gone == came_and_went
