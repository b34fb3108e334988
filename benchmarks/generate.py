"""Stored threads by the thousand: rollout files as the reference lays them out, each with one short turn."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

_NEWEST = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
_APART = timedelta(minutes=7)
_INSTRUCTIONS = "You are a coding agent. " * 20


def write_threads(home: Path, count: int, provider: str = "mock") -> None:
    """Write ``count`` rollout files below ``home``, seven minutes apart, none of them synced.

    The same ``count`` gives the same files. The last change of each file is the end of its turn.
    """
    made: set[Path] = set()
    for index in range(count):
        started = _NEWEST - _APART * index
        thread_id = str(_uuid7(started, index))
        folder = home / "sessions" / started.strftime("%Y/%m/%d")
        if folder not in made:
            folder.mkdir(parents=True, exist_ok=True)
            made.add(folder)
        path = folder / f"rollout-{started:%Y-%m-%dT%H-%M-%S}-{thread_id}.jsonl"
        path.write_text(_rollout(thread_id, started, index, provider))
        ended = (started + timedelta(seconds=3)).timestamp()
        os.utime(path, (ended, ended))


def _uuid7(moment: datetime, index: int) -> UUID:
    milliseconds = int(moment.timestamp() * 1000)
    return UUID(int=milliseconds << 80 | 7 << 76 | (index & 0xFFF) << 64 | 2 << 62 | index)


def _rollout(thread_id: str, started: datetime, index: int, provider: str) -> str:
    ended = started + timedelta(seconds=3)
    start, end = int(started.timestamp()), int(ended.timestamp())
    turn_id = str(_uuid7(started + timedelta(milliseconds=5), index))
    question, answer = f"question number {index}", f"answer number {index}"
    meta = {
        "session_id": thread_id,
        "id": thread_id,
        "timestamp": _stamp(started),
        "cwd": f"/srv/project-{index % 50}",
        "originator": "benchmarks",
        "cli_version": "0.169.0",
        "source": "vscode",
        "model_provider": provider,
        "base_instructions": {"text": _INSTRUCTIONS},
        "history_mode": "paginated",
    }
    turn = {"turn_id": turn_id, "root_turn_id": turn_id}
    usage = {
        "input_tokens": 10,
        "cached_input_tokens": 0,
        "output_tokens": 5,
        "reasoning_output_tokens": 0,
        "total_tokens": 15,
    }
    info = {"total_token_usage": usage, "last_token_usage": usage, "model_context_window": 258400}
    said = {"type": "text", "text": question, "text_elements": []}
    asked = {"type": "UserMessage", "id": str(_uuid7(started, index + 1)), "content": [said]}
    answered = {"type": "AgentMessage", "id": f"msg_{index}", "content": [{"type": "Text", "text": answer}]}
    completed = {"type": "item_completed", "thread_id": thread_id, "turn_id": turn_id}
    times = {"started_at_ms": end * 1000, "completed_at_ms": end * 1000}
    lines: list[tuple[datetime, str, dict[str, Any]]] = [
        (started, "session_meta", meta),
        (started, "event_msg", {"type": "task_started", **turn, "started_at": start}),
        (started, "response_item", _message("user", "input_text", question)),
        (started, "event_msg", {**completed, "item": asked, **times}),
        (ended, "response_item", _message("assistant", "output_text", answer)),
        (ended, "event_msg", {**completed, "item": answered, **times}),
        (ended, "event_msg", {"type": "token_count", "info": info}),
        (
            ended,
            "event_msg",
            {
                "type": "task_complete",
                **turn,
                "last_agent_message": answer,
                "started_at": start,
                "completed_at": end,
                "duration_ms": 3000,
            },
        ),
    ]
    return "".join(
        json.dumps({"timestamp": _stamp(moment), "ordinal": ordinal, "type": kind, "payload": payload}) + "\n"
        for ordinal, (moment, kind, payload) in enumerate(lines)
    )


def _message(role: str, kind: str, text: str) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
