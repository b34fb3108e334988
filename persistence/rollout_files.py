"""Rollout files: their names and places, and reading lines out of them at any size.

A thread whose history was reverted has several files: every revert begins one with a longer name, ending in
``_<uuid>``. The one with the greatest uuid (they grow with time) is the thread's rollout, the others are kept
and not looked at.
"""

from __future__ import annotations

import json
import logging
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from persistence.home import Home

log = logging.getLogger(__name__)

CHUNK = 1 << 20
MAX_LINE = 64 << 20
"""Bytes; a longer line is passed over like any other that cannot be read."""

_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_NAME = re.compile(rf"(rollout-(\d{{4}})-(\d\d)-(\d\d)T\d\d-\d\d-\d\d-({_UUID}))(?:_({_UUID}))?\.jsonl")


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
    return found[5] if found else None


def reverted_path(path: Path, revision: str) -> Path:
    """Where the file goes that takes the place of ``path``; ``revision`` is a UUIDv7 of now."""
    found = _NAME.fullmatch(path.name)
    stem = found[1] if found else path.stem
    return path.with_name(f"{stem}_{revision}.jsonl")


def active_path(home: Home, path: Path) -> Path:
    """Where an archived thread's file goes when it is brought back: the folder of the day in its name."""
    found = _NAME.fullmatch(path.name)
    if found is None:
        return home.sessions / path.name
    return home.sessions / found[2] / found[3] / found[4] / path.name


def is_reverted(path: Path) -> bool:
    """Whether the file took the place of another one."""
    found = _NAME.fullmatch(path.name)
    return found is not None and found[6] is not None


def rank(home: Home, path: Path) -> tuple[str, bool]:
    """Of several files of one thread the one with the greatest rank is its rollout."""
    found = _NAME.fullmatch(path.name)
    return ((found[6] or "") if found else "", not path.is_relative_to(home.archived_sessions))


def find_all(home: Home) -> Iterator[FoundFile]:
    """The rollout of every thread of the home. A file that vanishes meanwhile is left out."""
    chosen: dict[str, Path] = {}
    for thread_id, path in _walk(home):
        other = chosen.setdefault(thread_id, path)
        if other is path:
            continue
        winner, loser = (path, other) if rank(home, path) > rank(home, other) else (other, path)
        chosen[thread_id] = winner
        if not is_reverted(winner):
            log.warning("thread %s has a second rollout file: %s", thread_id, loser)
    for path in chosen.values():
        found = _describe(home, path)
        if found is not None:
            yield found


def find_one(home: Home, thread_id: str) -> FoundFile | None:
    """The rollout of one thread, wherever it lies."""
    for path in find_files(home, thread_id):
        if found := _describe(home, path):
            return found
    return None


def find_files(home: Home, thread_id: str) -> list[Path]:
    """All rollout files of one thread, the one that counts first."""
    paths = [path for found, path in _walk(home) if found == thread_id]
    return sorted(paths, key=lambda path: rank(home, path), reverse=True)


def find_beside(path: Path, thread_id: str) -> list[Path]:
    """The rollout files of a thread in the folder of ``path``."""
    with os.scandir(path.parent) as entries:
        names = [entry.name for entry in entries if thread_id in entry.name]
    return [path.with_name(name) for name in names if thread_of(name) == thread_id]


def _walk(home: Home) -> Iterator[tuple[str, Path]]:
    for folder in (home.sessions, home.archived_sessions):
        for parent, folders, names in os.walk(folder):
            folders.sort()
            for name in sorted(names):
                thread_id = thread_of(name)
                if thread_id is not None:
                    yield thread_id, Path(parent) / name


def _describe(home: Home, path: Path) -> FoundFile | None:
    thread_id = thread_of(path.name)
    if thread_id is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        # Opening a pipe of that name would wait for ever.
        return None
    archived = path.is_relative_to(home.archived_sessions)
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
