"""The two wire formats in which ``scripted_model`` writes the pieces of its script."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from spoold.testing.model_script import Call, End, Piece, Reasoning, Text, rounds_done, said, where, words_of


class Wire(ABC):
    """Writes pieces in one wire format. ``serial`` makes ids unique, ``round_number`` goes into call ids."""

    def __init__(self, serial: int, round_number: int, body: dict[str, Any]) -> None:
        self.serial = serial
        self.round_number = round_number
        self.body = body
        self.items = 0

    @staticmethod
    @abstractmethod
    def where(body: dict[str, Any]) -> tuple[str, int]:
        """What the user said last, and how many steps of it are done."""

    @abstractmethod
    def begin(self) -> bytes:
        """What comes before the first piece."""

    @abstractmethod
    def render(self, piece: Piece) -> Iterator[bytes]:
        """The events of a piece."""

    def call_id(self) -> str:
        return f"call_r{self.round_number}_{self.serial}_{self.items}"


class ResponsesWire(Wire):
    """The Responses API."""

    @staticmethod
    def where(body: dict[str, Any]) -> tuple[str, int]:
        return where(body.get("input") or [])

    def begin(self) -> bytes:
        return self._event("response.created", response={"id": f"resp_{self.serial}"})

    def render(self, piece: Piece) -> Iterator[bytes]:
        if isinstance(piece, Text):
            yield from self._message(piece)
        elif isinstance(piece, Reasoning):
            yield from self._reasoning(piece)
        elif isinstance(piece, Call):
            item = {"type": "function_call", "call_id": self.call_id(), "name": piece.name}
            yield from self._whole_item("fc", {**item, "arguments": piece.arguments})
        elif isinstance(piece, End):
            yield from self._end(piece)

    def _message(self, piece: Text) -> Iterator[bytes]:
        item_id, index = f"msg_{self.serial}_{self.items}", self.items
        item: dict[str, Any] = {"type": "message", "role": "assistant", "id": item_id, "content": []}
        if piece.phase:
            item["phase"] = piece.phase
        if piece.start:
            self._said: list[str] = []
            yield self._event("response.output_item.added", output_index=index, item=item)
        before, _, after = self._event(
            "response.output_text.delta", item_id=item_id, output_index=index, content_index=0, delta="\0"
        ).partition(rb"\u0000")
        for delta in piece.deltas:
            self._said.append(delta)
            yield before + json.dumps(delta)[1:-1].encode() + after
        if piece.done:
            content = [{"type": "output_text", "text": "".join(self._said), "annotations": []}]
            self.items += 1
            yield self._event(
                "response.output_item.done", output_index=index, item={**item, "content": content}
            )

    def _reasoning(self, piece: Reasoning) -> Iterator[bytes]:
        item_id, index = f"rs_{self.serial}_{self.items}", self.items
        item: dict[str, Any] = {"type": "reasoning", "id": item_id, "summary": []}
        yield self._event("response.output_item.added", output_index=index, item=item)
        where: dict[str, Any] = {"item_id": item_id, "output_index": index}
        if piece.raw:
            for word in words_of(piece.text):
                yield self._event("response.reasoning_text.delta", **where, content_index=0, delta=word)
            item["content"] = [{"type": "reasoning_text", "text": piece.text}]
        else:
            part = {"type": "summary_text", "text": ""}
            yield self._event("response.reasoning_summary_part.added", **where, summary_index=0, part=part)
            for word in words_of(piece.text):
                yield self._event(
                    "response.reasoning_summary_text.delta", **where, summary_index=0, delta=word
                )
            item["summary"] = [{"type": "summary_text", "text": piece.text}]
        item["encrypted_content"] = f"sealed:{self.serial}"
        self.items += 1
        yield self._event("response.output_item.done", output_index=index, item=item)

    def _whole_item(self, prefix: str, item: dict[str, Any]) -> Iterator[bytes]:
        item = {**item, "id": f"{prefix}_{self.serial}_{self.items}"}
        where = {"output_index": self.items}
        self.items += 1
        yield self._event("response.output_item.added", **where, item={**item, "arguments": ""})
        yield self._event("response.output_item.done", **where, item=item)

    def _end(self, piece: End) -> Iterator[bytes]:
        response: dict[str, Any] = {"id": f"resp_{self.serial}"}
        if piece.kind == "completed":
            response["usage"] = {
                "input_tokens": piece.total_tokens - 5,
                "input_tokens_details": {"cached_tokens": 2},
                "output_tokens": 5,
                "output_tokens_details": {"reasoning_tokens": 1},
                "total_tokens": piece.total_tokens,
            }
        elif piece.kind == "failed":
            response["error"] = {"code": piece.code, "message": piece.message}
        elif piece.kind == "incomplete":
            response["incomplete_details"] = {"reason": piece.code}
        else:
            return
        yield self._event(f"response.{piece.kind}", response=response)

    @staticmethod
    def _event(kind: str, **members: Any) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}\n\n".encode()


class ChatWire(Wire):
    """Chat Completions."""

    @staticmethod
    def where(body: dict[str, Any]) -> tuple[str, int]:
        outputs: list[str] = []
        for message in reversed(body.get("messages") or []):
            if message.get("role") == "user" and (text := said(message.get("content"))):
                return text, rounds_done(outputs)
            if message.get("role") == "tool":
                outputs.append(str(message.get("tool_call_id")))
        return "", 0

    def begin(self) -> bytes:
        self.calls = 0
        return self._chunk({"role": "assistant", "content": ""})

    def render(self, piece: Piece) -> Iterator[bytes]:
        if isinstance(piece, Text):
            for delta in piece.deltas:
                yield self._chunk({"content": delta})
        elif isinstance(piece, Reasoning):
            for word in words_of(piece.text):
                yield self._chunk({"reasoning_content": word})
        elif isinstance(piece, Call):
            half = len(piece.arguments) // 2
            call = {"index": self.calls, "id": self.call_id(), "type": "function"}
            head = {"name": piece.name, "arguments": piece.arguments[:half]}
            yield self._chunk({"tool_calls": [{**call, "function": head}]})
            tail = {"index": self.calls, "function": {"arguments": piece.arguments[half:]}}
            yield self._chunk({"tool_calls": [tail]})
            self.calls += 1
            self.items += 1
        elif isinstance(piece, End):
            yield from self._end(piece)

    def _end(self, piece: End) -> Iterator[bytes]:
        if piece.kind == "nothing":
            return
        if piece.kind == "failed":
            error = {"code": piece.code, "message": piece.message}
            yield f"data: {json.dumps({'error': error})}\n\n".encode()
            return
        length = "length" if piece.code == "max_output_tokens" else piece.code
        yield self._chunk({}, finish=length or ("tool_calls" if self.calls else "stop"))
        if (self.body.get("stream_options") or {}).get("include_usage"):
            usage = {
                "prompt_tokens": piece.total_tokens - 5,
                "completion_tokens": 5,
                "total_tokens": piece.total_tokens,
                "prompt_tokens_details": {"cached_tokens": 2},
            }
            chunk = {"id": f"chatcmpl-{self.serial}", "choices": [], "usage": usage}
            yield f"data: {json.dumps(chunk)}\n\n".encode()
        yield b"data: [DONE]\n\n"

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        chunk = {"id": f"chatcmpl-{self.serial}", "object": "chat.completion.chunk", "choices": [choice]}
        return f"data: {json.dumps(chunk)}\n\n".encode()
