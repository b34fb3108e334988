"""The act thread/settings/update: what the next turn runs with."""

from __future__ import annotations

from dataclasses import dataclass, replace

from actors import lines as rollout
from actors.acts import ActContext
from actors.effects import Decision
from actors.peer import Reply
from actors.state import ThreadState, change_record
from actors.thread_settings import as_shown
from actors.turns import overridden
from actors.views import thread_settings
from protocol.errors import InvalidRequest, RpcError
from protocol.lifecycle_methods import SettingsUpdateParams
from protocol.notifications import SettingsUpdated
from protocol.thread_methods import Empty


@dataclass(frozen=True, slots=True)
class UpdateSettings:
    """thread/settings/update. Needs a loaded thread; a turn that runs keeps what it began with."""

    params: SettingsUpdateParams

    async def decide(self, state: ThreadState, reply: Reply, context: ActContext) -> Decision:
        """See ``Act.decide``."""
        if not state.announced:
            raise self.missing(state.record.id)
        settings = overridden(state.settings, self.params)
        after = replace(state, settings=settings)
        after = change_record(
            after, model=settings.model, cwd=settings.cwd, reasoning_effort=settings.turn.effort
        )
        decision = Decision(after)
        decision.answer(reply, Empty())
        if as_shown(settings) != as_shown(state.settings):
            rollout.settings_changed(decision, context.step.now_ms)
            note = SettingsUpdated(thread_id=state.record.id, thread_settings=thread_settings(settings))
            decision.notify("thread/settings/updated", note)
        return decision

    def missing(self, thread_id: str) -> RpcError:
        """See ``Act.missing``."""
        return InvalidRequest(f"thread not found: {thread_id}")
