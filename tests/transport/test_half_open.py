"""A client whose machine vanished: the socket stays open and nothing comes any more."""

from __future__ import annotations

import json

import pytest
import trio
import trio.testing
from trio_websocket import wrap_client_stream

from tests.transport.clients import raw_upgrade, text_frame
from tests.transport.fakes import INITIALIZE, gateway
from transport.websocket import PING_INTERVAL, PONG_TIMEOUT, serve_websocket

HELLO = text_frame(json.dumps({"id": 1, "method": "initialize", "params": INITIALIZE}).encode())


async def test_a_client_that_does_not_answer_pings_is_dropped(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    daemon, shared = gateway()
    here, there = trio.testing.memory_stream_pair()
    nursery.start_soon(serve_websocket, there, shared, None, "test")
    await raw_upgrade(here)
    await here.send_all(HELLO)
    await daemon.until(lambda: daemon.ready)
    before = trio.current_time()
    with trio.fail_after(1000):
        while not daemon.gone:
            await daemon.changed.wait()
    assert trio.current_time() - before <= PING_INTERVAL + PONG_TIMEOUT + 6


async def test_a_client_that_answers_pings_stays(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    daemon, shared = gateway()
    here, there = trio.testing.memory_stream_pair()
    nursery.start_soon(serve_websocket, there, shared, None, "test")
    socket = await wrap_client_stream(nursery, here, "localhost", "/")
    await socket.send_message(json.dumps({"id": 1, "method": "initialize", "params": INITIALIZE}))
    await daemon.until(lambda: daemon.ready)
    await trio.sleep(500 * PING_INTERVAL + 1)
    assert daemon.gone == []
    await socket.aclose()


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nConnection: upgrade\r\n\r\n"])
async def test_a_client_that_never_finishes_its_handshake_is_dropped(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, sent: bytes
) -> None:
    _, shared = gateway()
    here, there = trio.testing.memory_stream_pair()
    nursery.start_soon(serve_websocket, there, shared, None, "test")
    with trio.fail_after(30):
        if sent:
            await here.send_all(sent)
        while await here.receive_some():
            pass
    assert shared.connections == {}
