"""The Responses API: what is sent, and what each kind of answer becomes."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from agent.model.events import (
    ModelEvent,
    OutputItemDone,
    OutputItemStarted,
    ReasoningSummaryDelta,
    ReasoningSummaryPart,
    ReasoningTextDelta,
    ResponseCompleted,
    TextDelta,
)
from agent.model.responses import ResponsesDecoder, request_body
from protocol.threads import TokenCounts
from tests.agent.model.model_setup import CountingRuntime, answer, asking, client_for, said
from tests.support.scripted_model import open_scripted_model

USAGE = TokenCounts(
    total_tokens=15, input_tokens=10, cached_input_tokens=2, output_tokens=5, reasoning_output_tokens=1
)


def decoded(*payloads: Any) -> list[ModelEvent]:
    decoder = ResponsesDecoder(CountingRuntime())
    for payload in payloads:
        decoder.decode("", payload)
    return list(decoder.ready)


async def test_a_message_streams_and_ends_with_its_usage(nursery: trio.Nursery) -> None:
    async with open_scripted_model(nursery) as model, client_for(model.base_url) as client:
        item = {"type": "message", "role": "assistant", "id": "msg_1_0"}
        content = [{"type": "output_text", "text": "héllo wörld", "annotations": []}]
        assert await answer(client, asking("say héllo wörld")) == [
            OutputItemStarted({**item, "content": []}),
            TextDelta("msg_1_0", "héllo"),
            TextDelta("msg_1_0", " wörld"),
            OutputItemDone({**item, "content": content}),
            ResponseCompleted("resp_1", USAGE),
        ]


async def test_reasoning_comes_as_summary_parts_and_keeps_its_sealed_content(nursery: trio.Nursery) -> None:
    async with open_scripted_model(nursery) as model, client_for(model.base_url) as client:
        events = await answer(client, asking("reason so be it ;; yes"))
        assert events[1:5] == [
            ReasoningSummaryPart("rs_1_0", 0),
            ReasoningSummaryDelta("rs_1_0", 0, "so"),
            ReasoningSummaryDelta("rs_1_0", 0, " be"),
            ReasoningSummaryDelta("rs_1_0", 0, " it"),
        ]
        assert isinstance(events[5], OutputItemDone)
        assert events[5].item["encrypted_content"] == "sealed:1"
        assert ReasoningTextDelta("rs_2_0", 0, "raw") in await answer(client, asking("think raw ;; yes"))


async def test_two_calls_come_as_two_items(nursery: trio.Nursery) -> None:
    async with open_scripted_model(nursery) as model, client_for(model.base_url) as client:
        events = await answer(client, asking("shell ls ;; pwd"))
        calls = [event.item["arguments"] for event in events if isinstance(event, OutputItemDone)]
        assert calls == ['{"cmd": "ls"}', '{"cmd": "pwd"}']


async def test_the_request_carries_the_key_the_headers_and_the_query(nursery: trio.Nursery) -> None:
    async with (
        open_scripted_model(nursery) as model,
        client_for(
            model.base_url,
            {"KEY": "sesame", "TEAM": "blue", "BLANK": " "},
            env_key="KEY",
            http_headers={"X-Fixed": "1"},
            env_http_headers={"X-Team": "TEAM", "X-Blank": "BLANK", "X-Unset": "NOPE"},
            query_params={"api-version": "2026-11"},
        ) as client,
    ):
        await answer(client, asking("say hi"))
        request = model.requests[0]
        assert request.target == "/v1/responses?api-version=2026-11"
        sent = {name: request.headers.get(name) for name in ("authorization", "x-fixed", "x-team")}
        assert sent == {"authorization": "Bearer sesame", "x-fixed": "1", "x-team": "blue"}
        assert not {"x-blank", "x-unset"} & set(request.headers)
        assert request.headers["accept"] == "text/event-stream"


async def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, unused_port: int
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{unused_port}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with open_scripted_model(nursery) as model, client_for(model.base_url) as client:
        assert isinstance((await answer(client, asking("say hi")))[-1], ResponseCompleted)


async def test_a_proxy_of_the_environment_is_asked_for_other_machines(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_scripted_model(nursery) as model:
        monkeypatch.setenv("http_proxy", model.base_url.removesuffix("/v1"))
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        async with client_for("http://model.invalid/v1") as client:
            await answer(client, asking("say hi"))
        assert model.requests[0].target == "http://model.invalid/v1/responses"


def test_a_plain_request_has_no_reasoning_and_no_format() -> None:
    assert request_body(asking("x")) == {
        "model": "test-model",
        "instructions": "Be brief.",
        "input": [said("x")],
        "tools": [],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "store": False,
        "stream": True,
    }


def test_a_full_request_asks_for_reasoning_and_a_schema() -> None:
    schema = {"type": "object"}
    body = request_body(asking("x", effort="low", output_schema=schema, cache_key="t1"))
    assert body["reasoning"] == {"effort": "low"}
    assert body["include"] == ["reasoning.encrypted_content"]
    assert body["prompt_cache_key"] == "t1"
    assert body["text"] == {
        "format": {"type": "json_schema", "strict": True, "schema": schema, "name": "codex_output_schema"}
    }
    assert request_body(asking("x", summary="auto"))["reasoning"] == {"summary": "auto"}


@pytest.mark.parametrize(
    ("item", "kept"),
    [
        ({"type": "message", "id": "msg_1"}, True),
        ({"type": "message", "id": "item-1"}, False),
        ({"role": "user", "id": 5}, False),
        ({"type": "reasoning", "id": "rs_1", "encrypted_content": "s"}, True),
        ({"type": "reasoning", "id": "rs_1", "encrypted_content": None}, False),
        ({"type": "function_call_output", "id": "fco_1"}, True),
        ({"type": "something_new", "id": "x"}, True),
    ],
)
def test_only_ids_that_the_api_accepts_are_sent(item: dict[str, Any], kept: bool) -> None:
    request = asking("x")
    request.input[:] = [item]
    assert ("id" in request_body(request)["input"][0]) is kept
    assert "id" in item


def added(item_id: str, index: int | None = None, kind: str = "message") -> dict[str, Any]:
    where = {} if index is None else {"output_index": index}
    return {"type": "response.output_item.added", **where, "item": {"type": kind, "id": item_id}}


def done(item_id: str, index: int | None = None, kind: str = "message", **members: Any) -> dict[str, Any]:
    where = {} if index is None else {"output_index": index}
    item = {"type": kind, "id": item_id, **members}
    return {"type": "response.output_item.done", **where, "item": item}


def delta(item_id: str | None, text: str, index: int | None = None) -> dict[str, Any]:
    where = {} if index is None else {"output_index": index}
    return {"type": "response.output_text.delta", "item_id": item_id, **where, "delta": text}


def test_one_item_under_changing_ids_keeps_the_first() -> None:
    events = decoded(added("a", 0), delta("b", "x", 0), done("c", 0))
    assert events[1] == TextDelta("a", "x")
    assert isinstance(events[2], OutputItemDone)
    assert events[2].item["id"] == "a"
    assert events[2].item["content"] == [{"type": "output_text", "text": "x"}]


def test_items_that_are_open_together_are_told_apart_by_their_ids() -> None:
    events = decoded(added("a"), added("b"), delta("a", "1"), delta("b", "2"), done("b"), done("a"))
    texts = [event.item["content"][0]["text"] for event in events if isinstance(event, OutputItemDone)]
    assert texts == ["2", "1"]


def test_items_that_share_an_index_are_told_apart_by_their_ids() -> None:
    events = decoded(added("a", 0), added("b", 0), delta("a", "1", 0), done("a", 0), delta("b", "2", 0))
    assert events[2] == TextDelta("a", "1")
    assert events[4] == TextDelta("b", "2")


def test_a_message_whose_end_is_not_announced_ends_with_the_response() -> None:
    events = decoded(added("a"), delta("a", "x"), {"type": "response.completed"})
    assert isinstance(events[2], OutputItemDone)
    assert events[3] == ResponseCompleted("", None)


def test_a_summary_delta_without_its_part_starts_the_part() -> None:
    kind = "response.reasoning_summary_text.delta"
    events = decoded(
        {"type": kind, "item_id": "r", "summary_index": 1, "delta": "x"}, done("r", kind="reasoning")
    )
    assert events[1:3] == [ReasoningSummaryPart("r", 1), ReasoningSummaryDelta("r", 1, "x")]
    assert isinstance(events[3], OutputItemDone)
    assert events[3].item["summary"] == [{"type": "summary_text", "text": "x"}]


def test_the_name_of_an_event_stands_in_for_a_missing_type() -> None:
    decoder = ResponsesDecoder(CountingRuntime())
    decoder.decode("response.completed", {"response": {"id": "r", "usage": {"input_tokens": 3}}})
    assert list(decoder.ready) == [ResponseCompleted("r", TokenCounts(total_tokens=3, input_tokens=3))]
    assert decoder.completed


@pytest.mark.parametrize("usage", [None, 5, "x", []])
def test_usage_that_nobody_can_read_is_none(usage: Any) -> None:
    assert decoded({"type": "response.completed", "response": {"usage": usage}}) == [
        ResponseCompleted("", None)
    ]
