"""Clients of a daemon that is not complete yet: they are greeted, and the rest of what they say waits."""

from __future__ import annotations

import trio.testing

from tests.transport.fakes import FakeDaemon, MemoryChannel, method_table
from transport.connection import Gateway, serve_connection
from transport.framing import TooLong
from transport.handshake import GREETING


def incomplete() -> tuple[FakeDaemon, Gateway]:
    daemon = FakeDaemon()
    return daemon, Gateway(daemon, GREETING)


def say_all(channel: MemoryChannel) -> None:
    channel.raw(b"no JSON")
    channel.raw(TooLong(1000))
    channel.request(2, "no/such", {})
    channel.request(3, "thread/loaded/list", {})


async def test_only_the_handshake_is_answered_before_the_gateway_is_opened(nursery: trio.Nursery) -> None:
    _, gateway = incomplete()
    channel = MemoryChannel()
    nursery.start_soon(serve_connection, channel, gateway)
    assert "userAgent" in (await channel.initialize())["result"]
    say_all(channel)
    await trio.testing.wait_all_tasks_blocked()
    assert channel.nothing_waits()


async def test_what_waited_is_served_in_its_order_by_whom_the_gateway_is_opened_for(
    nursery: trio.Nursery,
) -> None:
    greeter, gateway = incomplete()
    channel, complete = MemoryChannel(), FakeDaemon()
    nursery.start_soon(serve_connection, channel, gateway)
    await channel.initialize()
    say_all(channel)
    await trio.testing.wait_all_tasks_blocked()
    gateway.open(complete, method_table())
    assert [(await channel.message())["id"] for _ in range(4)] == [None, None, 2, 3]
    assert greeter.calls == []
    assert [call.method for call in complete.calls] == ["thread/loaded/list"]
    channel.hang_up()
    await channel.wait_ended()
    assert (greeter.gone, len(complete.gone)) == ([], 1)


async def test_who_speaks_before_the_handshake_is_refused_and_then_greeted(
    nursery: trio.Nursery,
) -> None:
    daemon, gateway = incomplete()
    channel = MemoryChannel()
    nursery.start_soon(serve_connection, channel, gateway)
    channel.request(7, "thread/loaded/list", {})
    channel.request(8, "initialize", {"clientInfo": {"name": "tester", "version": "1"}})
    await trio.testing.wait_all_tasks_blocked()
    assert channel.nothing_waits()
    gateway.open(daemon, method_table())
    assert (await channel.message())["error"]["message"] == "Not initialized"
    assert (await channel.message())["id"] == 8


async def test_a_connection_can_be_closed_while_it_waits(nursery: trio.Nursery) -> None:
    _, gateway = incomplete()
    channel = MemoryChannel()
    nursery.start_soon(serve_connection, channel, gateway)
    await channel.initialize()
    say_all(channel)
    await trio.testing.wait_all_tasks_blocked()
    gateway.close_all()
    with trio.fail_after(30):
        await channel.wait_ended()
    assert channel.nothing_waits()
