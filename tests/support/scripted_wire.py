"""The script of ``scripted_model`` as pieces, and the two wire formats that pieces are written in."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any


@dataclass(frozen=True)
class Text:
    """A message in these deltas; ``done`` says whether it is finished."""

    deltas: list[str]
    start: bool = True
    done: bool = True
    phase: str | None = None


@dataclass(frozen=True)
class Reasoning:
    text: str
    raw: bool = False


@dataclass(frozen=True)
class Call:
    name: str
    arguments: str


@dataclass(frozen=True)
class End:
    """How the response ends; ``kind``: completed, nothing, failed, incomplete."""

    kind: str = "completed"
    code: str = ""
    message: str = ""
    total_tokens: int = 15


@dataclass(frozen=True)
class Gate:
    """Wait for ``release(name)``."""

    name: str


@dataclass(frozen=True)
class Hangup:
    """Answer with an HTTP error (``status``), or just close the connection."""

    status: int | None = None
    body: Any = field(default=None)


Piece = Text | Reasoning | Call | End | Gate | Hangup


def compile_step(step: str) -> list[Piece]:
    """One step of the script as pieces."""
    verb, _, rest = step.partition(" ")
    parts = [part.strip() for part in rest.split(" ;; ")]
    first, _, others = rest.partition(" ")
    match verb:
        case "say":
            return [Text(_words(rest)), End()]
        case "deltas":
            return [Text(_cut(others, int(first))), End()]
        case "burst":
            return [Text(["x" * int(others)] * int(first)), End()]
        case "many":
            return [*(Text(_words(part)) for part in parts), End()]
        case "commentary":
            return [
                Text(_words(parts[0]), phase="commentary"),
                *(Text(_words(part)) for part in parts[1:]),
                End(),
            ]
        case "reason" | "think":
            return [Reasoning(parts[0], raw=verb == "think"), Text(_words(parts[-1])), End()]
        case "thinksh":
            return [Reasoning(parts[0]), *(_shell(part) for part in parts[1:]), End()]
        case "usage":
            return [Text(_words(others)), End(total_tokens=int(first))]
        case "shell":
            return [*(_shell(part) for part in parts), End()]
        case "esc":
            return [_shell(rest, escalate=True), End()]
        case "both":
            return [Text(_words(parts[0])), *(_shell(part) for part in parts[1:]), End()]
        case "call":
            return [Call(first, others or "{}"), End()]
        case "badargs":
            return [Call("exec_command", '{"cmd": '), End()]
        case "hold":
            head, *tail = _words(others)
            return [Text([head], done=False), Gate(first), Text(tail, start=False), End()]
        case "wait":
            return [Gate(first), Text(_words(others)), End()]
        case "holdsh":
            return [Text(["Holding."], done=False), Gate(first), Text([], start=False), _shell(others), End()]
        case "cut":
            words = _words(rest)
            return [Text(words[: (len(words) + 1) // 2], done=False), Hangup()]
        case "nocomplete":
            return [Text(_words(rest)), End("nothing")]
        case "http":
            return [Hangup(int(first), _error_body(int(first), others))]
        case "failed":
            return [End("failed", first, others)]
        case "incomplete":
            return [Text(["Cut", " short"]), End("incomplete", rest)]
        case _:
            return [Text(_words(f"You said: {step}")), End()]


def _words(text: str) -> list[str]:
    head, *tail = text.split(" ")
    return [head, *(f" {word}" for word in tail)]


def _cut(text: str, count: int) -> list[str]:
    """``text`` in ``count`` deltas that are never empty."""
    text = text.ljust(count, ".")
    edges = [len(text) * number // count for number in range(count + 1)]
    return [text[start:end] for start, end in pairwise(edges)]


def _shell(command: str, *, escalate: bool = False) -> Call:
    arguments: dict[str, Any] = {"cmd": command}
    if escalate:
        arguments |= {"sandbox_permissions": "require_escalated", "justification": f"needed for {command}"}
    return Call("exec_command", json.dumps(arguments))


def _error_body(status: int, text: str) -> Any:
    if text.startswith("{"):
        return text.encode()
    return {"error": {"message": text or f"scripted status {status}", "type": "scripted", "code": None}}


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


def _rounds_done(call_ids: list[str]) -> int:
    """The step after the latest one that has an output; ids of other makers count one step in all."""
    done = 0
    for call_id in call_ids:
        mark, _, _ = call_id.removeprefix("call_r").partition("_")
        done = max(done, int(mark) + 1 if call_id.startswith("call_r") and mark.isdigit() else 1)
    return done


def _said(content: Any) -> str:
    """The last text in a message's content that is not a context block."""
    texts = [content] if isinstance(content, str) else [part.get("text") for part in content or []]
    own = [text for text in texts if isinstance(text, str) and text and not text.startswith("<")]
    return own[-1] if own else ""


class ResponsesWire(Wire):
    """The Responses API."""

    @staticmethod
    def where(body: dict[str, Any]) -> tuple[str, int]:
        items = body.get("input") or []
        outputs: list[str] = []
        for item in reversed(items):
            if item.get("role") == "user" and (text := _said(item.get("content"))):
                return text, _rounds_done(outputs)
            if str(item.get("type", "")).endswith("_call_output"):
                outputs.append(str(item.get("call_id")))
        return "", 0

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
            for word in _words(piece.text):
                yield self._event("response.reasoning_text.delta", **where, content_index=0, delta=word)
            item["content"] = [{"type": "reasoning_text", "text": piece.text}]
        else:
            part = {"type": "summary_text", "text": ""}
            yield self._event("response.reasoning_summary_part.added", **where, summary_index=0, part=part)
            for word in _words(piece.text):
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
            if message.get("role") == "user" and (text := _said(message.get("content"))):
                return text, _rounds_done(outputs)
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
            for word in _words(piece.text):
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
