"""A context that was cut anywhere is mended before it is sent."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.context import ABORTED, call_output, input_text, mended, message_text, user_message
from tests.agent.stage import message

USER = user_message([input_text("hi")])
REASONING: dict[str, Any] = {"type": "reasoning", "id": "rs-1", "summary": []}


def a_call(call_id: str) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": "x", "arguments": "{}"}


def test_a_whole_context_is_left_alone() -> None:
    whole = [
        USER,
        REASONING,
        a_call("1"),
        a_call("2"),
        call_output("2", "b"),
        call_output("1", "a"),
        message("m", "x"),
    ]
    assert mended(whole) == whole


def test_a_call_without_an_answer_gets_one() -> None:
    assert mended([USER, a_call("1"), USER]) == [USER, a_call("1"), call_output("1", ABORTED), USER]


def test_a_custom_call_is_answered_in_its_own_form() -> None:
    custom = {"type": "custom_tool_call", "call_id": "1", "name": "x", "input": ""}
    assert mended([custom]) == [custom, call_output("1", ABORTED, custom=True)]


def test_ids_that_are_used_again_are_told_apart_by_their_order() -> None:
    first, cut, last = [a_call("1"), call_output("1", "a")], a_call("1"), [a_call("1"), call_output("1", "c")]
    assert mended([*first, cut, USER, *last]) == [*first, cut, call_output("1", ABORTED), USER, *last]


def test_an_answer_without_its_call_or_a_second_one_is_left_out() -> None:
    assert mended([call_output("9", "?"), a_call("1"), call_output("1", "a"), call_output("1", "b")]) == [
        a_call("1"),
        call_output("1", "a"),
    ]


@pytest.mark.parametrize("after", [[], [USER], [call_output("1", "a"), USER]])
def test_reasoning_that_leads_to_nothing_is_left_out(after: list[dict[str, Any]]) -> None:
    assert REASONING not in mended([a_call("1"), REASONING, *after])


@pytest.mark.parametrize("after", [[message("m", "x")], [REASONING, a_call("1")]])
def test_reasoning_that_leads_on_stays(after: list[dict[str, Any]]) -> None:
    assert mended([REASONING, *after])[0] == REASONING


ITEMS = st.one_of(
    st.sampled_from([USER, REASONING, message("m", "x"), {"type": "compaction"}]),
    st.integers(1, 3).map(lambda number: a_call(str(number))),
    st.integers(1, 3).map(lambda number: call_output(str(number), "out")),
)


@given(st.lists(ITEMS))
def test_mending_twice_changes_nothing_more(items: list[dict[str, Any]]) -> None:
    before = [dict(item) for item in items]
    once = mended(items)
    assert items == before
    assert mended(once) == once


@given(st.lists(ITEMS, unique_by=lambda item: (item["type"], item.get("call_id"))))
def test_every_call_has_its_answer_after_it(items: list[dict[str, Any]]) -> None:
    result = mended(items)
    for position, item in enumerate(result):
        if item["type"] == "function_call":
            later = [entry for entry in result[position:] if entry["type"] == "function_call_output"]
            assert [entry["call_id"] for entry in later].count(item["call_id"]) == 1


def test_the_text_of_a_message_is_all_its_parts() -> None:
    parts = [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "b"}, {"type": "x"}, 3]
    assert message_text({"type": "message", "content": parts}) == "ab"
    assert message_text({"type": "message", "content": "plain"}) == "plain"
    assert message_text({"type": "message", "content": None}) == ""
