from __future__ import annotations

import json
import logging
from collections.abc import Callable

import pytest
import trio.testing

from protocol.initialize import InitializeResult
from tests.transport.conftest import Session
from tests.transport.fakes import INITIALIZE, note
from transport.connection import Limits
from transport.framing import TooLong

Serve = Callable[..., Session]


def error(answer: dict) -> tuple[int, str]:
    return answer["error"]["code"], answer["error"]["message"]


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"[]",
        b'[{"id":1,"method":"initialize"}]',
        b"42",
        b'"text"',
        b"null",
        b"{}",
        b'{"id":1}',
        b'{"id":null,"method":"x"}',
        b'{"id":1.5,"method":"x"}',
        b'{"id":{},"method":"x"}',
        b'{"id":1,"method":5}',
        b'{"id":1,"method":"x","params":{"text":"\xff\xfe"}}',
        b"[" * 10_000 + b"]" * 10_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        TooLong(1000),
    ],
    ids=lambda raw: repr(raw)[:30],
)
async def test_what_is_no_message_is_told_with_a_null_id_and_disturbs_nothing(
    serve: Serve, raw: bytes
) -> None:
    channel = serve().channel
    channel.raw(raw)
    answer = await channel.message()
    assert answer["id"] is None
    assert error(answer)[0] == -32700
    assert error(answer)[1].startswith("Parse error: ")
    assert "result" in await channel.initialize()


async def test_a_line_over_the_limit_is_told_with_the_limit(serve: Serve) -> None:
    channel = serve().channel
    channel.raw(TooLong(134217728))
    assert error(await channel.message()) == (-32700, "Parse error: a message is longer than 134217728 bytes")


async def test_initialize_answers_with_the_versions_and_the_home(serve: Serve) -> None:
    session = serve()
    result = (await session.channel.call("initialize", INITIALIZE))["result"]
    assert result["userAgent"].startswith("tester/0.169.0 (")
    assert result["userAgent"].endswith(") spoold/9.9")
    assert result["codexHome"] == "/home/of/daemon"
    assert (result["platformFamily"], result["platformOs"]) == ("unix", "linux")
    assert InitializeResult.from_wire(result).to_wire() == result
    assert session.daemon.ready == [session.connection]
    assert session.connection.client_name == "tester"


async def test_initialize_twice_is_refused_and_the_connection_goes_on(serve: Serve) -> None:
    channel = serve().channel
    await channel.initialize()
    assert error(await channel.initialize()) == (-32600, "Already initialized")
    assert "result" in await channel.call("thread/loaded/list", {})


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "Invalid request: missing field `clientInfo`"),
        ({"clientInfo": {"name": "x"}}, "Invalid request: missing field `version` at `clientInfo`"),
        (
            {"clientInfo": {"name": "a\nb", "version": "1"}},
            "Invalid clientInfo.name: 'a\nb'. Must be a valid HTTP header value.",
        ),
    ],
)
async def test_a_failed_initialize_can_be_tried_again(serve: Serve, params: dict, message: str) -> None:
    session = serve()
    assert error(await session.channel.call("initialize", params)) == (-32600, message)
    assert session.daemon.ready == []
    assert "result" in await session.channel.initialize()


async def test_nothing_is_served_before_initialize(serve: Serve) -> None:
    channel = serve().channel
    assert error(await channel.call("thread/loaded/list", {})) == (-32600, "Not initialized")


async def test_an_unknown_method_is_told_with_all_names_even_before_initialize(serve: Serve) -> None:
    channel = serve().channel
    code, message = error(await channel.call("no/such", {}))
    assert code == -32600
    assert message.startswith(
        "Invalid request: unknown variant `no/such`, expected one of `initialize`, `thread/start`"
    )


async def test_absent_params_are_accepted_where_every_field_is_optional(serve: Serve) -> None:
    channel = serve().channel
    await channel.initialize()
    assert "result" in await channel.call("thread/loaded/list")
    assert "result" in await channel.call("thread/loaded/list", None)
    assert error(await channel.call("thread/read")) == (-32600, "Invalid request: missing field `params`")


async def test_experimental_methods_and_fields_need_the_capability(serve: Serve) -> None:
    channel = serve().channel
    await channel.initialize()
    gate = " requires experimentalApi capability"
    assert error(await channel.call("thread/queue/list", {"threadId": "t"})) == (
        -32600,
        "thread/queue/list" + gate,
    )
    assert error(await channel.call("thread/queue/list", {})) == (
        -32600,
        "Invalid request: missing field `threadId`",
    )
    assert error(await channel.call("thread/start", {"historyMode": "legacy"})) == (
        -32600,
        "thread/start.historyMode" + gate,
    )
    assert error(await channel.call("thread/start", {"experimentalRawEvents": True})) == (
        -32600,
        "thread/start.experimentalRawEvents" + gate,
    )
    assert "result" in await channel.call(
        "thread/start", {"historyMode": None, "experimentalRawEvents": False}
    )


async def test_the_capability_opens_the_gates(serve: Serve) -> None:
    channel = serve().channel
    await channel.initialize(experimentalApi=True)
    assert "result" in await channel.call("thread/queue/list", {"threadId": "t"})
    assert "result" in await channel.call("thread/start", {"historyMode": "legacy"})


async def test_opted_out_notifications_are_not_delivered_and_server_requests_are(serve: Serve) -> None:
    session = serve()
    await session.channel.initialize(optOutNotificationMethods=["turn/started", "no/such"])
    session.connection.deliver(note("turn/started"))
    session.connection.deliver(note("turn/completed"))
    assert (await session.channel.message())["method"] == "turn/completed"


async def test_a_client_gets_no_notification_before_its_handshake(serve: Serve) -> None:
    session = serve()
    await session.channel.call("thread/loaded/list", {})
    session.connection.deliver(note("thread/started"))
    assert (await session.channel.initialize())["id"] == 1


async def test_duplicate_ids_in_flight_get_one_answer_each(serve: Serve) -> None:
    session = serve()
    await session.channel.initialize()
    session.channel.request("same", "test/wait")
    session.channel.request("same", "test/wait")
    await session.daemon.until(lambda: len(session.daemon.calls) == 2)
    session.daemon.release.set()
    assert [(await session.channel.message())["id"] for _ in range(2)] == ["same", "same"]


async def test_requests_begin_in_the_order_they_came(serve: Serve) -> None:
    session = serve()
    await session.channel.initialize()
    wanted = ["test/wait", "test/hold", "test/wait", "test/wait", "thread/loaded/list", "test/wait"] * 5
    for number, method in enumerate(wanted):
        session.channel.request(number, method)
    await session.daemon.until(lambda: len(session.daemon.calls) == len(wanted))
    assert [call.method for call in session.daemon.calls] == wanted


async def test_a_call_for_a_mailbox_is_answered_by_whoever_takes_it(serve: Serve) -> None:
    session = serve()
    await session.channel.initialize()
    session.channel.request(7, "test/hold")
    assert "result" in await session.channel.call("thread/loaded/list", {})
    (held, _) = session.daemon.calls
    held.reply.result({"late": 1})
    assert await session.channel.message() == {"id": 7, "result": {"late": 1}}
    with pytest.raises(RuntimeError, match="answered twice"):
        held.reply.result({})


async def test_requests_in_flight_are_bounded(serve: Serve) -> None:
    session = serve(Limits(in_flight=3))
    await session.channel.initialize()
    for number in range(4):
        session.channel.request(number, "test/hold")
    answer = await session.channel.message()
    assert answer["id"] == 3
    assert error(answer) == (-32001, "Server overloaded; retry later.")
    session.daemon.calls[0].reply.result({})
    assert (await session.channel.message())["id"] == 0
    session.channel.request(5, "test/hold")
    await session.daemon.until(lambda: len(session.daemon.calls) == 4)


async def test_an_rpc_error_out_of_a_nursery_reaches_the_client(serve: Serve) -> None:
    channel = serve().channel
    await channel.initialize()
    assert error(await channel.call("test/refused")) == (-32600, "refused by a nursery")


async def test_a_bug_is_logged_with_its_traceback_and_told_without(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    channel = serve().channel
    await channel.initialize()
    with caplog.at_level(logging.ERROR):
        assert error(await channel.call("test/bug")) == (-32603, "internal error")
    assert "ZeroDivisionError" in caplog.text
    assert "result" in await channel.call("thread/loaded/list", {})


async def test_a_result_that_is_no_json_still_gives_one_answer(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    channel = serve().channel
    await channel.initialize()
    assert error(await channel.call("test/noJson")) == (-32603, "internal error")
    assert "cannot be encoded" in caplog.text


async def test_answers_to_server_requests_reach_the_daemon(serve: Serve) -> None:
    session = serve()
    await session.channel.initialize()
    session.channel.raw(json.dumps({"id": "srv-1", "result": {"decision": "accept"}}).encode())
    await session.daemon.until(lambda: session.daemon.answers)
    assert session.daemon.answers[0].result == {"decision": "accept"}


async def test_an_answer_before_the_handshake_reaches_nobody(serve: Serve) -> None:
    session = serve()
    session.channel.raw(json.dumps({"id": "srv-1", "result": {"decision": "accept"}}).encode())
    await session.channel.initialize()
    assert session.daemon.answers == []


async def test_notifications_of_the_client_are_not_answered(serve: Serve) -> None:
    channel = serve().channel
    await channel.initialize()
    channel.raw(b'{"method":"initialized"}')
    channel.raw(b'{"method":"no/such/notification","params":{}}')
    assert "result" in await channel.call("thread/loaded/list", {})


async def test_the_daemon_learns_once_that_a_client_is_gone_and_its_tasks_are_cancelled(serve: Serve) -> None:
    session = serve()
    await session.channel.initialize()
    session.channel.request(2, "test/wait")
    await session.daemon.until(lambda: session.daemon.calls)
    connection = session.connection
    session.channel.hang_up()
    await session.channel.wait_ended()
    assert session.daemon.gone == [connection]
    assert session.gateway.connections == {}
    connection.deliver(note("turn/started"))
    session.daemon.calls[0].reply.result({})


async def test_a_client_that_never_shook_hands_leaves_unnoticed(serve: Serve) -> None:
    session = serve()
    await session.channel.call("thread/loaded/list", {})
    session.channel.hang_up()
    await session.channel.wait_ended()
    assert session.daemon.gone == []


async def test_a_stdio_client_that_closed_its_end_still_gets_its_answers(serve: Serve) -> None:
    session = serve(stdio=True)
    await session.channel.initialize()
    session.channel.request(2, "test/wait")
    session.channel.hang_up()
    await session.daemon.until(lambda: session.daemon.calls)
    await trio.testing.wait_all_tasks_blocked()
    session.daemon.release.set()
    assert (await session.channel.message()) == {"id": 2, "result": {"waited": True}}
    await session.channel.wait_ended()
