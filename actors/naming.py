"""Acts on what a thread is called and where it belongs: thread/name/set, thread/metadata/update."""

from __future__ import annotations

from dataclasses import dataclass, replace

from actors import lines as rollout
from actors.acts import ActContext, OnStoredThread, no_rollout
from actors.effects import Decision
from actors.peer import Reply
from actors.state import ThreadState, change_record
from actors.views import thread_now
from protocol.errors import InvalidRequest
from protocol.lifecycle_methods import GitInfoUpdate, MetadataUpdateParams, MetadataUpdateResult, NameUpdated
from protocol.thread_methods import Empty
from protocol.threads import GitInfo


def check_not_ephemeral(state: ThreadState) -> None:
    """Refuse what an ephemeral thread has no place to keep.

    Raises:
        InvalidRequest: it is ephemeral.
    """
    if state.ephemeral:
        raise InvalidRequest(f"ephemeral thread does not support metadata updates: {state.record.id}")


@dataclass(frozen=True, slots=True)
class SetName(OnStoredThread):
    """thread/name/set. A fresh thread gets its rollout by it."""

    name: str

    async def decide(self, state: ThreadState, reply: Reply, context: ActContext) -> Decision:
        """See ``Act.decide``."""
        name = self.name.strip()
        if not name:
            raise InvalidRequest("thread name must not be empty")
        check_not_ephemeral(state)
        if state.record.archived:
            raise no_rollout(state.record.id)
        decision = Decision(change_record(state, name=name))
        rollout.materialise(decision, context.step.now_ms, context.step.runtime.new_id())
        decision.facts = {"name": name}
        decision.answer(reply, Empty())
        note = NameUpdated(thread_id=state.record.id, thread_name=name)
        decision.notify("thread/name/updated", note)
        return decision


@dataclass(frozen=True, slots=True)
class UpdateMetadata(OnStoredThread):
    """thread/metadata/update. What is left out stays, what is null is cleared."""

    params: MetadataUpdateParams

    async def decide(self, state: ThreadState, reply: Reply, context: ActContext) -> Decision:
        """See ``Act.decide``."""
        check_not_ephemeral(state)
        git = self.params.git_info
        if self.params.project_id is not None:
            raise InvalidRequest(f"project not found: {self.params.project_id}")
        if git is None:
            raise InvalidRequest("thread metadata update must include at least one field")
        new = merged(state.record.git or GitInfo(), git)
        if not state.materialised and not state.announced:
            raise no_rollout(state.record.id)
        decision = Decision(change_record(state, git=new))
        if state.materialised:
            decision.facts = {"git_sha": new.sha, "git_branch": new.branch, "git_origin_url": new.origin_url}
        shown = thread_now(replace(decision.state, materialised=True), listed=True)
        decision.answer(reply, MetadataUpdateResult(thread=shown))
        return decision


def merged(old: GitInfo, update: GitInfoUpdate) -> GitInfo:
    """The repository facts after an update.

    Raises:
        InvalidRequest: the update says nothing, or a member is blank.
    """
    given = update.model_fields_set
    if not given:
        raise InvalidRequest("gitInfo must include at least one field")
    values = old.model_dump(by_alias=False)
    for field in sorted(given):
        value = getattr(update, field)
        if value is not None and not value.strip():
            wire = {"sha": "sha", "branch": "branch", "origin_url": "originUrl"}[field]
            raise InvalidRequest(f"gitInfo.{wire} must not be empty")
        values[field] = value
    return GitInfo(**values)
