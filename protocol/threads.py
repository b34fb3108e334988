"""Threads and turns as clients see them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from protocol.base import Wire
from protocol.items import ThreadItem
from protocol.settings import Environment

ActiveFlag = Literal["waitingOnApproval", "waitingOnUserInput"]
HistoryMode = Literal["paginated", "legacy"]
TurnStatus = Literal["inProgress", "completed", "interrupted", "failed"]
ItemsView = Literal["notLoaded", "summary", "full"]
SortDirection = Literal["asc", "desc"]
ThreadSortKey = Literal["created_at", "updated_at", "recency_at", "section_position"]


class NotLoaded(Wire):
    """The thread is on disk only."""

    type: Literal["notLoaded"] = "notLoaded"


class Idle(Wire):
    """Loaded, no turn runs."""

    type: Literal["idle"] = "idle"


class SystemErrorStatus(Wire):
    """Loaded, the last turn failed; the next turn clears it."""

    type: Literal["systemError"] = "systemError"


class Active(Wire):
    """A turn runs; the flags say what it waits for."""

    type: Literal["active"] = "active"
    active_flags: list[ActiveFlag] = Field(default_factory=list)


ThreadStatus = Annotated[NotLoaded | Idle | SystemErrorStatus | Active, Field(discriminator="type")]


class GitInfo(Wire):
    """The repository a thread was started in."""

    sha: str | None = None
    branch: str | None = None
    origin_url: str | None = None


class TurnError(Wire):
    """Why a turn failed. ``codex_error_info`` is a name, or an object with one member."""

    message: str
    codex_error_info: str | dict[str, Any] | None = None
    additional_details: str | None = None
    misalignment: Any = None


class Turn(Wire):
    """A turn. ``started_at`` and ``completed_at`` are Unix seconds, ``duration_ms`` milliseconds.

    ``items_view`` says how much of ``items`` is there: nothing, the first user message and the final
    agent message, or everything.
    """

    id: str
    root_turn_id: str | None = None
    items: list[ThreadItem] = Field(default_factory=list)
    items_view: ItemsView = "notLoaded"
    status: TurnStatus
    error: TurnError | None = None
    started_at: int | None = None
    completed_at: int | None = None
    duration_ms: int | None = None


class Thread(Wire):
    """A thread. Times are Unix seconds; ``path`` is absolute, null for an ephemeral thread."""

    id: str
    environments: list[Environment] | None = None
    extra: Any = None
    session_id: str
    forked_from_id: str | None = None
    attached_to_thread_id: str | None = None
    parent_thread_id: str | None = None
    preview: str = ""
    ephemeral: bool = False
    section: Any = None
    section_entered_at: int | None = None
    project_id: str | None = None
    history_mode: HistoryMode = "paginated"
    model_provider: str
    model: str | None = None
    reasoning_effort: str | None = None
    created_at: int
    updated_at: int
    recency_at: int | None = None
    status: ThreadStatus
    path: str | None = None
    cwd: str
    cli_version: str
    originator: str | None = None
    source: Any = "vscode"
    can_accept_direct_input: bool | None = None
    thread_source: str | None = None
    agent_nickname: str | None = None
    agent_role: str | None = None
    git_info: GitInfo | None = None
    name: str | None = None
    daybreak_enabled: bool | None = None
    turns: list[Turn] = Field(default_factory=list)


class UnreadTurn(Wire):
    """The first turn that the user has not seen."""

    type: Literal["turn"] = "turn"
    turn_id: str


class ThreadReadState(Wire):
    """What the user has read. ``revision`` changes with every change."""

    first_unread: UnreadTurn | None = None
    revision: str


class TokenCounts(Wire):
    """Token counters of one response or summed over a thread."""

    total_tokens: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_output_tokens: int = 0

    def plus(self, other: TokenCounts) -> TokenCounts:
        """Both added, member by member."""
        return TokenCounts(
            total_tokens=self.total_tokens + other.total_tokens,
            input_tokens=self.input_tokens + other.input_tokens,
            cached_input_tokens=self.cached_input_tokens + other.cached_input_tokens,
            cache_write_input_tokens=self.cache_write_input_tokens + other.cache_write_input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            reasoning_output_tokens=self.reasoning_output_tokens + other.reasoning_output_tokens,
        )


class TokenUsage(Wire):
    """``total`` accumulates over the thread, ``last`` is the latest model response."""

    total: TokenCounts
    last: TokenCounts
    model_context_window: int | None = None
