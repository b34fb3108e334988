"""What a thread is when it begins: its settings, its record, and where its file will be."""

from __future__ import annotations

from actors.state import ThreadState
from actors.thread_settings import settings_from
from agent.tools.dynamic_tools import offered
from persistence.config import Config
from persistence.home import Home
from persistence.rollout_files import rollout_path
from persistence.store import ThreadRecord
from protocol.errors import InvalidRequest
from protocol.initialize import PROTOCOL_VERSION
from protocol.runtime import Runtime
from protocol.thread_methods import ThreadStartParams


def new_thread(
    params: ThreadStartParams, config: Config, runtime: Runtime, home: Home, server_cwd: str, originator: str
) -> tuple[ThreadState, list[str]]:
    """The state of a thread nobody knows yet, and what its client should be warned of. Touches no disk.

    Raises:
        InvalidRequest: the settings are wrong.
    """
    settings, warnings = settings_from(config, params, server_cwd)
    try:
        dynamic_tools = offered(params.dynamic_tools or ())
    except ValueError as error:
        raise InvalidRequest(str(error)) from None
    now = runtime.now_ms()
    thread_id = runtime.new_id()
    record = ThreadRecord(
        id=thread_id,
        path=rollout_path(home, runtime.local_time(now), thread_id),
        created_at_ms=now,
        updated_at_ms=now,
        recency_at_ms=now,
        preview="",
        name=None,
        model_provider=settings.model_provider,
        model=settings.model,
        reasoning_effort=settings.turn.effort,
        cwd=settings.cwd,
        source="vscode",
        thread_source=params.thread_source,
        originator=originator,
        cli_version=PROTOCOL_VERSION,
        archived=False,
        history_mode="paginated",
        git=None,
        forked_from_id=None,
        parent_thread_id=None,
    )
    state = ThreadState(
        record=record,
        settings=settings,
        ephemeral=bool(params.ephemeral),
        dynamic_tools=dynamic_tools,
    )
    return state, list(warnings)
