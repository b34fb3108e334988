"""A thread as clients see it, made from its state or from its row in the index."""

from __future__ import annotations

from actors.state import Settings, ThreadState
from persistence.store import ReadState, ThreadRecord
from protocol.settings import CollaborationMode, CollaborationSettings, Environment, ThreadSettings
from protocol.thread_methods import ThreadResumeResult, ThreadStartResult, TurnsPage
from protocol.threads import NotLoaded, Thread, ThreadReadState, ThreadStatus, Turn, UnreadTurn


def _thread(record: ThreadRecord, status: ThreadStatus) -> Thread:
    return Thread(
        id=record.id,
        session_id=record.id,
        forked_from_id=record.forked_from_id,
        parent_thread_id=record.parent_thread_id,
        preview=record.preview,
        history_mode=record.history_mode,
        model_provider=record.model_provider,
        model=record.model,
        reasoning_effort=record.reasoning_effort,
        created_at=record.created_at_ms // 1000,
        updated_at=record.updated_at_ms // 1000,
        recency_at=record.recency_at_ms // 1000,
        status=status,
        path=str(record.path),
        cwd=record.cwd,
        cli_version=record.cli_version,
        originator=record.originator,
        source=record.source,
        thread_source=record.thread_source,
        git_info=record.git,
        name=record.name,
    )


def stored_thread(record: ThreadRecord) -> Thread:
    """A thread that is not loaded."""
    return _thread(record, NotLoaded())


def thread_now(state: ThreadState, *, listed: bool = False) -> Thread:
    """The thread as it is: loaded, or, while clients do not know it as loaded, from its record."""
    return loaded_thread(state, listed=listed) if state.announced else stored_thread(state.record)


def read_state_view(state: ReadState) -> ThreadReadState:
    """What the user has read, as clients see it."""
    first = state.first_unread_turn_id
    return ThreadReadState(
        first_unread=None if first is None else UnreadTurn(turn_id=first), revision=state.revision
    )


def environment(cwd: str) -> Environment:
    """The local machine, with one workspace root."""
    return Environment(cwd=cwd, runtime_workspace_roots=[cwd])


def loaded_thread(state: ThreadState, turns: list[Turn] | None = None, *, listed: bool = False) -> Thread:
    """A loaded thread. ``listed``: as a row of a list, where direct input is not told."""
    thread = _thread(state.record, state.status)
    settings = state.settings
    thread.environments = [environment(settings.cwd)]
    thread.cwd = settings.cwd
    thread.model = settings.model
    thread.model_provider = settings.model_provider
    thread.reasoning_effort = settings.turn.effort
    thread.can_accept_direct_input = None if listed else True
    if state.ephemeral:
        thread.ephemeral = True
        thread.path = None
        thread.preview = state.record.preview if state.record.forked_from_id else ""
    elif not state.materialised:
        thread.git_info = None
    if turns is not None:
        thread.turns = turns
    return thread


def collaboration_mode(settings: Settings) -> CollaborationMode:
    """The collaboration mode with what it implies."""
    return CollaborationMode(
        mode="plan" if settings.collaboration_mode == "plan" else "default",
        settings=CollaborationSettings(
            model=settings.model,
            reasoning_effort=settings.turn.effort,
            developer_instructions=settings.turn.developer_instructions,
        ),
    )


def thread_settings(settings: Settings) -> ThreadSettings:
    """The settings as thread/settings/updated shows them."""
    return ThreadSettings(
        cwd=settings.cwd,
        environments=[environment(settings.cwd)],
        approval_policy=settings.turn.approval_policy,
        sandbox_policy=settings.turn.sandbox_policy,
        model=settings.model,
        model_provider=settings.model_provider,
        service_tier=settings.service_tier,
        effort=settings.turn.effort,
        summary=settings.turn.summary,
        collaboration_mode=collaboration_mode(settings),
    )


def start_result(state: ThreadState) -> ThreadStartResult:
    """The result of thread/start."""
    settings = state.settings
    return ThreadStartResult(
        thread=loaded_thread(state),
        model=settings.model,
        model_provider=settings.model_provider,
        service_tier=settings.service_tier,
        cwd=settings.cwd,
        runtime_workspace_roots=[settings.cwd],
        approval_policy=settings.turn.approval_policy,
        sandbox=settings.turn.sandbox_policy,
        reasoning_effort=settings.turn.effort,
    )


def resume_result(
    state: ThreadState,
    turns: list[Turn],
    page: TurnsPage | None,
    turns_cursor: str | None,
    items_cursor: str | None,
) -> ThreadResumeResult:
    """The result of thread/resume."""
    settings = state.settings
    return ThreadResumeResult(
        thread=loaded_thread(state, turns),
        model=settings.model,
        model_provider=settings.model_provider,
        service_tier=settings.service_tier,
        cwd=settings.cwd,
        runtime_workspace_roots=[settings.cwd],
        approval_policy=settings.turn.approval_policy,
        sandbox=settings.turn.sandbox_policy,
        reasoning_effort=settings.turn.effort,
        collaboration_mode=collaboration_mode(settings),
        initial_turns_page=page,
        turns_backwards_cursor=turns_cursor,
        items_backwards_cursor=items_cursor,
    )
