"""What a thread needs to go on from where its rollout ends."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from typing import Any

from persistence.open_rollout import OpenRollout
from persistence.rollout_files import first_payload, parse_object, read_lines
from protocol.threads import TokenCounts, TokenUsage


@dataclass(slots=True)
class ResumeState:
    """Where a thread stands.

    Attributes:
        context: the raw items of the model context, in order; from the last compaction on.
        token_usage: the counters of the last ``token_count`` line, or None.
        turn_context: payload of the last ``turn_context`` line, or None.
        session_meta: payload of the first line, or {} where it is lost.
        interrupted: the last turn was aborted, or has no terminal line.
        usage_turn_id: the turn that ``token_usage`` was counted in, or None.
    """

    context: list[dict[str, Any]] = field(default_factory=list)
    token_usage: TokenUsage | None = None
    turn_context: dict[str, Any] | None = None
    session_meta: dict[str, Any] = field(default_factory=dict)
    interrupted: bool = False
    usage_turn_id: str | None = None


def read_resume_state(
    connection: sqlite3.Connection, rollout: OpenRollout, *, with_context: bool = True
) -> ResumeState:
    """Read it, touching of the file only what follows the last compaction, or a few lines without context.

    Raises:
        StoreError: the rollout cannot be read.
    """
    state = rollout.state
    statement = "SELECT turn_id, status FROM turns WHERE thread_id=? ORDER BY ordinal DESC LIMIT 1"
    last_turn = connection.execute(statement, (state.thread_id,)).fetchone()
    result = ResumeState()
    if last_turn is not None:
        result.interrupted = last_turn["status"] in ("open", "interrupted")
    if state.token_count_offset is not None:
        counted = (
            "SELECT turn_id FROM turns WHERE thread_id=? AND start_offset<=? ORDER BY ordinal DESC LIMIT 1"
        )
        row = connection.execute(counted, (state.thread_id, state.token_count_offset)).fetchone()
        result.usage_turn_id = None if row is None else row["turn_id"]
    with rollout.reading() as descriptor:
        if with_context:
            result.context = _context(descriptor, state.compacted_offset or 0)
        result.session_meta = _payload_at(descriptor, state.meta_offset) or {}
        result.turn_context = _payload_at(descriptor, state.turn_context_offset)
        result.token_usage = token_usage_of(_payload_at(descriptor, state.token_count_offset))
    return result


def _payload_at(descriptor: int, offset: int | None) -> dict[str, Any] | None:
    return None if offset is None else first_payload(descriptor, offset)


def _context(descriptor: int, start: int) -> list[dict[str, Any]]:
    context: list[dict[str, Any]] = []
    for _, _, raw in read_lines(descriptor, start):
        # A look for the name saves parsing the lines of other types.
        if raw is None or not (b"response_item" in raw or b"compacted" in raw):
            continue
        body = parse_object(raw)
        payload = body.get("payload") if body is not None else None
        if body is None or not isinstance(payload, dict):
            continue
        if body.get("type") == "response_item":
            context.append(payload)
        elif body.get("type") == "compacted":
            context = _compacted(context, payload)
    return context


def _compacted(context: list[dict[str, Any]], payload: dict[str, Any]) -> list[dict[str, Any]]:
    replacement = payload.get("replacement_history")
    if isinstance(replacement, list):
        return [item for item in replacement if isinstance(item, dict)]
    # Older files keep only the summary: the user's own words and it are the context.
    kept = [item for item in context if item.get("type") == "message" and item.get("role") == "user"]
    summary = {"type": "input_text", "text": str(payload.get("message", ""))}
    return [*kept, {"type": "message", "role": "user", "content": [summary]}]


def token_usage_of(payload: dict[str, Any] | None) -> TokenUsage | None:
    """The counters of a ``token_count`` line, or None where it holds none."""
    info = payload.get("info") if payload is not None else None
    if not isinstance(info, dict):
        return None
    window = info.get("model_context_window")
    return TokenUsage(
        total=_counts(info.get("total_token_usage")),
        last=_counts(info.get("last_token_usage")),
        model_context_window=window if isinstance(window, int) else None,
    )


def _counts(value: object) -> TokenCounts:
    members = value if isinstance(value, dict) else {}
    known = {name: count for name, count in members.items() if type(count) is int}
    return TokenCounts.model_validate(known)
