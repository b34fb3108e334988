from __future__ import annotations

import trio

from tests.transport.fakes import FakeDaemon, MemoryChannel, method_table
from transport.connection import Gateway, serve_connection
from transport.methods import METHODS
from transport.not_offered import NOT_OFFERED


async def test_a_known_method_passes_the_gate_and_is_then_told_to_be_missing(nursery: trio.Nursery) -> None:
    methods = method_table() | {row.name: row for row in NOT_OFFERED}
    channel = MemoryChannel()
    nursery.start_soon(serve_connection, channel, Gateway(FakeDaemon(), methods))
    await channel.initialize()
    assert (await channel.call("thread/compact/start", {"threadId": "t"}))["error"] == {
        "code": -32601,
        "message": "thread/compact/start is not supported yet",
    }
    assert (await channel.call("thread/compact/start", {}))["error"]["message"] == (
        "Invalid request: missing field `threadId`"
    )
    assert (await channel.call("server/diagnostics"))["error"]["message"] == (
        "server/diagnostics requires experimentalApi capability"
    )
    assert (await channel.call("account/logout"))["error"]["code"] == -32601


def test_there_are_as_many_as_the_protocol_has_besides_ours() -> None:
    ours_alone = {"thread/rollback"}
    assert len(METHODS.keys() - ours_alone) == 184
    assert not {row.name for row in NOT_OFFERED} & {row.name for row in METHODS.values() if row.offered}
