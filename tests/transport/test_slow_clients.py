from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import trio
import trio.testing

from actors.peer import Outgoing
from tests.transport.conftest import Session
from tests.transport.fakes import note
from transport.connection import Limits

Serve = Callable[..., Session]


def big(size: int = 1000) -> Outgoing:
    return note("turn/started", {"text": "x" * size})


async def stop_reading(session: Session) -> None:
    """From now on the client reads nothing, and one message is stuck in the middle of its sending."""
    session.channel.reading = trio.Event()
    session.connection.deliver(big())
    await trio.testing.wait_all_tasks_blocked()


async def test_a_client_over_the_limit_for_the_grace_period_is_closed_with_4008_and_named_in_the_log(
    serve: Serve, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    session = serve(Limits(outbox_bytes=10_000, outbox_grace=10))
    await session.channel.initialize()
    await stop_reading(session)
    connection = session.connection
    for _ in range(13):
        connection.deliver(big())
    started = trio.current_time()
    with caplog.at_level(logging.WARNING):
        await session.channel.wait_ended()
    assert trio.current_time() - started == pytest.approx(15)
    assert session.channel.closed == (4008, "client does not read")
    assert session.channel.broken
    assert session.daemon.gone == [connection]
    assert "tester#1" in caplog.text


async def test_a_client_that_catches_up_within_the_grace_period_stays(
    serve: Serve, autojump_clock: trio.testing.MockClock
) -> None:
    session = serve(Limits(outbox_bytes=10_000, outbox_grace=10))
    await session.channel.initialize()
    for _ in range(3):
        await stop_reading(session)
        for _ in range(15):
            session.connection.deliver(big())
        await trio.sleep(9)
        session.channel.reading.set()
        for _ in range(16):
            await session.channel.message()
    await trio.sleep(60)
    assert "result" in await session.channel.call("thread/loaded/list", {})


async def test_twice_the_limit_ends_the_connection_at_once(serve: Serve) -> None:
    session = serve(Limits(outbox_bytes=10_000, outbox_grace=1000))
    await session.channel.initialize()
    await stop_reading(session)
    connection = session.connection
    highest = 0
    for _ in range(100):
        connection.deliver(big())
        highest = max(highest, connection.outbox.backlog)
        await trio.testing.wait_all_tasks_blocked()
    assert connection.end == (4008, "client does not read")
    assert highest < 22_000
    session.channel.reading.set()
    await session.channel.wait_ended()
    assert session.channel.closed == (4008, "client does not read")
    assert not session.channel.broken


async def test_one_answer_may_be_longer_than_any_limit(serve: Serve) -> None:
    session = serve(Limits(outbox_bytes=10_000))
    await session.channel.initialize()
    session.connection.deliver(big(100_000))
    assert (await session.channel.message())["method"] == "turn/started"
    assert "result" in await session.channel.call("thread/loaded/list", {})


async def test_what_follows_a_long_answer_at_once_is_no_reason_to_close(serve: Serve) -> None:
    session = serve(Limits(outbox_bytes=10_000))
    await session.channel.initialize()
    for size in (100, 100_000, 200, 9_000):
        session.connection.deliver(big(size))
    assert [len((await session.channel.message())["params"]["text"]) for _ in range(4)] == [
        100,
        100_000,
        200,
        9_000,
    ]


async def test_a_stdio_client_that_does_not_read_is_waited_for(
    serve: Serve, autojump_clock: trio.testing.MockClock
) -> None:
    session = serve(Limits(outbox_bytes=10_000), stdio=True)
    await session.channel.initialize()
    await stop_reading(session)
    for _ in range(99):
        session.connection.deliver(big())
    # The first request was already being waited for; what comes after it stays unread.
    session.channel.request(1, "test/hold")
    session.channel.request(2, "test/hold")
    await trio.sleep(1000)
    assert len(session.daemon.calls) == 1
    session.channel.reading.set()
    for _ in range(100):
        await session.channel.message()
    await session.daemon.until(lambda: len(session.daemon.calls) == 2)
    assert session.daemon.gone == []
