"""Acts that put a thread away and bring it back: thread/archive, thread/unarchive, thread/delete.

The file moves and the row changes in one commit; the thread's descendants go with it. Whatever runs is
interrupted first, in the same step, so its terminal line is in the file that moves.
"""

from __future__ import annotations

from dataclasses import dataclass

from actors import turns
from actors.acts import ActContext, OnStoredThread, no_rollout
from actors.effects import Decision, EndActor, ShowGone
from actors.peer import Reply
from actors.state import ThreadState, change_record
from actors.views import stored_thread
from persistence.queue import forget_queue
from protocol.errors import InvalidRequest, RpcError
from protocol.lifecycle_methods import UnarchiveResult
from protocol.notifications import ThreadNote
from protocol.thread_methods import Empty


@dataclass(frozen=True, slots=True)
class Archive(OnStoredThread):
    """thread/archive."""

    async def decide(self, state: ThreadState, reply: Reply, context: ActContext) -> Decision:
        """See ``Act.decide``."""
        if not state.materialised or state.record.archived:
            raise no_rollout(state.record.id)
        decision = await _put_away(state, context, archived_too=False)
        decision.relocate = "archive"
        decision.answer(reply, Empty())
        for thread_id in (state.record.id, *decision.also):
            decision.notify("thread/archived", ThreadNote(thread_id=thread_id))
        return decision


@dataclass(frozen=True, slots=True)
class Delete(OnStoredThread):
    """thread/delete. Works on threads that never had a message, and on archived ones."""

    async def decide(self, state: ThreadState, reply: Reply, context: ActContext) -> Decision:
        """See ``Act.decide``."""
        decision = await _put_away(state, context, archived_too=True)
        if state.materialised:
            decision.relocate = "delete"
        elif not state.ephemeral:
            decision.queue.extend(forget_queue(state.record.id))
        decision.answer(reply, Empty())
        for thread_id in (state.record.id, *decision.also):
            decision.notify("thread/deleted", ThreadNote(thread_id=thread_id))
        return decision


@dataclass(frozen=True, slots=True)
class Unarchive:
    """thread/unarchive. Brings back this thread; it is not loaded by it."""

    async def decide(self, state: ThreadState, reply: Reply, context: ActContext) -> Decision:
        """See ``Act.decide``."""
        thread_id = state.record.id
        if not state.record.archived:
            if state.announced:
                raise InvalidRequest(f"thread {thread_id} already has an active writer")
            raise self.missing(thread_id)
        now = context.step.now_ms
        path = context.store.active_path(state.record.path)
        decision = Decision(change_record(state, archived=False, path=path, updated_at_ms=now))
        decision.relocate = "unarchive"
        decision.answer(reply, UnarchiveResult(thread=stored_thread(decision.state.record)))
        decision.notify("thread/unarchived", ThreadNote(thread_id=thread_id))
        return decision

    def missing(self, thread_id: str) -> RpcError:
        """See ``Act.missing``."""
        return InvalidRequest(f"no archived rollout found for thread id {thread_id}")


async def _put_away(state: ThreadState, context: ActContext, *, archived_too: bool) -> Decision:
    """The part that archive and delete share: interrupt, say goodbye, leave."""
    descendants: list[str] = []
    if state.materialised:
        for each in await context.clear_away(await context.store.descendants(state.record.id)):
            # One that was loaded may have been put away by an act of its own while we waited for it.
            record = await context.store.thread(each)
            if record is not None and (archived_too or not record.archived):
                descendants.append(each)
    interrupted = turns.shut_down(state, context.step, await turns.untaken_messages(state, context.step))
    # The file may stay where it is because the disk fails; the end of the turn is then recorded all the same.
    decision = Decision(interrupted.state, first=interrupted if state.turn is not None else None)
    decision.also = descendants
    if state.announced:
        decision.effects.append(ShowGone())
    decision.effects.append(EndActor())
    return decision
