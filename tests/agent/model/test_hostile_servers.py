"""Whatever answers at a provider's address, the turn ends with a clear failure or goes on; nothing hangs."""

from __future__ import annotations

import gzip

import pytest
import trio

from agent.model import failures
from agent.model.events import OutputItemDone, ResponseCompleted, TextDelta
from agent.model.sse import MAX_EVENT_BYTES
from tests.agent.model.model_setup import answer, asking, client_for, event_stream, failing, raw_server

DONE = b'data: {"type":"response.completed","response":{"id":"r"}}\n\n'
COMPLETED = ResponseCompleted("r", None)
CUT = "stream disconnected before completion: " + failures.TRANSPORT_CUT


@pytest.mark.parametrize(
    "noise",
    [
        b"data: {not json\n\n",
        b"data: \n\n",
        b"data: [1,2]\n\n",
        b"data: 7\n\n",
        b"data: null\n\n",
        b"data: {}\n\n",
        b'data: {"type":7}\n\n',
        b'data: {"type":"response.unheard_of"}\n\n',
        b'data: {"type":"response.output_text.delta"}\n\n',
        b'data: {"type":"response.output_text.delta","delta":5}\n\n',
        b'data: {"type":"response.output_item.added"}\n\n',
        b'data: {"type":"response.output_item.added","item":{"type":5}}\n\n',
        b'data: {"type":"response.output_item.done","item":"x"}\n\n',
        b'data: {"type":"response.created","response":null}\n\n',
        b"data: " + b"[" * 100_000 + b"\n\n",
        b"data: \x00\xff\xfe\n\n",
        b": only a comment\n\n",
        b"\xff\xfe\xfd\n\n",
        b'data: {"type":"a\\ud800b"}\n\n',
    ],
)
async def test_an_event_that_means_nothing_is_passed_over(nursery: trio.Nursery, noise: bytes) -> None:
    async with raw_server(nursery, event_stream(noise + DONE)) as base_url, client_for(base_url) as client:
        assert await answer(client, asking("x")) == [COMPLETED]


async def test_invalid_utf8_spoils_only_its_characters(nursery: trio.Nursery) -> None:
    delta = b'data: {"type":"response.output_text.delta","item_id":"m","delta":"a\xffb"}\n\n'
    async with raw_server(nursery, event_stream(delta + DONE)) as base_url, client_for(base_url) as client:
        events = await answer(client, asking("x"))
        assert TextDelta("m", "a\ufffdb") in events
        assert events[-1] == COMPLETED


async def test_a_line_without_an_end_is_cut_off_at_the_bound(nursery: trio.Nursery) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    endless = head + b"data: " + b"x" * (MAX_EVENT_BYTES + 1_000_000)
    async with (
        raw_server(nursery, endless, keep_open=True) as base_url,
        client_for(base_url) as client,
    ):
        with trio.fail_after(30):
            _, failure = await failing(client, asking("x"))
        assert "too large" in failure.message
        assert not failure.retryable


async def test_what_came_before_an_event_that_is_too_large_is_delivered(nursery: trio.Nursery) -> None:
    delta = b'data: {"type":"response.output_text.delta","item_id":"m","delta":"a"}\n\n'
    huge = b"data: " + b"x" * (MAX_EVENT_BYTES + 10) + b"\n\n"
    async with (
        raw_server(nursery, event_stream(delta * 2 + huge)) as base_url,
        client_for(base_url) as client,
    ):
        events, failure = await failing(client, asking("x"))
        assert events.count(TextDelta("m", "a")) == 2
        assert "too large" in failure.message


async def test_a_large_event_below_the_bound_is_taken(nursery: trio.Nursery) -> None:
    text = b"y" * (4 * 1024 * 1024)
    delta = b'data: {"type":"response.output_text.delta","item_id":"m","delta":"' + text + b'"}\n\n'
    async with raw_server(nursery, event_stream(delta + DONE)) as base_url, client_for(base_url) as client:
        assert TextDelta("m", text.decode()) in await answer(client, asking("x"))


@pytest.mark.parametrize("content_type", ["text/html", "application/json", ""])
async def test_a_server_that_is_no_model_is_named_with_its_content_type(
    nursery: trio.Nursery, content_type: str
) -> None:
    page = event_stream(b"<html><body>Welcome</body></html>\n", content_type)
    async with raw_server(nursery, page) as base_url, client_for(base_url) as client:
        _, failure = await failing(client, asking("x"))
        assert f"`{content_type}`" in failure.message
        assert f"{base_url}/responses" in failure.message
        assert not failure.retryable


async def test_events_under_a_wrong_content_type_are_events(nursery: trio.Nursery) -> None:
    async with (
        raw_server(nursery, event_stream(DONE, "application/json")) as base_url,
        client_for(base_url) as client,
    ):
        assert await answer(client, asking("x")) == [COMPLETED]


@pytest.mark.parametrize("status", [200, 418])
async def test_a_compressed_answer_that_nobody_asked_for_is_refused(
    nursery: trio.Nursery, status: int
) -> None:
    body = gzip.compress(DONE)
    head = (
        b"HTTP/1.1 %d x\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\n"
        b"content-length: %d\r\n\r\n" % (status, len(body))
    )
    async with raw_server(nursery, head + body) as base_url, client_for(base_url) as client:
        _, failure = await failing(client, asking("x"))
        assert ("`gzip`" if status == 200 else "418") in failure.message
        assert not failure.retryable


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 900\r\n\r\ndata: {}\n\n",
    ],
)
async def test_a_body_that_http_cannot_read_is_a_broken_stream(
    nursery: trio.Nursery, response: bytes
) -> None:
    async with raw_server(nursery, response) as base_url, client_for(base_url) as client:
        _, failure = await failing(client, asking("x"))
        assert failure.message == CUT
        assert failure.retryable


@pytest.mark.parametrize(
    "response",
    [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x00" * 500, b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 300_000],
)
async def test_what_is_no_http_is_a_failed_connection(nursery: trio.Nursery, response: bytes) -> None:
    async with raw_server(nursery, response) as base_url, client_for(base_url) as client:
        _, failure = await failing(client, asking("x"))
        assert failure.message.startswith("Connection failed")


async def test_a_redirect_is_not_followed_with_a_key_in_the_hand(nursery: trio.Nursery) -> None:
    moved = b"HTTP/1.1 307 x\r\nlocation: http://127.0.0.1:1/elsewhere\r\ncontent-length: 0\r\n\r\n"
    async with (
        raw_server(nursery, moved) as base_url,
        client_for(base_url, {"K": "k"}, env_key="K") as client,
    ):
        _, failure = await failing(client, asking("x"))
        assert failure.message.startswith("unexpected status 307 Temporary Redirect")


async def test_an_error_body_without_an_end_is_cut_off(nursery: trio.Nursery) -> None:
    head = b"HTTP/1.1 418 x\r\n\r\n"
    async with (
        raw_server(nursery, head + b"e" * 1_000_000, keep_open=True) as base_url,
        client_for(base_url) as client,
    ):
        _, failure = await failing(client, asking("x"))
        assert len(failure.message) < 5000


async def test_what_comes_after_the_end_is_not_read_as_part_of_it(nursery: trio.Nursery) -> None:
    late = b'data: {"type":"response.output_text.delta","item_id":"m","delta":"late"}\n\n'
    async with raw_server(nursery, event_stream(DONE + late)) as base_url, client_for(base_url) as client:
        assert await answer(client, asking("x")) == [COMPLETED]


async def test_a_server_that_keeps_its_connection_open_after_the_end_does_not_hold_the_turn(
    nursery: trio.Nursery,
) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    async with raw_server(nursery, head + DONE, keep_open=True) as base_url, client_for(base_url) as client:
        with trio.fail_after(10):
            assert await answer(client, asking("x")) == [COMPLETED]


async def test_items_without_ids_starts_or_content_come_out_whole(nursery: trio.Nursery) -> None:
    body = (
        b'data: {"type":"response.output_text.delta","delta":"he"}\n\n'
        b'data: {"type":"response.output_text.delta","delta":"llo"}\n\n'
        b'data: {"type":"response.output_item.done","item":{"type":"message"}}\n\n'
        b'data: {"type":"response.output_item.done","item":{"type":"function_call","call_id":"c",'
        b'"name":"n","arguments":"{}"}}\n\n'
    )
    async with raw_server(nursery, event_stream(body + DONE)) as base_url, client_for(base_url) as client:
        events = await answer(client, asking("x"))
        message, call = (event.item for event in events if isinstance(event, OutputItemDone))
        assert message["content"] == [{"type": "output_text", "text": "hello"}]
        assert message["id"].startswith("msg_")
        assert call["id"].startswith("fc_")
