"""The history listener: the last decisions of this process, for `warmnode explain`.

It names pods, nodes and who claimed what, and asks nobody who he is: so it is on loopback, and who may port-forward to
the pod may read it.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import msgspec
from aiohttp import web

from extender.cluster.history import DecisionHistory
from extender.cluster.shadow import ShadowScore
from extender.policy.decisions import decode_decision, is_about_node, is_about_pod
from extender.web.requests import Handler, json_response, problem, route

HISTORY_PORT = 9889
DECISIONS_PATH = "/decisions"
SHADOW_PATH = "/shadow"
LINES_BETWEEN_YIELDS = 100
"""Reading so many takes two milliseconds, and a scheduler may be waiting for an answer."""


def history_handler(history: DecisionHistory, shadow: ShadowScore | None = None) -> Handler:
    """Make the handler of ``GET /shadow``, which counts the pools in the shadow, and of
    ``GET /decisions?pod=NAMESPACE/NAME|node=NAME&last=N``: one decision a line, oldest first.

    The header ``Warmnode-Oldest`` says of when the oldest one is that is still known, whatever is asked for.
    """

    async def show(request: web.BaseRequest) -> web.StreamResponse:
        namespace, _, pod = request.query.get("pod", "").rpartition("/")
        node, last = request.query.get("node", ""), request.query.get("last", "")
        if last and not (last.isascii() and last.isdigit()):
            return problem(HTTPStatus.BAD_REQUEST, f"last is a number of decisions (got {last[:20]!r})")
        oldest = next(history.lines(), None)
        headers = {"Warmnode-Oldest": f"{decode_decision(oldest).at:%Y-%m-%dT%H:%M:%SZ}"} if oldest else {}
        most = int(last[:9]) if last else len(history)
        found: list[bytes] = []
        for number, line in enumerate(history.lines(pod or node, latest_first=True)):
            if len(found) >= most:
                break
            if number % LINES_BETWEEN_YIELDS == 0:
                await asyncio.sleep(0)
            decision = decode_decision(line) if pod or node else None
            if decision is None or (is_about_pod(decision, namespace, pod) if pod else is_about_node(decision, node)):
                found.append(line)
        body = b"".join(line + b"\n" for line in reversed(found))
        return web.Response(body=body, content_type="application/jsonl", headers=headers)

    async def show_shadow(request: web.BaseRequest) -> web.StreamResponse:
        pools = [] if shadow is None else [shadow.standing(name) for name in shadow.pools()]
        return json_response(msgspec.json.encode(pools))

    return route({("GET", DECISIONS_PATH): show, ("GET", SHADOW_PATH): show_shadow})
