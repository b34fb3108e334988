"""Parameters and results of the turn methods."""

from __future__ import annotations

from typing import Any

from protocol.base import Wire
from protocol.settings import (
    ApprovalPolicy,
    ApprovalsReviewer,
    CollaborationMode,
    ReasoningEffort,
    ReasoningSummary,
    SandboxPolicy,
)
from protocol.threads import Turn
from protocol.user_input import UserInput


class TurnStartParams(Wire):
    """``turn/start``. Every override holds for this turn and the following ones."""

    thread_id: str
    input: list[UserInput]
    client_user_message_id: str | None = None
    cwd: str | None = None
    runtime_workspace_roots: list[str] | None = None
    approval_policy: ApprovalPolicy | None = None
    approvals_reviewer: ApprovalsReviewer | None = None
    sandbox_policy: SandboxPolicy | None = None
    permissions: str | None = None
    model: str | None = None
    service_tier: str | None = None
    service_tier_for_turn: str | None = None
    effort: ReasoningEffort | None = None
    summary: ReasoningSummary | None = None
    personality: str | None = None
    output_schema: Any = None
    collaboration_mode: CollaborationMode | None = None
    environments: list[Any] | None = None
    responsesapi_client_metadata: dict[str, Any] | None = None
    responsesapi_client_metadata_patch: dict[str, Any] | None = None
    additional_context: dict[str, Any] | None = None
    multi_agent_mode: str | None = None
    cyber_access_program: str | None = None


class TurnStartResult(Wire):
    """The turn as accepted; its events follow."""

    turn: Turn


class TurnSteerParams(Wire):
    """``turn/steer``."""

    thread_id: str
    expected_turn_id: str
    input: list[UserInput]
    client_user_message_id: str | None = None
    responsesapi_client_metadata: dict[str, Any] | None = None
    responsesapi_client_metadata_patch: dict[str, Any] | None = None
    additional_context: dict[str, Any] | None = None


class TurnSteerResult(Wire):
    """The id of the turn that took the input."""

    turn_id: str


class TurnInterruptParams(Wire):
    """``turn/interrupt``."""

    thread_id: str
    turn_id: str
