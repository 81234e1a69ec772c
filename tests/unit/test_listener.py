"""Where a listener may listen, and what it says when it cannot."""

from __future__ import annotations

import asyncio
import socket

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from extender.web.admission import Places
from extender.web.server import Address, Listener, ListenerProblem, TurnedAway


async def hello(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(text="hello")


def listener(port: int = 0, host: str = "127.0.0.1") -> Listener:
    return Listener(name="webhook", address=Address(host, port), handler=hello)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8888", Address("127.0.0.1", 8888)),
        ("[::1]:8888", Address("::1", 8888)),
        (":9888", Address("", 9888)),
        ("localhost:0", Address("localhost", 0)),
        ("[::]:65535", Address("::", 65535)),
    ],
)
def test_an_address_is_host_and_port(text: str, expected: Address) -> None:
    assert Address.parse(text) == expected


@pytest.mark.parametrize("text", ["", "8888", "localhost", "a:b", "a:-1", "a:65536", "a:", "a:8 8", "a:²", "a:1.5"])
def test_anything_else_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match=r'write host:port, like "127\.0\.0\.1:8888"'):
        Address.parse(text)


@given(
    st.builds(
        Address,
        st.ip_addresses().map(str) | st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True),
        st.integers(0, 65535),
    )
)
def test_an_address_is_read_as_it_is_written(address: Address) -> None:
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *(("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True)),
        *(("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("localhost.example", False), ("", False)),
    ],
)
def test_only_what_no_other_machine_can_reach_is_loopback(host: str, loopback: bool) -> None:
    """Plain HTTP is for loopback: a name that might be anything counts as reachable."""
    assert Address(host, 8888).is_loopback is loopback


async def test_port_0_is_replaced_by_the_port_that_was_taken() -> None:
    first = listener()
    await first.start()
    assert first.address.port > 0
    with socket.create_connection(("127.0.0.1", first.address.port)):
        pass
    await first.stop()


async def test_an_empty_host_is_every_interface_of_both_families() -> None:
    """In a cluster of IPv6 a pod has no other address, and the kubelet probes it there."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    everywhere = listener(port, host="")
    await everywhere.start()
    hosts = ["127.0.0.1", "::1"] if has_ipv6() else ["127.0.0.1"]
    for host in hosts:
        with socket.create_connection((host, port)):
            pass
    await everywhere.stop()


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


async def test_a_taken_port_is_one_line_with_the_flag_to_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenerProblem) as problem:
            await listener(port).start()
    text = str(problem.value)
    assert text.startswith(f"the webhook listener cannot use 127.0.0.1:{port}: ")
    assert text.endswith("choose another address with --webhook-listen")
    assert "\n" not in text


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
async def test_an_address_of_another_machine_is_one_line(host: str) -> None:
    """TEST-NET-1 is nobody's, and .invalid resolves nowhere (RFC 5737, RFC 2606)."""
    with pytest.raises(ListenerProblem, match=f"the webhook listener cannot use {host}:8888: "):
        await listener(8888, host).start()


async def test_a_port_is_free_again_after_the_stop() -> None:
    first = listener()
    await first.start()
    port = first.address.port
    await first.stop()
    second = listener(port)
    await second.start()
    await second.stop()


async def test_a_listener_may_be_stopped_at_any_time() -> None:
    """Before the start, and twice: a start that failed half way is cleaned up by the same code."""
    never = listener()
    await never.stop()
    once = listener()
    await once.start()
    await once.stop()
    await once.stop()


async def ask(port: int) -> bytes:
    """One call over a connection of its own: the first line of the answer, empty where it was closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        return (await reader.read()).partition(b"\r\n")[0]
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_more_connections_than_there_are_places_are_closed_and_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Those that are there go on, and a place that is free again is given to the next. Each that is refused counts."""
    refused: list[None] = []
    crowded = Listener(
        name="ops",
        address=Address("127.0.0.1", 0),
        handler=hello,
        turned_away=TurnedAway(crowded=lambda: refused.append(None)),
        places=Places(plain=3, tls=0),
    )
    await crowded.start()
    try:
        port = crowded.address.port
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        assert [await ask(port) for _ in range(5)] == [b""] * 5
        told = [each for each in caplog.records if each.getMessage() == "connection refused"]
        assert len(told) == 1
        assert len(refused) == 5
        held[0][1].write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await held[0][0].readline()).startswith(b"HTTP/1.1 200")
        held[1][1].close()
        async with asyncio.timeout(5):
            while not (answer := await ask(port)):
                pass
        assert answer.startswith(b"HTTP/1.1 200")
        for _, writer in held:
            writer.close()
    finally:
        await crowded.stop()


@pytest.mark.parametrize(("headers", "status"), [(30, b"200"), (100, b"400")])
async def test_a_head_has_a_limited_number_of_headers(headers: int, status: bytes) -> None:
    """What is kept of a request that never ends is memory of the process that answers the scheduler."""
    there = listener()
    await there.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", there.address.port)
        lines = "".join(f"x-{number}: a\r\n" for number in range(headers))
        writer.write(f"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{lines}\r\n".encode())
        assert (await reader.readline()).split()[1] == status
        writer.close()
    finally:
        await there.stop()


async def test_a_flood_at_one_listener_is_not_felt_at_another() -> None:
    """Each counts its own connections: whoever fills the operations listener does not stop the scheduler."""
    crowded = Listener(name="ops", address=Address("127.0.0.1", 0), handler=hello, places=Places(plain=20, tls=0))
    other = listener()
    await crowded.start()
    await other.start()
    try:
        held = [await asyncio.open_connection("127.0.0.1", crowded.address.port) for _ in range(60)]
        assert (await ask(other.address.port)).startswith(b"HTTP/1.1 200")
        for _, writer in held:
            writer.close()
    finally:
        await other.stop()
        await crowded.stop()
