"""Acts on the queue: thread/queue/add, list, update, delete, reorder, start.

They work on threads that are not loaded, too: the rows are kept and drain when the thread is resumed. The
shape of a request decides the shape of its answer and the words of its errors (``Shape``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from actors import lines as rollout
from actors import turns
from actors.acts import ActContext, archived
from actors.effects import Decision
from actors.loading import with_git
from actors.peer import Reply
from actors.queue_claims import show
from actors.queue_drain import dispatch
from actors.queue_pages import listed
from actors.queue_rows import view
from actors.state import ThreadState
from actors.step import draining_error
from actors.turns import check_input
from agent.events import Submission
from persistence import queue as rows
from persistence.queue import QueuedTurn
from protocol.errors import InternalError, InvalidRequest, RpcError
from protocol.queue_methods import (
    QueueAddParams,
    QueueAddResult,
    QueueDeleteParams,
    QueueDeleteResult,
    QueuedTurnView,
    QueueListParams,
    QueueReorderParams,
    QueueReorderResult,
    QueueStartParams,
    QueueUpdateParams,
)
from protocol.turn_methods import TurnStartParams

Shape = Literal["turn", "submission"]
"""``turn``: the canonical shape (queuedTurn); ``submission``: the reference's (queuedSubmission)."""

EMPTY_INPUT = "only user input can be added to the user-message queue"
BUSY = "thread already has an active or pending turn"


def _answer(shape: Shape, shown: QueuedTurnView, turn_id: str | None = None) -> QueueAddResult:
    if shape == "turn":
        return QueueAddResult(queued_turn=shown, turn_id=turn_id)
    return QueueAddResult(queued_submission=shown, turn_id=turn_id)


def _shape(params: QueueAddParams | QueueUpdateParams) -> Shape:
    """By what the request brought."""
    return "submission" if params.turn_start_params is None else "turn"


def _check(state: ThreadState, shape: Shape) -> None:
    if state.ephemeral:
        what = "turns" if shape == "turn" else "submissions"
        raise InvalidRequest(f"ephemeral thread does not support queued {what}: {state.record.id}")
    if state.record.archived:
        raise archived(state.record.id)


def _missing(shape: Shape, thread_id: str) -> RpcError:
    if shape == "turn":
        return InvalidRequest(f"thread not found: {thread_id}")
    return InternalError(
        f"failed to read thread: invalid thread-store request: no rollout found for thread id {thread_id}"
    )


@dataclass(frozen=True, slots=True)
class QueueAdd:
    """thread/queue/add. The row is on disk before it is acknowledged."""

    params: QueueAddParams
    wire: dict[str, Any]
    """The ``TurnStartParams`` to keep, as they came."""

    async def decide(self, state: ThreadState, reply: Reply, context: ActContext) -> Decision:
        """See ``Act.decide``."""
        _check(state, _shape(self.params))
        client_id = self.wire.get("clientUserMessageId") or None
        if client_id is not None:
            again = await self._again(state, client_id, context)
            if again is not None:
                decision = Decision(state)
                decision.answer(reply, again)
                return decision
        step = context.step
        busy = state.turn is not None
        if busy and self.params.when_busy == "reject":
            assert state.turn is not None
            raise InvalidRequest(BUSY, data={"turnId": state.turn.id})
        now = step.now_ms
        row = QueuedTurn(
            step.runtime.new_id(), self.wire, state.queue.next_order(), created_at_ms=now, updated_at_ms=now
        )
        if busy and self.params.when_busy in ("steer", "interrupt") and step.draining():
            raise draining_error()
        if busy and self.params.when_busy == "steer":
            return self._steer(state, reply, row, context)
        decision = Decision(state)
        if busy and self.params.when_busy == "interrupt":
            # Before all others: it is what the user wants instead of what runs.
            row = replace(row, order=state.queue.first_order())
            decision = turns.shut_down(state, step, await turns.untaken_messages(state, step))
            if decision.state.queue.paused:
                # Whoever interrupts for a message wants it to run.
                decision.queue.append(rows.pause(state.record.id, False))
                queue = replace(decision.state.queue, paused=False)
                decision.state = replace(decision.state, queue=queue)
        # A row of a thread that is nowhere on the disk would be lost with the process, or with the machine.
        decision.state = await with_git(decision.state)
        rollout.materialise(decision, now, step.runtime.new_id())
        decision.fsync = True
        decision.state = replace(decision.state, queue=decision.state.queue.with_row(row))
        decision.queue.append(rows.insert(state.record.id, row))
        answer = Decision(decision.state)
        answer.answer(reply, _answer(_shape(self.params), view(row)))
        decision.effects[:0] = answer.effects
        show(decision)
        return decision

    async def _again(self, state: ThreadState, client_id: str, context: ActContext) -> QueueAddResult | None:
        """The answer for a message that was added before under the same client id."""
        for claim in state.queue.claims:
            if claim.client_id == client_id:
                return _answer(_shape(self.params), view(claim, claim.turn_id), claim.turn_id)
        row = state.queue.rows.named(client_id)
        if row is not None:
            return _answer(_shape(self.params), view(row))
        found = await context.store.queued_turn_started(state.record.id, client_id=client_id)
        if found is None:
            return None
        shown = view(QueuedTurn(found.id, self.wire, 0), found.turn_id)
        return _answer(_shape(self.params), shown, found.turn_id)

    def _steer(self, state: ThreadState, reply: Reply, row: QueuedTurn, context: ActContext) -> Decision:
        assert state.turn is not None
        params = TurnStartParams.model_validate(self.wire, by_alias=True, by_name=False)
        submission = Submission(context.step.runtime.new_id(), params.input, row.client_id)
        # Until its message is in the transcript it is a row: claimed, so that a crash leaves it as failed.
        decision = Decision(state)
        decision.state = replace(
            state, queue=state.queue.claim(row, state.turn.id, submission.item_id, context.step.now_ms)
        )
        decision.fsync = True
        decision.queue += [rows.insert(state.record.id, row), rows.change(decision.state.queue.claims[-1])]
        decision.answer(reply, _answer(_shape(self.params), view(row, state.turn.id), state.turn.id))
        turns.into_turn(decision, submission)
        return decision

    def missing(self, thread_id: str) -> RpcError:
        """See ``Act.missing``."""
        return _missing(_shape(self.params), thread_id)


def wire_of(params: QueueAddParams | QueueUpdateParams, raw_turn: dict[str, Any] | None) -> dict[str, Any]:
    """The ``TurnStartParams`` that a request in either shape stands for, as wire values.

    Raises:
        InvalidRequest: it names another thread, or says nothing.
        InvalidParams: the input is too large.
    """
    if params.turn_start_params is not None:
        turn = params.turn_start_params
        if turn.thread_id != params.thread_id:
            raise InvalidRequest("`threadId` must match `turnStartParams.threadId`")
        wire = dict(raw_turn or {})
    else:
        if params.input is None:
            raise InvalidRequest("Invalid request: missing field `input`")
        given: dict[str, Any] = {"threadId": params.thread_id, "input": params.input}
        if isinstance(params, QueueAddParams):
            if params.client_user_message_id is None:
                raise InvalidRequest("Invalid request: missing field `clientUserMessageId`")
            given["clientUserMessageId"] = params.client_user_message_id
        if params.responsesapi_client_metadata:
            given["responsesapiClientMetadata"] = params.responsesapi_client_metadata
        turn = TurnStartParams.model_validate(given)
        wire = turn.model_dump(mode="json", by_alias=True, exclude_none=True)
    if not turn.input:
        raise InvalidRequest(EMPTY_INPUT)
    check_input(turn.input)
    return wire


@dataclass(frozen=True, slots=True)
class QueueList:
    """thread/queue/list."""

    params: QueueListParams

    async def decide(self, state: ThreadState, reply: Reply, context: ActContext) -> Decision:
        """See ``Act.decide``."""
        _check(state, "turn")
        decision = Decision(state)
        decision.answer(reply, listed(self.params, state.queue.rows))
        return decision

    def missing(self, thread_id: str) -> RpcError:
        """See ``Act.missing``."""
        return InvalidRequest(f"thread not found: {thread_id}")


@dataclass(frozen=True, slots=True)
class QueueUpdate:
    """thread/queue/update. A failed row that is updated is pending again."""

    params: QueueUpdateParams
    wire: dict[str, Any]

    async def decide(self, state: ThreadState, reply: Reply, context: ActContext) -> Decision:
        """See ``Act.decide``."""
        _check(state, _shape(self.params))
        row_id = self.params.queued_turn_id or self.params.queued_submission_id or ""
        row = state.queue.rows.find(row_id)
        decision = Decision(state)
        if row is None:
            turn_id = await _became(state, row_id, context)
            if turn_id is None:
                what = "turn" if _shape(self.params) == "turn" else "submission"
                raise InvalidRequest(f"queued {what} not found: {row_id}")
            started = view(QueuedTurn(row_id, self.wire, 0), turn_id)
            decision.answer(reply, _answer(_shape(self.params), started, turn_id))
            return decision
        wire = self.wire
        if _shape(self.params) == "submission":
            # Only what is said changes: the client's id and every override stay.
            wire = {**row.params, **{key: self.wire[key] for key in _SAID if key in self.wire}}
        now = context.step.now_ms
        changed = replace(row, params=wire, state="pending", failure=None, updated_at_ms=now)
        decision.state = replace(state, queue=state.queue.replaced(changed))
        decision.queue.append(rows.change(changed))
        decision.answer(reply, _answer(_shape(self.params), view(changed)))
        show(decision)
        return decision

    def missing(self, thread_id: str) -> RpcError:
        """See ``Act.missing``."""
        return _missing(_shape(self.params), thread_id)


_SAID = ("input", "responsesapiClientMetadata")


@dataclass(frozen=True, slots=True)
class QueueDelete:
    """thread/queue/delete. A row that has become a turn answers with it."""

    params: QueueDeleteParams

    async def decide(self, state: ThreadState, reply: Reply, context: ActContext) -> Decision:
        """See ``Act.decide``."""
        _check(state, "turn")
        row_id = self.params.queued_turn_id or self.params.queued_submission_id or ""
        decision = Decision(state)
        if state.queue.rows.find(row_id) is None:
            turn_id = await _became(state, row_id, context)
            decision.answer(reply, QueueDeleteResult(deleted=False, turn_id=turn_id))
            return decision
        decision.state = replace(state, queue=state.queue.without(row_id))
        decision.queue.append(rows.remove(row_id))
        decision.answer(reply, QueueDeleteResult(deleted=True))
        show(decision)
        return decision

    def missing(self, thread_id: str) -> RpcError:
        """See ``Act.missing``."""
        return _missing("turn" if self.params.queued_turn_id is not None else "submission", thread_id)


async def _became(state: ThreadState, row_id: str, context: ActContext) -> str | None:
    """The turn that a row has become, if it has."""
    for claim in state.queue.claims:
        if claim.id == row_id:
            return claim.turn_id
    found = await context.store.queued_turn_started(state.record.id, row_id=row_id)
    return None if found is None else found.turn_id


@dataclass(frozen=True, slots=True)
class QueueReorder:
    """thread/queue/reorder. A failed head that is moved back lets the others run."""

    params: QueueReorderParams

    async def decide(self, state: ThreadState, reply: Reply, context: ActContext) -> Decision:
        """See ``Act.decide``."""
        canonical = self.params.queued_turn_ids is not None
        _check(state, "turn" if canonical else "submission")
        ids = self.params.queued_turn_ids if canonical else self.params.queued_submission_ids
        queue = state.queue.reordered(ids or [])
        if queue is None:
            if canonical:
                raise InvalidRequest(
                    "failed to reorder queued turns: "
                    "queue reorder must include every visible queued turn exactly once"
                )
            raise InvalidRequest("queue reorder must include every queued submission exactly once")
        decision = Decision(replace(state, queue=queue))
        if queue.rows:
            decision.queue.append(rows.reorder(queue.rows))
        shown = [view(row) for row in queue.rows] if canonical else None
        decision.answer(reply, QueueReorderResult(queued_turns=shown))
        show(decision)
        return decision

    def missing(self, thread_id: str) -> RpcError:
        """See ``Act.missing``."""
        return _missing("turn" if self.params.queued_turn_ids is not None else "submission", thread_id)


@dataclass(frozen=True, slots=True)
class QueueStart:
    """thread/queue/start: the head or one row, now; a paused queue goes on by it."""

    params: QueueStartParams

    async def decide(self, state: ThreadState, reply: Reply, context: ActContext) -> Decision:
        """See ``Act.decide``."""
        _check(state, "submission")
        if context.step.draining():
            raise draining_error()
        if not state.announced:
            raise InvalidRequest(f"thread not found: {state.record.id}")
        if state.turn is not None:
            raise InvalidRequest(BUSY)
        wanted = self.params.queued_turn_id or self.params.queued_submission_id
        if wanted is None and not state.queue.rows:
            raise InvalidRequest("queue is empty")
        row = state.queue.rows.first if wanted is None else state.queue.rows.find(wanted)
        if row is None:
            raise InvalidRequest(f"queued submission not found: {wanted}")
        return dispatch(state, row, context.step, await context.model_context(), reply)

    def missing(self, thread_id: str) -> RpcError:
        """See ``Act.missing``."""
        return _missing("submission", thread_id)
