"""The built-in ``offline`` provider: a few rules that stream like a model, without a network or a key.

It is for the demo, for first steps and for trying clients: echoing, slow streaming, a shell call with its
approval, reasoning, failures. It never pretends: every answer begins with ``[offline]``, the first one of a
conversation says what it is, and ``help`` lists the rules.

It is a pure function of the request (ids come from the runtime), so a conversation with it can be replayed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import trio

from agent.model import failures
from agent.model.events import (
    ModelEvent,
    ModelRequest,
    OutputItemDone,
    OutputItemStarted,
    ReasoningSummaryDelta,
    ReasoningSummaryPart,
    ResponseCompleted,
    ResponseItem,
    TextDelta,
)
from agent.model.minimal_json import minimal_instance
from protocol.base import encode
from protocol.errors import TurnFailure
from protocol.runtime import Runtime
from protocol.threads import TokenCounts

MARK = "[offline]"
INTRODUCTION = (
    f"{MARK} I am spoold's built-in offline model: a few fixed rules, no network, no intelligence. "
    "Say `help` for the rules."
)
HELP = f"""{MARK} The rules go by the first word of your message:
  help            this list
  stream N [MS]   N words, one every MS milliseconds (default 20)
  run CMD         calls the tool exec_command with CMD, then tells what came back
  think TEXT      reasons about TEXT first
  fail [WHAT]     fails: 500, 400, 401, 429, cut, closed, failed, context, quota, incomplete
  json            the smallest JSON that fits the requested output schema
Everything else is echoed."""

TOOL = "exec_command"
DEFAULT_PAUSE_MS = 20
MOST_WORDS = 100_000
LONGEST_PAUSE_MS = 60_000

_URL = "offline:/responses"


class OfflineClient:
    """The ``ModelClient`` of the built-in provider."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncGenerator[AsyncIterator[ModelEvent], None]:
        """One answer; see ``ModelClient.stream``."""
        text, after = last_user_text(request.input)
        failure = _failure_on_request(text)
        if failure is not None:
            raise failure
        async with aclosing(self._answer(request, text, after)) as events:
            yield events

    async def prepare(self) -> None:
        """Nothing is needed."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Nothing is open."""
        await trio.lowlevel.checkpoint()

    async def _answer(
        self, request: ModelRequest, text: str, after: list[ResponseItem]
    ) -> AsyncGenerator[ModelEvent, None]:
        response_id = "resp_" + self._runtime.new_id()
        word, _, rest = text.strip().partition(" ")
        rest = rest.strip()
        pause = 0.0
        outputs = [item for item in after if str(item.get("type", "")).endswith("_call_output")]
        answer = f"{MARK} You said: {text.strip()}"
        if word == "run" and rest and not outputs and _offers(request, TOOL):
            call = self._call(rest)
            yield OutputItemStarted({**call, "arguments": ""})
            await trio.lowlevel.checkpoint()
            yield OutputItemDone(call)
            yield ResponseCompleted(response_id, _usage(request, rest))
            return
        if outputs:
            answer = f"{MARK} The tool answered:\n{_text_of(outputs[-1].get('output'))}"
        elif word == "run" and rest:
            answer = f"{MARK} I was not offered the tool {TOOL}, so I cannot run anything."
        elif word == "help" and not rest:
            answer = HELP
        elif word == "think" and rest:
            async with aclosing(self._think(rest)) as thoughts:
                async for event in thoughts:
                    yield event
            answer = f"{MARK} I have thought about it: {rest}"
        elif word == "stream" and (plan := _stream_plan(rest)) is not None:
            count, pause = plan
            answer = " ".join([MARK, *(f"word{number}" for number in range(1, count + 1))])
        elif _asks_who(text):
            answer = INTRODUCTION
        if request.output_schema is not None:
            answer = encode(minimal_instance(request.output_schema)).decode()
        elif word == "json" and not outputs:
            answer = "{}"
        elif not _has_answered(request.input) and answer not in (INTRODUCTION, HELP):
            answer = f"{INTRODUCTION}\n{answer}"
        fails_late = _failure_on_stream(text)
        async with aclosing(self._message(answer, pause, done=fails_late is None)) as words:
            async for event in words:
                yield event
        if fails_late is not None:
            raise fails_late
        yield ResponseCompleted(response_id, _usage(request, answer))

    def _call(self, command: str) -> ResponseItem:
        return {
            "type": "function_call",
            "id": "fc_" + self._runtime.new_id(),
            "call_id": "call_" + self._runtime.new_id(),
            "name": TOOL,
            "arguments": encode({"cmd": command}).decode(),
        }

    async def _think(self, subject: str) -> AsyncGenerator[ModelEvent, None]:
        item_id = "rs_" + self._runtime.new_id()
        thought = f"Thinking about: {subject}"
        yield OutputItemStarted({"type": "reasoning", "id": item_id, "summary": []})
        yield ReasoningSummaryPart(item_id, 0)
        for piece in _pieces(thought):
            await trio.lowlevel.checkpoint()
            yield ReasoningSummaryDelta(item_id, 0, piece)
        summary = [{"type": "summary_text", "text": thought}]
        yield OutputItemDone({"type": "reasoning", "id": item_id, "summary": summary})

    async def _message(self, text: str, pause: float, *, done: bool) -> AsyncGenerator[ModelEvent, None]:
        item_id = "msg_" + self._runtime.new_id()
        item: ResponseItem = {"type": "message", "id": item_id, "role": "assistant", "content": []}
        yield OutputItemStarted(item)
        for number, piece in enumerate(_pieces(text)):
            if pause and number:
                await trio.sleep(pause)
            else:
                await trio.lowlevel.checkpoint()
            yield TextDelta(item_id, piece)
        if done:
            yield OutputItemDone({**item, "content": [{"type": "output_text", "text": text}]})


def last_user_text(items: list[ResponseItem]) -> tuple[str, list[ResponseItem]]:
    """The last thing the user said, and what came after it. Context blocks (``<...>``) are not the user."""
    for position in range(len(items) - 1, -1, -1):
        item = items[position]
        if item.get("role") != "user":
            continue
        text = _text_of(item.get("content"))
        if text.strip() and not text.lstrip().startswith("<"):
            return text, items[position + 1 :]
    return "", items


def _failure_on_request(text: str) -> TurnFailure | None:
    """What ``fail WHAT`` raises before there is a response."""
    what = _fail_what(text)
    if what not in ("", "500", "400", "401", "429"):
        return None
    status = int(what or 500)
    body = '{"error":{"message":"the offline model was asked to fail","type":"offline","code":null}}'
    return failures.http_failure(status, body, _URL, {}, 0)


def _failure_on_stream(text: str) -> TurnFailure | None:
    """What ``fail WHAT`` raises after part of a response."""
    what = _fail_what(text)
    if what is None:
        return None
    known = {
        "cut": failures.stream_broke(failures.TRANSPORT_CUT),
        "closed": failures.stream_broke(failures.CLOSED_EARLY),
        "failed": failures.response_failed(None, "the offline model was asked to fail"),
        "context": failures.response_failed("context_length_exceeded", None),
        "quota": failures.response_failed("insufficient_quota", None),
        "incomplete": failures.incomplete("max_output_tokens"),
    }
    return known.get(what)


def _fail_what(text: str) -> str | None:
    word, _, what = text.strip().partition(" ")
    return what.strip() if word == "fail" else None


def _stream_plan(arguments: str) -> tuple[int, float] | None:
    """``N [MS]`` as a count of words and seconds between them; None if it is not that."""
    numbers = arguments.split()
    if not 1 <= len(numbers) <= 2 or not all(each.isascii() and each.isdigit() for each in numbers):
        return None
    if any(len(each) > 9 for each in numbers):
        return None
    pause_ms = int(numbers[1]) if len(numbers) == 2 else DEFAULT_PAUSE_MS
    return min(int(numbers[0]), MOST_WORDS), min(pause_ms, LONGEST_PAUSE_MS) / 1000


def _asks_who(text: str) -> bool:
    asked = text.lower().replace("\u2019", "'").strip(" ?!.")
    return asked in (
        "who are you",
        "what are you",
        "what is this",
        "which model are you",
        "what model are you",
    )


def _has_answered(items: list[ResponseItem]) -> bool:
    return any(item.get("role") == "assistant" for item in items)


def _offers(request: ModelRequest, tool: str) -> bool:
    return any(each.get("name") == tool for each in request.tools)


def _text_of(content: Any) -> str:
    if isinstance(content, dict):
        content = content.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return "\n".join(text for text in texts if isinstance(text, str))


def _pieces(text: str) -> list[str]:
    """Words, each with the space before it, as models stream them."""
    first, *others = text.split(" ")
    return [first, *(" " + word for word in others)]


def _usage(request: ModelRequest, answer: str) -> TokenCounts:
    """Four characters count as a token, so that clients have something to show."""
    heard = len(request.instructions) + sum(len(_text_of(item.get("content"))) for item in request.input)
    input_tokens, output_tokens = heard // 4 + 1, len(answer) // 4 + 1
    return TokenCounts(
        total_tokens=input_tokens + output_tokens, input_tokens=input_tokens, output_tokens=output_tokens
    )
