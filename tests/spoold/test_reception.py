from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import trio

from spoold.reception import Greeter
from spoold.system_runtime import SystemRuntime
from tests.end_to_end.stdio import open_raw
from tests.transport.fakes import FakeDaemon


def a_peer() -> Any:
    return object()


def test_the_daemon_hears_of_whom_was_greeted_and_is_still_there_and_of_the_wish_to_end() -> None:
    greeter, daemon = Greeter(Path("/home"), SystemRuntime()), FakeDaemon()
    first, second = a_peer(), a_peer()
    greeter.peer_ready(first)
    greeter.peer_ready(second)
    greeter.peer_gone(first)
    greeter.request_shutdown("the client left")
    greeter.introduce(cast("Any", daemon))
    assert (daemon.ready, daemon.gone, daemon.shutdowns) == ([second], [], ["the client left"])


async def test_everything_that_a_client_writes_at_once_is_answered_in_its_order(tmp_path: Path) -> None:
    # Written before the process has started: all of it but the handshake waits until the daemon is complete.
    async with open_raw(tmp_path) as raw:
        await raw.stdin.send_all(
            b'{"id":1,"method":"initialize","params":{"clientInfo":{"name":"raw","version":"1"}}}\n'
            b'{"method":"initialized"}\n'
            b"no JSON\n"
            b'{"id":2,"method":"thread/loaded/list","params":{}}\n'
            b'{"id":3,"method":"initialize","params":{"clientInfo":{"name":"raw","version":"1"}}}\n'
            b'{"id":4,"method":"model/list","params":{}}\n'
        )
        assert [(await raw.line())["id"] for _ in range(5)] == [1, None, 2, 3, 4]


async def test_a_client_that_leaves_at_once_is_answered_and_ends_the_daemon(tmp_path: Path) -> None:
    async with open_raw(tmp_path) as raw:
        await raw.stdin.send_all(
            b'{"id":1,"method":"initialize","params":{"clientInfo":{"name":"raw","version":"1"}}}\n'
            b'{"id":2,"method":"thread/loaded/list","params":{}}\n'
        )
        await raw.stdin.aclose()
        assert [(await raw.line())["id"] for _ in range(2)] == [1, 2]
        with trio.fail_after(30):
            assert await raw.process.wait() == 0
