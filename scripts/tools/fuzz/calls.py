"""Calls to the claims listener of a real `warmnode serve`, as docs/openapi.json allows and as it forbids them.

Owns the cluster that it serves, in a fake API server, and what schemathesis is asked to do. Found is also what the log
has of a bug.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import tempfile
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from extender.policy.pools import POOL_LABEL
from extender.web.claims_api import COLLECTION
from extender.web.openapi import document
from scripts.tools.controlplane.client import Json
from scripts.tools.controlplane.objects import node
from scripts.tools.serving import Serve
from tests.fakes.apiserver import FakeApiServer
from tests.fakes.store import NODES, PODS, Store

POOLS = ("ducks", "geese")
NODES_OF_EACH, WORKERS_OF_EACH = 5, 100
NAMES = [f"{POOLS[0]}-{number}" for number in range(10)]

_NOT_ASKED = "ignored_auth"
"""Without TLS the listener asks nobody who they are, for only this machine reaches it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What is asked for: calls that are allowed (``positive``) or forbidden, in which phases, by which document."""

    name: str
    mode: str
    phases: str
    document: Json


def parts() -> list[Part]:
    """Give what is done, one after the other."""
    allowed = _narrowed(document())
    linked = deepcopy(allowed)
    for each in ("count", "atLeast"):  # a link is of one claim
        del linked["components"]["schemas"]["ClaimRequest"]["properties"][each]
    forbidden = _without_waiting(document())
    return [
        Part(name="allowed", mode="positive", phases="coverage,fuzzing", document=allowed),
        Part(name="linked", mode="positive", phases="stateful", document=linked),
        Part(name="forbidden", mode="negative", phases="coverage,fuzzing", document=forbidden),
    ]


def fuzz_calls(*, seconds: int, runs: int, seed: int) -> bool:
    """Call for so long in all, about, and so often each operation at most. True where nothing was found.

    ``seconds`` and ``seed`` 0, and ``runs`` below it: not limited, another one each time.
    """
    limits = {"max-time": max(1, seconds // 3) if seconds else 0, "max-examples": max(0, runs), "seed": seed}
    return asyncio.run(_fuzz([f"--{name}={value}" for name, value in limits.items() if value]))


async def _fuzz(limits: Sequence[str]) -> bool:
    with tempfile.TemporaryDirectory(prefix="warmnode-fuzz-") as name:
        folder = Path(name)
        async with FakeApiServer() as server:
            _fill(server.store)
            kubeconfig = server.write_kubeconfig(folder / "kubeconfig", namespace="default")
            serve = Serve(kubeconfig=kubeconfig, log=folder / "log", arguments=("--claims-listen", "127.0.0.1:0"))
            try:
                await asyncio.to_thread(serve.start)
                url = f"http://{_address(serve)}"
                is_good = True
                for part in parts():
                    is_good &= await _run(part, folder, url, limits)
                return is_good and _is_well(serve)
            finally:
                await asyncio.to_thread(serve.close)


def _address(serve: Serve) -> str:
    return next(str(line["address"]) for line in serve.lines("listening") if line["listener"] == "claims")


async def _run(part: Part, folder: Path, url: str, limits: Sequence[str]) -> bool:
    (folder / "openapi.json").write_text(json.dumps(part.document))
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", "openapi.json", "--url", url]
    command += ["--mode", part.mode, "--phases", part.phases, "--checks", "all", "--exclude-checks", _NOT_ASKED]
    command += ["--suppress-health-check", "all", "--generation-database", "none", *limits]
    command += ["--no-color", "--request-timeout", "60", "--warnings", "off"]
    child = await asyncio.create_subprocess_exec(*command, cwd=folder, stdout=PIPE, stderr=STDOUT)
    try:
        said = (await child.communicate())[0].decode(errors="replace")
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode == 0:
        cases = re.search(r"(\d+) generated", said)
        print(f"calls, {part.name}: {int(cases[1]) if cases else 0:,} calls, nothing found", flush=True)
        return True
    print(f"{said[-20_000:]}\ncalls, {part.name}: FOUND, see above", flush=True)
    return False


def _is_well(serve: Serve) -> bool:
    """It answers still, and its log has nothing of a bug."""
    lines = [json.loads(line) for line in serve.text().splitlines() if line.startswith("{")]
    bugs = [line for line in lines if line["level"] == "ERROR"]
    for line in bugs[:3]:
        print(f"calls: FOUND in the log: {json.dumps(line)}")
    return serve.is_ready() and not bugs


def _fill(store: Store) -> None:
    """Create idle workers, some on each node."""
    long_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    ready = {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": long_ago}]}
    for number in range(NODES_OF_EACH):
        made = node(f"node-{number}")
        made["status"] |= ready
        store.create(NODES, "", made)
    for pool in POOLS:
        for number in range(WORKERS_OF_EACH):
            metadata = {
                "name": f"{pool}-{number}",
                "labels": {POOL_LABEL: pool},
                "annotations": {"warmnode.dev/idle-since": long_ago},
            }
            status = {"phase": "Running", "podIP": "10.0.0.7", **ready}
            spec = {"nodeName": f"node-{number % NODES_OF_EACH}"}
            store.create(PODS, "default", {"metadata": metadata, "spec": spec, "status": status})


def _narrowed(whole: Json) -> Json:
    """Name what is there, and leave out what no document can tell: how long a pool's claims may last, what is in the
    future, that at least so many are no more than all, and that 3.0 is no number of workers.
    """
    narrow = _without_waiting(whole)
    values: Json = {"pool": POOLS, "namespace": ["default"], "name": NAMES}
    for item in narrow["paths"].values():
        for parameter in item["parameters"]:
            if parameter["name"] in values:
                parameter["schema"] = {"type": "string", "enum": list(values[parameter["name"]])}
    schemas = narrow["components"]["schemas"]
    for name in ("ClaimRequest", "RenewRequest"):
        schemas[name]["properties"]["ttl"] = {"enum": ["1m", "3599s", None]}
    schemas["ClaimRequest"]["properties"] |= {"count": {"enum": [1, 3, 100, None]}, "atLeast": {"enum": [1, None]}}
    schemas["IdleRequest"]["properties"]["idleSince"] = {
        "enum": ["2026-01-01T00:00:00Z", "2026-01-01T01:00:00.5+01:00"]
    }
    return narrow


def _without_waiting(whole: Json) -> Json:
    """Wait for some hundredths of a second at most: who waits for a minute calls once in a minute."""
    found = deepcopy(whole)
    (wait,) = (each for each in found["paths"][COLLECTION]["post"]["parameters"] if each["name"] == "wait")
    wait["schema"] = {"type": "string", "pattern": "^[0-9]{1,2}ms$"}
    return found
