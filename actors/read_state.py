"""What the user has read: thread/readState/update, and how turns make a thread unread.

A read state is one position (the first unread turn, or none) and a revision that changes with every change,
so that two clients cannot overwrite each other unseen. It begins with the rollout.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from actors.acts import ActContext, OnStoredThread, no_rollout
from actors.effects import Decision
from actors.peer import Reply
from actors.state import ThreadState
from actors.views import read_state_view
from persistence.store import ReadState
from protocol.errors import InvalidRequest
from protocol.lifecycle_methods import (
    MarkUnread,
    ReadStateChanged,
    ReadStateUpdateParams,
    ReadStateUpdateResult,
)


@dataclass(frozen=True, slots=True)
class UpdateReadState(OnStoredThread):
    """thread/readState/update."""

    params: ReadStateUpdateParams

    async def decide(self, state: ThreadState, reply: Reply, context: ActContext) -> Decision:
        """See ``Act.decide``."""
        current = state.read_state
        if current is None:
            raise no_rollout(state.record.id)
        if current.revision != self.params.expected_revision:
            raise InvalidRequest("read state changed")
        first: str | None = None
        if isinstance(self.params.operation, MarkUnread):
            page = await context.store.turns_page(
                state.record.id, cursor=None, limit=1, direction="desc", view="notLoaded"
            )
            first = page.data[0].id if page.data else None
        new = ReadState(first, context.step.runtime.new_id())
        decision = Decision(replace(state, read_state=new), read_state=new)
        show(decision)
        decision.answer(reply, ReadStateUpdateResult(read_state=read_state_view(new)))
        return decision


def show(decision: Decision) -> None:
    """Tell the subscribers the new read state."""
    state = decision.state
    assert state.read_state is not None
    note = ReadStateChanged(thread_id=state.record.id, read_state=read_state_view(state.read_state))
    decision.notify("thread/readState/changed", note)


def all_read(decision: Decision, revision: str) -> None:
    """Nothing is left to read, for the unread turn is no more."""
    decision.read_state = ReadState(None, revision)
    decision.state = replace(decision.state, read_state=decision.read_state)
    show(decision)


def turn_unread(decision: Decision, turn_id: str, revision: str) -> None:
    """A turn has something new to read."""
    state = decision.state
    if state.read_state is None:
        return
    first = state.read_state.first_unread_turn_id or turn_id
    new = ReadState(first, revision)
    decision.state = replace(state, read_state=new)
    decision.read_state = new
    show(decision)
