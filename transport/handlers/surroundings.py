"""Handlers of what clients ask about the surroundings of threads; see ``protocol.surroundings``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.base import Wire
from protocol.errors import InvalidRequest
from protocol.ids import thread_id as parse_thread_id
from protocol.surroundings import (
    BackgroundTerminal,
    BackgroundTerminalsResult,
    CollaborationModeListResult,
    CollaborationModeMask,
    ConfigRequirementsResult,
    EmptyPage,
    FolderHooks,
    FolderSkills,
    GatewayOAuthResult,
    GovCloudResult,
    HooksListResult,
    PluginInstalledResult,
    SkillsListResult,
    TerminateResult,
)
from protocol.thread_methods import Empty
from transport.method import Call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transport.daemon import BackgroundCommand


def hooks_list(call: Call) -> Wire:
    """hooks/list."""
    return HooksListResult(data=[FolderHooks(cwd=cwd) for cwd in call.params.cwds])


def skills_list(call: Call) -> Wire:
    """skills/list."""
    return SkillsListResult(data=[FolderSkills(cwd=cwd) for cwd in call.params.cwds])


def collaboration_modes(call: Call) -> Wire:
    """collaborationMode/list."""
    modes = [
        CollaborationModeMask(name="Plan", mode="plan"),
        CollaborationModeMask(name="Default", mode="default"),
    ]
    return CollaborationModeListResult(data=modes)


def config_requirements(call: Call) -> Wire:
    """configRequirements/read."""
    return ConfigRequirementsResult()


def gov_cloud(call: Call) -> Wire:
    """account/bedrock/checkGovCloudRequirements."""
    return GovCloudResult()


def plugins_installed(call: Call) -> Wire:
    """plugin/installed."""
    return PluginInstalledResult()


def empty_page(call: Call) -> Wire:
    """A list that is always empty here; there is nothing a cursor could point at.

    Raises:
        InvalidRequest: a cursor was sent.
    """
    if call.params.cursor is not None:
        raise InvalidRequest(f"invalid cursor: {call.params.cursor}")
    return EmptyPage()


def background_terminals(call: Call) -> Wire:
    """thread/backgroundTerminals/list.

    Raises:
        InvalidRequest: no such thread is loaded, or the cursor is no number.
    """
    params = call.params
    running = _in_background(call)
    if params.cursor is not None:
        after = _number(params.cursor, "invalid cursor")
        running = [terminal for terminal in running if terminal.session_id > after]
    page = running if params.limit is None else running[: max(1, params.limit)]
    return BackgroundTerminalsResult(
        data=[
            BackgroundTerminal(
                item_id=terminal.item_id,
                process_id=str(terminal.session_id),
                command=terminal.command,
                cwd=terminal.cwd,
                os_pid=terminal.pid,
            )
            for terminal in page
        ],
        next_cursor=str(page[-1].session_id) if len(page) < len(running) else None,
    )


def terminate_background_terminal(call: Call) -> Wire:
    """thread/backgroundTerminals/terminate.

    Raises:
        InvalidRequest: no such thread is loaded, or the process id is no number.
    """
    running = _in_background(call)
    number = _number(call.params.process_id, "invalid background terminal process id")
    chosen = [terminal for terminal in running if terminal.session_id == number]
    for terminal in chosen:
        terminal.stop()
    return TerminateResult(terminated=bool(chosen))


def clean_background_terminals(call: Call) -> Wire:
    """thread/backgroundTerminals/clean.

    Raises:
        InvalidRequest: no such thread is loaded.
    """
    for terminal in _in_background(call):
        terminal.stop()
    return Empty()


def _in_background(call: Call) -> Sequence[BackgroundCommand]:
    thread_id = parse_thread_id(call.params.thread_id)
    if call.daemon.supervisor.live_state(thread_id) is None:
        raise InvalidRequest(f"thread not found: {call.params.thread_id}")
    return call.daemon.commands_in_background(thread_id)


def _number(text: str, problem: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise InvalidRequest(f"{problem}: {text}")
    return int(text)


def gateway_oauth(call: Call) -> Wire:
    """account/gatewayOAuth/read.

    Raises:
        InvalidRequest: there is no such provider.
    """
    provider_id, provider_name = call.daemon.provider_name(call.params.model_provider)
    return GatewayOAuthResult(provider_id=provider_id, provider_name=provider_name)


def rate_limits(call: Call) -> Wire:
    """account/rateLimits/read.

    Raises:
        InvalidRequest: always; there is no account.
    """
    raise InvalidRequest("codex account authentication required to read rate limits")
