"""The act thread/fork: a new thread with the history of this one.

The copy is made inside this thread's step, so it is the history at one moment: a turn that runs is in it as
far as it has come, and counts as interrupted there. The new thread's own actor loads it and answers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from actors.acts import ActContext, OnStoredThread, archived, no_rollout
from actors.effects import Decision, OpenFork
from actors.peer import Reply
from actors.state import ThreadState
from persistence.store import ThreadRecord
from protocol.errors import InvalidRequest, NotSupported
from protocol.initialize import PROTOCOL_VERSION
from protocol.lifecycle_methods import ThreadForkParams


@dataclass(frozen=True, slots=True)
class Fork(OnStoredThread):
    """thread/fork."""

    params: ThreadForkParams

    async def decide(self, state: ThreadState, reply: Reply, context: ActContext) -> Decision:
        """See ``Act.decide``."""
        params, source = self.params, state.record
        if params.last_turn_id is not None and params.before_turn_id is not None:
            raise InvalidRequest("`beforeTurnId` cannot be combined with `lastTurnId`")
        if not state.materialised:
            raise no_rollout(source.id)
        if source.archived:
            raise archived(source.id)
        if state.turn is not None and params.last_turn_id == state.turn.id:
            raise InvalidRequest(f"lastTurnId '{params.last_turn_id}' identifies an in-progress turn")
        step = context.step
        now, fork_id = step.now_ms, step.runtime.new_id()
        record = replace(
            source,
            id=fork_id,
            path=context.store.rollout_path(fork_id, now),
            created_at_ms=now,
            updated_at_ms=now,
            recency_at_ms=now,
            name=None,
            forked_from_id=source.id,
            # A fork is the client's own thread, also one of a thread that another has spawned.
            parent_thread_id=None,
            source="vscode",
            originator=reply.peer.client_name,
            thread_source=params.thread_source,
            cli_version=PROTOCOL_VERSION,
        )
        if params.ephemeral:
            return await self._in_memory(state, record, reply, context)
        await context.store.fork(
            source.id,
            record,
            last_turn_id=params.last_turn_id,
            before_turn_id=params.before_turn_id,
            at_ms=now,
        )
        return Decision(state, effects=[OpenFork(fork_id, params, reply)])

    async def _in_memory(
        self, state: ThreadState, record: ThreadRecord, reply: Reply, context: ActContext
    ) -> Decision:
        """An ephemeral fork: the model context as it is, and nothing on disk."""
        if self.params.last_turn_id is not None or self.params.before_turn_id is not None:
            raise NotSupported("an ephemeral fork takes the whole history")
        copy = ThreadState(
            record=record,
            settings=state.settings,
            ephemeral=True,
            dynamic_tools=state.dynamic_tools,
            usage=state.usage,
            usage_turn=state.usage_turn,
            interrupted_before=state.turn is not None or state.interrupted_before,
        )
        model_context = tuple(await context.model_context())
        effect = OpenFork(record.id, self.params, reply, copy, model_context)
        return Decision(state, effects=[effect])
