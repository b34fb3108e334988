"""The model context as a list of raw items, and what has to be true of it before it is sent.

A turn may end in the middle of anything: an interrupted one leaves calls that were never answered, a steered
one may leave reasoning whose message never came. Providers refuse such a context. It is mended in what is
sent, never in what is kept: the history stays what happened.
"""

from __future__ import annotations

from collections.abc import Iterable

from agent.model.events import ResponseItem

ABORTED = "aborted"
CALLS = {"function_call": "function_call_output", "custom_tool_call": "custom_tool_call_output"}
_OUTPUTS = frozenset(CALLS.values())


def user_message(parts: list[ResponseItem]) -> ResponseItem:
    """A message of the user."""
    return {"type": "message", "role": "user", "content": parts}


def developer_message(texts: Iterable[str]) -> ResponseItem:
    """A message that steers the model more strongly than the user's own."""
    return {"type": "message", "role": "developer", "content": [input_text(text) for text in texts]}


def input_text(text: str) -> ResponseItem:
    """One text part of a message to the model."""
    return {"type": "input_text", "text": text}


def call_output(call_id: str, output: str | list[ResponseItem], *, custom: bool = False) -> ResponseItem:
    """The answer to a tool call."""
    kind = "custom_tool_call_output" if custom else "function_call_output"
    return {"type": kind, "call_id": call_id, "output": output}


def message_text(item: ResponseItem) -> str:
    """All text of a message item, refusals included."""
    content = item.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") or part.get("refusal") for part in parts if isinstance(part, dict))
    return "".join(text for text in texts if isinstance(text, str))


def mended(context: Iterable[ResponseItem]) -> list[ResponseItem]:
    """A copy that a provider accepts.

    Every call is answered once, there is no answer without its call and no reasoning that leads to nothing.
    """
    items = list(context)
    answered, answers = _pairs(items)
    result: list[ResponseItem] = []
    for position, item in enumerate(items):
        kind = item.get("type")
        if kind in _OUTPUTS:
            if position in answers:
                result.append(item)
        elif kind in CALLS:
            result.append(item)
            if position not in answered:
                result.append({"type": CALLS[kind], "call_id": item.get("call_id"), "output": ABORTED})
        elif kind != "reasoning" or _leads_on(items, position):
            result.append(item)
    return result


def _pairs(items: list[ResponseItem]) -> tuple[set[int], set[int]]:
    """The places of calls that were answered, and of their answers.

    An answer belongs to the latest open call before it: some providers use the same ids again and again.
    """
    answered: set[int] = set()
    answers: set[int] = set()
    waiting: dict[object, list[int]] = {}
    for position, item in enumerate(items):
        if item.get("type") in CALLS:
            waiting.setdefault(item.get("call_id"), []).append(position)
        elif item.get("type") in _OUTPUTS and waiting.get(item.get("call_id")):
            answered.add(waiting[item.get("call_id")].pop())
            answers.add(position)
    return answered, answers


def _leads_on(items: list[ResponseItem], position: int) -> bool:
    """Whether the model's own words or calls follow the reasoning at ``position``."""
    for later in range(position + 1, len(items)):
        item = items[later]
        if item.get("type") == "reasoning":
            continue
        return item.get("type") not in _OUTPUTS and item.get("role") in (None, "assistant")
    return False
