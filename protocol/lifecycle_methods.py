"""Parameters, results and notifications of the methods that change a thread as a whole."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from protocol.base import Wire
from protocol.settings import (
    ApprovalPolicy,
    ApprovalsReviewer,
    CollaborationMode,
    ReasoningEffort,
    ReasoningSummary,
    SandboxPolicy,
)
from protocol.thread_methods import U32, ThreadStartOverrides
from protocol.threads import SortDirection, Thread, ThreadReadState, ThreadSortKey


class ThreadForkParams(ThreadStartOverrides):
    """``thread/fork``: a new thread with the history of another, up to a turn."""

    thread_id: str
    path: str | None = None
    last_turn_id: str | None = None
    before_turn_id: str | None = None
    exclude_turns: bool = False
    ephemeral: bool = False
    thread_source: str | None = None
    attach_to_source: bool = False
    defer_goal_continuation: bool = False


class UnarchiveResult(Wire):
    """``thread/unarchive``: the thread as it is listed now."""

    thread: Thread


class NameSetParams(Wire):
    """``thread/name/set``. White space around the name does not count."""

    thread_id: str
    name: str


class GitInfoUpdate(Wire):
    """A member that is null clears, one that is left out keeps."""

    sha: str | None = None
    branch: str | None = None
    origin_url: str | None = None


class MetadataUpdateParams(Wire):
    """``thread/metadata/update``."""

    thread_id: str
    git_info: GitInfoUpdate | None = None
    project_id: str | None = None
    daybreak_enabled: bool | None = None


class MetadataUpdateResult(Wire):
    """``thread/metadata/update``."""

    thread: Thread


class SettingsUpdateParams(Wire):
    """``thread/settings/update``: what the next turn runs with."""

    thread_id: str
    cwd: str | None = None
    approval_policy: ApprovalPolicy | None = None
    approvals_reviewer: ApprovalsReviewer | None = None
    sandbox_policy: SandboxPolicy | None = None
    permissions: str | None = None
    model: str | None = None
    service_tier: str | None = None
    effort: ReasoningEffort | None = None
    summary: ReasoningSummary | None = None
    personality: str | None = None
    collaboration_mode: CollaborationMode | None = None
    environments: list[Any] | None = None
    multi_agent_mode: str | None = None
    disabled_plugin_ids: list[str] | None = None


class InjectItemsParams(Wire):
    """``thread/inject_items``: raw items of the Responses API for the model context."""

    thread_id: str
    items: list[Any]


class RevertParams(Wire):
    """``thread/revert``: forget a turn and everything after it."""

    thread_id: str
    before_turn_id: str


class RevertResult(Wire):
    """``thread/revert``."""

    thread: Thread
    turns_backwards_cursor: str | None = None
    items_backwards_cursor: str | None = None


class RollbackParams(Wire):
    """``thread/rollback``, for older clients: forget the last turns."""

    thread_id: str
    num_turns: int = Field(ge=1, le=2**32 - 1)


class RollbackResult(Wire):
    """``thread/rollback``: the thread with the turns that are left."""

    thread: Thread


class SearchParams(Wire):
    """``thread/search``: full text over user and agent messages."""

    search_term: str
    cursor: str | None = None
    limit: int | None = U32
    sort_key: ThreadSortKey | None = None
    sort_direction: SortDirection | None = None
    archived: bool | None = None
    source_kinds: list[str] | None = None
    current_account_only: bool = False
    include_attached_threads: bool = False


class SearchHit(Wire):
    """One thread, with the piece of text that was found."""

    thread: Thread
    snippet: str


class SearchResult(Wire):
    """``thread/search``."""

    data: list[SearchHit]
    next_cursor: str | None = None
    backwards_cursor: str | None = None


class MarkRead(Wire):
    """Everything so far was read."""

    type: Literal["read"] = "read"


class MarkUnread(Wire):
    """The last turn shall count as unread."""

    type: Literal["unread"] = "unread"


class ReadStateUpdateParams(Wire):
    """``thread/readState/update``. ``expected_revision`` must be the current one."""

    thread_id: str
    operation: Annotated[MarkRead | MarkUnread, Field(discriminator="type")]
    expected_revision: str


class ReadStateUpdateResult(Wire):
    """``thread/readState/update``."""

    read_state: ThreadReadState


class ReadStateChanged(Wire):
    """``thread/readState/changed``."""

    thread_id: str
    read_state: ThreadReadState


class NameUpdated(Wire):
    """``thread/name/updated``."""

    thread_id: str
    thread_name: str | None = None
