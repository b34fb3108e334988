"""Rollout files: their names and places, and reading lines out of them at any size."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from persistence.home import Home

CHUNK = 1 << 20
MAX_LINE = 64 << 20
"""Bytes; a longer line is passed over like any other that cannot be read."""

_NAME = re.compile(
    r"rollout-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d-"
    r"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\.jsonl"
)


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A rollout file and what it looked like when it was found."""

    thread_id: str
    path: Path
    archived: bool
    size: int
    mtime_ns: int


def rollout_path(home: Home, local_time: str, thread_id: str) -> Path:
    """Where a new thread's file goes; ``local_time`` is ``YYYY-MM-DDThh-mm-ss``."""
    year, month, day = local_time[:10].split("-")
    return home.sessions / year / month / day / f"rollout-{local_time}-{thread_id}.jsonl"


def thread_of(name: str) -> str | None:
    """The thread id in a rollout's file name, or None where it is no such name."""
    found = _NAME.fullmatch(name)
    return found[1] if found else None


def find_all(home: Home) -> Iterator[FoundFile]:
    """Every rollout file of the home. A file that vanishes meanwhile is left out."""
    for folder, archived in ((home.sessions, False), (home.archived_sessions, True)):
        for parent, folders, names in os.walk(folder):
            folders.sort()
            for name in sorted(names):
                found = _describe(Path(parent) / name, archived)
                if found is not None:
                    yield found


def find_one(home: Home, thread_id: str) -> FoundFile | None:
    """The rollout file of one thread, wherever it lies; sessions/ wins over archived_sessions/."""
    pattern = f"rollout-*-{thread_id}.jsonl"
    for path in home.sessions.glob(f"*/*/*/{pattern}"):
        if found := _describe(path, archived=False):
            return found
    for folder, archived in ((home.sessions, False), (home.archived_sessions, True)):
        for path in folder.rglob(pattern):
            if found := _describe(path, archived):
                return found
    return None


def _describe(path: Path, archived: bool) -> FoundFile | None:
    thread_id = thread_of(path.name)
    if thread_id is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return FoundFile(thread_id, path, archived, status.st_size, status.st_mtime_ns)


def read_lines(
    descriptor: int, start: int, *, max_line: int = MAX_LINE
) -> Iterator[tuple[int, int, bytes | None]]:
    """Complete lines from byte ``start`` on, as (offset, length with newline, bytes without newline).

    A line over ``max_line`` comes with None for its bytes; no more than that is ever held in memory.
    A last line without newline is not yielded: it may still be growing.
    """
    offset = start  # where the line in hand begins
    position = start  # where the next read begins
    pending: list[bytes] = []
    held = 0
    while chunk := os.pread(descriptor, CHUNK, position):
        position += len(chunk)
        begin = 0
        while (newline := chunk.find(b"\n", begin)) >= 0:
            piece = chunk[begin:newline]
            length = held + len(piece) + 1
            fits = length <= max_line + 1
            line = b"".join((*pending, piece)) if pending else piece
            pending, held = [], 0
            yield offset, length, line if fits else None
            offset += length
            begin = newline + 1
        rest = chunk[begin:] if begin else chunk
        held += len(rest)
        if held > max_line:
            pending = []
        elif rest:
            pending.append(rest)


def parse_object(raw: bytes) -> dict[str, Any] | None:
    """The JSON object in ``raw``, or None where there is none."""
    try:
        value = from_json(raw)
    except ValueError:
        try:
            value = json.loads(raw)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


def read_payload(descriptor: int, offset: int, length: int) -> dict[str, Any] | None:
    """The payload of the line at ``offset``, or None where the bytes no longer are a line."""
    body = parse_object(os.pread(descriptor, length, offset))
    payload = body.get("payload") if body is not None else None
    return payload if isinstance(payload, dict) else None


def first_payload(descriptor: int, offset: int) -> dict[str, Any] | None:
    """The payload of the line that begins at ``offset``, whatever its length."""
    for _, _, raw in read_lines(descriptor, offset):
        body = parse_object(raw) if raw is not None else None
        payload = body.get("payload") if body is not None else None
        return payload if isinstance(payload, dict) else None
    return None
