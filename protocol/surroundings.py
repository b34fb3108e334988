"""Methods about what surrounds threads in the reference's product and is empty, or small, in spoold.

Clients ask for these when they start. Each is answered truthfully: there are no skills, hooks, plugins, MCP
servers or permission profiles here, so the lists are empty, in the shape that clients read.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from protocol.base import Wire
from protocol.thread_methods import U32


class ByFolderParams(Wire):
    """Lists that are asked folder by folder; without folders: the daemon's own."""

    cwds: list[str] = Field(default_factory=list)
    thread_id: str | None = None
    force_reload: bool = False


class FolderHooks(Wire):
    """The hooks of one folder."""

    cwd: str
    hooks: list[Any] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)
    errors: list[Any] = Field(default_factory=list)


class HooksListResult(Wire):
    """``hooks/list``."""

    data: list[FolderHooks]


class FolderSkills(Wire):
    """The skills of one folder."""

    cwd: str
    skills: list[Any] = Field(default_factory=list)
    errors: list[Any] = Field(default_factory=list)


class SkillsListResult(Wire):
    """``skills/list``."""

    data: list[FolderSkills]


class CollaborationModeMask(Wire):
    """A preset by name; what is null is left as it is. ``reasoning_effort`` is snake_case on the wire."""

    name: str
    mode: str | None = None
    model: str | None = None
    reasoning_effort: str | None = Field(default=None, alias="reasoning_effort")


class CollaborationModeListResult(Wire):
    """``collaborationMode/list``."""

    data: list[CollaborationModeMask]


class PageParams(Wire):
    """A page of a list that may belong to a thread or a folder."""

    cursor: str | None = None
    limit: int | None = U32
    thread_id: str | None = None
    cwd: str | None = None


class ThreadPageParams(Wire):
    """A page of a list that belongs to a thread."""

    thread_id: str
    cursor: str | None = None
    limit: int | None = U32


class EmptyPage(Wire):
    """A list with nothing in it."""

    data: list[Any] = Field(default_factory=list)
    next_cursor: str | None = None


class ConfigRequirementsResult(Wire):
    """``configRequirements/read``: nobody administers a spoold."""

    requirements: Any = None
    supports_independent_speed_modes: bool | None = None


class GovCloudResult(Wire):
    """``account/bedrock/checkGovCloudRequirements``: not this provider, no warning."""

    is_gov_cloud: bool = False
    should_warn: bool = False


class PluginInstalledResult(Wire):
    """``plugin/installed``: spoold has no plugins."""

    marketplaces: list[Any] = Field(default_factory=list)
    marketplace_load_errors: list[Any] = Field(default_factory=list)


class BackgroundTerminal(Wire):
    """A command that goes on after its call was answered."""

    item_id: str
    process_id: str
    command: str
    cwd: str
