"""How claims end, and what subscribers see of the queue."""

from __future__ import annotations

from dataclasses import replace

from actors.effects import Decision
from actors.queue_pages import change_of
from actors.state import ThreadState
from actors.step import StepContext
from persistence import queue as rows


def message_recorded(decision: Decision, item_id: str) -> None:
    """A user message is in the transcript: if it came from the queue, its row goes in the same commit."""
    state = decision.state
    claim = state.queue.claim_of(item_id)
    if claim is not None:
        decision.queue.extend(rows.started(state.record.id, claim))
        # The database reaches the disk at once: the line that takes the row's place must not come later.
        decision.fsync = True
        decision.state = replace(state, queue=state.queue.without_claim(claim))


def recorded_after_all(state: ThreadState, meant: ThreadState) -> ThreadState:
    """The state after a commit that failed and yet has left its lines: a claim that it ended has ended."""
    still = {claim.id for claim in meant.queue.claims}
    claims = tuple(claim for claim in state.queue.claims if claim.id in still)
    return replace(state, queue=replace(state.queue, claims=claims))


def turn_over(decision: Decision, *, completed: bool, interrupted: bool, step: StepContext) -> None:
    """What the end of a turn means for its queue: a claim ends with its turn, an interrupt may pause."""
    state = decision.state
    queue = state.queue
    for claim in queue.claims:
        # Its message could not be recorded: it is not lost, and it is not tried again unasked.
        row = replace(
            claim,
            state="failed",
            failure="the turn ended before its message was recorded",
            turn_id=None,
            item_id=None,
            updated_at_ms=step.now_ms,
        )
        decision.queue.append(rows.change(row))
        queue = queue.without_claim(claim).with_row(row)
    if state.queue.claims:
        decision.state = replace(state, queue=queue)
        show(decision)
    pause = step.pause_queue and interrupted and bool(queue.rows)
    if pause or (queue.paused and completed):
        decision.queue.append(rows.pause(state.record.id, pause))
        queue = replace(queue, paused=pause)
    decision.state = replace(state, queue=queue)


def show(decision: Decision) -> None:
    """Tell the subscribers what waits."""
    state = decision.state
    decision.notify("thread/queue/changed", change_of(state.record.id, state.queue.rows))
