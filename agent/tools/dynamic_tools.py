"""Tools that clients serve: how the model is offered them, and how a call travels.

The model knows a tool of a namespace as ``NAMESPACE__NAME``: not every provider has namespaces. A client's
tool that has the name of a built-in one takes its place: who starts the thread decides what it works with.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter, ValidationError

from agent.context import input_text
from agent.events import ApprovalFailed, ClientToolCall, OfferedTool
from agent.model.events import ResponseItem
from agent.tools.call_arguments import BadArguments, read_object, unusable
from agent.tools.toolset import ToolCall, ToolResult, ToolTurn
from protocol.dynamic_tools import (
    DynamicToolCallResult,
    DynamicToolNamespace,
    DynamicToolSpec,
    ToolContent,
    ToolImage,
    ToolText,
)
from protocol.items import DynamicToolCallItem

SEPARATOR = "__"
MOST_NAME_CHARS = 64
"""What providers take as the name of a function."""

_NAME = re.compile(r"[a-zA-Z0-9_-]+")


def model_name(namespace: str | None, name: str) -> str:
    """What the model calls a tool by."""
    return name if namespace is None else f"{namespace}{SEPARATOR}{name}"


def offered(specs: Iterable[DynamicToolSpec]) -> tuple[OfferedTool, ...]:
    """The single tools of a request's specifications.

    Raises:
        ValueError: a model could not be offered them; the text names the tool and says why.
    """
    found: dict[str, OfferedTool] = {}
    for spec in specs:
        if isinstance(spec, DynamicToolNamespace):
            some = [OfferedTool(spec.name, tool) for tool in spec.tools]
        else:
            some = [OfferedTool(None, spec)]
        for each in some:
            name = model_name(each.namespace, each.tool.name)
            _check(each, name)
            if name in found:
                raise ValueError(f"duplicate dynamic tool name: {name}")
            found[name] = each
    return tuple(found.values())


def _check(each: OfferedTool, name: str) -> None:
    for part in (each.namespace, each.tool.name):
        if part is not None and not _NAME.fullmatch(part):
            raise ValueError(f"dynamic tool name `{part}` must consist of letters, digits, `_` and `-`")
    if len(name) > MOST_NAME_CHARS:
        raise ValueError(f"dynamic tool name `{name}` is longer than {MOST_NAME_CHARS} characters")
    schema = each.tool.input_schema
    if not isinstance(schema, dict) or schema.get("type", "object") != "object":
        raise ValueError(f"dynamic tool `{name}`: inputSchema must be a JSON Schema of an object")


def recorded(tools: Iterable[OfferedTool]) -> list[dict[str, Any]]:
    """The tools as a rollout keeps them: the form of thread/start, one namespace entry per namespace."""
    namespaces: dict[str, dict[str, Any]] = {}
    kept: list[dict[str, Any]] = []
    for each in tools:
        tool = each.tool.to_wire()
        if each.namespace is None:
            kept.append(tool)
        elif each.namespace in namespaces:
            namespaces[each.namespace]["tools"].append(tool)
        else:
            entry = {"type": "namespace", "name": each.namespace, "description": "", "tools": [tool]}
            namespaces[each.namespace] = entry
            kept.append(entry)
    return kept


def from_record(value: object) -> tuple[OfferedTool, ...]:
    """The tools that a rollout names; none where it names none that can be used."""
    if not isinstance(value, list):
        return ()
    try:
        return offered(TypeAdapter(list[DynamicToolSpec]).validate_python(value))
    except (ValidationError, ValueError):
        return ()


class DynamicTool:
    """One tool that clients serve."""

    def __init__(self, offer: OfferedTool) -> None:
        self._offer = offer
        self.name = model_name(offer.namespace, offer.tool.name)

    def spec(self) -> dict[str, Any]:
        """The specification for the model."""
        return {
            "type": "function",
            "name": self.name,
            "description": self._offer.tool.description,
            "strict": False,
            "parameters": self._offer.tool.input_schema,
        }

    async def run(self, call: ToolCall, turn: ToolTurn) -> ToolResult:
        """Ask the clients, wait, show the item as done, and tell the model what came."""
        try:
            arguments = read_object(call.arguments or "{}")
        except BadArguments as problem:
            return ToolResult(unusable(problem))
        started, began = turn.runtime.now_ms(), turn.runtime.monotonic()
        item = DynamicToolCallItem(
            id=call.call_id,
            namespace=self._offer.namespace,
            tool=self._offer.tool.name,
            arguments=arguments,
            status="inProgress",
            started_at_ms=started,
        )
        answer = await turn.port.ask(ClientToolCall(item))
        ends_turn = isinstance(answer, ApprovalFailed) and answer.ends_turn
        if isinstance(answer, ApprovalFailed):
            output = f"dynamic tool call failed: {answer.message}"
            answer = DynamicToolCallResult(content_items=[ToolText(text=output)], success=False)
        done = item.model_copy(
            update={
                "status": "completed" if answer.success else "failed",
                "content_items": [part.to_wire() for part in answer.content_items],
                "success": answer.success,
                "duration_ms": round((turn.runtime.monotonic() - began) * 1000),
                "completed_at_ms": turn.runtime.now_ms(),
            }
        )
        return ToolResult(_for_model(answer.content_items), done, ends_turn=ends_turn)


def _for_model(content: list[ToolContent]) -> str | list[ResponseItem]:
    """Text alone as a text, which every provider takes; with images as a list of parts."""
    if any(isinstance(part, ToolImage) for part in content):
        return [_part(part) for part in content]
    return "\n".join(str(_part(part)["text"]) for part in content)


def _part(part: ToolContent) -> ResponseItem:
    if isinstance(part, ToolText):
        return input_text(part.text)
    if isinstance(part, ToolImage):
        return {"type": "input_image", "image_url": part.image_url}
    return input_text("[A sound; this model is not given sound]")
