from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio.testing
from trio_websocket import ConnectionClosed

from actors.peer import Outgoing
from tests.transport.clients import Client, client, http, raw_upgrade, text_frame, upgrade_request
from tests.transport.fakes import INITIALIZE, FakeDaemon, gateway, note
from transport.connection import Connection, Gateway, Limits
from transport.listen import Listeners, open_listeners, parse_listen
from transport.replay_stream import FrameGuard
from transport.websocket import text_frames

HELLO = text_frame(json.dumps({"id": 1, "method": "initialize", "params": INITIALIZE}).encode())


@dataclass
class Server:
    daemon: FakeDaemon
    gateway: Gateway
    listeners: Listeners
    served: trio.Event

    @property
    def port(self) -> int:
        return int(self.listeners.addresses[0].rpartition(":")[2])


Start = Callable[..., Awaitable[Server]]


@pytest.fixture
async def start(nursery: trio.Nursery, tmp_path: Path) -> Start:
    async def start(limits: Limits | None = None) -> Server:
        daemon, shared = gateway(limits)
        listeners = await open_listeners([parse_listen("ws://127.0.0.1:0")], tmp_path)
        server = Server(daemon, shared, listeners, trio.Event())

        async def run(task_status: trio.TaskStatus[None]) -> None:
            await listeners.serve(shared, task_status=task_status)
            server.served.set()

        await nursery.start(run)
        return server

    return start


async def test_a_client_is_served_over_a_real_socket(start: Start) -> None:
    server = await start()
    async with client(server.port) as one:
        assert (await one.call("thread/loaded/list", {}))["result"] == {"method": "thread/loaded/list"}
    await server.daemon.until(lambda: server.daemon.gone)


@pytest.mark.parametrize("path", [b"/healthz", b"/readyz", b"/readyz?x=1"])
async def test_probes_answer_200_without_a_body(start: Start, path: bytes) -> None:
    server = await start()
    for method in (b"GET", b"HEAD"):
        request = method + b" " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n"
        assert await http(server.port, request) == (b"HTTP/1.1 200 ", b"")
    request = b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
    assert await http(server.port, request) == (b"HTTP/1.1 405 ", b"")


async def test_a_plain_get_is_told_what_was_missing(start: Start) -> None:
    server = await start()
    status, body = await http(server.port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (status, body) == (b"HTTP/1.1 400 ", b"Connection header did not include 'upgrade'")


@pytest.mark.parametrize(
    "request_bytes",
    [
        upgrade_request(b"Origin: http://evil.example"),
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nOrigin: null\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: x\r\norigin: a\r\n\r\n",
    ],
)
async def test_any_request_with_an_origin_is_forbidden(start: Start, request_bytes: bytes) -> None:
    server = await start()
    assert await http(server.port, request_bytes) == (b"HTTP/1.1 403 ", b"")


async def test_what_is_no_http_gets_an_answer_and_disturbs_nobody(start: Start) -> None:
    server = await start()
    assert (await http(server.port, b"\x00\x01\x02\r\n\r\n"))[0] == b"HTTP/1.1 400 "
    assert (await http(server.port, b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000))[0] == b"HTTP/1.1 431 "
    assert (await http(server.port, b"GET / HTTP/1.1\r\nConnection: upgrade\r\nHost: x\r\n\r\n"))[0] in (
        b"HTTP/1.1 400 ",
        b"HTTP/1.1 426 ",
    )
    async with client(server.port) as one:
        assert "result" in await one.call("thread/loaded/list", {})


async def test_malformed_text_is_told_and_binary_frames_are_ignored(start: Start) -> None:
    server = await start()
    async with client(server.port) as one:
        await one.socket.send_message(b'{"id":1,"method":"thread/loaded/list","params":{}}')
        await one.socket.send_message("{")
        assert (await one.message())["error"]["code"] == -32700
        assert "result" in await one.call("thread/loaded/list", {})


async def test_a_message_of_two_mebibytes_arrives(start: Start) -> None:
    server = await start()
    async with client(server.port) as one:
        params = {"config": {"key": "x" * (2 << 20)}}
        assert "result" in await one.call("thread/start", params)


async def test_a_fragmented_message_arrives_whole(start: Start) -> None:
    server = await start()
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    async with stream:
        await raw_upgrade(stream)
        text = b'{"id":1,"method":"no/such"}'
        first = bytes([0x01, 0x80 | 10]) + b"\0\0\0\0" + text[:10]
        last = bytes([0x80, 0x80 | len(text) - 10]) + b"\0\0\0\0" + text[10:]
        for cut in (first, last):
            for byte in cut:
                await stream.send_all(bytes([byte]))
        answer = await stream.receive_some()
        assert b"unknown variant `no/such`" in answer


async def test_a_frame_that_declares_too_much_ends_that_connection_only(start: Start) -> None:
    server = await start()
    async with client(server.port) as other:
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        async with stream:
            await raw_upgrade(stream)
            await stream.send_all(text_frame(b"", declared=128 << 20))
            with trio.fail_after(30):
                await read_to_end(stream)
        assert "result" in await other.call("thread/loaded/list", {})


async def test_invalid_utf8_in_a_text_frame_ends_that_connection_only(start: Start) -> None:
    server = await start()
    async with client(server.port) as other:
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        async with stream:
            await raw_upgrade(stream)
            await stream.send_all(text_frame(b"\xff\xfe"))
            with trio.fail_after(30):
                await read_to_end(stream)
        assert "result" in await other.call("thread/loaded/list", {})


async def test_a_client_that_leaves_in_the_middle_of_a_frame_is_gone_and_nothing_else(start: Start) -> None:
    server = await start()
    async with client(server.port) as other:
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        await raw_upgrade(stream)
        await stream.send_all(HELLO)
        await server.daemon.until(lambda: len(server.daemon.ready) == 2)
        await stream.send_all(text_frame(b'{"id":2,"met', declared=5000))
        await trio.aclose_forcefully(stream)
        await server.daemon.until(lambda: len(server.daemon.gone) == 1)
        assert "result" in await other.call("thread/loaded/list", {})


async def read_to_end(stream: trio.abc.Stream) -> bytes:
    data = b""
    try:
        while more := await stream.receive_some():
            data += more
    except trio.BrokenResourceError:
        pass
    return data


async def test_a_client_that_never_reads_is_closed_with_4008_and_others_get_everything(start: Start) -> None:
    server = await start(Limits(outbox_bytes=1 << 20, outbox_grace=600))
    async with client(server.port) as fast:
        slow_stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        await raw_upgrade(slow_stream)
        await slow_stream.send_all(HELLO)
        await server.daemon.until(lambda: len(server.daemon.ready) == 2)
        first, slow = server.daemon.ready
        assert isinstance(slow, Connection)
        message = note("turn/started", {"text": "x" * 65536})
        highest = 0
        for _ in range(200):
            first.deliver(message)
            slow.deliver(message)
            assert (await fast.message())["method"] == "turn/started"
            highest = max(highest, slow.outbox.backlog)
        assert slow.end is not None
        assert slow.end[0] == 4008
        assert highest <= 3 * (1 << 20), f"{highest} bytes were waiting"
        data = b""
        with trio.fail_after(30):
            while b"\x0f\xa8client does not read" not in data[-64:]:
                data += await slow_stream.receive_some()
        await slow_stream.aclose()
        await server.daemon.until(lambda: server.daemon.gone == [slow])
        assert "result" in await fast.call("thread/loaded/list", {})


async def test_the_end_of_the_daemon_is_a_close_frame_1001(start: Start) -> None:
    server = await start()
    async with client(server.port) as one:
        server.daemon.ready[0].deliver(note("turn/completed"))
        server.listeners.close()
        assert (await one.message())["method"] == "turn/completed"
        with pytest.raises(ConnectionClosed) as closed, trio.fail_after(30):
            await one.socket.get_message()
        assert closed.value.reason is not None
        assert closed.value.reason.code == 1001
    with trio.fail_after(30):
        await server.served.wait()
    assert len(server.daemon.gone) == 1


async def test_who_is_connected_stays_when_no_more_are_accepted(start: Start) -> None:
    server = await start()
    async with client(server.port) as one:
        server.listeners.stop_accepting()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(OSError, match=r"127\.0\.0\.1"):
            await trio.open_tcp_stream("127.0.0.1", server.port)
        assert "result" in await one.call("thread/loaded/list", {})
        assert isinstance(one, Client)


async def test_a_ping_that_arrives_while_we_are_closing_is_no_failure(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    server = await start(Limits(closing=0.5))
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    async with stream:
        await raw_upgrade(stream)
        await stream.send_all(HELLO)
        await server.daemon.until(lambda: server.daemon.ready)
        server.listeners.close()
        data = b""
        with trio.fail_after(30):
            while b"\x03\xe9server is shutting down" not in data:
                data += await stream.receive_some()
            await stream.send_all(b"\x89\x80\0\0\0\0")
            await read_to_end(stream)
            await server.served.wait()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_cancelled_server_does_not_wait_for_its_clients(tmp_path: Path) -> None:
    daemon, shared = gateway()
    listeners = await open_listeners([parse_listen("ws://127.0.0.1:0")], tmp_path)
    async with trio.open_nursery() as nursery:
        await nursery.start(listeners.serve, shared)
        stream = await trio.open_tcp_stream("127.0.0.1", int(listeners.addresses[0].rpartition(":")[2]))
        await raw_upgrade(stream)
        await stream.send_all(HELLO)
        await daemon.until(lambda: daemon.ready)
        started = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - started < Limits().closing / 2
    assert len(daemon.gone) == 1
    await stream.aclose()


@pytest.mark.parametrize("length", [0, 125, 126, 65535, 65536, 1_000_000])
async def test_frames_of_every_length_arrive_whole_and_in_order(start: Start, length: int) -> None:
    server = await start()
    async with client(server.port) as one:
        for number in range(3):
            server.daemon.ready[0].deliver(
                Outgoing(b"%d" % number + "é".encode() * (length // 2), "turn/started")
            )
        for number in range(3):
            with trio.fail_after(30):
                assert await one.socket.get_message() == f"{number}" + "é" * (length // 2)


def test_frame_headers_are_as_short_as_the_protocol_demands() -> None:
    for length, header in ((0, 2), (125, 2), (126, 4), (65535, 4), (65536, 10)):
        frame = text_frames([b"x" * length])
        assert len(frame) == header + length
        guard = FrameGuard(1 << 20)
        assert guard.accepts(frame)
        assert (guard._skip, bytes(guard._header)) == (0, b"")
