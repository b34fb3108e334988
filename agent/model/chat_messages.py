"""The context of a conversation, told in the messages of Chat Completions.

Chat servers are strict where the Responses API is not: every tool call must be answered, right after the
message that made it, and by nothing but its answers; many chat templates take one system message, at the
beginning. So calls and outputs are paired here wherever they stand in the context, a call without an output
(an interrupted turn) is answered ``aborted``, an output without a call is dropped, and developer messages
join the system message while nobody has spoken yet and are user messages afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent.model.events import ResponseItem
from protocol.base import encode

NO_OUTPUT = "aborted"

_CALLS = ("function_call", "custom_tool_call")
_OUTPUTS = ("function_call_output", "custom_tool_call_output")


def chat_messages(instructions: str, items: Sequence[ResponseItem]) -> list[dict[str, Any]]:
    """``messages`` of a request."""
    outputs = {
        str(item.get("call_id")): _output_text(item.get("output"))
        for item in items
        if item.get("type") in _OUTPUTS
    }
    system = [instructions] if instructions else []
    messages: list[dict[str, Any]] = []
    calling: dict[str, Any] | None = None
    answers: list[dict[str, Any]] = []

    def answer_calls() -> None:
        nonlocal calling
        messages.extend(answers)
        answers.clear()
        calling = None

    for item in items:
        kind = item.get("type", "message")
        if kind == "message":
            answer_calls()
            role = item.get("role")
            if role in ("system", "developer"):
                if not messages:
                    system.append(_plain_text(item.get("content")))
                    continue
                role = "user"
            content = _content(item.get("content"))
            if role == "assistant":
                calling = {"role": "assistant", "content": _plain_text(item.get("content"))}
                messages.append(calling)
            elif content:
                messages.append({"role": "user", "content": content})
        elif kind in _CALLS:
            if calling is None:
                calling = {"role": "assistant", "content": None}
                messages.append(calling)
            call_id = str(item.get("call_id"))
            calling.setdefault("tool_calls", []).append(_call(item, call_id))
            text = outputs.get(call_id, NO_OUTPUT)
            answers.append({"role": "tool", "tool_call_id": call_id, "content": text})
        elif kind in _OUTPUTS:
            answer_calls()
    answer_calls()
    if system:
        messages.insert(0, {"role": "system", "content": "\n\n".join(text for text in system if text)})
    return messages


def chat_tools(tools: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """``tools`` of a request; those that are no functions are left out."""
    return [
        {
            "type": "function",
            "function": {
                key: tool[key]
                for key in ("name", "description", "parameters", "strict")
                if tool.get(key) is not None
            },
        }
        for tool in tools
        if tool.get("type") == "function"
    ]


def _call(item: ResponseItem, call_id: str) -> dict[str, Any]:
    arguments = item.get("arguments")
    if item["type"] == "custom_tool_call":
        arguments = encode({"input": item.get("input")}).decode()
    function = {"name": item.get("name"), "arguments": arguments if isinstance(arguments, str) else "{}"}
    return {"id": call_id, "type": "function", "function": function}


def _content(content: Any) -> str | list[dict[str, Any]]:
    """Text alone as a string, which every server takes; with images as a list of parts."""
    if not isinstance(content, list) or not any(_is_image(part) for part in content):
        return _plain_text(content)
    parts: list[dict[str, Any]] = []
    for part in content:
        if _is_image(part):
            parts.append({"type": "image_url", "image_url": {"url": part["image_url"]}})
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            parts.append({"type": "text", "text": part["text"]})
    return parts


def _is_image(part: Any) -> bool:
    return (
        isinstance(part, dict)
        and part.get("type") == "input_image"
        and isinstance(part.get("image_url"), str)
    )


def _plain_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return "\n".join(text for text in texts if isinstance(text, str))


def _output_text(output: Any) -> str:
    """A tool's output: a string, a list of parts, or an object with ``content``."""
    if isinstance(output, dict):
        output = output.get("content")
    return _plain_text(output)
