"""Parameters and results of the thread methods."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from protocol.base import Wire
from protocol.dynamic_tools import DynamicToolSpec
from protocol.items import ThreadItem
from protocol.settings import (
    ApprovalPolicy,
    ApprovalsReviewer,
    CollaborationMode,
    ReasoningEffort,
    SandboxMode,
    SandboxPolicy,
)
from protocol.threads import (
    HistoryMode,
    ItemsView,
    SortDirection,
    Thread,
    ThreadReadState,
    ThreadSortKey,
    Turn,
)

U32 = Field(default=None, ge=0, le=2**32 - 1)


class Empty(Wire):
    """``{}``."""


class ThreadIdParams(Wire):
    """Methods whose only required member is the thread's id."""

    thread_id: str


class ThreadStartOverrides(Wire):
    """Settings that thread/start and thread/resume may override."""

    model: str | None = None
    model_provider: str | None = None
    service_tier: str | None = None
    cwd: str | None = None
    runtime_workspace_roots: list[str] | None = None
    approval_policy: ApprovalPolicy | None = None
    approvals_reviewer: ApprovalsReviewer | None = None
    sandbox: SandboxMode | None = None
    permissions: str | None = None
    config: dict[str, Any] | None = None
    base_instructions: str | None = None
    developer_instructions: str | None = None
    personality: str | None = None


class ThreadStartParams(ThreadStartOverrides):
    """``thread/start``. ``config`` maps dotted config keys to values, for this thread only."""

    service_name: str | None = None
    ephemeral: bool | None = None
    session_start_source: str | None = None
    thread_source: str | None = None
    environments: list[Any] | None = None
    dynamic_tools: list[DynamicToolSpec] | None = None
    history_mode: HistoryMode | None = None
    experimental_raw_events: bool = False
    mock_experimental_field: str | None = None
    multi_agent_mode: str | None = None
    project_id: str | None = None
    daybreak_enabled: bool | None = None
    allow_provider_model_fallback: bool = False
    selected_capability_roots: list[Any] | None = None


class ThreadStartResult(Wire):
    """What a thread runs with; ``thread`` carries no turns."""

    thread: Thread
    model: str
    model_provider: str
    service_tier: str | None = None
    disabled_plugin_ids: list[str] = Field(default_factory=list)
    cwd: str
    runtime_workspace_roots: list[str]
    instruction_sources: list[str] = Field(default_factory=list)
    approval_policy: ApprovalPolicy
    approvals_reviewer: ApprovalsReviewer = "user"
    sandbox: SandboxPolicy
    active_permission_profile: Any = None
    reasoning_effort: ReasoningEffort | None = None
    multi_agent_mode: str = "explicitRequestOnly"


class InitialTurnsPageParams(Wire):
    """Asks ``thread/resume`` for one page of turns instead of all."""

    limit: int | None = U32
    items_view: ItemsView | None = None
    sort_direction: SortDirection | None = None


class ThreadResumeParams(ThreadStartOverrides):
    """``thread/resume``. Overrides apply when the thread is loaded from disk and are ignored else."""

    thread_id: str
    path: str | None = None
    history: list[Any] | None = None
    exclude_turns: bool = False
    initial_turns_page: InitialTurnsPageParams | None = None
    after_seq: int | None = Field(default=None, ge=0, description="spoold: the last `seq` the client saw.")
    epoch: str | None = Field(default=None, description="spoold: the `epoch` that `afterSeq` belongs to.")


class TurnsPage(Wire):
    """A page of turns; the cursors are opaque text."""

    data: list[Turn]
    next_cursor: str | None = None
    backwards_cursor: str | None = None


class ThreadResumeResult(ThreadStartResult):
    """``thread/resume``: the thread as it stands; ``thread.turns`` unless excluded or paged."""

    collaboration_mode: CollaborationMode
    initial_turns_page: TurnsPage | None = None
    turns_backwards_cursor: str | None = None
    items_backwards_cursor: str | None = None
    seq: int = Field(default=0, description="spoold: the `seq` of the thread's last notification.")
    epoch: str = Field(default="", description="spoold: what `seq` belongs to.")
    replayed: bool = Field(
        default=False,
        description="spoold: what followed `afterSeq` comes after this answer; there are no turns in it.",
    )


class ThreadReadParams(Wire):
    """``thread/read``."""

    thread_id: str
    include_turns: bool = False


class ThreadReadResult(Wire):
    """``thread/read``; ``read_state`` is null before the first message and for ephemeral threads."""

    thread: Thread
    read_state: ThreadReadState | None = None


class ThreadListParams(Wire):
    """``thread/list``."""

    cursor: str | None = None
    limit: int | None = U32
    sort_key: ThreadSortKey | None = None
    sort_direction: SortDirection | None = None
    model_providers: list[str] | None = None
    source_kinds: list[str] | None = None
    originators: list[str] | None = None
    archived: bool | None = None
    cwd: str | list[str] | None = None
    search_term: str | None = None
    excluded_thread_ids: list[str] | None = None
    use_state_db_only: bool = False
    parent_thread_id: str | None = None
    ancestor_thread_id: str | None = None
    attached_to_thread_id: str | None = None
    include_attached_threads: bool = False
    section_id: str | None = None
    project_id: str | None = None
    current_account_only: bool = False


class ThreadListResult(Wire):
    """``thread/list``."""

    data: list[Thread]
    read_states: dict[str, ThreadReadState] = Field(default_factory=dict)
    next_cursor: str | None = None
    backwards_cursor: str | None = None


class LoadedListParams(Wire):
    """``thread/loaded/list``."""

    cursor: str | None = None
    limit: int | None = U32


class LoadedListResult(Wire):
    """Ids of loaded threads, ascending."""

    data: list[str]
    next_cursor: str | None = None


class UnsubscribeResult(Wire):
    """``unsubscribed``, ``notSubscribed`` or ``notLoaded``."""

    status: str


class TurnsListParams(Wire):
    """``thread/turns/list``; newest first by default."""

    thread_id: str
    cursor: str | None = None
    limit: int | None = U32
    sort_direction: SortDirection | None = None
    items_view: ItemsView | None = None


class ItemsListParams(Wire):
    """``thread/items/list``; oldest first by default."""

    thread_id: str
    turn_id: str | None = None
    cursor: str | None = None
    limit: int | None = U32
    sort_direction: SortDirection | None = None


class ListedItem(Wire):
    """One row of ``thread/items/list``; times are Unix milliseconds."""

    turn_id: str
    item: ThreadItem
    started_at_ms: int | None = None
    completed_at_ms: int | None = None


class ItemsPage(Wire):
    """``thread/items/list``."""

    data: list[ListedItem]
    next_cursor: str | None = None
    backwards_cursor: str | None = None
