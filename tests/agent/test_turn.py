"""The loop of a turn: what is posted in which order, steering, interrupts, failures."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from agent.events import (
    ContextAppended,
    ItemCompleted,
    ItemDelta,
    ItemStarted,
    ModelResponded,
    ReasoningPart,
    TurnOutcome,
)
from agent.model.events import (
    OutputItemDone,
    OutputItemStarted,
    ReasoningSummaryDelta,
    ReasoningSummaryPart,
    ResponseItem,
    StreamRestarted,
    TextDelta,
)
from protocol.errors import TurnFailure
from protocol.items import AgentMessageItem, CommandExecutionItem, ReasoningItem, UserMessageItem
from tests.agent.stage import (
    ScriptedModel,
    Stage,
    Step,
    call,
    completed,
    message,
    named_call,
    opened,
    say,
    submission,
)

USER = ["started userMessage", "completed userMessage"]
ANSWER = ["started agentMessage", "delta 'done'", "completed agentMessage", "ModelResponded"]


async def test_a_plain_turn_posts_its_items_in_order_and_ends(stage: Stage) -> None:
    model = ScriptedModel(say("done"))
    job = stage.job("hi")
    assert await stage.run(model, job) == TurnOutcome()
    assert stage.port.log() == USER + ANSWER
    started, finished = (
        event for event in stage.port.events if isinstance(getattr(event, "item", None), UserMessageItem)
    )
    assert isinstance(started, ItemStarted)
    assert started.item.started_at_ms is not None
    assert started.item.completed_at_ms is None
    assert isinstance(finished, ItemCompleted)
    assert finished.context_first
    assert finished.item.id == "user-1"
    assert finished.item.completed_at_ms is not None
    assert finished.context == (
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
    )
    last = [event for event in stage.port.events if isinstance(event, ItemCompleted)][-1]
    assert isinstance(last.item, AgentMessageItem)
    assert (last.item.id, last.item.text, last.context_first) == ("msg-1", "done", False)
    assert last.context == (message("msg-1", "done"),)


async def test_what_is_posted_as_context_is_exactly_what_the_model_is_sent_next(stage: Stage) -> None:
    model = ScriptedModel([call("call-1", cmd="true"), completed()], say("done"))
    job = stage.job()
    await stage.run(model, job)
    posted: list[ResponseItem] = []
    for event in stage.port.events:
        if isinstance(event, ContextAppended):
            posted += event.items
        elif isinstance(event, ItemCompleted):
            posted += event.context
    assert job.context == posted
    assert model.requests[-1].input == posted[:-1]


async def test_a_turn_without_input_still_asks_the_model(stage: Stage) -> None:
    job = stage.job()
    job.submissions = []
    assert await stage.run(ScriptedModel(say("done")), job) == TurnOutcome()
    assert stage.port.log() == ANSWER


async def test_reasoning_is_shown_part_by_part(stage: Stage) -> None:
    item: ResponseItem = {"type": "reasoning", "id": "rs-1", "summary": [], "encrypted_content": None}
    done = {**item, "summary": [{"type": "summary_text", "text": "thinking"}]}
    await stage.run(
        ScriptedModel(
            [
                OutputItemStarted(item),
                ReasoningSummaryPart("rs-1", 0),
                ReasoningSummaryDelta("rs-1", 0, "thinking"),
                OutputItemDone(done),
                *say("done"),
            ]
        )
    )
    assert ReasoningPart("rs-1", 0) in stage.port.events
    assert ItemDelta("reasoningSummary", "rs-1", "thinking", 0) in stage.port.events
    finished = [event for event in stage.port.events if isinstance(event, ItemCompleted)][1]
    assert isinstance(finished.item, ReasoningItem)
    assert finished.item.summary == ["thinking"]
    assert finished.context == (done,)


async def test_usage_comes_after_the_commands_of_the_response(stage: Stage) -> None:
    await stage.run(ScriptedModel([call("call-1", cmd="echo hi"), completed()], say("done")))
    assert stage.port.log() == [
        *USER,
        "started commandExecution inProgress",
        "completed commandExecution completed",
        "ModelResponded",
        *ANSWER,
    ]


async def test_two_calls_of_one_response_run_at_the_same_time(stage: Stage) -> None:
    # Each waits for what the other writes: one after the other they would never end.
    wait = "until [ -e {} ]; do sleep 0.01; done"
    model = ScriptedModel(
        [
            call("call-1", cmd="touch one; " + wait.format("two")),
            call("call-2", cmd="touch two; " + wait.format("one")),
            completed(),
        ],
        say("done"),
    )
    assert await stage.run(model) == TurnOutcome()
    assert [item.exit_code for item in stage.port.commands()] == [0, 0]


async def test_a_call_starts_while_the_response_still_streams(stage: Stage) -> None:
    gate = trio.Event()
    model = ScriptedModel([call("call-1", cmd="echo early"), gate, completed()], say("done"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.run, model)
        await stage.port.until(lambda event: isinstance(event, ItemCompleted) and event.item.id == "call-1")
        gate.set()


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("no_such_tool", '{"a":1}', "unsupported call: no_such_tool"),
        (
            "exec_command",
            "{not json",
            "failed to parse function arguments: key must be a string at line 1 column 2",
        ),
        ("exec_command", "{}", "failed to parse function arguments: missing field `cmd`"),
        ("exec_command", "[]", "failed to parse function arguments: invalid type: array, expected an object"),
        (
            "exec_command",
            '{"cmd": 3}',
            "failed to parse function arguments: `cmd`: Input should be a valid string",
        ),
        (
            "exec_command",
            '{"cmd": "a", "timeout_ms": 0}',
            "failed to parse function arguments: `timeout_ms`: Input should be greater than or equal to 1",
        ),
        (
            "exec_command",
            '{"cmd": "a\\u0000b"}',
            "failed to parse function arguments: `cmd` has a NUL character",
        ),
    ],
)
async def test_a_call_that_cannot_be_understood_is_answered_and_has_no_item(
    stage: Stage, name: str, arguments: str, told: str
) -> None:
    model = ScriptedModel([named_call("call-1", name, arguments), completed()], say("done"))
    assert await stage.run(model) == TurnOutcome()
    assert model.outputs() == [told]
    assert stage.port.log() == [*USER, "ModelResponded", *ANSWER]


async def test_an_unknown_custom_tool_is_answered_in_its_own_form(stage: Stage) -> None:
    item = {"type": "custom_tool_call", "call_id": "call-1", "name": "apply_patch", "input": "x"}
    model = ScriptedModel([OutputItemDone(item), completed()], say("done"))
    await stage.run(model)
    assert model.requests[-1].input[-1] == {
        "type": "custom_tool_call_output",
        "call_id": "call-1",
        "output": "unsupported custom tool call: apply_patch",
    }


# Steering


async def test_a_steer_abandons_the_stream_at_once(stage: Stage) -> None:
    model = ScriptedModel([opened("msg-1"), TextDelta("msg-1", "half"), trio.Event()], say("done", "msg-2"))
    job = stage.job("first")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.run, model, job)
        await stage.port.until(lambda event: isinstance(event, ItemDelta))
        stage.control.steer(submission("second", "user-2"))
    assert stage.port.log() == [*USER, "started agentMessage", "delta 'half'", *USER, *ANSWER]
    assert model.closed == 2
    assert model.user_texts() == ["first", "second"]
    assert not [item for item in job.context if item.get("id") == "msg-1"]
    assert stage.control.unconsumed == []


async def test_a_steer_while_a_command_runs_waits_for_it(stage: Stage) -> None:
    model = ScriptedModel(
        [call("call-1", cmd="until [ -e go ]; do sleep 0.01; done; echo went"), trio.Event()], say("done")
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.run, model)
        await stage.port.until(
            lambda event: isinstance(event, ItemStarted) and isinstance(event.item, CommandExecutionItem)
        )
        stage.control.steer(submission("second", "user-2"))
        await trio.testing.wait_all_tasks_blocked()
        assert len(stage.control.unconsumed) == 1
        await (trio.Path(stage.cwd) / "go").touch()
    assert stage.port.log() == [
        *USER,
        "started commandExecution inProgress",
        "completed commandExecution completed",
        *USER,
        *ANSWER,
    ]
    assert "went" in model.outputs()[0]


async def test_several_steers_are_all_taken_in_their_order(stage: Stage) -> None:
    model = ScriptedModel([opened("msg-1"), trio.Event()], say("done"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.run, model)
        await stage.port.until(lambda event: isinstance(event, ItemStarted) and event.item.id == "msg-1")
        stage.control.steer(submission("second", "user-2"))
        stage.control.steer(submission("third", "user-3"))
    assert model.user_texts() == ["hello", "second", "third"]


async def test_a_steer_before_the_first_request_needs_no_second_one(stage: Stage) -> None:
    stage.control.steer(submission("second", "user-2"))
    model = ScriptedModel(say("done"))
    await stage.run(model)
    assert model.user_texts() == ["hello", "second"]
    assert len(model.requests) == 1


async def test_a_steer_in_the_moment_the_response_ends_gets_its_own_request(stage: Stage) -> None:
    model = ScriptedModel(say("done"), say("done", "msg-2"))
    post = stage.port.post

    async def steer_at_the_end(event: object) -> None:
        await post(event)  # type: ignore[arg-type]
        if isinstance(event, ModelResponded) and len(model.requests) == 1:
            stage.control.steer(submission("second", "user-2"))

    stage.port.post = steer_at_the_end  # type: ignore[method-assign]
    assert await stage.run(model) == TurnOutcome()
    assert stage.port.log() == [*USER, *ANSWER, *USER, *ANSWER]


async def test_a_steer_after_the_end_stays_with_the_actor(stage: Stage) -> None:
    await stage.run(ScriptedModel(say("done")))
    late = submission("late", "user-2")
    stage.control.steer(late)
    assert stage.control.unconsumed == [late]


@pytest.mark.parametrize("at", range(1, 14))
async def test_wherever_a_steer_falls_the_model_sees_it_once_or_the_actor_keeps_it(
    stage: Stage, at: int
) -> None:
    """Steers after the ``at``-th event of a turn with a message and a call."""
    late = submission("second", "user-2")
    first: list[Step] = [
        opened("m"),
        TextDelta("m", "x"),
        OutputItemDone(message("m", "x")),
        call("c", cmd="true"),
        completed(),
    ]
    model = ScriptedModel([*first], say("done", "m2"), say("done", "m3"), say("done", "m4"))
    post = stage.port.post

    async def steering(event: object) -> None:
        await post(event)  # type: ignore[arg-type]
        if len(stage.port.events) == at:
            stage.control.steer(late)

    stage.port.post = steering  # type: ignore[method-assign]
    job = stage.job("first")
    assert await stage.run(model, job) == TurnOutcome()
    assert len(stage.port.events) >= at
    assert model.user_texts().count("second") == 1
    shown = [
        event for event in stage.port.events if isinstance(event, ItemCompleted) and event.item.id == "user-2"
    ]
    assert len(shown) == 1
    assert stage.control.unconsumed == []


async def test_an_item_that_a_steer_keeps_from_being_posted_is_not_told_to_the_model(stage: Stage) -> None:
    model = ScriptedModel(say("nobody has seen this", "m"), say("done", "m2"))
    post = stage.port.post

    async def steering(event: object) -> None:
        if isinstance(event, ItemCompleted) and event.item.id == "m":
            stage.control.steer(submission("second", "user-2"))
        await post(event)  # type: ignore[arg-type]

    stage.port.post = steering  # type: ignore[method-assign]
    assert await stage.run(model, stage.job("first")) == TurnOutcome()
    posted = [event.item.id for event in stage.port.events if isinstance(event, ItemCompleted)]
    assert "m" not in posted
    assert "nobody has seen this" not in str(model.requests[1].input)


# Interrupts


async def test_an_interrupt_posts_nothing_more_and_closes_the_stream(stage: Stage) -> None:
    model = ScriptedModel([opened("msg-1"), TextDelta("msg-1", "half"), trio.Event()])
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.run, model)
            await stage.port.until(lambda event: isinstance(event, ItemDelta))
            before = len(stage.port.events)
            scope.cancel()
    assert len(stage.port.events) == before
    assert model.closed == 1


async def test_an_interrupted_command_runs_on_in_the_background(stage: Stage) -> None:
    model = ScriptedModel(
        [call("call-1", cmd="until [ -e go ]; do sleep 0.01; done; echo went"), completed()]
    )
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.run, model)
            await stage.port.until(lambda event: isinstance(event, ItemStarted) and event.item.id == "call-1")
            scope.cancel()
    (terminal,) = stage.terminals.running.values()
    await (trio.Path(stage.cwd) / "go").touch()
    with trio.fail_after(10):
        await terminal.ended.wait()
    assert (terminal.exit_code, terminal.output.text()) == (0, "went\n")
    assert stage.port.commands() == []


async def test_the_turn_after_an_interrupted_one_tells_the_model_and_answers_its_call(stage: Stage) -> None:
    model = ScriptedModel(say("done"))
    job = stage.job("again")
    job.context = [named_call("call-1", "exec_command", '{"cmd": "x"}').item]
    job.interrupted_before = True
    await stage.run(model, job)
    sent = model.requests[0].input
    assert sent[1] == {"type": "function_call_output", "call_id": "call-1", "output": "aborted"}
    assert sent[2]["content"][0]["text"].startswith(
        "<turn_aborted>\nThe user interrupted the previous turn on purpose."
    )
    assert sent[-1]["content"][0]["text"] == "again"


# Failures


async def test_a_model_failure_is_the_outcome_and_keeps_what_was_done(stage: Stage) -> None:
    failure = TurnFailure("no", {"httpConnectionFailed": {"httpStatusCode": 401}}, details="why")
    job = stage.job()
    outcome = await stage.run(ScriptedModel([*say("done")[:3], failure]), job)
    assert outcome.error is not None
    assert (outcome.error.message, outcome.error.additional_details) == ("no", "why")
    assert outcome.error.codex_error_info == {"httpConnectionFailed": {"httpStatusCode": 401}}
    assert stage.port.log() == [*USER, *ANSWER[:3]]
    assert job.context[-1] == message("msg-1", "done")


async def test_a_filled_context_window_is_posted_before_the_turn_fails(stage: Stage) -> None:
    outcome = await stage.run(ScriptedModel([TurnFailure("full", "contextWindowExceeded")]))
    assert outcome.error is not None
    assert stage.port.log() == [*USER, "ContextWindowFilled"]


async def test_a_stream_that_just_ends_is_a_failure(stage: Stage) -> None:
    outcome = await stage.run(ScriptedModel([opened("msg-1")]))
    assert outcome.error is not None
    assert outcome.error.message.endswith("stream closed before response.completed")


async def test_a_command_that_began_is_finished_before_its_response_fails(stage: Stage) -> None:
    outcome = await stage.run(ScriptedModel([call("call-1", cmd="echo hi"), TurnFailure("cut")]))
    assert outcome.error is not None
    assert [item.status for item in stage.port.commands()] == ["completed"]


async def test_a_restarted_stream_is_asked_with_what_was_done_already(stage: Stage) -> None:
    model = ScriptedModel(
        [call("call-1", cmd="echo hi"), opened("msg-0"), StreamRestarted(), *say("done")],
    )
    assert await stage.run(model) == TurnOutcome()
    again = model._build()
    assert [item["type"] for item in again.input][-3:] == ["function_call", "function_call_output", "message"]
    # The call was answered within the same response, so its end is the end of the turn.
    assert len(model.requests) == 1
    log = stage.port.log()
    assert log.index("completed commandExecution completed") < log.index("completed agentMessage")


async def test_an_unexpected_error_is_raised_and_kills_no_command_silently(stage: Stage) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await stage.run(ScriptedModel([RuntimeError("a bug")]))
    assert caught.group_contains(RuntimeError, match="a bug")


async def test_a_restarted_stream_waits_for_the_commands_of_the_broken_one(stage: Stage) -> None:
    wait = "until [ -e go ]; do sleep 0.01; done"
    model = ScriptedModel([call("call-1", cmd=wait), StreamRestarted(), *say("done")])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.run, model)
        await stage.port.until(lambda event: isinstance(event, ItemStarted) and event.item.id == "call-1")
        await trio.testing.wait_all_tasks_blocked()
        assert stage.port.log()[-1] == "started commandExecution inProgress"
        await (trio.Path(stage.cwd) / "go").touch()
    assert stage.port.log()[-4:] == ANSWER
