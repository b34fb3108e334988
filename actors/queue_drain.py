"""Draining the queue: the head becomes the next turn.

Drained by a message of its own (``Drain``), which the actor sends itself when a step leaves the thread idle
with something pending. So the answer to an add is out before its row is claimed, and a turn's end before the
next begins. Claim and turn head are one commit; the row goes in the commit that records its user message.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import ValidationError

from actors.effects import Decision
from actors.peer import Reply
from actors.queue_claims import show
from actors.queue_rows import may_drain
from actors.state import RunningTurn, ThreadState
from actors.step import StepContext
from actors.turns import accepted, begin
from agent.events import Submission
from agent.model.events import ResponseItem
from persistence import queue as rows
from persistence.queue import QueuedTurn
from protocol.errors import InvalidRequest
from protocol.queue_methods import QueueStartResult
from protocol.turn_methods import TurnStartParams


def drain(state: ThreadState, step: StepContext, context: list[ResponseItem]) -> Decision:
    """Make the head a turn, if it may run still."""
    head = state.queue.rows.first
    if head is None or not may_drain(state) or step.draining():
        return Decision(state)
    return dispatch(state, head, step, context)


def dispatch(
    state: ThreadState,
    row: QueuedTurn,
    step: StepContext,
    context: list[ResponseItem],
    reply: Reply | None = None,
) -> Decision:
    """Make a row the next turn, and answer with the turn if somebody asked for it.

    A row whose message cannot be read fails and stays.
    """
    try:
        params = TurnStartParams.model_validate(row.params, by_alias=True, by_name=False)
    except ValidationError as error:
        why = f"the queued turn cannot be read: {error.error_count()} errors"
        decision = failed(state, row, why, step)
        if reply is not None:
            decision.refuse(reply, InvalidRequest(why))
        return decision
    submission = Submission(step.runtime.new_id(), params.input, params.client_user_message_id)

    def claim(decision: Decision, turn: RunningTurn) -> None:
        queue = decision.state.queue.claim(row, turn.id, submission.item_id, step.now_ms)
        decision.state = replace(decision.state, queue=replace(queue, paused=False))
        assert queue.claimed is not None
        decision.queue.append(rows.change(queue.claimed))
        if state.queue.paused:
            decision.queue.append(rows.pause(state.record.id, False))
        if reply is not None:
            decision.answer(reply, QueueStartResult(turn=accepted(turn)))
        show(decision)

    return begin(state, params, submission, step, context, claim)


def failed(state: ThreadState, row: QueuedTurn, why: str, step: StepContext) -> Decision:
    """The row could not be made a turn: it stays, visibly, and blocks those behind it."""
    broken = replace(row, state="failed", failure=why, turn_id=None, item_id=None, updated_at_ms=step.now_ms)
    decision = Decision(replace(state, queue=state.queue.replaced(broken)))
    decision.queue.append(rows.change(broken))
    show(decision)
    return decision
