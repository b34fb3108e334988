"""Handlers of what clients ask about the surroundings of threads; see ``protocol.surroundings``."""

from __future__ import annotations

from protocol.base import Wire
from protocol.errors import InvalidRequest
from protocol.surroundings import (
    CollaborationModeListResult,
    CollaborationModeMask,
    ConfigRequirementsResult,
    EmptyPage,
    FolderHooks,
    FolderSkills,
    GovCloudResult,
    HooksListResult,
    PluginInstalledResult,
    SkillsListResult,
)
from transport.method import Call


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


def rate_limits(call: Call) -> Wire:
    """account/rateLimits/read.

    Raises:
        InvalidRequest: always; there is no account.
    """
    raise InvalidRequest("codex account authentication required to read rate limits")
