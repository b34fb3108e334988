"""The tools that ask: the user, the clients that serve a tool, and the actor about the goal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from agent.events import (
    ApprovalFailed,
    ClientToolCall,
    GoalReport,
    ItemCompleted,
    OfferedTool,
    TurnOutcome,
    UserQuestions,
)
from agent.tools.dynamic_tools import MOST_NAME_CHARS, from_record, offered, recorded
from agent.tools.request_user_input import MOST_QUESTIONS
from protocol.dynamic_tools import (
    DynamicToolCallResult,
    DynamicToolFunction,
    DynamicToolNamespace,
    ToolAudio,
    ToolImage,
    ToolText,
)
from protocol.items import DynamicToolCallItem
from protocol.server_requests import UserInputResult
from tests.agent.stage import Port, ScriptedModel, Stage, completed, named_call, say

QUESTION = {
    "id": "c",
    "header": "Colour",
    "question": "Which?",
    "options": [{"label": "Red", "description": "warm"}],
}
ANSWER = {"answers": {"c": {"answers": ["Red"]}}}


def function(name: str = "lookup", schema: Any = None) -> DynamicToolFunction:
    return DynamicToolFunction(name=name, description="looks up", input_schema=schema or {"type": "object"})


LOOKUP = OfferedTool(None, function())


async def run(
    stage: Stage,
    call: tuple[str, object],
    *answers: Any,
    offers: tuple[OfferedTool, ...] = (),
    has_goal: bool = False,
    members: Mapping[str, str] | None = None,
) -> tuple[ScriptedModel, TurnOutcome]:
    """A turn with one call of ``(name, arguments)``, then a word of the model."""
    name, arguments = call
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    made = named_call("call-1", name, text)
    made.item.update(members or {})
    model = ScriptedModel([made, completed()], say("done"))
    stage.port = Port(*answers)
    job = stage.job()
    job.dynamic_tools, job.has_goal = offers, has_goal
    return model, await stage.run(model, job)


def finished(stage: Stage) -> list[DynamicToolCallItem]:
    items = [event.item for event in stage.port.events if isinstance(event, ItemCompleted)]
    return [item for item in items if isinstance(item, DynamicToolCallItem)]


# -- request_user_input --------------------------------------------------------------


async def test_the_answers_of_the_user_are_told_to_the_model_as_json(stage: Stage) -> None:
    model, _ = await run(
        stage, ("request_user_input", {"questions": [QUESTION]}), UserInputResult.from_wire(ANSWER)
    )
    assert json.loads(model.outputs()[0]) == ANSWER
    (asked,) = stage.port.questions
    assert isinstance(asked, UserQuestions)
    assert asked.call_id == "call-1"
    assert asked.questions[0].is_other
    assert [option.label for option in asked.questions[0].options or []] == ["Red"]


async def test_no_answer_is_told_to_the_model_and_the_turn_goes_on(stage: Stage) -> None:
    model, outcome = await run(
        stage, ("request_user_input", {"questions": [QUESTION]}), ApprovalFailed("the client is confused")
    )
    assert model.outputs() == ["request_user_input failed: the client is confused"]
    assert outcome == TurnOutcome()


async def test_a_question_that_is_cancelled_ends_the_turn(stage: Stage) -> None:
    model, outcome = await run(
        stage,
        ("request_user_input", {"questions": [QUESTION]}),
        ApprovalFailed("nobody was there", ends_turn=True),
    )
    assert outcome == TurnOutcome(cancelled_by_user=True)
    assert len(model.requests) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        "no json",
        [],
        {},
        {"questions": []},
        {"questions": "what?"},
        {"questions": [{**QUESTION, "question": None}]},
        {"questions": [QUESTION, QUESTION]},
        {"questions": [{**QUESTION, "id": str(number)} for number in range(MOST_QUESTIONS + 1)]},
        {"questions": [{**QUESTION, "options": [{"description": "no label"}]}]},
    ],
)
async def test_a_question_that_cannot_be_put_is_put_to_nobody(stage: Stage, arguments: object) -> None:
    model, _ = await run(stage, ("request_user_input", arguments))
    assert model.outputs()[0].startswith("failed to parse function arguments: ")
    assert stage.port.questions == []


# -- dynamic tools --------------------------------------------------------------


async def test_a_call_of_a_client_s_tool_ends_as_a_finished_item_and_the_text_goes_to_the_model(
    stage: Stage,
) -> None:
    answer = DynamicToolCallResult(content_items=[ToolText(text="one"), ToolText(text="two")], success=True)
    model, _ = await run(stage, ("lookup", {"k": "v"}), answer, offers=(LOOKUP,))
    assert [tool["name"] for tool in model.requests[0].tools][-1] == "lookup"
    assert model.outputs() == ["one\ntwo"]
    (item,) = finished(stage)
    assert (item.id, item.tool, item.arguments) == ("call-1", "lookup", {"k": "v"})
    assert (item.status, item.success) == ("completed", True)
    assert item.content_items == [{"type": "inputText", "text": "one"}, {"type": "inputText", "text": "two"}]
    assert item.duration_ms is not None
    (asked,) = stage.port.questions
    assert isinstance(asked, ClientToolCall)
    assert asked.item.status == "inProgress"


async def test_what_is_no_text_travels_as_parts(stage: Stage) -> None:
    content = [
        ToolText(text="look"),
        ToolImage(image_url="data:image/png;base64,A"),
        ToolAudio(audio_url="data:a"),
    ]
    answer = DynamicToolCallResult(content_items=content, success=True)
    model, _ = await run(stage, ("lookup", {}), answer, offers=(LOOKUP,))
    assert model.outputs()[0] == [
        {"type": "input_text", "text": "look"},
        {"type": "input_image", "image_url": "data:image/png;base64,A"},
        {"type": "input_text", "text": "[A sound; this model is not given sound]"},
    ]


@pytest.mark.parametrize(
    ("answer", "output"),
    [
        (DynamicToolCallResult(content_items=[ToolText(text="sorry")], success=False), "sorry"),
        (ApprovalFailed("the client is confused"), "dynamic tool call failed: the client is confused"),
    ],
)
async def test_a_tool_that_fails_shows_a_failed_item(stage: Stage, answer: Any, output: str) -> None:
    model, outcome = await run(stage, ("lookup", {}), answer, offers=(LOOKUP,))
    assert model.outputs() == [output]
    assert [(item.status, item.success) for item in finished(stage)] == [("failed", False)]
    assert outcome == TurnOutcome()


@pytest.mark.parametrize(
    ("name", "members"), [("desk__lookup", {}), ("lookup", {"namespace": "desk"})], ids=["joined", "apart"]
)
async def test_a_tool_of_a_namespace_is_found_by_both_forms_of_its_name(
    stage: Stage, name: str, members: dict[str, str]
) -> None:
    answer = DynamicToolCallResult(content_items=[], success=True)
    offers = (OfferedTool("desk", function()),)
    await run(stage, (name, {}), answer, offers=offers, members=members)
    assert [(item.namespace, item.tool) for item in finished(stage)] == [("desk", "lookup")]


async def test_a_client_s_tool_takes_the_place_of_a_built_in_one(stage: Stage) -> None:
    answer = DynamicToolCallResult(content_items=[ToolText(text="mine")], success=True)
    offers = (OfferedTool(None, function("exec_command")),)
    model, _ = await run(stage, ("exec_command", {"cmd": "true"}), answer, offers=offers)
    assert model.outputs() == ["mine"]
    names = [tool["name"] for tool in model.requests[0].tools]
    assert names.count("exec_command") == 1


@pytest.mark.parametrize("arguments", ["{", "[]", "5"])
async def test_arguments_that_are_no_object_reach_no_client(stage: Stage, arguments: str) -> None:
    model, _ = await run(stage, ("lookup", arguments), offers=(LOOKUP,))
    assert model.outputs()[0].startswith("failed to parse function arguments: ")
    assert stage.port.questions == []


@pytest.mark.parametrize(
    ("specs", "why"),
    [
        ([function(""), function("b")], "must consist of"),
        ([function("two words")], "must consist of"),
        ([function("x" * (MOST_NAME_CHARS + 1))], "longer than"),
        ([function(), function()], "duplicate dynamic tool name: lookup"),
        ([function(schema="text")], "must be a JSON Schema of an object"),
        ([function(schema={"type": "array"})], "must be a JSON Schema of an object"),
        ([DynamicToolNamespace(name="a b", description="", tools=[function()])], "must consist of"),
    ],
)
def test_tools_that_no_model_could_be_offered_are_refused(specs: list[Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        offered(specs)


def test_what_a_rollout_keeps_of_the_tools_is_what_was_offered() -> None:
    space = DynamicToolNamespace(name="desk", description="", tools=[function("a"), function("b")])
    tools = offered([function(), space])
    assert [each.namespace for each in tools] == [None, "desk", "desk"]
    assert from_record(recorded(tools)) == tools


@pytest.mark.parametrize(
    "value", [None, 5, {}, [5], [{"type": "function"}], [{"type": "other", "name": "x"}]]
)
def test_tools_of_a_damaged_rollout_are_none(value: object) -> None:
    assert from_record(value) == ()


# -- goals --------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "report"),
    [
        (("get_goal", {}), GoalReport()),
        (("update_goal", {"status": "complete"}), GoalReport("complete")),
        (("update_goal", {"status": "blocked"}), GoalReport("blocked")),
    ],
)
async def test_the_actor_is_asked_about_the_goal(
    stage: Stage, call: tuple[str, object], report: GoalReport
) -> None:
    model, _ = await run(stage, call, '{"goal": "..."}', has_goal=True)
    assert stage.port.questions == [report]
    assert model.outputs() == ['{"goal": "..."}']


@pytest.mark.parametrize("arguments", ["", "[]", {}, {"status": "active"}, {"status": "paused"}])
async def test_the_model_can_only_end_a_goal(stage: Stage, arguments: object) -> None:
    model, _ = await run(stage, ("update_goal", arguments), has_goal=True)
    assert model.outputs()[0].startswith("failed to parse function arguments: ")
    assert stage.port.questions == []


async def test_without_a_goal_there_are_no_tools_for_it(stage: Stage) -> None:
    model, _ = await run(stage, ("update_goal", {"status": "complete"}))
    assert model.outputs() == ["unsupported call: update_goal"]
    assert not any("goal" in tool["name"] for tool in model.requests[0].tools)


async def test_why_a_turn_began_by_itself_is_told_before_anything_else_and_shown_to_nobody(
    stage: Stage,
) -> None:
    model = ScriptedModel(say("done"))
    job = stage.job()
    job.submissions, job.opening_note = [], "<goal>go on</goal>"
    await stage.run(model, job)
    last = model.requests[0].input[-1]
    assert last == {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "<goal>go on</goal>"}],
    }
    assert "started userMessage" not in stage.port.log()


async def test_a_note_is_told_before_the_next_response_and_makes_none(stage: Stage) -> None:
    model = ScriptedModel([named_call("call-1", "no_such", "{}"), completed()], say("done"))
    stage.control.notes.append("<goal>stop</goal>")
    assert await stage.run(model) == TurnOutcome()
    texts = [item["content"][0]["text"] for item in model.requests[0].input if item.get("role") == "user"]
    assert texts[-1] == "<goal>stop</goal>"
    assert len(model.requests) == 2
