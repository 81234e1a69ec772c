"""The command line of scripts/demo: the steps in order, signals, exit codes (0 as promised, 1 not, 2 bad usage)."""

from __future__ import annotations

import argparse
import http.client
import os
import signal
import sys
import time
from types import FrameType

from scripts.tools.controlplane.errors import ControlPlaneError
from scripts.tools.demo import scenario, tide
from scripts.tools.demo.findings import Findings, broken_promises, compare, summary
from scripts.tools.demo.page import Page
from scripts.tools.demo.stage import DemoFailed, Stage
from scripts.tools.demo.trying import things_to_try

POLL_SECONDS = 0.2
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_DESCRIPTION = """\
Shows what warmnode does, with a real Kubernetes control plane on this machine and fake (KWOK) nodes:

  1. starts etcd, kube-apiserver, kube-controller-manager, kube-scheduler, KWOK and Karpenter,
     without containers and without root;
  2. creates nodes: some were first used days ago, some minutes ago, two never, one is cordoned;
     the older ones run workers already;
  3. has the default scheduler place a Deployment of workers, scales it up, and deletes it;
  4. starts `warmnode run` and a second, stock kube-scheduler with
     manifests/base/kube-scheduler-config.yaml, and has them place the same Deployment on the same
     nodes;
  5. prints where each worker went, beside what `warmnode plan` says of each node;
  6. has a larger burst come, for which Karpenter adds nodes; when its workers are idle, warmnode
     evicts them from the newest nodes, and Karpenter takes those away.

The first run builds the programs from source: that takes minutes, needs Go, and says so. After that
a run takes about a minute. Everything listens on 127.0.0.1 and is gone when the demo ends,
however it ends.
"""

_EPILOG = """\
Exit codes: 0 warmnode filled the oldest nodes first, 1 it did not or something failed, 2 bad usage.
NO_COLOR=1 turns colours off.
"""


class Interrupted(BaseException):
    """A signal asked the demo to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Ending:
    """A signal handler: the first signal ends the demo, later ones and those during the clean-up change nothing.

    Handlers stay in place for that. Python tells on standard error of a signal that is set to SIG_IGN as it arrives.
    """

    def __init__(self) -> None:
        self.armed = True

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.armed:
            self.armed = False
            raise Interrupted(number)


def main() -> int:
    """Run the demo and clean up, whatever happens."""
    options = _options()
    ending = Ending()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until there is somebody who cleans up
    for number in SIGNALS:
        signal.signal(number, ending)
    stage = Stage.new()
    try:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            return _run(stage, keep=options.keep, with_page=options.page)
        finally:
            ending.armed = False  # a signal just before this line raises, and is met by the outer `finally`
    except Interrupted as interrupted:
        _tell("ended by a signal; removing everything")
        return 128 + interrupted.number
    except BrokenPipeError:  # the reader has gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (DemoFailed, ControlPlaneError, OSError, http.client.HTTPException) as error:
        _tell(str(error))
        return 1
    finally:
        stage.close()


def _run(stage: Stage, *, keep: bool, with_page: bool) -> int:
    first, burst = scenario.FIRST, scenario.BURST
    page = Page()
    page.step("starting a control plane")
    stage.start(page.step)
    page.step(f"up: {stage.components()}")
    if with_page:
        page.title(f"Watch it: {stage.start_page()}")
        page.line()
    rooms = stage.populate()
    page.step(f"{len(rooms)} nodes are Ready; {sum(room.running for room in rooms.values())} workers run there already")

    page.step(f"the default scheduler places a Deployment of {first} workers, then {burst}")
    default_first, default_burst = stage.deploy("default-scheduler"), stage.scale(burst)
    stage.remove()
    page.step("deleted it; starting warmnode run and a second kube-scheduler, which asks it")
    stage.start_warmnode()
    plan = stage.plan()
    page.step(f"the same Deployment of {first} workers again, with schedulerName: warmnode")
    _show(page, f"{first} workers", compare(plan, rooms, default_first, stage.deploy("warmnode")))
    page.line()
    plan = stage.plan()
    page.step(f"a burst: scaling the Deployment to {burst}")
    found = compare(plan, rooms, default_burst, stage.scale(burst))
    _show(page, f"{burst} workers", found)
    page.line()
    page.empty_nodes(found)
    page.paragraph(summary(found))
    _tide(page, stage)
    page.step(f"done; the second scheduler asked warmnode {stage.times_asked():.0f} times")
    if keep or with_page:
        _stay(page, stage)
    return 0


def _tide(page: Page, stage: Stage) -> None:
    page.line()
    page.step(f"a larger burst: {scenario.TIDE} workers more, for which there is not enough room")
    added = tide.rise(stage)
    plan, peak = stage.plan(), tide.counted(stage)
    page.step(f"Karpenter added {len(added)} nodes, and all run; now the burst is over, and its workers are idle")
    tide.fall(stage)
    page.step(f"warmnode evicted idle workers down to its floor of {scenario.FLOOR}; Karpenter looks every ten seconds")
    tide.ebb(stage, added)
    page.title("the burst and after it")
    shores = tide.compare_shores(plan, peak, tide.counted(stage), stage.nodes())
    page.shores(shores)
    if broken := tide.broken_shores(shores):
        raise DemoFailed("warmnode did not empty the newest nodes first: " + "; ".join(broken))
    page.paragraph(tide.tide_in_words(shores))


def _stay(page: Page, stage: Stage) -> None:
    try:
        page.commands("It is still running. Try, in another terminal:", things_to_try(stage))
        page.title("Ctrl-C here ends and removes everything.")
        while True:  # not signal.pause(): a signal that the kernel gives to another thread would not end it
            time.sleep(POLL_SECONDS)
    except Interrupted:
        return  # that was asked for, and is no failure


def _show(page: Page, title: str, findings: Findings) -> None:
    page.title(title)
    page.placements(findings)
    if broken := broken_promises(findings):
        raise DemoFailed("warmnode did not fill the oldest nodes first: " + "; ".join(broken))


def _tell(text: str) -> None:
    print(f"scripts/demo: {text}", file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/demo",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--keep", action="store_true", help="leave it running, with commands to try, until Ctrl-C")
    parser.add_argument("--page", action="store_true", help="the same, and print the address of a page that shows it")
    return parser.parse_args()
