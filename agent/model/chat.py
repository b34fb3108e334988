"""Chat Completions, streaming: the wire format of local servers that lack the Responses API.

A client of this format takes the same ``ModelRequest`` and gives the same events as that of the Responses
API. What Chat Completions cannot carry is left out: reasoning items of earlier turns, tools that are no
functions. Ids of items are made here, ids of calls are the server's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from agent.model import failures
from agent.model.chat_messages import chat_messages, chat_tools
from agent.model.events import (
    ModelEvent,
    ModelRequest,
    OutputItemDone,
    OutputItemStarted,
    ReasoningTextDelta,
    ResponseCompleted,
    TextDelta,
)
from agent.model.http_stream import HttpModelClient
from agent.model.responses import SCHEMA_NAME
from protocol.base import encode
from protocol.runtime import Runtime
from protocol.threads import TokenCounts

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ChatClient(HttpModelClient):
    """A provider with ``wire_api = "chat"``."""

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[ModelEvent]]:
        """One attempt; see ``ModelClient.stream``."""
        return self._http.stream("/chat/completions", request_body(request), ChatDecoder(self._runtime))


def request_body(request: ModelRequest) -> dict[str, Any]:
    """The JSON body of a request."""
    body: dict[str, Any] = {
        "model": request.model,
        "messages": chat_messages(request.instructions, request.input),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    tools = chat_tools(request.tools)
    if tools:
        body["tools"] = tools
        body["tool_choice"] = "auto"
        body["parallel_tool_calls"] = True
    if request.effort is not None:
        body["reasoning_effort"] = request.effort
    if request.output_schema is not None:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": SCHEMA_NAME, "strict": True, "schema": request.output_schema},
        }
    return body


@dataclass(slots=True)
class _Call:
    call_id: str
    name: str
    arguments: list[str]


class ChatDecoder:
    """``StreamDecoder`` of this wire format.

    The text item and the reasoning item are open while their deltas come; calls are collected and come out,
    whole, when the server says why it stopped. The response is complete at ``[DONE]`` or at the end of the
    stream, but only after such a reason: usage comes between the two.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.ready: deque[ModelEvent] = deque()
        self.completed = False
        self._runtime = runtime
        self._response_id = ""
        self._usage: TokenCounts | None = None
        self._finish: str | None = None
        self._message: tuple[str, list[str]] | None = None
        self._reasoning: tuple[str, list[str]] | None = None
        self._calls: list[_Call] = []
        self._call_at: dict[int, _Call] = {}

    def decode(self, name: str, payload: Any) -> None:
        """Take one chunk."""
        if not isinstance(payload, dict) or self.completed:
            return
        error = payload.get("error")
        if error:
            raise _reported(error)
        if not self._response_id and isinstance(payload.get("id"), str):
            self._response_id = payload["id"]
        usage = payload.get("usage")
        if isinstance(usage, dict):
            self._usage = token_counts(usage)
        choices = payload.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            return
        delta = choices[0].get("delta")
        if isinstance(delta, dict) and self._finish is None:
            self._take(delta)
        finish = choices[0].get("finish_reason")
        if isinstance(finish, str) and finish and self._finish is None:
            self._finish = finish
            self._close_items()

    def is_end(self, data: bytes) -> bool:
        """``[DONE]``."""
        return data == b"[DONE]"

    def end(self) -> None:
        """The stream ended, by ``[DONE]`` or by itself."""
        if self._finish is None:
            raise failures.stream_broke(failures.CLOSED_EARLY)
        if self._finish in _INCOMPLETE:
            raise failures.incomplete(_INCOMPLETE[self._finish])
        self.completed = True
        self.ready.append(ResponseCompleted(self._response_id, self._usage))

    def _take(self, delta: dict[str, Any]) -> None:
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if isinstance(thought, str) and thought:
            if self._reasoning is None:
                self._reasoning = ("rs_" + self._runtime.new_id(), [])
                started = {"type": "reasoning", "id": self._reasoning[0], "summary": [], "content": []}
                self.ready.append(OutputItemStarted(started))
            self._reasoning[1].append(thought)
            self.ready.append(ReasoningTextDelta(self._reasoning[0], 0, thought))
        text = delta.get("content")
        if isinstance(text, str) and text:
            if self._message is None:
                self._close_reasoning()
                self._message = ("msg_" + self._runtime.new_id(), [])
                self.ready.append(OutputItemStarted(_message_item(self._message[0], None)))
            self._message[1].append(text)
            self.ready.append(TextDelta(self._message[0], text))
        calls = delta.get("tool_calls")
        if isinstance(calls, list):
            for call in calls:
                if isinstance(call, dict):
                    self._take_call(call)

    def _take_call(self, part: dict[str, Any]) -> None:
        """A piece of a call. Some servers give every call the index 0, or none, but then distinct ids."""
        given_id = part.get("id")
        call_id = given_id if isinstance(given_id, str) else ""
        index = part.get("index")
        if not isinstance(index, int):
            index = len(self._calls) if call_id or not self._calls else len(self._calls) - 1
        call = self._call_at.get(index)
        if call is None or (call_id and call.call_id and call_id != call.call_id):
            call = _Call(call_id=call_id, name="", arguments=[])
            self._calls.append(call)
            self._call_at[index] = call
        call.call_id = call.call_id or call_id
        function = part.get("function")
        if not isinstance(function, dict):
            return
        name = function.get("name")
        if isinstance(name, str) and name and not call.name:
            call.name = name
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            call.arguments.append(arguments)
        elif arguments is not None:
            call.arguments.append(encode(arguments).decode())

    def _close_items(self) -> None:
        self._close_reasoning()
        if self._message is not None:
            item_id, parts = self._message
            self._message = None
            self.ready.append(OutputItemDone(_message_item(item_id, "".join(parts))))
        if self._finish in _INCOMPLETE:
            return  # the last call may be cut in the middle of its arguments
        for call in self._calls:
            item = {
                "type": "function_call",
                "id": "fc_" + self._runtime.new_id(),
                "call_id": call.call_id or "call_" + self._runtime.new_id(),
                "name": call.name,
                "arguments": "".join(call.arguments) or "{}",
            }
            self.ready.append(OutputItemStarted({**item, "arguments": ""}))
            self.ready.append(OutputItemDone(item))

    def _close_reasoning(self) -> None:
        if self._reasoning is not None:
            item_id, parts = self._reasoning
            self._reasoning = None
            content = [{"type": "reasoning_text", "text": "".join(parts)}]
            self.ready.append(
                OutputItemDone({"type": "reasoning", "id": item_id, "summary": [], "content": content})
            )


def token_counts(usage: dict[str, Any]) -> TokenCounts:
    """``usage`` of the last chunk."""

    def count(value: Any) -> int:
        return value if isinstance(value, int) and value >= 0 else 0

    def detail(group: str, key: str) -> int:
        details = usage.get(group)
        return count(details.get(key)) if isinstance(details, dict) else 0

    input_tokens, output_tokens = count(usage.get("prompt_tokens")), count(usage.get("completion_tokens"))
    return TokenCounts(
        total_tokens=count(usage.get("total_tokens")) or input_tokens + output_tokens,
        input_tokens=input_tokens,
        cached_input_tokens=detail("prompt_tokens_details", "cached_tokens"),
        output_tokens=output_tokens,
        reasoning_output_tokens=detail("completion_tokens_details", "reasoning_tokens"),
    )


def _message_item(item_id: str, text: str | None) -> dict[str, Any]:
    content = [] if text is None else [{"type": "output_text", "text": text}]
    return {"type": "message", "id": item_id, "role": "assistant", "content": content}


def _reported(error: Any) -> Exception:
    if not isinstance(error, dict):
        return failures.response_failed(None, str(error))
    code, message = error.get("code") or error.get("type"), error.get("message")
    return failures.response_failed(
        code if isinstance(code, str) else None, message if isinstance(message, str) else None
    )
