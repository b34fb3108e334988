"""Policies as rollouts carry them (kebab-case names) and as the protocol does (camelCase), both ways."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError

from protocol.settings import (
    ApprovalPolicy,
    DangerFullAccess,
    ExternalSandbox,
    GranularPolicy,
    ReadOnly,
    SandboxPolicy,
    WorkspaceWrite,
)


def approval_to_rollout(policy: ApprovalPolicy) -> str | dict[str, Any]:
    """The policy as a rollout line carries it."""
    return policy.to_wire() if isinstance(policy, GranularPolicy) else policy


def approval_from_rollout(value: object) -> ApprovalPolicy | None:
    """The policy of a rollout line, or None where it says nothing we know."""
    if value == "on-failure":
        return "on-request"
    try:
        return TypeAdapter[ApprovalPolicy](ApprovalPolicy).validate_python(value)
    except ValidationError:
        return None


def sandbox_to_rollout(policy: SandboxPolicy) -> dict[str, Any]:
    """The policy as a rollout line carries it."""
    match policy:
        case DangerFullAccess():
            return {"type": "danger-full-access"}
        case ReadOnly():
            return {"type": "read-only"} | ({"network_access": True} if policy.network_access else {})
        case WorkspaceWrite():
            return {"type": "workspace-write", **policy.model_dump(by_alias=False, exclude={"type"})}
        case ExternalSandbox():
            return {"type": "external-sandbox", "network_access": policy.network_access}


def sandbox_from_rollout(value: object) -> SandboxPolicy | None:
    """The policy of a rollout line, or None where it says nothing we know."""
    if not isinstance(value, dict):
        return None
    members = {name: member for name, member in value.items() if name != "type"}
    try:
        match value.get("type"):
            case "danger-full-access":
                return DangerFullAccess()
            case "read-only":
                return ReadOnly.model_validate(members)
            case "workspace-write":
                return WorkspaceWrite.model_validate(members)
            case "external-sandbox":
                return ExternalSandbox.model_validate(members)
    except ValidationError:
        pass
    return None
