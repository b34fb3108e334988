"""The lines of a rollout file: one value, and a builder for every type that a turn writes.

All builders take ``at_ms`` first: the moment of the line, Unix milliseconds. The ordinal of a line is
given by the writer when it is appended.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic_core import PydanticSerializationError

from persistence.item_codec import error_to_rollout, item_to_rollout
from persistence.settings_codec import approval_to_rollout, sandbox_to_rollout
from protocol.base import encode
from protocol.items import ThreadItem
from protocol.settings import (
    ApprovalPolicy,
    ReasoningEffort,
    ReasoningSummary,
    SandboxPolicy,
    ThreadSettings,
)
from protocol.threads import GitInfo, TokenCounts, TokenUsage, TurnError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class RolloutLine:
    """One line. ``payload`` holds plain JSON values only."""

    timestamp_ms: int
    type: str
    payload: dict[str, Any]


def format_timestamp(at_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return f"{(_EPOCH + at_ms * _MILLISECOND).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


def parse_timestamp(text: object) -> int | None:
    """Unix milliseconds of an RFC 3339 text, or None where it is none."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MILLISECOND


def encode_line(line: RolloutLine, ordinal: int | None) -> bytes:
    """The line's bytes with its newline; ``ordinal`` None leaves the member out, as legacy files do."""
    head: dict[str, Any] = {"timestamp": format_timestamp(line.timestamp_ms)}
    if ordinal is not None:
        head["ordinal"] = ordinal
    body = {**head, "type": line.type, "payload": line.payload}
    try:
        return encode(body) + b"\n"
    except (PydanticSerializationError, UnicodeEncodeError):
        # A lone surrogate has no UTF-8; only an escape can carry it.
        return json.dumps(body).encode() + b"\n"


def session_meta(
    at_ms: int,
    thread_id: str,
    *,
    created_at_ms: int,
    cwd: str,
    originator: str,
    cli_version: str,
    model_provider: str,
    source: Any = "vscode",
    thread_source: str | None = None,
    base_instructions: str | None = None,
    git: GitInfo | None = None,
    forked_from_id: str | None = None,
    parent_thread_id: str | None = None,
    dynamic_tools: list[dict[str, Any]] | None = None,
) -> RolloutLine:
    """The first line of a file."""
    payload: dict[str, Any] = {
        "session_id": thread_id,
        "id": thread_id,
        "timestamp": format_timestamp(created_at_ms),
        "cwd": cwd,
        "runtime_workspace_roots": [cwd],
        "originator": originator,
        "cli_version": cli_version,
        "source": source,
        "model_provider": model_provider,
        "history_mode": "paginated",
    }
    optional = {
        "thread_source": thread_source,
        "base_instructions": None if base_instructions is None else {"text": base_instructions},
        "forked_from_id": forked_from_id,
        "parent_thread_id": parent_thread_id,
        "dynamic_tools": dynamic_tools or None,
        "git": None
        if git is None
        else {"commit_hash": git.sha, "branch": git.branch, "repository_url": git.origin_url},
    }
    payload.update({name: member for name, member in optional.items() if member is not None})
    return RolloutLine(at_ms, "session_meta", payload)


def _event(at_ms: int, kind: str, **members: Any) -> RolloutLine:
    return RolloutLine(at_ms, "event_msg", {"type": kind, **members})


def task_started(
    at_ms: int, turn_id: str, *, started_at_s: int, model_context_window: int | None
) -> RolloutLine:
    """A turn began; ``started_at_s`` is Unix seconds."""
    return _event(
        at_ms,
        "task_started",
        turn_id=turn_id,
        root_turn_id=turn_id,
        started_at=started_at_s,
        model_context_window=model_context_window,
        collaboration_mode_kind="default",
    )


def turn_context(
    at_ms: int,
    turn_id: str,
    *,
    cwd: str,
    approval_policy: ApprovalPolicy,
    sandbox_policy: SandboxPolicy,
    model: str,
    effort: ReasoningEffort | None = None,
    summary: ReasoningSummary | None = None,
    developer_instructions: str | None = None,
    service_tier: str | None = None,
) -> RolloutLine:
    """What the turn runs with; a resume takes its settings from the last one."""
    payload: dict[str, Any] = {
        "turn_id": turn_id,
        "root_turn_id": turn_id,
        "cwd": cwd,
        "approval_policy": approval_to_rollout(approval_policy),
        "approvals_reviewer": "user",
        "sandbox_policy": sandbox_to_rollout(sandbox_policy),
        "model": model,
        "summary": summary or "none",
    }
    optional = {
        "effort": effort,
        "developer_instructions": developer_instructions,
        "service_tier": service_tier,
    }
    payload.update({name: member for name, member in optional.items() if member is not None})
    return RolloutLine(at_ms, "turn_context", payload)


def thread_settings_applied(at_ms: int, thread_id: str, settings: ThreadSettings) -> RolloutLine:
    """The thread's settings as they stand from here on."""
    body: dict[str, Any] = {
        "model": settings.model,
        "model_provider_id": settings.model_provider,
        "approval_policy": approval_to_rollout(settings.approval_policy),
        "approvals_reviewer": settings.approvals_reviewer,
        "cwd": settings.cwd,
        "runtime_workspace_roots": [settings.cwd],
    }
    if settings.effort is not None:
        body["reasoning_effort"] = settings.effort
    return _event(at_ms, "thread_settings_applied", thread_id=thread_id, thread_settings=body)


def response_item(at_ms: int, item: dict[str, Any]) -> RolloutLine:
    """A raw item of the model context."""
    return RolloutLine(at_ms, "response_item", item)


def item_completed(
    at_ms: int,
    *,
    thread_id: str,
    turn_id: str,
    item: ThreadItem,
    started_at_ms: int | None,
    completed_at_ms: int | None,
) -> RolloutLine:
    """An item of the turn, as history shows it."""
    return _event(
        at_ms,
        "item_completed",
        thread_id=thread_id,
        turn_id=turn_id,
        item=item_to_rollout(item),
        started_at_ms=started_at_ms,
        completed_at_ms=completed_at_ms,
    )


def _counts(counts: TokenCounts) -> dict[str, int]:
    return counts.model_dump(by_alias=False)


def token_usage_record(
    at_ms: int, *, thread_id: str, turn_id: str, response_id: str, usage: TokenCounts
) -> RolloutLine:
    """What one model response cost."""
    payload = {
        "thread_id": thread_id,
        "turn_id": turn_id,
        "session_id": thread_id,
        "root_turn_id": turn_id,
        "response_id": response_id,
        "usage": _counts(usage),
    }
    return RolloutLine(at_ms, "token_usage_record", payload)


def token_count(at_ms: int, usage: TokenUsage | None) -> RolloutLine:
    """The thread's token counters from here on."""
    info = None
    if usage is not None:
        info = {
            "total_token_usage": _counts(usage.total),
            "last_token_usage": _counts(usage.last),
            "model_context_window": usage.model_context_window,
        }
    return _event(at_ms, "token_count", info=info, rate_limits=None)


def task_complete(
    at_ms: int,
    turn_id: str,
    *,
    last_agent_message: str | None,
    error: TurnError | None,
    started_at: int,
    completed_at: int,
    duration_ms: int,
) -> RolloutLine:
    """A turn ended by itself, well or with an error. Times are Unix seconds."""
    members: dict[str, Any] = {"last_agent_message": last_agent_message}
    if error is not None:
        members["error"] = error_to_rollout(error)
    return _event(
        at_ms,
        "task_complete",
        turn_id=turn_id,
        root_turn_id=turn_id,
        **members,
        started_at=started_at,
        completed_at=completed_at,
        duration_ms=duration_ms,
    )


def turn_aborted(
    at_ms: int,
    turn_id: str,
    *,
    started_at: int,
    completed_at: int,
    duration_ms: int,
    reason: str = "interrupted",
) -> RolloutLine:
    """A turn was stopped. Times are Unix seconds."""
    return _event(
        at_ms,
        "turn_aborted",
        turn_id=turn_id,
        root_turn_id=turn_id,
        reason=reason,
        started_at=started_at,
        completed_at=completed_at,
        duration_ms=duration_ms,
    )


def as_legacy(line: RolloutLine) -> list[RolloutLine]:
    """The line in the form of a legacy file, so that a thread stays in the form it began in.

    Items become the events that legacy readers know, kinds without one (commands) become nothing.
    """
    if line.type != "event_msg" or line.payload.get("type") != "item_completed":
        return [line]
    item = line.payload["item"]
    match item["type"]:
        case "UserMessage":
            parts = item["content"]
            text = "\n".join(part["text"] for part in parts if part["type"] == "text")
            elements = [each for part in parts for each in part.get("text_elements", ())]
            images = [part.get("image_url") for part in parts if part["type"] == "image"]
            local = [part["path"] for part in parts if part["type"] == "local_image"]
            members = {"message": text, "images": images, "local_images": local, "text_elements": elements}
            return [_event(line.timestamp_ms, "user_message", **members)]
        case "AgentMessage":
            text = "".join(part["text"] for part in item["content"])
            return [_event(line.timestamp_ms, "agent_message", message=text, phase=item.get("phase"))]
        case "Reasoning":
            return [_event(line.timestamp_ms, "agent_reasoning", text=text) for text in item["summary_text"]]
        case "ContextCompaction":
            return [_event(line.timestamp_ms, "context_compacted")]
    return []
