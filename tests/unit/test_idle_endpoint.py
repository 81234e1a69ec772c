"""What a worker may say about its own pod, what becomes of it, and that nothing else is written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from extender.kube.api_client import KubeClient
from extender.kube.errors import Conflict, Unavailable
from extender.kube.mark_store import MarkStore
from extender.kube.objects import IDLE_SINCE, IDLE_SOURCE
from extender.policy.marks import parse_idle_mark
from extender.policy.pools import POOL_LABEL
from extender.telemetry import Metrics
from extender.web.callers import LOCAL, BoundPod, Caller, NotAuthenticated
from extender.web.idle_api import ATTEMPTS, BURST, CALLS_PER_SECOND, IdleApi, IdleOutcome
from extender.web.limits import RateLimit
from extender.web.refusals import Reason
from extender.web.requests import route
from extender.web.server import Address, Listener
from tests.builders import by_label, clock_of
from tests.documented import is_promised
from tests.fakes.apiserver import FakeApiServer
from tests.fakes.faults import Where, answer, reset
from tests.fakes.store import PODS

NOW = datetime(2026, 11, 1, 12, 0, 0, 250_000, tzinfo=UTC)
NOW_TEXT = "2026-11-01T12:00:00.250Z"
EARLIER = "2026-11-01T11:00:00.000Z"
WORKER = "/v1/pods/default/worker-1/idle"


class KnownTokens:
    """Callers by token; no token at all is the caller of a listener without authentication."""

    def __init__(self) -> None:
        self.callers: dict[str, Caller] = {}
        self.problem: Exception | None = None
        self.seen: list[web.BaseRequest] = []

    async def identify(self, request: web.BaseRequest) -> Caller:
        self.seen.append(request)
        if self.problem is not None:
            raise self.problem
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not token:
            return LOCAL
        if token not in self.callers:
            raise NotAuthenticated("the token is unknown", error="invalid_token")
        return self.callers[token]


class Scene:
    """An API server with one worker, the endpoint before it, and a way to call it."""

    def __init__(self, server: FakeApiServer, client: KubeClient) -> None:
        self.server = server
        self.tokens = KnownTokens()
        self.dry_run: set[str] = set()
        self.sourced: set[str] = set()
        self.ahead = timedelta(0)
        self.marks = MarkStore(client, by_label)
        self.metrics = Metrics()
        self.api = IdleApi(
            marks=self.marks,
            callers=self.tokens,
            is_dry_run=lambda pool: pool in self.dry_run,
            takes_marks=lambda pool: pool not in self.sourced,
            metrics=self.metrics,
            clock=clock_of(lambda: NOW, lambda: self.ahead),
            limit=RateLimit(per_second=CALLS_PER_SECOND, burst=BURST, timer=lambda: 0.0),
        )
        self.url = ""

    def worker(
        self, name: str = "worker-1", *, mark: str | None = None, note: str | None = None, pool: str | None = "ducks"
    ) -> str:
        """Create a worker that runs on a node; its UID."""
        marks = {IDLE_SINCE: mark, IDLE_SOURCE: note}
        annotations = {key: value for key, value in marks.items() if value is not None}
        labels = {} if pool is None else {POOL_LABEL: pool}
        tree = {
            "metadata": {"name": name, "annotations": annotations, "labels": labels},
            "spec": {"nodeName": "node-a"},
        }
        return str(self.server.store.create(PODS, "default", tree).tree["metadata"]["uid"])

    def token_of(self, uid: str | None, name: str = "worker-1", namespace: str = "default") -> dict[str, str]:
        """Headers with a token of a pod, None: of a service account without one."""
        pod = None if uid is None else BoundPod(namespace=namespace, name=name, uid=uid)
        self.tokens.callers["token"] = Caller(user=f"system:serviceaccount:{namespace}:duck", pod=pod)
        return {"Authorization": "Bearer token"}

    def meta(self, name: str = "worker-1") -> dict[str, Any]:
        """The pod's metadata as stored."""
        found: dict[str, Any] = self.server.store.get(PODS, ("default", name)).tree["metadata"]
        return found

    def mark(self) -> str | None:
        """The mark as stored."""
        mark: str | None = self.meta().get("annotations", {}).get(IDLE_SINCE)
        return mark

    def written(self) -> list[str]:
        """What was written to the API server, in order."""
        return [f"{each.method} {each.path}" for each in self.server.requests if each.method != "GET"]

    async def call(
        self, method: str, path: str = WORKER, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, Any], Mapping[str, str]]:
        """Call the endpoint: status, JSON, headers."""
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.url + path, data=body or None, headers=headers) as response,
        ):
            tree = json.loads(await response.read())
            is_promised(method, path, response.status, tree, response.headers)
            return response.status, tree, response.headers

    def counted(self, verb: str, outcome: str) -> float:
        """Read the metric."""
        labels = {"verb": verb, "outcome": str(outcome)}
        return self.metrics.registry.get_sample_value("warmnode_idle_requests_total", labels) or 0.0


async def until(condition: Callable[[], bool]) -> None:
    """Let others work until the condition holds, ten seconds at most."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)  # a condition of the tests: nobody tells when it holds


@pytest.fixture
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    for name in ("HTTP_PROXY", "ALL_PROXY", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    async with FakeApiServer() as server:
        client = await KubeClient.connect(kubeconfig=str(server.write_kubeconfig(tmp_path / "config")), user_agent="t")
        scene = Scene(server, client)
        handler = route({}, templates=scene.api.routes())
        listener = Listener(name="claims", address=Address("127.0.0.1", 0), handler=handler)
        await listener.start()
        scene.url = f"http://{listener.address}"
        try:
            yield scene
        finally:
            await listener.stop()
            await client.close()


async def test_a_bug_is_counted_and_answered_in_one_line(scene: Scene) -> None:
    """It is the one outcome to wake somebody for: an answer of 500 that is not counted shows nowhere."""
    headers = scene.token_of(scene.worker())
    scene.tokens.problem = ZeroDivisionError("an inside")
    status, body, _ = await scene.call("DELETE", headers=headers)
    assert (status, body["reason"]) == (500, "crashed")
    assert "an inside" not in body["detail"]
    assert scene.counted("delete", Reason.CRASHED) == 1


# --- PUT ---------------------------------------------------------------------------------------------------------


async def test_put_without_a_time_marks_the_pod_idle_since_now(scene: Scene) -> None:
    uid = scene.worker()
    status, body, _ = await scene.call("PUT", headers=scene.token_of(uid))
    assert status == 200
    assert body == {
        "namespace": "default",
        "name": "worker-1",
        "uid": uid,
        "resourceVersion": scene.meta()["resourceVersion"],
        "idleSince": NOW_TEXT,
        "terminating": False,
    }
    assert scene.mark() == NOW_TEXT
    assert scene.counted("put", IdleOutcome.MARKED) == 1


@pytest.mark.parametrize("seconds", [7, -7200])
async def test_put_at_a_replica_whose_clock_is_off_writes_nothing(scene: Scene, seconds: int) -> None:
    """It would be idle since any time. Another replica may know, so the same call again is right; DELETE works."""
    scene.worker(mark=EARLIER)
    scene.ahead = timedelta(seconds=seconds)
    for body in (b"", json.dumps({"idleSince": NOW_TEXT}).encode()):
        status, answer, _ = await scene.call("PUT", body=body)
        assert (status, answer["reason"]) == (503, "unavailable")
        assert "clock" in answer["detail"]
    assert scene.written() == []
    assert (await scene.call("DELETE"))[0] == 200
    assert scene.mark() is None


async def test_put_again_keeps_the_earlier_mark_and_writes_nothing(scene: Scene) -> None:
    """Idle since does not move because a worker says it twice."""
    scene.worker(mark=EARLIER)
    status, body, _ = await scene.call("PUT")
    assert (status, body["idleSince"], scene.mark()) == (200, EARLIER, EARLIER)
    assert scene.written() == []
    assert scene.counted("put", IdleOutcome.KEPT) == 1


@pytest.mark.parametrize("time", ["2026-11-01T10:30:00Z", "2026-11-01T12:30:00+02:00", "2026-11-01T10:30:00.0004Z"])
async def test_put_with_a_time_moves_the_mark_there(scene: Scene, time: str) -> None:
    scene.worker(mark=EARLIER)
    status, body, _ = await scene.call("PUT", body=json.dumps({"idleSince": time}).encode())
    assert (status, body["idleSince"]) == (200, "2026-11-01T10:30:00.000Z")
    assert scene.mark() == "2026-11-01T10:30:00.000Z"


@pytest.mark.parametrize("mark", ["yes", "", "2026-11-01T12:01:00Z"])
async def test_put_replaces_a_mark_that_means_busy(scene: Scene, mark: str) -> None:
    """Unparseable, or more than 30 s ahead: nobody would believe it, so it is no earlier mark."""
    scene.worker(mark=mark)
    assert (await scene.call("PUT"))[0] == 200
    assert scene.mark() == NOW_TEXT


async def test_put_takes_a_time_up_to_30_seconds_ahead(scene: Scene) -> None:
    """The worker's clock may be ahead of ours a little."""
    scene.worker()
    for ahead, expected in ((30, 200), (31, 400)):
        time = (NOW + timedelta(seconds=ahead)).isoformat()
        assert (await scene.call("PUT", body=json.dumps({"idleSince": time}).encode()))[0] == expected
    mark = parse_idle_mark(scene.mark())
    assert mark == NOW + timedelta(seconds=30)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"7",
        b"null",
        b'"2026-11-01T12:00:00Z"',
        b"\xff",
        b'{"idleSince": null}',
        b'{"idleSince": 1793534400}',
        b'{"idleSince": "now"}',
        b'{"idleSince": "2026-11-01T12:00:00"}',
        b'{"idle_since": "2026-11-01T12:00:00Z"}',
        b'{"idleSince": "2026-11-01T12:00:00Z", "more": 1}',
    ],
)
async def test_put_refuses_a_body_that_it_does_not_understand(scene: Scene, body: bytes) -> None:
    """A misspelt time must not become "now"."""
    scene.worker()
    status, problem, headers = await scene.call("PUT", body=body)
    assert (status, problem["reason"], headers["Content-Type"]) == (400, "badRequest", "application/problem+json")
    assert scene.mark() is None


async def test_a_body_beyond_a_kilobyte_is_refused(scene: Scene) -> None:
    scene.worker()
    status, problem, _ = await scene.call("PUT", body=b" " * 1025)
    assert (status, problem["reason"]) == (413, "badRequest")
    assert scene.mark() is None


@pytest.mark.parametrize("body", [b"", b"{}", b" \n"])
async def test_put_takes_an_empty_body_as_no_time(scene: Scene, body: bytes) -> None:
    scene.worker()
    assert (await scene.call("PUT", body=body))[1]["idleSince"] == NOW_TEXT


async def test_put_on_a_terminating_pod_says_so(scene: Scene) -> None:
    scene.worker()
    scene.server.store.delete(PODS, ("default", "worker-1"), {})
    status, body, _ = await scene.call("PUT")
    assert (status, body["terminating"]) == (200, True)


async def test_put_of_a_caller_who_hung_up_writes_nothing(scene: Scene) -> None:
    """It may be at work already: the mark would come after a DELETE that another replica answered."""
    scene.worker()
    reading, go_on = asyncio.Event(), asyncio.Event()

    async def held(request: web.Request) -> None:
        reading.set()
        await go_on.wait()

    scene.server.fail(Where.LIST, held)
    call = asyncio.create_task(scene.call("PUT"))
    await reading.wait()
    call.cancel()
    await until(lambda: scene.tokens.seen[-1].transport is None)
    go_on.set()
    await until(lambda: scene.counted("put", Reason.CALLER_GONE) == 1)
    assert scene.written() == []


# --- DELETE ------------------------------------------------------------------------------------------------------


async def test_delete_removes_the_mark_and_nothing_else(scene: Scene) -> None:
    uid = scene.worker(mark=EARLIER)
    scene.server.store.patch(PODS, ("default", "worker-1"), {"metadata": {"annotations": {"other": "stays"}}})
    before = scene.meta()["resourceVersion"]
    status, body, _ = await scene.call("DELETE", headers=scene.token_of(uid))
    assert (status, body["idleSince"], body["terminating"]) == (200, None, False)
    assert scene.meta()["annotations"] == {"other": "stays"}
    assert body["resourceVersion"] == scene.meta()["resourceVersion"] != before
    assert len(scene.written()) == 1
    assert scene.counted("delete", IdleOutcome.REMOVED) == 1


@pytest.mark.parametrize("mark", [None, "yes"])
async def test_delete_without_a_mark_moves_the_version_all_the_same(scene: Scene, mark: str | None) -> None:
    """A PUT that was given up may still be on its way to the store: it must fail there."""
    scene.worker(mark=mark)
    on_its_way = await scene.marks.read("default", "worker-1")
    status, body, _ = await scene.call("DELETE")
    assert (status, body["idleSince"]) == (200, None)
    assert scene.mark() is None
    with pytest.raises(Conflict):
        await scene.marks.write(on_its_way, NOW)


async def test_a_removal_that_comes_late_takes_the_mark_that_a_put_kept(scene: Scene) -> None:
    """Nothing was written for the PUT, so nothing stops it: that is why a worker says PUT once more a while later."""
    scene.worker(mark=EARLIER)
    on_its_way = await scene.marks.read("default", "worker-1")
    assert (await scene.call("PUT"))[0] == 200
    await scene.marks.remove(on_its_way)
    assert scene.mark() is None
    assert (await scene.call("PUT"))[0] == 200
    assert scene.mark() is not None


async def test_delete_on_a_terminating_pod_is_refused_and_the_mark_removed(scene: Scene) -> None:
    """Whoever looks at the status alone refuses the work, as it must."""
    uid = scene.worker(mark=EARLIER)
    scene.server.store.delete(PODS, ("default", "worker-1"), {})
    status, problem, headers = await scene.call("DELETE")
    assert (status, headers["Content-Type"]) == (409, "application/problem+json")
    assert (problem["reason"], problem["terminating"], problem["uid"]) == ("terminating", True, uid)
    assert (problem["idleSince"], scene.mark()) == (None, None)
    assert "refuse the work" in problem["detail"]
    assert scene.counted("delete", Reason.TERMINATING) == 1


async def test_delete_does_not_read_its_body(scene: Scene) -> None:
    scene.worker(mark=EARLIER)
    assert (await scene.call("DELETE", body=b"whatever"))[0] == 200


# --- the API server ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_a_pod_that_changed_is_read_again(scene: Scene, method: str) -> None:
    """Status updates of the kubelet are no reason to refuse a worker."""
    scene.worker(mark=EARLIER if method == "DELETE" else None)
    scene.server.fail(Where.WRITE, answer(409, "Conflict"), answer(409, "Conflict"))
    assert (await scene.call(method))[0] == 200
    assert scene.mark() == (None if method == "DELETE" else NOW_TEXT)


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_a_pod_that_changes_all_the_time_is_given_up(scene: Scene, method: str) -> None:
    scene.worker(mark=EARLIER if method == "DELETE" else None)
    scene.server.fail(Where.WRITE, *(answer(409, "Conflict") for _ in range(ATTEMPTS)))
    status, problem, headers = await scene.call(method)
    assert (status, problem["reason"], headers["Retry-After"]) == (503, "changing", "1")


@pytest.mark.parametrize("where", [Where.LIST, Where.WRITE])
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_an_api_server_without_an_answer_is_never_taken_for_a_success(
    scene: Scene, method: str, where: Where
) -> None:
    scene.worker(mark=EARLIER if method == "DELETE" else None)
    scene.server.fail(where, reset(), reset())  # aiohttp itself repeats a GET once
    status, problem, headers = await scene.call(method)
    assert (status, problem["reason"], headers["Retry-After"]) == (503, "unavailable", "1")


async def test_retry_after_is_the_api_servers_own_where_it_says_one(scene: Scene) -> None:
    scene.worker()
    scene.server.fail(Where.WRITE, answer(429, "TooManyRequests", headers={"Retry-After": "7"}))
    assert (await scene.call("PUT"))[2]["Retry-After"] == "7"


async def test_a_lack_of_our_own_permissions_names_them(scene: Scene) -> None:
    scene.worker()
    scene.server.fail(Where.WRITE, answer(403, "Forbidden"))
    status, problem, _ = await scene.call("PUT")
    assert status == 503
    assert "get and patch pods" in problem["detail"]


async def test_a_worker_that_calls_too_often_is_429_and_others_are_not(scene: Scene) -> None:
    """By pod: workers of one service account do not take each other's calls."""
    mine = scene.token_of(scene.worker())
    answers = [await scene.call("PUT", headers=mine) for _ in range(BURST + 1)]
    assert [status for status, _, _ in answers] == [200] * BURST + [429]
    assert (answers[-1][1]["reason"], answers[-1][2]["Retry-After"]) == ("rateLimited", "1")
    assert scene.counted("put", Reason.RATE_LIMITED) == 1
    theirs = scene.token_of(scene.worker("worker-2"), "worker-2")
    assert (await scene.call("PUT", "/v1/pods/default/worker-2/idle", headers=theirs))[0] == 200
    nobodys = scene.token_of(None)
    assert (await scene.call("PUT", headers=nobodys))[1]["reason"] == "noPodInToken"


async def test_no_review_is_no_refusal_of_the_token(scene: Scene) -> None:
    """503, not 401: the token may be good."""
    uid = scene.worker()
    scene.tokens.problem = Unavailable(0, "Connection", "no answer")
    assert (await scene.call("PUT", headers=scene.token_of(uid)))[0] == 503


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_a_pod_that_does_not_exist_is_not_found(scene: Scene, method: str) -> None:
    status, problem, _ = await scene.call(method)
    assert (status, problem["reason"]) == (404, "notFound")


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_a_pod_of_no_pool_is_never_written(scene: Scene, method: str) -> None:
    scene.worker(pool=None, mark=EARLIER)
    status, problem, _ = await scene.call(method)
    assert (status, problem["reason"]) == (404, "noWorker")
    assert "warmnode.dev/pool" in problem["detail"]
    assert scene.written() == []


# --- dry-run -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [None, EARLIER])
async def test_no_mark_is_written_in_dry_run(scene: Scene, mark: str | None) -> None:
    scene.worker(mark=mark)
    scene.dry_run = {"ducks"}
    status, problem, _ = await scene.call("PUT")
    assert (status, problem["reason"]) == (409, "dryRun")
    assert (scene.written(), scene.mark()) == ([], mark)


async def test_mark_where_it_is_no_source_is_refused_and_written_nowhere(scene: Scene) -> None:
    """A worker whose word does not count is told so; it can always say busy."""
    scene.worker()
    scene.sourced = {"ducks"}
    status, problem, _ = await scene.call("PUT")
    assert (status, problem["reason"]) == (409, "noSource")
    assert scene.written() == []
    assert (await scene.call("DELETE"))[0] == 200


async def test_what_was_noted_for_sources_goes_with_the_mark(scene: Scene) -> None:
    """Warmnode's note belongs to the mark beside it: whoever writes or removes that begins anew."""
    scene.worker(mark=EARLIER, note=f"marked {EARLIER}")
    assert (await scene.call("PUT"))[0] == 200
    assert scene.meta()["annotations"] == {IDLE_SINCE: NOW_TEXT}
    scene.worker("worker-2", mark=EARLIER, note=f"confirmed {EARLIER}")
    assert (await scene.call("DELETE", WORKER.replace("worker-1", "worker-2")))[0] == 200
    assert scene.meta("worker-2")["annotations"] == {}


async def test_mark_from_before_dry_run_is_removed(scene: Scene) -> None:
    """Refusing it would make a worker refuse work: dry-run must not harm anybody."""
    scene.worker(mark=EARLIER)
    scene.dry_run = {"ducks"}
    status, body, _ = await scene.call("DELETE")
    assert (status, body["idleSince"], scene.mark()) == (200, None, None)


async def test_delete_in_dry_run_without_a_mark_is_done_already(scene: Scene) -> None:
    """So a worker that accepts work after a 200 only goes on working in a pool that was never out of dry-run."""
    scene.worker()
    scene.dry_run = {"ducks"}
    status, body, _ = await scene.call("DELETE")
    assert (status, body["idleSince"], scene.written()) == (200, None, [])


async def test_dry_run_of_another_pool_changes_nothing(scene: Scene) -> None:
    scene.worker()
    scene.dry_run = {"geese"}
    assert (await scene.call("PUT"))[0] == 200


# --- who may ------------------------------------------------------------------------------------------------------


async def test_a_caller_without_a_valid_token_is_challenged(scene: Scene) -> None:
    scene.worker()
    status, problem, headers = await scene.call("PUT", headers={"Authorization": "Bearer stolen"})
    assert (status, problem["reason"]) == (401, "notAuthenticated")
    assert headers["WWW-Authenticate"] == 'Bearer realm="warmnode", error="invalid_token"'
    assert scene.server.requests == []


@pytest.mark.parametrize(("name", "namespace"), [("worker-2", "default"), ("worker-1", "elsewhere")])
async def test_a_worker_does_not_learn_of_other_pods(scene: Scene, name: str, namespace: str) -> None:
    """403 before anything is read: whether the other pod exists is not told."""
    uid = scene.worker()
    status, problem, _ = await scene.call("PUT", headers=scene.token_of(uid, name=name, namespace=namespace))
    assert (status, problem["reason"]) == (403, "notYourPod")
    assert scene.server.requests == []


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_a_token_of_an_earlier_pod_of_that_name_is_refused(scene: Scene, method: str) -> None:
    """Names come back, with a StatefulSet at once; UIDs do not."""
    scene.worker(mark=EARLIER)
    status, problem, _ = await scene.call(method, headers=scene.token_of("uid-of-the-earlier-one"))
    assert (status, problem["reason"]) == (403, "notYourPod")
    assert (scene.written(), scene.mark()) == ([], EARLIER)


async def test_a_token_without_a_pod_is_refused_with_the_remedy(scene: Scene) -> None:
    scene.worker()
    status, problem, _ = await scene.call("PUT", headers=scene.token_of(None))
    assert (status, problem["reason"]) == (403, "noPodInToken")
    assert "projected volume" in problem["detail"]
    assert scene.written() == []


@pytest.mark.parametrize("name", ["..", "a%3Fb", "a%2Fb", "A", "a%20b", "-a", "%00", "a" * 254])
async def test_a_name_that_is_none_never_reaches_the_api_server(scene: Scene, name: str) -> None:
    """It would stand in a path there."""
    async with aiohttp.ClientSession() as session:
        url = URL(f"{scene.url}/v1/pods/default/{name}/idle", encoded=True)
        async with session.put(url) as response:
            assert response.status in (400, 404)
    assert scene.server.requests == []
