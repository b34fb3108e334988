"""The Responses API, streaming: the wire format of OpenAI and of everything that imitates it.

Imitators differ in what they leave out (``output_item.added``, ids, ``content``, ``output_index``), and some
give one item another id in every event. The decoder evens that out: whatever comes, its consumer sees for
each item one start, deltas under the id of the start, and one end with that id.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from agent.model import failures
from agent.model.events import (
    ModelEvent,
    ModelRequest,
    OutputItemDone,
    OutputItemStarted,
    ReasoningSummaryDelta,
    ReasoningSummaryPart,
    ReasoningTextDelta,
    ResponseCompleted,
    ResponseItem,
    TextDelta,
)
from agent.model.http_stream import HttpModelClient
from protocol.runtime import Runtime
from protocol.threads import TokenCounts

SCHEMA_NAME = "codex_output_schema"

_ID_PREFIX = {"message": "msg_", "reasoning": "rs_", "function_call": "fc_"}
# What the API accepts as an id of each kind. Ids of other makers are left out, the items do without.
_ACCEPTED_PREFIX = {
    "message": "msg_",
    "reasoning": "rs_",
    "function_call": "fc_",
    "function_call_output": "fco_",
    "custom_tool_call": "ctc_",
    "custom_tool_call_output": "ctco_",
}


class ResponsesClient(HttpModelClient):
    """A provider with ``wire_api = "responses"``."""

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[ModelEvent]]:
        """One attempt; see ``ModelClient.stream``."""
        return self._http.stream("/responses", request_body(request), ResponsesDecoder(self._runtime))


def request_body(request: ModelRequest) -> dict[str, Any]:
    """The JSON body of a request."""
    body: dict[str, Any] = {
        "model": request.model,
        "instructions": request.instructions,
        "input": [_input_item(item) for item in request.input],
        "tools": request.tools,
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "store": False,
        "stream": True,
    }
    reasoning = {"effort": request.effort, "summary": request.summary}
    reasoning = {key: value for key, value in reasoning.items() if value is not None}
    if reasoning:
        body["reasoning"] = reasoning
        body["include"] = ["reasoning.encrypted_content"]
    if request.cache_key is not None:
        body["prompt_cache_key"] = request.cache_key
    if request.output_schema is not None:
        body["text"] = {
            "format": {
                "type": "json_schema",
                "strict": True,
                "schema": request.output_schema,
                "name": SCHEMA_NAME,
            }
        }
    return body


def _input_item(item: ResponseItem) -> ResponseItem:
    kind = item.get("type", "message")
    prefix = _ACCEPTED_PREFIX.get(kind)
    if "id" not in item or prefix is None:
        return item
    # Nothing is stored, so a reasoning item is only known by its sealed content; its id alone is an error.
    sealed = kind != "reasoning" or bool(item.get("encrypted_content"))
    if not (sealed and isinstance(item["id"], str) and item["id"].startswith(prefix)):
        return {key: value for key, value in item.items() if key != "id"}
    return item


@dataclass(slots=True)
class _OpenItem:
    id: str
    kind: str
    text: list[str] = field(default_factory=list)
    summary: dict[int, list[str]] = field(default_factory=dict)


class ResponsesDecoder:
    """``StreamDecoder`` of this wire format."""

    def __init__(self, runtime: Runtime) -> None:
        self.ready: deque[ModelEvent] = deque()
        self.completed = False
        self._runtime = runtime
        self._response_id = ""
        # Invariant: the same items, by the id of their start and by output_index where there was one.
        self._open: dict[str, _OpenItem] = {}
        self._by_index: dict[int, _OpenItem] = {}

    def decode(self, name: str, payload: Any) -> None:
        """Take one event; unknown ones are ignored."""
        if not isinstance(payload, dict) or self.completed:
            return
        kind = payload.get("type") or name
        if kind == "response.output_text.delta":
            delta = payload.get("delta")
            if isinstance(delta, str) and delta:
                item = self._item(payload, "message")
                item.text.append(delta)
                self.ready.append(TextDelta(item.id, delta))
            return
        handler = _HANDLERS.get(kind)
        if handler is not None:
            handler(self, payload)

    def is_end(self, data: bytes) -> bool:
        """``[DONE]``, which some imitators send here too."""
        return data == b"[DONE]"

    def end(self) -> None:
        """The stream ended; only ``response.completed`` may end it well."""
        raise failures.stream_broke(failures.CLOSED_EARLY)

    def _created(self, payload: dict[str, Any]) -> None:
        self._response_id = _text(_object(payload, "response").get("id"))

    def _added(self, payload: dict[str, Any]) -> None:
        item = payload.get("item")
        if isinstance(item, dict) and isinstance(item.get("type"), str):
            self._start(item, payload.get("output_index"))

    def _start(self, item: ResponseItem, index: Any) -> _OpenItem:
        kind = item["type"]
        item = _filled(item)
        if not item.get("id"):
            item["id"] = _ID_PREFIX.get(kind, "item_") + self._runtime.new_id()
        opened = _OpenItem(id=str(item["id"]), kind=kind)
        self._open[opened.id] = opened
        if isinstance(index, int):
            self._by_index[index] = opened
        self.ready.append(OutputItemStarted(item))
        return opened

    def _find(self, payload: dict[str, Any], item_id: Any, kind: str) -> _OpenItem | None:
        found = self._open.get(item_id) if isinstance(item_id, str) else None
        if found is None:
            index = payload.get("output_index")
            found = self._by_index.get(index) if isinstance(index, int) else None
        if found is None and not item_id:
            found = next((each for each in reversed(self._open.values()) if each.kind == kind), None)
        return found if found is not None and found.kind == kind else None

    def _item(self, payload: dict[str, Any], kind: str) -> _OpenItem:
        """The open item that a delta belongs to; started here if nobody did."""
        item_id = payload.get("item_id")
        found = self._find(payload, item_id, kind)
        if found is None:
            found = self._start({"type": kind, "id": item_id}, payload.get("output_index"))
        return found

    def _summary_part(self, payload: dict[str, Any]) -> None:
        item = self._item(payload, "reasoning")
        index = _index(payload.get("summary_index"))
        item.summary.setdefault(index, [])
        self.ready.append(ReasoningSummaryPart(item.id, index))

    def _summary_delta(self, payload: dict[str, Any]) -> None:
        delta = payload.get("delta")
        if not isinstance(delta, str) or not delta:
            return
        item = self._item(payload, "reasoning")
        index = _index(payload.get("summary_index"))
        if index not in item.summary:
            item.summary[index] = []
            self.ready.append(ReasoningSummaryPart(item.id, index))
        item.summary[index].append(delta)
        self.ready.append(ReasoningSummaryDelta(item.id, index, delta))

    def _reasoning_delta(self, payload: dict[str, Any]) -> None:
        delta = payload.get("delta")
        if isinstance(delta, str) and delta:
            item = self._item(payload, "reasoning")
            self.ready.append(ReasoningTextDelta(item.id, _index(payload.get("content_index")), delta))

    def _done(self, payload: dict[str, Any]) -> None:
        item = payload.get("item")
        if not isinstance(item, dict) or not isinstance(item.get("type"), str):
            return
        opened = self._find(payload, item.get("id"), item["type"])
        if opened is None:
            opened = self._start(item, payload.get("output_index"))
        self._close(opened, item)

    def _close(self, opened: _OpenItem, item: ResponseItem) -> None:
        item = _filled(item)
        item["id"] = opened.id
        if opened.kind == "message" and not item["content"] and opened.text:
            item["content"] = [{"type": "output_text", "text": "".join(opened.text)}]
        if opened.kind == "reasoning" and not item["summary"] and opened.summary:
            item["summary"] = [
                {"type": "summary_text", "text": "".join(part)} for _, part in sorted(opened.summary.items())
            ]
        self._open.pop(opened.id, None)
        for index in [index for index, each in self._by_index.items() if each is opened]:
            del self._by_index[index]
        self.ready.append(OutputItemDone(item))

    def _completed(self, payload: dict[str, Any]) -> None:
        for opened in list(self._open.values()):
            if opened.kind == "message" and opened.text:  # whole, only its end was not announced
                self._close(opened, {"type": "message"})
        response = _object(payload, "response")
        response_id = _text(response.get("id")) or self._response_id
        self.completed = True
        self.ready.append(ResponseCompleted(response_id, token_counts(response.get("usage"))))

    def _failed(self, payload: dict[str, Any]) -> None:
        error = _object(_object(payload, "response"), "error") or _object(payload, "error") or payload
        code, message = error.get("code"), error.get("message")
        raise failures.response_failed(
            code if isinstance(code, str) else None, message if isinstance(message, str) else None
        )

    def _incomplete(self, payload: dict[str, Any]) -> None:
        details = _object(_object(payload, "response"), "incomplete_details")
        raise failures.incomplete(_text(details.get("reason")) or None)


_HANDLERS = {
    "response.created": ResponsesDecoder._created,
    "response.output_item.added": ResponsesDecoder._added,
    "response.reasoning_summary_part.added": ResponsesDecoder._summary_part,
    "response.reasoning_summary_text.delta": ResponsesDecoder._summary_delta,
    "response.reasoning_text.delta": ResponsesDecoder._reasoning_delta,
    "response.output_item.done": ResponsesDecoder._done,
    "response.completed": ResponsesDecoder._completed,
    "response.failed": ResponsesDecoder._failed,
    "error": ResponsesDecoder._failed,
    "response.incomplete": ResponsesDecoder._incomplete,
}


def token_counts(usage: Any) -> TokenCounts | None:
    """``usage`` of a response; None if the provider did not say."""
    if not isinstance(usage, dict):
        return None
    input_details = _object(usage, "input_tokens_details")
    input_tokens = _index(usage.get("input_tokens"))
    output_tokens = _index(usage.get("output_tokens"))
    return TokenCounts(
        total_tokens=_index(usage.get("total_tokens")) or input_tokens + output_tokens,
        input_tokens=input_tokens,
        cached_input_tokens=_index(input_details.get("cached_tokens")),
        cache_write_input_tokens=_index(input_details.get("cache_write_tokens")),
        output_tokens=output_tokens,
        reasoning_output_tokens=_index(_object(usage, "output_tokens_details").get("reasoning_tokens")),
    )


def _filled(item: ResponseItem) -> ResponseItem:
    """A copy with the members that every consumer may rely on."""
    item = dict(item)
    if item["type"] == "message":
        item.setdefault("role", "assistant")
        if not isinstance(item.get("content"), list):
            item["content"] = []
    elif item["type"] == "reasoning" and not isinstance(item.get("summary"), list):
        item["summary"] = []
    return item


def _object(value: dict[str, Any], key: str) -> dict[str, Any]:
    member = value.get(key)
    return member if isinstance(member, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _index(value: Any) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
