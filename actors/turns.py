"""The turn slot: how turns start, are steered, interrupted, and end.

Rules:

1. A thread's slot is ``idle``, ``failed`` (idle, and the last turn failed) or ``running``; ``SLOT`` below
   is the whole machine. A pair that is not in it is refused, or ignored where nobody asked.
2. Every started turn gets exactly one terminal line and one ``turn/completed``: both come from ``_close``,
   which empties the slot in the same step, and what a closed turn still posts is ignored by its id.
3. The turn's task is told to stop after the slot is empty, never waited for: interrupting answers at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from actors import goals
from actors import lines as rollout
from actors.effects import (
    CancelTurn,
    Decision,
    FillSlot,
    ForgetRequest,
    StartTurn,
    SteerTurn,
)
from actors.messages import TurnEnded, TurnInterrupt, TurnStart, TurnSteer
from actors.queue_claims import turn_over
from actors.queue_rows import may_drain
from actors.read_state import turn_unread
from actors.state import RunningTurn, Settings, ThreadState, change_record
from actors.step import StepContext, draining_error
from actors.thread_settings import absolute, as_shown
from actors.turn_events import count_usage, item_completed
from actors.views import thread_settings
from agent.events import ApprovalFailed, ItemCompleted, Submission, TurnJob
from agent.model.events import ResponseItem
from agent.prompt import completed_message
from protocol.errors import InvalidParams, InvalidRequest
from protocol.lifecycle_methods import SettingsUpdateParams
from protocol.notifications import ErrorNote, ItemStartedNote, RequestResolved, SettingsUpdated, TurnNote
from protocol.thread_methods import Empty
from protocol.threads import Turn, TurnError, TurnStatus
from protocol.turn_methods import TurnStartParams, TurnStartResult, TurnSteerResult
from protocol.user_input import MAX_INPUT_CHARS, UserInput, text_length

Announce = Callable[[Decision, RunningTurn], None]
"""Called where whoever asked for a turn is answered: after the settings, before the status."""

Unseen = Sequence[ItemCompleted]
"""User messages that a turn accepted and that its model will not see any more, ready for the transcript."""

Slot = Literal["idle", "failed", "running"]
SlotEvent = Literal["start", "complete", "fail", "interrupt"]

SLOT: dict[tuple[Slot, SlotEvent], tuple[Slot, TurnStatus]] = {
    ("idle", "start"): ("running", "inProgress"),
    ("failed", "start"): ("running", "inProgress"),
    ("running", "complete"): ("idle", "completed"),
    ("running", "fail"): ("failed", "failed"),
    ("running", "interrupt"): ("idle", "interrupted"),
}
"""(slot, event) -> (slot, the turn's status on the wire)."""


def slot_of(state: ThreadState) -> Slot:
    """The slot's state."""
    if state.turn is not None:
        return "running"
    return "failed" if state.failed else "idle"


def check_input(parts: list[UserInput]) -> None:
    """Refuse input over the limit.

    Raises:
        InvalidParams: with the limit and the size in ``data``.
    """
    length = text_length(parts)
    if length > MAX_INPUT_CHARS:
        raise InvalidParams(
            f"Input exceeds the maximum length of {MAX_INPUT_CHARS} characters.",
            data={
                "input_error_code": "input_too_large",
                "max_chars": MAX_INPUT_CHARS,
                "actual_chars": length,
            },
        )


def overridden(settings: Settings, params: TurnStartParams | SettingsUpdateParams) -> Settings:
    """The settings with the overrides of a turn/start or thread/settings/update, from now on.

    A collaboration mode wins over model and effort, as it does in the reference.
    """
    turn = settings.turn
    mode = params.collaboration_mode
    model = settings.model if params.model is None else params.model
    effort = turn.effort if params.effort is None else params.effort
    if mode is not None:
        model = mode.settings.model or model
        effort = mode.settings.reasoning_effort or effort
    cwd = settings.cwd if params.cwd is None else absolute(params.cwd, settings.cwd)
    return replace(
        settings,
        model=model,
        cwd=cwd,
        service_tier=params.service_tier or settings.service_tier,
        collaboration_mode=settings.collaboration_mode if mode is None else mode.mode,
        turn=replace(
            turn,
            model=model,
            cwd=cwd,
            approval_policy=params.approval_policy or turn.approval_policy,
            sandbox_policy=params.sandbox_policy or turn.sandbox_policy,
            effort=effort,
            summary=params.summary or turn.summary,
        ),
    )


def start(state: ThreadState, message: TurnStart, step: StepContext, context: list[ResponseItem]) -> Decision:
    """turn/start: a new turn, or, while one runs, another message for it."""
    params = message.params
    if step.draining():
        decision = Decision(state)
        decision.refuse(message.reply, draining_error())
        return decision
    submission = Submission(step.runtime.new_id(), params.input, params.client_user_message_id)
    if state.turn is not None:
        decision = Decision(state)
        decision.answer(message.reply, TurnStartResult(turn=accepted(state.turn)))
        into_turn(decision, submission)
        return decision

    def answer(decision: Decision, turn: RunningTurn) -> None:
        decision.answer(message.reply, TurnStartResult(turn=accepted(turn)))

    return begin(state, params, submission, step, context, answer)


def begin(
    state: ThreadState,
    params: TurnStartParams,
    submission: Submission,
    step: StepContext,
    context: list[ResponseItem],
    announce: Announce,
) -> Decision:
    """A turn for what a user says, in an idle thread."""
    turn = RunningTurn(
        step.runtime.new_id(),
        step.now_ms,
        output_schema=params.output_schema,
        untaken=(submission,) if params.input else (),
        for_goal=state.goal is not None and state.goal.status == "active",
    )
    return _begin(state, turn, overridden(state.settings, params), step, context, announce)


def continue_goal(state: ThreadState, step: StepContext, context: list[ResponseItem]) -> Decision:
    """The next turn towards the goal, if this is still the moment for it."""
    goal = state.goal
    if step.draining() or state.turn is not None or goal is None or goal.status != "active":
        return Decision(state)
    if may_drain(state):
        # What the user has queued comes first.
        return Decision(state)
    turn = RunningTurn(step.runtime.new_id(), step.now_ms, for_goal=True, continues_goal=True)
    return _begin(state, turn, state.settings, step, context, note=goals.continuation(goal))


def _begin(
    state: ThreadState,
    turn: RunningTurn,
    settings: Settings,
    step: StepContext,
    context: list[ResponseItem],
    announce: Announce | None = None,
    note: str | None = None,
) -> Decision:
    """Fill the slot: the lines, the answer to who asked for it, the notifications, the task."""
    now = turn.started_at_ms
    after = replace(state, settings=settings, turn=turn, failed=False, interrupted_before=False)
    after = change_record(
        after,
        updated_at_ms=now,
        recency_at_ms=max(now, state.record.recency_at_ms),
        model=settings.model,
        cwd=settings.cwd,
        reasoning_effort=settings.turn.effort,
    )
    decision = Decision(after)
    rollout.turn_began(decision, state, now, step.runtime.new_id())
    if as_shown(settings) != as_shown(state.settings):
        decision.notify(
            "thread/settings/updated",
            SettingsUpdated(thread_id=state.record.id, thread_settings=thread_settings(settings)),
        )
    if announce is not None:
        announce(decision, turn)
    decision.show_status()
    decision.notify("turn/started", _turn_note(after, turn, "inProgress"))
    job = _job(decision.state, turn, list(turn.untaken), context)
    job.interrupted_before = state.interrupted_before
    job.opening_note = note
    decision.effects.append(StartTurn(job))
    return decision


def _job(
    state: ThreadState, turn: RunningTurn, submissions: list[Submission], context: list[ResponseItem]
) -> TurnJob:
    return TurnJob(
        thread_id=state.record.id,
        turn_id=turn.id,
        submissions=submissions,
        context=list(context),
        settings=replace(state.settings.turn, output_schema=turn.output_schema),
        dynamic_tools=state.dynamic_tools,
        has_goal=state.goal is not None,
    )


def accepted(turn: RunningTurn) -> Turn:
    """A turn as it is answered when it is accepted."""
    return Turn(id=turn.id, root_turn_id=turn.id, status="inProgress")


def into_turn(decision: Decision, submission: Submission) -> None:
    """Give the running turn another user message, and remember it until the transcript has it."""
    turn = decision.state.turn
    assert turn is not None
    if submission.input:
        turn = replace(turn, untaken=(*turn.untaken, submission))
        decision.state = replace(decision.state, turn=turn)
    decision.effects.append(SteerTurn(submission))


def steer(state: ThreadState, message: TurnSteer, step: StepContext) -> Decision:
    """turn/steer: another user message for the running turn."""
    params = message.params
    decision = Decision(state)
    error: InvalidRequest | None = None
    if step.draining():
        error = draining_error()
    elif not params.expected_turn_id:
        error = InvalidRequest("expectedTurnId must not be empty")
    elif not params.input:
        error = InvalidRequest("input must not be empty")
    elif state.turn is None:
        error = InvalidRequest("no active turn to steer")
    elif state.turn.id != params.expected_turn_id:
        error = InvalidRequest(
            f"expected active turn id `{params.expected_turn_id}` but found `{state.turn.id}`"
        )
    if error is not None:
        decision.refuse(message.reply, error)
        return decision
    assert state.turn is not None
    submission = Submission(step.runtime.new_id(), params.input, params.client_user_message_id)
    decision.answer(message.reply, TurnSteerResult(turn_id=state.turn.id))
    into_turn(decision, submission)
    return decision


def interrupt(state: ThreadState, message: TurnInterrupt, step: StepContext, unseen: Unseen = ()) -> Decision:
    """turn/interrupt: the answer, then the turn's end."""
    wanted = message.params.turn_id
    if state.turn is None or wanted not in ("", state.turn.id):
        decision = Decision(state)
        if state.turn is not None:
            decision.refuse(
                message.reply,
                InvalidRequest(f"expected active turn id {wanted} but found {state.turn.id}"),
            )
        elif wanted:
            decision.refuse(message.reply, InvalidRequest("no active turn to interrupt"))
        else:
            decision.answer(message.reply, Empty())
        return decision
    decision = Decision(state)
    _count_rest(decision, step)
    decision.answer(message.reply, Empty())
    _close(decision, "interrupt", step, unseen=unseen)
    return decision


async def untaken_messages(state: ThreadState, step: StepContext) -> list[ItemCompleted]:
    """What the running turn was told and is not in the transcript yet. Reads the files that are in it."""
    untaken = () if state.turn is None else state.turn.untaken
    return [await completed_message(each, step.now_ms) for each in untaken]


def ended(
    state: ThreadState,
    message: TurnEnded,
    step: StepContext,
    unconsumed: list[Submission],
    context: list[ResponseItem],
    unseen: Unseen = (),
) -> Decision:
    """The turn's task is over by itself: the turn ends, or goes on with what came in the last moment."""
    turn, outcome = state.turn, message.outcome
    if turn is None or turn.id != message.turn_id or outcome is None:
        return Decision(state)
    decision = Decision(state)
    if outcome.cancelled_by_user:
        _close(decision, "interrupt", step, unseen=unseen)
    elif outcome.error is not None:
        _close(decision, "fail", step, outcome.error, unseen=unseen)
    elif unconsumed:
        decision.effects.append(StartTurn(_job(state, turn, unconsumed, context)))
    else:
        _close(decision, "complete", step)
    return decision


def broken(state: ThreadState, step: StepContext, error: TurnError) -> Decision:
    """The running turn cannot go on because it cannot be recorded: it fails."""
    decision = Decision(state)
    _close(decision, "fail", step, error)
    return decision


def shut_down(state: ThreadState, step: StepContext, unseen: Unseen = ()) -> Decision:
    """Interrupt the running turn, if there is one, because the daemon or the thread ends."""
    decision = Decision(state)
    if state.turn is not None:
        _close(decision, "interrupt", step, unseen=unseen, suspended=True)
    return decision


def _into_transcript(decision: Decision, message: ItemCompleted, step: StepContext) -> None:
    """A user message that was accepted and that the model has not seen: it is not lost."""
    turn, item = decision.state.turn, message.item
    assert turn is not None
    note = ItemStartedNote(
        item=item.model_copy(update={"completed_at_ms": None}),
        thread_id=decision.state.record.id,
        turn_id=turn.id,
        started_at_ms=item.started_at_ms or step.now_ms,
    )
    decision.notify("item/started", note)
    item_completed(decision, message, step)


def _count_rest(decision: Decision, step: StepContext) -> None:
    """Count the response whose calls are cut off: it was paid for."""
    turn = decision.state.turn
    if turn is not None and turn.uncounted is not None:
        count_usage(decision, turn.uncounted.usage, turn.uncounted.response_id, step)
        assert decision.state.turn is not None
        decision.state = replace(decision.state, turn=replace(decision.state.turn, uncounted=None))


def _close(
    decision: Decision,
    event: SlotEvent,
    step: StepContext,
    error: TurnError | None = None,
    unseen: Unseen = (),
    *,
    suspended: bool = False,
) -> None:
    """End the running turn: its terminal line, its status, its one turn/completed (rule 2).

    ``suspended``: because the daemon or the thread leaves; nobody wanted it.
    """
    for message in unseen:
        _into_transcript(decision, message, step)
    _count_rest(decision, step)
    state = decision.state
    turn = state.turn
    assert turn is not None
    _, status = SLOT[slot_of(state), event]
    now = step.now_ms
    after = replace(
        state,
        turn=None,
        pending=(),
        failed=status == "failed",
        interrupted_before=status == "interrupted",
    )
    after = change_record(after, updated_at_ms=now)
    decision.state = after
    decision.fsync = True
    rollout.turn_ended(decision, after, turn, status, error, now)
    thread_id = state.record.id
    turn_over(decision, completed=event == "complete", interrupted=event == "interrupt", step=step)
    goals.turn_over(decision, turn, status, error, step, suspended=suspended)
    if status == "completed":
        turn_unread(decision, turn.id, step.runtime.new_id())
    else:
        decision.effects.append(CancelTurn(turn.id))
    decision.show_status()
    if error is not None:
        decision.notify(
            "error", ErrorNote(error=error, will_retry=False, thread_id=thread_id, turn_id=turn.id)
        )
        turn_unread(decision, turn.id, step.runtime.new_id())
    decision.notify("turn/completed", _turn_note(after, turn, status, error, now))
    for request in state.pending:
        decision.effects.append(FillSlot(request.slot, ApprovalFailed("the turn ended")))
        decision.effects.append(ForgetRequest(request.request_id))
        decision.notify(
            "serverRequest/resolved", RequestResolved(thread_id=thread_id, request_id=request.request_id)
        )


def _turn_note(
    state: ThreadState,
    turn: RunningTurn,
    status: TurnStatus,
    error: TurnError | None = None,
    now: int | None = None,
) -> TurnNote:
    final = turn.last_message if status == "completed" else None
    return TurnNote(
        thread_id=state.record.id,
        turn=Turn(
            id=turn.id,
            root_turn_id=turn.id,
            items=[final] if final is not None else [],
            items_view="summary" if final is not None else "notLoaded",
            status=status,
            error=error,
            started_at=turn.started_at_ms // 1000,
            completed_at=None if now is None else now // 1000,
            duration_ms=None if now is None else max(0, now - turn.started_at_ms),
        ),
    )
