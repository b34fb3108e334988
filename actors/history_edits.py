"""Acts that change the history: thread/inject_items, thread/revert, thread/rollback."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from actors import lines as rollout
from actors import read_state, turns
from actors.acts import ActContext, OnStoredThread, archived, no_rollout
from actors.effects import Decision, Effect, EndActor, GrowContext, ReloadContext, ShowGone
from actors.peer import Reply
from actors.state import ThreadState
from actors.views import thread_now
from agent.model.events import ResponseItem
from persistence.errors import StoreError
from persistence.store import Store
from protocol.errors import InternalError, InvalidRequest, RpcError
from protocol.lifecycle_methods import RevertResult, RollbackResult
from protocol.notifications import ThreadNote
from protocol.thread_methods import Empty

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class InjectItems:
    """thread/inject_items: into the model context, shown nowhere. A fresh thread gets its rollout by it."""

    items: list[object]

    async def decide(self, state: ThreadState, reply: Reply, context: ActContext) -> Decision:
        """See ``Act.decide``."""
        if not state.announced:
            raise self.missing(state.record.id)
        if not self.items:
            raise InvalidRequest("items must not be empty")
        checked = tuple(_checked(index, item) for index, item in enumerate(self.items))
        now = context.step.now_ms
        await context.model_context()
        decision = Decision(state)
        rollout.materialise(decision, now, context.step.runtime.new_id())
        rollout.context_grew(decision, state, checked, now)
        decision.fsync = True
        decision.effects.append(GrowContext(checked))
        decision.answer(reply, Empty())
        return decision

    def missing(self, thread_id: str) -> RpcError:
        """See ``Act.missing``."""
        return InvalidRequest(f"thread not found: {thread_id}")


def _checked(index: int, item: object) -> ResponseItem:
    if not isinstance(item, dict):
        raise InvalidRequest(f"items[{index}] is not a valid response item: it is no object")
    if not isinstance(item.get("type"), str):
        raise InvalidRequest(f"items[{index}] is not a valid response item: missing field `type`")
    if item["type"] == "message" and not (
        isinstance(item.get("role"), str) and isinstance(item.get("content"), list | str)
    ):
        raise InvalidRequest(
            f"items[{index}] is not a valid response item: a message needs `role` and `content`"
        )
    return item


@dataclass(frozen=True, slots=True)
class Revert:
    """thread/revert: forget a turn and all that follows. Files are not touched by it, only the history."""

    before_turn_id: str

    def missing(self, thread_id: str) -> RpcError:
        """See ``Act.missing``."""
        return InvalidRequest(f"thread not found: {thread_id}")

    async def decide(self, state: ThreadState, reply: Reply, context: ActContext) -> Decision:
        """See ``Act.decide``."""
        _check(state)
        decision, gone = await _cut(state, self.before_turn_id, reply, context)
        try:
            await _take_over(decision, context)
            turns_cursor, items_cursor = await context.store.history_cursors(state.record.id)
        except StoreError as error:
            return gone(error)
        result = RevertResult(
            thread=thread_now(decision.state),
            turns_backwards_cursor=turns_cursor,
            items_backwards_cursor=items_cursor,
        )
        decision.answer(reply, result)
        decision.notify("thread/reverted", ThreadNote(thread_id=state.record.id))
        return decision


@dataclass(frozen=True, slots=True)
class Rollback(OnStoredThread):
    """thread/rollback: the same by a number of turns, for older clients."""

    num_turns: int

    async def decide(self, state: ThreadState, reply: Reply, context: ActContext) -> Decision:
        """See ``Act.decide``."""
        if state.turn is not None:
            raise InvalidRequest("cannot roll back while a turn is in progress")
        _check(state)
        first = await self._first_forgotten(state.record.id, context.store)
        if first is None:
            left = await context.store.all_turns(state.record.id)
            decision = Decision(state)
        else:
            decision, gone = await _cut(state, first, reply, context)
            try:
                await _take_over(decision, context)
                left = await context.store.all_turns(state.record.id)
            except StoreError as error:
                return gone(error)
        thread = thread_now(decision.state)
        thread.turns = left
        decision.answer(reply, RollbackResult(thread=thread))
        if first is not None:
            decision.notify("thread/reverted", ThreadNote(thread_id=state.record.id))
        return decision

    async def _first_forgotten(self, thread_id: str, store: Store) -> str | None:
        """The first of the last ``num_turns`` turns; None of a thread without one."""
        first: str | None = None
        cursor: str | None = None
        missing = self.num_turns
        while missing > 0:
            page = await store.turns_page(
                thread_id, cursor=cursor, limit=missing, direction="desc", view="notLoaded"
            )
            if page.data:
                first = page.data[-1].id
            missing -= len(page.data)
            cursor = page.next_cursor
            if cursor is None:
                break
        return first


def _check(state: ThreadState) -> None:
    if not state.materialised:
        raise no_rollout(state.record.id)
    if state.record.archived:
        raise archived(state.record.id)


async def _cut(
    state: ThreadState, before_turn_id: str, reply: Reply, context: ActContext
) -> tuple[Decision, Callable[[StoreError], Decision]]:
    """End what runs and cut the history on disk. From here on there is no way back.

    Returns:
        The decision so far, and what becomes of the thread where the rest fails.
    """
    decision = turns.shut_down(state, context.step, await turns.untaken_messages(state, context.step))
    await context.store.revert(state.record.id, before_turn_id, context.step.now_ms)
    # The running turn is in the part that is cut off: its lines have no place in what is left.
    decision.lines = []
    gone = partial(_gone, decision.state, tuple(decision.effects), reply)
    decision.otherwise = gone
    return decision, gone


async def _take_over(decision: Decision, context: ActContext) -> None:
    """Make the state what the shorter history says.

    Raises:
        StoreError: it cannot be read.
    """
    state, store = decision.state, context.store
    thread_id = state.record.id
    left = await store.resume_state(thread_id, with_context=False)
    record = await store.thread(thread_id)
    decision.state = replace(
        state,
        record=record or state.record,
        usage=left.token_usage,
        usage_turn=left.usage_turn_id,
        failed=False,
        interrupted_before=left.interrupted,
    )
    unread = None if state.read_state is None else state.read_state.first_unread_turn_id
    if unread is not None and not await store.has_turn(thread_id, unread):
        read_state.all_read(decision, context.step.runtime.new_id())
    decision.effects.append(ReloadContext())
    if state.announced:
        # Clients forget what they have of it and read it again.
        decision.effects.append(ShowGone())
    decision.show_status()


def _gone(state: ThreadState, ended: Sequence[Effect], reply: Reply, error: StoreError) -> Decision:
    """The history is shorter, and more than that could not be read or recorded.

    Nothing in memory is true any more, so the thread leaves.
    """
    log.error("thread %s was cut, and then: %s", state.record.id, error)
    decision = Decision(state, effects=list(ended))
    if state.announced:
        decision.effects.append(ShowGone())
        # Whoever was attached is not any more.
        decision.notify("thread/closed", ThreadNote(thread_id=state.record.id))
    decision.refuse(reply, InternalError(str(error)))
    decision.effects.append(EndActor())
    return decision
