"""The claim API against a real API server: replicas as processes, crowds, kills, and callers that RBAC judges."""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trustme
import yaml
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from extender.client import ClaimLost, Client, NothingIdle, Refused
from extender.kube.objects import CLAIM, CLAIMED_BY
from extender.policy.idleness import CLAIM_GRACE
from scripts.tools.controlplane import ControlPlane, Json
from scripts.tools.controlplane.building import find_or_build
from scripts.tools.controlplane.fixtures import RequireBinaries
from scripts.tools.proxy import Proxy, Seen
from scripts.tools.proxy import Refusal as ProxyRefusal
from scripts.tools.serving import Serve
from tests.integration.ground import POOL, Ground
from tests.integration.reapers import Reapers, reaping

pytestmark = pytest.mark.controlplane

CLAIMS = f"/v1/pools/{POOL}/claims"
WANTED = f"/v1/pools/{POOL}/wanted"
STRATEGIC = "application/strategic-merge-patch+json"
LISTEN = ("--claims-listen", "127.0.0.1:0")


@dataclass(frozen=True)
class Replica:
    """One `warmnode serve` with a claims listener on loopback."""

    serve: Serve
    port: int

    @property
    def client(self) -> Client:
        return Client(f"http://127.0.0.1:{self.port}", patience=10)

    def call(self, method: str, path: str = CLAIMS, body: Json | None = None) -> tuple[int, Any]:
        """Call once: status and JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            content = response.read()
            return response.status, json.loads(content) if content else None
        finally:
            connection.close()

    def claim(self, claimant: str, ttl: str = "60s", *, retry: bool = False) -> tuple[int, Any]:
        return self.call("POST", body={"claimant": claimant, "ttl": ttl, "retry": retry})


def replica_of(serve: Serve) -> Replica:
    port = next(
        int(line["address"].rpartition(":")[2]) for line in serve.lines("listening") if line["listener"] == "claims"
    )
    return Replica(serve, port)


def start_replica(ground: Ground, kubeconfig: Path | None = None) -> Replica:
    return replica_of(ground.serve(*LISTEN, kubeconfig=kubeconfig, own_port=True))


@pytest.fixture
def workers(ground: Ground, tmp_path: Path) -> Iterator[Reapers]:
    with reaping(ground, tmp_path) as made:
        yield made


def aged_nodes(ground: Ground, count: int) -> list[str]:
    """Nodes whose first-seen times are an hour apart, oldest first."""
    names = ground.nodes(count, cpu="32", wait=False)
    ground.write_ledger({name: 60 * (count - position) for position, name in enumerate(names)})
    return names


def claims_on(ground: Ground) -> dict[str, Json]:
    """The claims as they stand on the pods, by pod."""
    return {
        name: json.loads(pod["metadata"]["annotations"][CLAIM])
        for name, pod in ground.pods().items()
        if CLAIM in pod["metadata"].get("annotations", {})
    }


@contextmanager
def changing_status(ground: Ground, names: Sequence[str]) -> Iterator[None]:
    """Write the status of one pod after the other, all the while, as kubelets of a large cluster do."""
    ended = threading.Event()
    written = Counter[str]()

    def write(own: Sequence[str]) -> None:
        random = Random(7)  # noqa: S311 - which pod comes next
        while not ended.is_set():
            name = random.choice(own)
            written[name] += 1
            condition = {"type": "Load", "status": "True", "message": str(written[name])}
            path = f"/api/v1/namespaces/{ground.namespace}/pods/{name}/status"
            patch = {"status": {"conditions": [condition]}}
            ground.control_plane.api_client.request("PATCH", path, patch, content_type=STRATEGIC)

    with ThreadPoolExecutor(2) as threads:
        writers = [threads.submit(write, list(names)[half::2]) for half in (0, 1)]
        try:
            yield
        finally:
            ended.set()
        for writer in writers:
            writer.result()
    assert sum(written.values()) > 20, "the status did change meanwhile"


def test_fifty_claimants_at_three_replicas_get_thirty_workers_once_each(ground: Ground, workers: Reapers) -> None:
    """Exactly as many as there are, while the pods change all the time; the rest is 404. Whoever asks again, at another
    replica, has its own. (Which nodes are taken when replicas take workers from each other: test_claim_spread.)
    """
    nodes = aged_nodes(ground, 6)
    where = {f"w{number}": nodes[number // 5] for number in range(30)}
    replicas = [start_replica(ground) for _ in range(3)]
    workers.run_workers(where)
    names = [f"query-{number}" for number in range(50)]

    with changing_status(ground, list(where)), ThreadPoolExecutor(50) as crowd:
        few = list(crowd.map(lambda number: replicas[number % 3].claim(f"early-{number}"), range(15)))
        assert {status for status, _ in few} == {201}
        freed = crowd.map(lambda each: replicas[0].call("DELETE", f"{CLAIMS}/{each[1]['id']}")[0], few)
        assert set(freed) == {204}
        ground.wait(lambda: claims_on(ground) == {}, "all to be free")

        answers = dict(zip(names, crowd.map(lambda name: replicas[int(name[6:]) % 3].claim(name), names), strict=True))
        granted = {name: body for name, (status, body) in answers.items() if status == 201}
        refused = {name: body for name, (status, body) in answers.items() if status != 201}
        assert len(granted) == 30, Counter(status for status, _ in answers.values())
        assert {body["pod"] for body in granted.values()} == set(where)
        assert {body["reason"] for body in refused.values()} == {"noneIdle"}
        assert {name: body["claimant"] for name, body in ((b["pod"], b) for b in granted.values())} == {
            pod: claim["claimant"] for pod, claim in claims_on(ground).items()
        }

        again = dict(
            zip(granted, crowd.map(lambda name: replicas[(int(name[6:]) + 1) % 3].claim(name), granted), strict=True)
        )
    assert {status for status, _ in again.values()} == {200}
    assert {name: body["id"] for name, (_, body) in again.items()} == {n: b["id"] for n, b in granted.items()}


def test_claims_go_by_node_age_and_what_a_worker_did_last(ground: Ground, workers: Reapers) -> None:
    """One after the other: oldest node first, on it the one that is idle longest, not one that was just released."""
    nodes = aged_nodes(ground, 3)
    where = {"old-a": nodes[0], "old-b": nodes[0], "mid": nodes[1], "cordoned": nodes[2]}
    workers.run_workers(where)
    workers.mark_idle("old-a", since="2026-02-01T00:00:00Z")
    ground.patch_node(nodes[2], {"spec": {"unschedulable": True}})
    replica = start_replica(ground)
    client = replica.client
    first = client.claim(POOL, "q1")
    assert (first.pod, first.node) == ("old-b", nodes[0]), "idle since January"
    assert first.first_seen is not None
    assert first.ip == ground.pod("old-b")["status"]["podIP"]
    client.release(first)
    ground.wait(lambda: replica.call("GET")[1] == {"claims": []}, "the release to be seen")
    assert [client.claim(POOL, f"q{number}").pod for number in range(3)] == ["old-a", "old-b", "mid"]
    with pytest.raises(NothingIdle) as nothing:
        client.claim(POOL, "q9")
    assert nothing.value.workers == {"busy": 0, "claimed": 3, "leavingNode": 1}
    assert [claim.pod for claim in client.claims(POOL)] == ["mid", "old-a", "old-b"]


@pytest.mark.parametrize("reached", [True, False])
def test_a_replica_that_is_killed_in_mid_claim_leaves_all_or_nothing(
    ground: Ground, workers: Reapers, tmp_path: Path, reached: bool
) -> None:
    """The write was done, or was not. Either way the claimant asks again, elsewhere, says so, and has one worker;
    and what it does not come back for is free when the claim has run out.
    """
    (node,) = aged_nodes(ground, 1)
    workers.run_workers({"w0": node, "w1": node})
    other = start_replica(ground)
    with Proxy(ground.control_plane) as proxy:
        doomed = start_replica(ground, proxy.kubeconfig(tmp_path / "proxied"))

        def kill(seen: Seen) -> ProxyRefusal | None:
            if seen.method != "PATCH" or "/pods/" not in seen.path:
                return None
            doomed.serve.kill()
            return None if reached else ProxyRefusal(status=500)

        proxy.hook = kill
        with pytest.raises((OSError, http.client.HTTPException)):
            doomed.claim("query-1", ttl="2s")
        if reached:
            ground.wait(lambda: len(claims_on(ground)) == 1, "the write to be done")
        left = claims_on(ground)
        assert len(left) == reached
    status, body = other.claim("query-1", ttl="2s", retry=True)
    if reached:
        assert (status, {body["pod"]}) == (200, set(left))
    else:
        assert status == 201
    others = [other.claim("query-2", ttl="30s"), other.claim("query-3")]
    assert [status for status, _ in others] == [201, 404]
    assert others[0][1]["pod"] != body["pod"]
    taken = ground.wait(lambda: (got := other.claim("query-3"))[0] == 201 and got[1], "the first claim to run out")
    assert taken["pod"] == body["pod"]
    assert datetime.now(UTC) >= datetime.fromisoformat(body["expires"]) + CLAIM_GRACE


def test_a_claim_that_ran_out_is_tidied_away(ground: Ground, workers: Reapers) -> None:
    """Some seconds later nothing of it is left on the pod, but when it ended; and do-not-disrupt does not stay."""
    (node,) = aged_nodes(ground, 1)
    workers.run_workers({"w0": node})
    config = json.dumps(
        {
            "apiVersion": "warmnode.dev/v1alpha1",
            "kind": "Configuration",
            "pools": [{"name": POOL, "namespaces": [ground.namespace], "claims": {"doNotDisrupt": True}}],
        }
    )
    replica = replica_of(ground.serve(*LISTEN, own_port=True, config=config))
    status, body = replica.claim("query-1", ttl="1s")
    assert status == 201
    assert ground.pod("w0")["metadata"]["annotations"]["karpenter.sh/do-not-disrupt"] == "true"
    meta = ground.wait(lambda: CLAIM not in (m := ground.pod("w0")["metadata"])["annotations"] and m, "tidied")
    assert "karpenter.sh/do-not-disrupt" not in meta["annotations"]
    assert CLAIMED_BY not in meta["labels"]
    assert meta["annotations"]["warmnode.dev/claim-ended"] == body["expires"]


def test_who_waits_gets_the_next_idle_worker_and_is_told_when_the_replica_ends(
    ground: Ground, workers: Reapers
) -> None:
    """The one that waits longest gets it; the other one, that nothing was claimed, and may ask elsewhere at once."""
    (node,) = aged_nodes(ground, 1)
    replica = start_replica(ground)

    def wait(claimant: str) -> tuple[int, Any]:
        return replica.call("POST", f"{CLAIMS}?wait=60s", {"claimant": claimant})

    with ThreadPoolExecutor(2) as threads:
        calls = []
        for number in range(2):
            calls.append(threads.submit(wait, f"q{number}"))
            ground.wait(lambda: replica.serve.metric("warmnode_claims_waiting", pool=POOL) == len(calls), "one to wait")
        workers.run_workers({"w0": node})
        status, body = calls[0].result(30)
        assert (status, body["pod"]) == (201, "w0")
        assert replica.serve.metric("warmnode_claims_waiting", pool=POOL) == 1
        assert replica.serve.stop() == 0
        status, body = calls[1].result(30)
        assert (status, body["reason"]) == (503, "stopping")


# -- who may ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Guarded:
    """A replica over TLS, and accounts in the test's namespace."""

    ground: Ground
    replica: Replica
    ca_file: Path

    def token(self, account: str, audiences: Sequence[str] = ("warmnode",)) -> str:
        """Ask for a token of a service account, which is made where it is not there."""
        accounts = f"/api/v1/namespaces/{self.ground.namespace}/serviceaccounts"
        api = self.ground.control_plane
        if api.api_client.get_or_none(f"{accounts}/{account}") is None:
            api.api("POST", accounts, {"metadata": {"name": account}})
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": list(audiences)},
        }
        return str(api.api("POST", f"{accounts}/{account}/token", request)["status"]["token"])

    def call(
        self,
        method: str = "POST",
        path: str = CLAIMS,
        *,
        token: str | None = None,
        certificate: tuple[Path, Path] | None = None,
        claimant: str = "q",
    ) -> tuple[int, Any]:
        context = ssl.create_default_context(cafile=str(self.ca_file))
        if certificate is not None:
            context.load_cert_chain(*certificate)
        connection = http.client.HTTPSConnection("127.0.0.1", self.replica.port, timeout=15, context=context)
        try:
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            connection.request(method, path, json.dumps({"claimant": claimant}) if method == "POST" else None, headers)
            response = connection.getresponse()
            content = response.read()
            return response.status, json.loads(content) if content else None
        finally:
            connection.close()


def documented(name: str) -> str:
    """Give a block of docs/claims.md, as it is written there."""
    page = (Path(__file__).parents[2] / "docs" / "claims.md").read_text()
    return page.split(f"<!-- run: {name} -->\n", 1)[1].split("\n", 1)[1].split("```", 1)[0]


def grant(control_plane: ControlPlane, namespace: str, subjects: Sequence[Mapping[str, str]]) -> None:
    """Apply the role of docs/claims.md, bound to these."""
    role, binding = yaml.safe_load_all(documented("role"))
    assert role["kind"] == "Role"
    for item in (role, {**binding, "subjects": list(subjects)}):
        item["metadata"]["namespace"] = namespace
        control_plane.apply(item)


@pytest.fixture
def guarded(ground: Ground, workers: Reapers, tmp_path: Path) -> Guarded:
    (node,) = aged_nodes(ground, 1)
    workers.run_workers({"duck-7": node, "w1": node, "w2": node})
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "tls.crt")
    certificate.private_key_pem.write_to_path(tmp_path / "tls.key")
    config = json.dumps(
        {
            "apiVersion": "warmnode.dev/v1alpha1",
            "kind": "Configuration",
            "pools": [{"name": POOL, "namespaces": [ground.namespace]}],
        }
    )
    serve = ground.serve(
        *LISTEN,
        *("--tls-cert-file", str(tmp_path / "tls.crt"), "--tls-private-key-file", str(tmp_path / "tls.key")),
        *("--client-ca-file", str(ground.control_plane.ca_file)),
        own_port=True,
        config=config,
    )
    return Guarded(ground, replica_of(serve), tmp_path / "ca.crt")


def expired(token: str, signing_key: Path) -> str:
    """The same token, issued an hour ago and over, with a good signature of the API server's own key."""
    head, payload, _ = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    now = int(time.time())
    claims |= {"iat": now - 3600, "nbf": now - 3600, "exp": now - 600}
    body = f"{head}.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}"
    key = load_pem_private_key(signing_key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    r, s = decode_dss_signature(key.sign(body.encode(), ec.ECDSA(hashes.SHA256())))
    signature = base64.urlsafe_b64encode(r.to_bytes(32, "big") + s.to_bytes(32, "big")).decode().rstrip("=")
    return f"{body}.{signature}"


def test_only_whom_rbac_allows_may_claim(guarded: Guarded) -> None:
    """With a token of the right audience, or with a certificate; each for its own claims."""
    ground = guarded.ground
    control_plane = ground.control_plane
    account = {"kind": "ServiceAccount", "name": "front", "namespace": ground.namespace}
    user = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": f"leads-{ground.namespace}"}
    grant(control_plane, ground.namespace, [account, user])

    token = guarded.token("front")
    (key,) = control_plane.directory.rglob("service-accounts.key")
    for nobody in (None, "nonsense", guarded.token("front", ("vault",)), expired(token, key)):
        status, body = guarded.call(token=nobody)
        assert (status, body["reason"]) == (401, "notAuthenticated")
    status, body = guarded.call(token=guarded.token("stranger"))
    assert (status, body["reason"]) == (403, "forbidden")
    assert f"system:serviceaccount:{ground.namespace}:stranger may not create claims.warmnode.dev" in body["detail"]
    assert guarded.call(path="/v1/pools/other/claims", token=token)[1]["reason"] == "forbidden"
    assert claims_on(ground) == {}

    status, held = guarded.call(token=token)
    assert status == 201, held
    assert guarded.call(token=token)[0] == 200

    allowed, other = (
        certificate_of(control_plane.kubeconfig_for(name, groups))
        for name, groups in (("lead", [f"leads-{ground.namespace}"]), ("other", []))
    )
    status, theirs = guarded.call(certificate=allowed)
    assert status == 201, theirs
    assert theirs["pod"] != held["pod"], "the same claimant name of another user is another claimant"
    assert guarded.call(certificate=other)[1]["reason"] == "forbidden"
    assert guarded.call("DELETE", f"{CLAIMS}/{held['id']}", certificate=allowed)[1]["reason"] == "noClaim"
    assert guarded.call("GET", certificate=allowed)[1] == {"claims": [theirs]}
    assert guarded.call("DELETE", f"{CLAIMS}/{held['id']}", token=token)[0] == 204


def certificate_of(kubeconfig: Path) -> tuple[Path, Path]:
    user = yaml.safe_load(kubeconfig.read_text())["users"][0]["user"]
    return Path(user["client-certificate"]), Path(user["client-key"])


def test_the_client_works_over_tls(guarded: Guarded, tmp_path: Path) -> None:
    """`extender.client` with a token file, against TLS: claim, hold with renewals, lose, release."""
    ground = guarded.ground
    account = {"kind": "ServiceAccount", "name": "front", "namespace": ground.namespace}
    grant(ground.control_plane, ground.namespace, [account])
    token = tmp_path / "token"
    token.write_text(guarded.token("front"))
    client = Client(f"https://127.0.0.1:{guarded.replica.port}", token_file=token, ca_file=guarded.ca_file)
    with client.hold(POOL, "query-1", ttl="1s") as held:
        first = claims_on(ground)[held.pod]
        ground.wait(lambda: claims_on(ground)[held.pod]["renewals"] > first["renewals"] + 1, "renewals")
        assert [claim.id for claim in client.claims(POOL)] == [held.id]
    assert claims_on(ground) == {}
    with pytest.raises(ClaimLost):
        client.renew(held)
    client.release(held)
    with pytest.raises(Refused, match="maxTtl"):
        client.claim(POOL, "query-2", ttl="2h")


def test_the_commands_of_the_page_work_as_written(
    guarded: Guarded, tmp_path: Path, require_binaries: RequireBinaries
) -> None:
    """With kubectl and curl: claim, renew, list and release; take a worker away from whoever holds it; and make the
    one that is missing when all are claimed."""
    ground = guarded.ground
    account = {"kind": "ServiceAccount", "name": "front", "namespace": ground.namespace}
    grant(ground.control_plane, ground.namespace, [account])
    guarded.token("front")
    require_binaries(["kubectl"])
    folder = find_or_build(["kubectl"], os.environ, lambda line: None)["kubectl"].parent
    config = yaml.safe_load(ground.control_plane.kubeconfig.read_text())
    config["contexts"][0]["context"]["namespace"] = ground.namespace
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(config))
    environment = {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "KUBECONFIG": str(kubeconfig),
        "WARMNODE_URL": f"https://127.0.0.1:{guarded.replica.port}",
        "WARMNODE_CA_FILE": str(guarded.ca_file),
    }

    def run(commands: str) -> str:
        shell = ["bash", "-euo", "pipefail", "-c", commands]
        done = subprocess.run(
            shell, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    shown = run(documented("curl"))
    renewed, listed = (json.loads(line) for line in shown.replace("}{", "}\n{").splitlines())
    assert listed == {"claims": [renewed]}
    assert renewed["claimant"] == "query-42"
    assert claims_on(ground) == {}
    token = guarded.token("front")
    while (held := guarded.call(token=token, claimant=f"q{len(claims_on(ground))}")[1])["pod"] != "duck-7":
        assert len(claims_on(ground)) < 3
    shown = run(documented("takeAway"))
    assert f'"id":"{held["id"]}"' in shown
    assert "duck-7" not in claims_on(ground)
    assert CLAIMED_BY not in ground.pod("duck-7")["metadata"]["labels"]
    duck = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "made-",
            "labels": {"warmnode.dev/pool": "ducks"},
            # a worker that is Ready and has not marked itself yet is busy, so one more would be wanted
            "annotations": {"pod-ready.stage.kwok.x-k8s.io/delay": "1h"},
        },
        "spec": {"containers": [{"name": "duck", "image": "duck"}]},
    }
    (tmp_path / "duck.yaml").write_text(yaml.safe_dump(duck))
    while guarded.call(token=token, claimant=f"q{len(claims_on(ground))}")[0] != 404:
        assert len(claims_on(ground)) <= 3
    said = ground.wait(lambda: (w := guarded.call("GET", WANTED, token=token)[1])["claimed"] == 3 and w, "3 claimed")
    assert said == {"pool": POOL, "wanted": 4, "busy": 0, "claimed": 3, "waiting": 0, "spare": 1}
    made = [run("\n".join([*documented("curl").splitlines()[:2], documented("makeWorkers")])) for _ in range(2)]
    assert [each.count("created") for each in made] == [1, 0]
