"""The language in which a test says what the model does, and where a conversation stands in such a script.

A script is written in the last thing the user said (messages that start with ``<`` are context and are
skipped), or given to the model in advance. ``STEP | STEP | STEP`` are the answers of one turn; each step
after the first comes when the tool calls of the one before it have their outputs. After the last step the
answer is ``say Done.``

    say TEXT                  a message, one delta per word
    deltas N TEXT             a message in N deltas
    burst N SIZE              a message of N deltas of SIZE characters, as fast as it goes
    many TEXT ;; TEXT         several messages in one response
    commentary TEXT ;; TEXT   a message of the phase "commentary", then the answer
    reason TEXT ;; ANSWER     a reasoning item with a summary, then the answer
    think TEXT ;; ANSWER      a reasoning item with raw text, then the answer
    thinksh TEXT ;; CMD       a reasoning item with a summary, then calls of exec_command
    usage N TEXT              a message; total_tokens is N
    shell CMD [;; CMD]        calls of exec_command {"cmd": CMD}
    esc CMD                   the same, asking to leave the sandbox
    both TEXT ;; CMD          a message and a call of exec_command
    call NAME JSON            a call of any function
    badargs                   a call of exec_command whose arguments are no JSON
    hold NAME TEXT            one delta, waits until the test releases NAME, then the rest
    wait NAME TEXT            waits for the release of NAME before anything comes, then says TEXT
    holdsh NAME CMD           a delta, waits, then a call of exec_command
    cut TEXT                  half of the deltas, then the connection is closed
    nocomplete TEXT           the whole message, but the stream ends without response.completed
    http CODE [BODY]          an HTTP error; BODY that is no JSON object becomes its error.message
    failed CODE MESSAGE       response.failed
    incomplete REASON         a message, then response.incomplete

Anything else is answered ``You said: ...``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
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
    """A reasoning item; ``raw``: its own text instead of a summary."""

    text: str
    raw: bool = False


@dataclass(frozen=True)
class Call:
    """A function call."""

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
            return [Text(words_of(rest)), End()]
        case "deltas":
            return [Text(_cut(others, int(first))), End()]
        case "burst":
            return [Text(["x" * int(others)] * int(first)), End()]
        case "many":
            return [*(Text(words_of(part)) for part in parts), End()]
        case "commentary":
            return [
                Text(words_of(parts[0]), phase="commentary"),
                *(Text(words_of(part)) for part in parts[1:]),
                End(),
            ]
        case "reason" | "think":
            return [Reasoning(parts[0], raw=verb == "think"), Text(words_of(parts[-1])), End()]
        case "thinksh":
            return [Reasoning(parts[0]), *(_shell(part) for part in parts[1:]), End()]
        case "usage":
            return [Text(words_of(others)), End(total_tokens=int(first))]
        case "shell":
            return [*(_shell(part) for part in parts), End()]
        case "esc":
            return [_shell(rest, escalate=True), End()]
        case "both":
            return [Text(words_of(parts[0])), *(_shell(part) for part in parts[1:]), End()]
        case "call":
            return [Call(first, others or "{}"), End()]
        case "badargs":
            return [Call("exec_command", '{"cmd": '), End()]
        case "hold":
            head, *tail = words_of(others)
            return [Text([head], done=False), Gate(first), Text(tail, start=False), End()]
        case "wait":
            return [Gate(first), Text(words_of(others)), End()]
        case "holdsh":
            return [Text(["Holding."], done=False), Gate(first), Text([], start=False), _shell(others), End()]
        case "cut":
            words = words_of(rest)
            return [Text(words[: (len(words) + 1) // 2], done=False), Hangup()]
        case "nocomplete":
            return [Text(words_of(rest)), End("nothing")]
        case "http":
            return [Hangup(int(first), _error_body(int(first), others))]
        case "failed":
            return [End("failed", first, others)]
        case "incomplete":
            return [Text(["Cut", " short"]), End("incomplete", rest)]
        case _:
            return [Text(words_of(f"You said: {step}")), End()]


def words_of(text: str) -> list[str]:
    """The words, each with the space before it, as models stream them."""
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


def rounds_done(call_ids: list[str]) -> int:
    """The step after the latest one that has an output; ids of other makers count one step in all."""
    done = 0
    for call_id in call_ids:
        mark, _, _ = call_id.removeprefix("call_r").partition("_")
        done = max(done, int(mark) + 1 if call_id.startswith("call_r") and mark.isdigit() else 1)
    return done


def said(content: Any) -> str:
    """The last text in a message's content that is not a context block."""
    texts = [content] if isinstance(content, str) else [part.get("text") for part in content or []]
    own = [text for text in texts if isinstance(text, str) and text and not text.startswith("<")]
    return own[-1] if own else ""


def step_of(text: str, round_number: int) -> str:
    """The step that is due; ``say Done.`` after the last one."""
    steps = text.split(" | ")
    return steps[round_number].strip() if round_number < len(steps) else "say Done."


def where(items: Iterable[Mapping[str, Any]]) -> tuple[str, int]:
    """What the user said last in a Responses API context, and how many steps of it are done."""
    outputs: list[str] = []
    for item in reversed(list(items)):
        if item.get("role") == "user" and (text := said(item.get("content"))):
            return text, rounds_done(outputs)
        if str(item.get("type", "")).endswith("_call_output"):
            outputs.append(str(item.get("call_id")))
    return "", 0
