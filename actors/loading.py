"""Bringing a thread back from disk: its row, its last settings, its counters.

The model context is not read here: only the next turn needs it, and a watcher never pins it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from actors.acts import no_rollout
from actors.queue_rows import Queue
from actors.state import ThreadState, change_record
from actors.thread_settings import settings_from
from actors.waiting_rows import WaitingRows
from agent.git_info import read_git_info
from agent.tools.dynamic_tools import from_record
from persistence.config import Config
from persistence.store import Store
from protocol.errors import InvalidRequest
from protocol.thread_methods import ThreadResumeParams, ThreadStartOverrides

Load = Callable[[ThreadStartOverrides | None], Awaitable[ThreadState]]
"""Reads a thread's state from disk, with the overrides of a resume or without."""


class Loader:
    """Loads one thread, and knows with which overrides it has.

    The overrides of a resume count only while clients do not know the thread as loaded: of what was loaded
    for an act, or for a resume that failed, nobody has seen the settings.
    """

    def __init__(self, load: Load) -> None:
        self._load = load
        self._loaded_with: ThreadStartOverrides | None = None

    async def load(self, overrides: ThreadStartOverrides | None) -> ThreadState:
        """Load it for its first message. Raises as ``load_thread`` does."""
        state = await self._load(overrides)
        self._loaded_with = overrides
        return state

    async def overridden(self, state: ThreadState, overrides: ThreadStartOverrides) -> ThreadState:
        """The loaded thread as a resume with these overrides finds it."""
        if state.announced or overrides is self._loaded_with:
            return state
        return await self._load(overrides)


async def load_thread(
    store: Store, config: Config, params: ThreadStartOverrides | None, thread_id: str, server_cwd: str
) -> ThreadState:
    """The state of a stored thread: no turn runs, nobody is attached, and nobody was told.

    ``params`` None: it is not going to run. Then settings that are not valid any more (its provider may be
    gone from the configuration) keep nobody from reading, renaming or archiving it.

    Raises:
        InvalidRequest: it is nowhere on disk, or the request's overrides are wrong.
        StoreError: it could not be read.
    """
    record = await store.thread(thread_id)
    if record is None:
        if isinstance(params, ThreadResumeParams) and params.path is not None:
            raise InvalidRequest(f"failed to resolve rollout path `{params.path}`: file does not exist")
        raise no_rollout(thread_id)
    found = await store.resume_state(thread_id, with_context=False)
    recorded = dict(found.turn_context or {})
    recorded.setdefault("model_provider", record.model_provider)
    recorded.setdefault("cwd", record.cwd)
    recorded["base_instructions"] = _own_instructions(found.session_meta)
    try:
        settings, _ = settings_from(config, params or ThreadStartOverrides(), server_cwd, recorded)
    except InvalidRequest:
        if params is not None:
            raise
        settings, _ = settings_from(config, ThreadStartOverrides(), server_cwd)
    stored = await store.queue(thread_id)
    return ThreadState(
        record=record,
        settings=settings,
        materialised=True,
        interrupted_before=found.interrupted,
        usage=found.token_usage,
        usage_turn=found.usage_turn_id,
        read_state=await store.read_state(thread_id),
        queue=Queue(WaitingRows(stored.rows), paused=stored.paused),
        announced=False,
        dynamic_tools=from_record(found.session_meta.get("dynamic_tools")),
        goal=await store.goal(thread_id),
    )


def _own_instructions(session_meta: dict[str, Any]) -> str | None:
    """The base instructions that somebody chose for the thread; not those that its model brought along."""
    found = session_meta.get("base_instructions")
    if not isinstance(found, dict):
        return None
    provenance, text = found.get("provenance"), found.get("text")
    if isinstance(provenance, dict) and provenance.get("type") == "model":
        return None
    return text if isinstance(text, str) else None


async def with_git(state: ThreadState) -> ThreadState:
    """The thread with what its first turn records of the repository around it."""
    if state.materialised or state.ephemeral or state.record.git is not None:
        return state
    return change_record(state, git=await read_git_info(state.settings.cwd))
