"""Methods about what surrounds threads in the reference's product and is empty, or small, in spoold.

Clients ask for these when they start. Each is answered truthfully: there are no skills, hooks, plugins, MCP
servers or permission profiles here, so the lists are empty, in the shape that clients read.
"""

from __future__ import annotations

from typing import Any, Literal

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


class McpServersParams(PageParams):
    """A page of MCP servers: all of them or one, with more or less of what each offers."""

    server_name: str | None = None
    detail: Literal["full", "toolsAndAuthOnly"] | None = None


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


class PluginInstalledParams(Wire):
    """``plugin/installed``: where else to look, and what else to name."""

    cwds: list[str] | None = None
    install_suggestion_plugin_names: list[str] | None = None


class PluginInstalledResult(Wire):
    """``plugin/installed``: spoold has no plugins."""

    marketplaces: list[Any] = Field(default_factory=list)
    marketplace_load_errors: list[Any] = Field(default_factory=list)


class BackgroundTerminal(Wire):
    """A command that goes on after its call was answered.

    ``process_id`` is the number by which it is named here, ``os_pid`` that of its process group. What it uses
    of the machine is not looked at.
    """

    item_id: str
    process_id: str
    command: str
    cwd: str
    os_pid: int | None = None
    cpu_percent: float | None = None
    rss_kb: int | None = None


class BackgroundTerminalsResult(Wire):
    """``thread/backgroundTerminals/list``: ordered by number, which is also the cursor."""

    data: list[BackgroundTerminal]
    next_cursor: str | None = None


class TerminateParams(Wire):
    """``thread/backgroundTerminals/terminate``."""

    thread_id: str
    process_id: str


class TerminateResult(Wire):
    """Whether there was such a command in the background."""

    terminated: bool


class GatewayOAuthParams(Wire):
    """``account/gatewayOAuth/read``: of a provider; of the configured one where none is named."""

    model_provider: str | None = None


class GatewayOAuthResult(Wire):
    """No provider of spoold signs in through a gateway: they take keys."""

    provider_id: str
    provider_name: str
    required: bool = False
    supports_device_auth: bool = False
    status: str | None = None
    error: str | None = None
