"""Sessions on disk for tests: a runtime that counts, an opened store, and rollouts of both forms."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from persistence.home import Home
from persistence.rollout_lines import (
    RolloutLine,
    format_timestamp,
    item_completed,
    response_item,
    session_meta,
    task_complete,
    task_started,
    token_count,
    turn_aborted,
    turn_context,
)
from persistence.store import Batch, Store
from protocol.items import AgentMessageItem, ThreadItem, UserMessageItem
from protocol.settings import ReadOnly
from protocol.threads import TokenCounts, TokenUsage, TurnError
from protocol.user_input import TextInput

START_MS = 1_795_000_000_000
LOCAL_TIME = "2026-11-18T11-06-40"


class CountingRuntime:
    """Time moves a second with every look at it; ids count."""

    def __init__(self) -> None:
        self._seconds = 0
        self._ids = 0
        self._random = random.Random(7)

    def now_ms(self) -> int:
        self._seconds += 1
        return START_MS + self._seconds * 1000

    def monotonic(self) -> float:
        return float(self._seconds)

    def new_id(self) -> str:
        self._ids += 1
        return uuid_of(self._ids)

    def random(self) -> float:
        return self._random.random()

    def local_time(self, at_ms: int) -> str:
        return LOCAL_TIME


def uuid_of(number: int) -> str:
    """A well-formed UUIDv7 that grows with ``number``."""
    return str(uuid.UUID(int=(START_MS << 80) | (7 << 76) | (2 << 62) | number))


@asynccontextmanager
async def opened(root: Path) -> AsyncIterator[Store]:
    """A store on ``root``, closed at the end."""
    store = Store(Home(root), CountingRuntime())
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        yield store
        nursery.cancel_scope.cancel()


def meta(thread_id: str, at_ms: int = START_MS, **changes: Any) -> RolloutLine:
    settings: dict[str, Any] = {
        "created_at_ms": at_ms,
        "cwd": "/somewhere/place",
        "originator": "tests",
        "cli_version": "0.169.0",
        "model_provider": "mock",
    }
    return session_meta(at_ms, thread_id, **(settings | changes))


def user_item(item_id: str, text: str, client_id: str | None = None) -> UserMessageItem:
    return UserMessageItem(id=item_id, content=[TextInput(text=text)], client_id=client_id)


def completed(thread_id: str, turn_id: str, item: ThreadItem, at_ms: int) -> RolloutLine:
    return item_completed(
        at_ms,
        thread_id=thread_id,
        turn_id=turn_id,
        item=item,
        started_at_ms=at_ms - 1,
        completed_at_ms=at_ms,
    )


def message(role: str, text: str) -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def turn_begin(thread_id: str, turn_id: str, text: str, at_ms: int) -> list[RolloutLine]:
    return [
        task_started(at_ms, turn_id, started_at_s=at_ms // 1000, model_context_window=1000),
        turn_context(
            at_ms,
            turn_id,
            cwd="/somewhere/place",
            approval_policy="never",
            sandbox_policy=ReadOnly(),
            model="mock-model",
        ),
        response_item(at_ms, message("user", text)),
        completed(thread_id, turn_id, user_item(f"u-{turn_id}", text), at_ms),
    ]


def turn_end(
    thread_id: str,
    turn_id: str,
    text: str | None,
    at_ms: int,
    *,
    error: TurnError | None = None,
    aborted: bool = False,
) -> list[RolloutLine]:
    counts = TokenCounts(total_tokens=15, input_tokens=10, output_tokens=5)
    times = {"started_at": at_ms // 1000, "completed_at": at_ms // 1000, "duration_ms": 5}
    lines: list[RolloutLine] = []
    if text is not None:
        lines.append(completed(thread_id, turn_id, AgentMessageItem(id=f"a-{turn_id}", text=text), at_ms))
        lines.append(response_item(at_ms, message("assistant", text)))
        lines.append(token_count(at_ms, TokenUsage(total=counts, last=counts, model_context_window=1000)))
    if aborted:
        return [*lines, turn_aborted(at_ms, turn_id, **times)]
    return [*lines, task_complete(at_ms, turn_id, last_agent_message=text, error=error, **times)]


async def create(store: Store, thread_id: str, text: str = "hello", at_ms: int = START_MS, **m: Any) -> Path:
    """A thread with one completed turn, whose id is the thread's with another last digit group."""
    path = store.rollout_path(thread_id, at_ms)
    turn_id = turn_of(thread_id, 0)
    lines = [meta(thread_id, at_ms, **m)]
    lines += turn_begin(thread_id, turn_id, text, at_ms)
    lines += turn_end(thread_id, turn_id, f"answer to {text}", at_ms)
    await store.commit(Batch(thread_id, lines, fsync=True, create=path))
    return path


def turn_of(thread_id: str, number: int) -> str:
    return f"{thread_id[:-4]}{number + 0xA000:04x}"


async def add_turn(store: Store, thread_id: str, number: int, at_ms: int, text: str = "more") -> str:
    turn_id = turn_of(thread_id, number)
    await store.commit(Batch(thread_id, turn_begin(thread_id, turn_id, text, at_ms)))
    ending = turn_end(thread_id, turn_id, f"answer to {text}", at_ms)
    await store.commit(Batch(thread_id, ending, fsync=True))
    return turn_id


def write_rollout(
    root: Path, thread_id: str, lines: Iterable[dict[str, Any] | bytes], *, archived: bool = False
) -> Path:
    """A rollout file as another program left it; ``bytes`` are written as they are."""
    name = f"rollout-{LOCAL_TIME}-{thread_id}.jsonl"
    path = root / "archived_sessions" / name if archived else root / "sessions/2026/11/18" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines]
    path.write_bytes(b"".join(parts))
    return path


def numbered(thread_id: str, *payloads: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines of the paginated form, a second apart."""
    return [
        {"timestamp": format_timestamp(START_MS + 1000 * n), "ordinal": n, "type": kind, "payload": payload}
        for n, (kind, payload) in enumerate(payloads)
    ]


def unnumbered(*payloads: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines of the legacy form, a second apart."""
    return [
        {"timestamp": format_timestamp(START_MS + 1000 * n), "type": kind, "payload": payload}
        for n, (kind, payload) in enumerate(payloads)
    ]


def foreign_meta(thread_id: str, history_mode: str) -> tuple[str, dict[str, Any]]:
    """A first line as the reference program writes it."""
    return (
        "session_meta",
        {
            "account_scoped": True,
            "session_id": thread_id,
            "id": thread_id,
            "timestamp": format_timestamp(START_MS - 300),
            "cwd": "/somewhere/place",
            "runtime_workspace_roots": ["/somewhere/place"],
            "originator": "elsewhere",
            "cli_version": "0.169.0",
            "source": "vscode",
            "model_provider": "mock_provider",
            "base_instructions": {"text": "Be brief.", "provenance": {"type": "model", "model": "m"}},
            "history_mode": history_mode,
            "context_window": {"window_id": uuid_of(9)},
            "git": {"commit_hash": "c0ffee", "branch": "main", "repository_url": "https://example.invalid/r"},
        },
    )


def event(kind: str, **members: Any) -> tuple[str, dict[str, Any]]:
    return "event_msg", {"type": kind, **members}
