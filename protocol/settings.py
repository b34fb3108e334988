"""What a thread runs with: approval policy, sandbox, model settings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from protocol.base import Wire

SandboxMode = Literal["read-only", "workspace-write", "danger-full-access"]
ApprovalsReviewer = Literal["user", "auto_review", "guardian_subagent"]
ReasoningEffort = str
"""``none``, ``minimal``, ``low``, ``medium``, ``high``, ...: the provider decides what it knows."""
ReasoningSummary = Literal["auto", "concise", "detailed", "none"]


class GranularApproval(Wire):
    """Which kinds of approval requests may be asked; a kind that may not is refused by itself."""

    model_config = ConfigDict(alias_generator=None)
    sandbox_approval: bool
    rules: bool
    skill_approval: bool = False
    request_permissions: bool = False
    mcp_elicitations: bool


class GranularPolicy(Wire):
    """``{"granular": {...}}``."""

    granular: GranularApproval


ApprovalPolicy = Literal["untrusted", "on-request", "never"] | GranularPolicy
"""When a command asks: always, when the model or the sandbox needs it, never, or kind by kind."""


class DangerFullAccess(Wire):
    """No sandbox."""

    type: Literal["dangerFullAccess"] = "dangerFullAccess"


class ReadOnly(Wire):
    """Everything readable, nothing writable."""

    type: Literal["readOnly"] = "readOnly"
    network_access: bool = False


class WorkspaceWrite(Wire):
    """Writable: the working directory, ``writable_roots``, /tmp and $TMPDIR unless excluded."""

    type: Literal["workspaceWrite"] = "workspaceWrite"
    writable_roots: list[str] = Field(default_factory=list)
    network_access: bool = False
    exclude_tmpdir_env_var: bool = False
    exclude_slash_tmp: bool = False


class ExternalSandbox(Wire):
    """The daemon already runs inside somebody else's sandbox; we add none."""

    type: Literal["externalSandbox"] = "externalSandbox"
    network_access: Literal["restricted", "enabled"] = "restricted"


SandboxPolicy = Annotated[
    DangerFullAccess | ReadOnly | WorkspaceWrite | ExternalSandbox, Field(discriminator="type")
]


class CollaborationSettings(Wire):
    """The settings of a collaboration mode (snake_case on the wire)."""

    model_config = ConfigDict(alias_generator=None)
    model: str
    reasoning_effort: ReasoningEffort | None = None
    developer_instructions: str | None = None


class CollaborationMode(Wire):
    """A preset; ``default`` is the plain way of working."""

    mode: Literal["default", "plan"] = "default"
    settings: CollaborationSettings


class Environment(Wire):
    """Where a thread's commands run; spoold has the local machine only."""

    environment_id: str = "local"
    cwd: str
    runtime_workspace_roots: list[str]


class ThreadSettings(Wire):
    """The settings of a loaded thread, as ``thread/settings/updated`` shows them."""

    disabled_plugin_ids: list[str] = Field(default_factory=list)
    cwd: str
    environments: list[Environment] | None = None
    approval_policy: ApprovalPolicy
    approvals_reviewer: ApprovalsReviewer = "user"
    sandbox_policy: SandboxPolicy
    active_permission_profile: Any = None
    model: str
    model_provider: str
    service_tier: str | None = None
    effort: ReasoningEffort | None = None
    summary: ReasoningSummary | None = None
    collaboration_mode: CollaborationMode
    multi_agent_mode: str = "explicitRequestOnly"
    personality: str | None = None
