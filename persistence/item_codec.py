"""Items as rollouts carry them (TitleCase types, snake_case members) and as the protocol does, both ways."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any
from urllib.parse import quote, unquote

from pydantic import TypeAdapter, ValidationError

from protocol.items import (
    AgentMessageItem,
    CommandExecutionItem,
    ContextCompactionItem,
    DynamicToolCallItem,
    EnteredReviewModeItem,
    ExitedReviewModeItem,
    FileChangeItem,
    ReasoningItem,
    ThreadItem,
    UserMessageItem,
)
from protocol.shell_text import join_command, split_command
from protocol.threads import TurnError
from protocol.user_input import UserInput

Json = dict[str, Any]


def to_camel(name: str) -> str:
    """``http_status_code`` as ``httpStatusCode``."""
    return re.sub(r"_([a-z0-9])", lambda found: found[1].upper(), name)


def to_snake(name: str) -> str:
    """``httpStatusCode`` as ``http_status_code``."""
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()


def _rename(value: Any, rename: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {rename(name): _rename(member, rename) for name, member in value.items()}
    return value


def error_to_rollout(error: TurnError) -> Json:
    """A turn's error as its ``task_complete`` line carries it."""
    info = error.codex_error_info
    renamed = to_snake(info) if isinstance(info, str) else _rename(info, to_snake)
    body: Json = {"message": error.message, "codex_error_info": renamed}
    if error.additional_details is not None:
        body["additional_details"] = error.additional_details
    return body


def error_from_rollout(value: object) -> TurnError | None:
    """The error of a ``task_complete`` line, or None where there is none."""
    if not isinstance(value, dict):
        return None
    info = value.get("codex_error_info")
    if isinstance(info, str):
        info = to_camel(info)
    elif isinstance(info, dict):
        info = _rename(info, to_camel)
    else:
        info = None
    details = value.get("additional_details")
    return TurnError(
        message=str(value.get("message", "")),
        codex_error_info=info,
        additional_details=details if isinstance(details, str) else None,
    )


# Input parts: the same objects but for two type names and the image's address.


def _input_to_rollout(part: UserInput) -> Json:
    body = part.to_wire()
    kind = to_snake(body["type"])
    body["type"] = kind
    if kind in ("image", "audio") and body.get("url") is not None:
        body[f"{kind}_url"] = body.pop("url")
    return {name: member for name, member in body.items() if member is not None}


def _input_from_rollout(part: Json) -> UserInput:
    kind = part["type"]
    body = {**part, "type": to_camel(kind)}
    if kind in ("image", "audio") and f"{kind}_url" in body:
        body["url"] = body.pop(f"{kind}_url")
    return _user_input().validate_python(body)


@cache
def _user_input() -> TypeAdapter[UserInput]:
    return TypeAdapter(UserInput)


_ACTION_NAMES = {"list_files": "listFiles"}


def _actions_to_rollout(actions: list[Json]) -> list[Json]:
    return [
        {("cmd" if name == "command" else name): (to_snake(member) if name == "type" else member)
         for name, member in action.items()}
        for action in actions
    ]  # fmt: skip


def _actions_from_rollout(actions: list[Json]) -> list[Json]:
    return [
        {("command" if name == "cmd" else name): (to_camel(member) if name == "type" else member)
         for name, member in action.items()}
        for action in actions
    ]  # fmt: skip


def _duration_to_rollout(milliseconds: int | None) -> Json | None:
    if milliseconds is None:
        return None
    return {"secs": milliseconds // 1000, "nanos": milliseconds % 1000 * 1_000_000}


def _duration_from_rollout(value: object) -> int | None:
    if not isinstance(value, dict):
        return None
    return int(value.get("secs", 0)) * 1000 + int(value.get("nanos", 0)) // 1_000_000


def _change_to_rollout(change: Json) -> Json:
    kind, diff = change["kind"], change["diff"]
    if kind["type"] == "update":
        return {"type": "update", "unified_diff": diff, "move_path": kind.get("move_path")}
    return {"type": kind["type"], "content": diff}


def _change_from_rollout(path: str, change: Json) -> Json:
    if change["type"] == "update":
        kind = {"type": "update", "move_path": change.get("move_path")}
        return {"path": path, "kind": kind, "diff": change["unified_diff"]}
    return {"path": path, "kind": {"type": change["type"]}, "diff": change["content"]}


def _path_to_url(path: str) -> str:
    return f"file://{quote(path)}" if path.startswith("/") else path


def _path_from_url(text: str) -> str:
    return unquote(text.removeprefix("file://")) if text.startswith("file://") else text


def item_to_rollout(item: ThreadItem) -> Json:
    """The ``item`` member of an ``item_completed`` line."""
    match item:
        case UserMessageItem():
            body: Json = {"content": [_input_to_rollout(part) for part in item.content]}
            if item.client_id is not None:
                body["client_id"] = item.client_id
        case AgentMessageItem():
            body = {"content": [{"type": "Text", "text": item.text}]}
            if item.phase is not None:
                body["phase"] = item.phase
        case ReasoningItem():
            body = {"summary_text": item.summary, "raw_content": item.content}
        case CommandExecutionItem():
            body = {
                "process_id": item.process_id,
                "command": split_command(item.command),
                "cwd": _path_to_url(item.cwd),
                "parsed_cmd": _actions_to_rollout(item.command_actions),
                "source": to_snake(item.source),
                "status": to_snake(item.status),
                "aggregated_output": item.aggregated_output or "",
                "exit_code": item.exit_code,
                "duration": _duration_to_rollout(item.duration_ms),
            }
        case FileChangeItem():
            changes = {change["path"]: _change_to_rollout(change) for change in item.changes}
            body = {"changes": changes, "status": to_snake(item.status)}
        case DynamicToolCallItem():
            body = {
                "tool": item.tool,
                "arguments": item.arguments,
                "status": to_snake(item.status),
                "content_items": item.content_items,
                "success": item.success,
                "duration": _duration_to_rollout(item.duration_ms),
            }
            if item.namespace is not None:
                body["namespace"] = item.namespace
        case EnteredReviewModeItem():
            target = {"type": "custom", "instructions": item.review}
            body = {"target": target, "user_facing_hint": item.review}
        case ExitedReviewModeItem():
            output = {"findings": [], "overall_correctness": "", "overall_explanation": item.review}
            body = {"review_output": {**output, "overall_confidence_score": 0.0}}
        case ContextCompactionItem():
            body = {}
    return {"type": item.type[0].upper() + item.type[1:], "id": item.id, **body}


def _user_message(body: Json) -> Json:
    return {
        "content": [_input_from_rollout(part) for part in body["content"]],
        "client_id": body.get("client_id"),
    }


def _agent_message(body: Json) -> Json:
    text = "".join(part["text"] for part in body["content"] if isinstance(part.get("text"), str))
    return {"text": text, "phase": body.get("phase"), "memory_citation": body.get("memory_citation")}


def _reasoning(body: Json) -> Json:
    return {"summary": body["summary_text"], "content": body.get("raw_content") or []}


def _command(body: Json) -> Json:
    command = body["command"]
    return {
        "command": command if isinstance(command, str) else join_command(command),
        "cwd": _path_from_url(body["cwd"]),
        "process_id": body.get("process_id"),
        "source": to_camel(body.get("source", "agent")),
        "status": to_camel(body["status"]),
        "command_actions": _actions_from_rollout(body.get("parsed_cmd") or []),
        "aggregated_output": body.get("aggregated_output") or None,
        "exit_code": body.get("exit_code"),
        "duration_ms": _duration_from_rollout(body.get("duration")),
    }


def _file_change(body: Json) -> Json:
    changes = [_change_from_rollout(path, change) for path, change in body["changes"].items()]
    return {"changes": changes, "status": to_camel(body.get("status") or "completed")}


def _dynamic_tool_call(body: Json) -> Json:
    names = ("namespace", "tool", "arguments", "content_items", "success")
    return {
        **{name: body.get(name) for name in names},
        "status": to_camel(body["status"]),
        "duration_ms": _duration_from_rollout(body.get("duration")),
    }


def _entered_review(body: Json) -> Json:
    return {"review": body.get("user_facing_hint") or ""}


def _exited_review(body: Json) -> Json:
    output = body.get("review_output") or {}
    parts = [output.get("overall_explanation") or ""]
    parts += [f"- {finding.get('title')}: {finding.get('body')}" for finding in output.get("findings") or []]
    return {"review": "\n".join(part for part in parts if part)}


_READERS: dict[str, tuple[Callable[[Json], Json], Callable[..., ThreadItem]]] = {
    "UserMessage": (_user_message, UserMessageItem),
    "AgentMessage": (_agent_message, AgentMessageItem),
    "Reasoning": (_reasoning, ReasoningItem),
    "CommandExecution": (_command, CommandExecutionItem),
    "FileChange": (_file_change, FileChangeItem),
    "DynamicToolCall": (_dynamic_tool_call, DynamicToolCallItem),
    "ContextCompaction": (lambda _: {}, ContextCompactionItem),
    "EnteredReviewMode": (_entered_review, EnteredReviewModeItem),
    "ExitedReviewMode": (_exited_review, ExitedReviewModeItem),
}

KNOWN_ITEM_TYPES = frozenset(_READERS)
"""The item types that become rows of the history; lines with others are passed over."""


def item_from_rollout(
    body: Json, started_at_ms: int | None, completed_at_ms: int | None
) -> ThreadItem | None:
    """The item of an ``item_completed`` line, or None where it is of no kind we know or malformed."""
    reader = _READERS.get(str(body.get("type")))
    if reader is None:
        return None
    read, build = reader
    try:
        return build(
            id=body["id"], started_at_ms=started_at_ms, completed_at_ms=completed_at_ms, **read(body)
        )
    except (KeyError, TypeError, ValueError, AttributeError, ValidationError):
        return None


def legacy_item(events: list[Json], item_id: str) -> ThreadItem | None:
    """The item that one legacy event, or a run of ``agent_reasoning`` events, stands for."""
    event = events[0]
    try:
        match event["type"]:
            case "user_message":
                text = {"type": "text", "text": event["message"]}
                elements = {"text_elements": event.get("text_elements") or []}
                parts: list[Json] = [{**text, **elements}] if event["message"] else []
                parts += [{"type": "image", "image_url": url} for url in event.get("images") or []]
                parts += [{"type": "local_image", "path": path} for path in event.get("local_images") or []]
                return UserMessageItem(
                    id=item_id,
                    content=[_input_from_rollout(part) for part in parts],
                    client_id=event.get("client_id"),
                )
            case "agent_message":
                return AgentMessageItem(id=item_id, text=event["message"], phase=event.get("phase"))
            case "agent_reasoning":
                return ReasoningItem(id=item_id, summary=[event["text"] for event in events])
            case "context_compacted":
                return ContextCompactionItem(id=item_id)
    except (KeyError, TypeError, ValueError, ValidationError):
        pass
    return None
