"""Acts that change the history: thread/inject_items, thread/revert, thread/rollback."""

from __future__ import annotations

from dataclasses import dataclass, replace

from actors import lines as rollout
from actors import turns
from actors.acts import ActContext, OnStoredThread, archived, no_rollout
from actors.effects import Decision, GrowContext, ReloadContext, ShowGone
from actors.peer import Reply
from actors.state import ThreadState
from actors.views import loaded_thread, thread_now
from agent.model.events import ResponseItem
from protocol.errors import InvalidRequest, RpcError
from protocol.lifecycle_methods import RevertResult, RollbackResult
from protocol.notifications import ThreadNote
from protocol.thread_methods import Empty


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
        decision = await _cut(state, self.before_turn_id, context)
        thread_id = state.record.id
        turns_cursor, items_cursor = await context.store.history_cursors(thread_id)
        decision.answer(
            reply,
            RevertResult(
                thread=thread_now(decision.state),
                turns_backwards_cursor=turns_cursor,
                items_backwards_cursor=items_cursor,
            ),
        )
        decision.notify("thread/reverted", ThreadNote(thread_id=thread_id))
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
        page = await context.store.turns_page(
            state.record.id, cursor=None, limit=self.num_turns, direction="desc", view="notLoaded"
        )
        decision = Decision(state)
        if page.data:
            decision = await _cut(state, page.data[-1].id, context)
        turns_left = await context.store.all_turns(state.record.id)
        decision.answer(reply, RollbackResult(thread=loaded_thread(decision.state, turns_left)))
        decision.notify("thread/reverted", ThreadNote(thread_id=state.record.id))
        return decision


def _check(state: ThreadState) -> None:
    if not state.materialised:
        raise no_rollout(state.record.id)
    if state.record.archived:
        raise archived(state.record.id)


async def _cut(state: ThreadState, before_turn_id: str, context: ActContext) -> Decision:
    """End what runs, cut the history on disk, and take over what the shorter one says."""
    _check(state)
    step, thread_id = context.step, state.record.id
    decision = turns.shut_down(state, step, await context.unseen())
    await context.store.revert(thread_id, before_turn_id, step.now_ms)
    # The running turn is in the part that is cut off: its terminal line has no place in what is left.
    decision.lines = []
    left = await context.store.resume_state(thread_id, with_context=False)
    record = await context.store.thread(thread_id)
    decision.state = replace(
        decision.state,
        record=record or state.record,
        usage=left.token_usage,
        usage_turn=left.last_turn_id,
        failed=False,
        interrupted_before=left.interrupted,
    )
    decision.effects.append(ReloadContext())
    if state.announced:
        # Clients forget what they have of it and read it again.
        decision.effects.append(ShowGone())
    decision.show_status()
    return decision
