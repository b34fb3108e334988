"""A new rollout from the beginning of another one: forks and reverts.

Both are written under a name that is no rollout's, flushed, and only then given their own: a reader finds the
whole file or none. What is left of one that was killed is removed by the next start, which knows of it by an
intent in the table ``relocations``. Files of any length go through line by line or block by block.

A fork is a thread of its own: its own first line, and its lines are numbered anew; turns and items keep their
ids. A revert leaves the thread what it is: its new file is the old one's bytes up to the cut, under a name
that outranks the old.
"""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from persistence.appending import made, move, remove, sync, sync_path
from persistence.database import Operation
from persistence.errors import StoreError
from persistence.facts import set_updated
from persistence.home import FILE_MODE, Home, make_folders
from persistence.indexer import RolloutState
from persistence.jobs import Job
from persistence.open_rollout import OpenRollout
from persistence.relocation import forget_intent, intend_copy, part_of
from persistence.rollout_files import FoundFile, first_payload, parse_object, read_lines
from persistence.rollout_lines import RolloutLine, encode_line, session_meta, turn_aborted
from persistence.scan import index_file
from persistence.thread_list import ThreadRecord
from persistence.writer import Writer
from protocol.base import encode
from protocol.errors import InvalidRequest

log = logging.getLogger(__name__)

_BLOCK = 8 << 20
_LOOK_EVERY = 256  # lines between two looks whether to stop
_NUMBERED = re.compile(rb'(\{"timestamp": ?"[^"\\]{10,40}", ?)(?:"ordinal": ?\d{1,15}, ?)?(?="type")')


class Stopped(Exception):
    """The copy was given up on request; nothing of it is left."""


@dataclass(frozen=True, slots=True)
class Cut:
    """How much of a rollout is taken.

    Attributes:
        end: bytes; the end of a line.
        open_turn: id and start (Unix seconds) of the last turn taken, if it has no end; else None.
    """

    end: int
    open_turn: tuple[str, int | None] | None


def find_cut(
    connection: sqlite3.Connection,
    state: RolloutState,
    *,
    last_turn_id: str | None = None,
    before_turn_id: str | None = None,
    exclude_open_turn: bool = False,
) -> Cut:
    """Where to cut: behind one turn, before one turn, or at the end.

    Raises:
        InvalidRequest: there is no such turn.
    """
    end = state.indexed_bytes
    if before_turn_id is not None:
        end = _turn(connection, state, before_turn_id, f"turn not found: {before_turn_id}")["start_offset"]
    elif last_turn_id is not None:
        unknown = f"turn not found: {last_turn_id}"
        if state.history_mode == "legacy":
            unknown = f"lastTurnId '{last_turn_id}' was not found in the source thread"
        turn = _turn(connection, state, last_turn_id, unknown)
        end = turn["end_offset"]
        if end is None:
            # It has no line that ends it: it goes on until the next one.
            after = "SELECT min(start_offset) FROM turns WHERE thread_id=? AND ordinal>?"
            end = connection.execute(after, (state.thread_id, turn["ordinal"])).fetchone()[0]
            end = state.indexed_bytes if end is None else end
    newest = (
        "SELECT turn_id, started_at, status, start_offset FROM turns "
        "WHERE thread_id=? AND start_offset<? ORDER BY ordinal DESC LIMIT 1"
    )
    last = connection.execute(newest, (state.thread_id, end)).fetchone()
    if last is None or last["status"] != "open":
        return Cut(end, None)
    if exclude_open_turn:
        return Cut(last["start_offset"], None)
    return Cut(end, (last["turn_id"], last["started_at"]))


def _turn(connection: sqlite3.Connection, state: RolloutState, turn_id: str, unknown: str) -> sqlite3.Row:
    statement = "SELECT ordinal, start_offset, end_offset FROM turns WHERE thread_id=? AND turn_id=?"
    row: sqlite3.Row | None = connection.execute(statement, (state.thread_id, turn_id)).fetchone()
    if row is None:
        raise InvalidRequest(unknown)
    return row


def write_fork(
    writer: Writer,
    home: Home,
    source: OpenRollout,
    cut: Cut,
    record: ThreadRecord,
    at_ms: int,
    stopped: threading.Event,
) -> None:
    """Write the file of a fork and index it.

    Raises:
        StoreError: it was not written. The index may know some of it.
        Stopped: it was given up, likewise.
    """

    def fill(descriptor: int, out: BinaryIO) -> None:
        for piece in _fork_lines(descriptor, source.state, cut, record, at_ms, stopped):
            out.write(piece)

    _write_copy(writer, home, source, record.id, record.path, at_ms, fill)
    _index(writer, home, record.id, record.path, None, stopped, [forget_intent(record.id)])


def write_reverted(
    writer: Writer,
    home: Home,
    source: OpenRollout,
    cut: Cut,
    target: Path,
    at_ms: int,
    stopped: threading.Event,
) -> None:
    """Write the file that takes the place of the thread's rollout, and index it.

    Raises:
        StoreError: the thread's files are as they were. The index may know some of the new one.
        Stopped: it was given up, likewise.
    """

    def fill(descriptor: int, out: BinaryIO) -> None:
        position = 0
        while position < cut.end:
            if stopped.is_set():
                raise Stopped
            copied = os.sendfile(out.fileno(), descriptor, position, min(_BLOCK, cut.end - position))
            if copied == 0:
                raise StoreError(f"{source.path} has become shorter", "disk", path=source.path)
            position += copied

    thread_id = source.state.thread_id
    _write_copy(writer, home, source, thread_id, target, at_ms, fill)
    last = [*set_updated(thread_id, at_ms), forget_intent(thread_id)]
    _index(writer, home, thread_id, target, source.state, stopped, last)


def _write_copy(
    writer: Writer,
    home: Home,
    source: OpenRollout,
    thread_id: str,
    target: Path,
    at_ms: int,
    fill: Callable[[int, BinaryIO], None],
) -> None:
    part, descriptor = part_of(target), source.descriptor
    if target.exists():
        raise StoreError(f"{target} exists already", "disk", path=target)
    try:
        make_folders(target.parent)
    except OSError as error:
        raise StoreError.from_os("make", target.parent, error) from error
    writer.call(Job(operations=[intend_copy(home, thread_id, target, at_ms)]))
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with os.fdopen(os.open(part, flags, FILE_MODE), "wb") as out:
            made(part)
            fill(descriptor, out)
            out.flush()
            sync(out.fileno())
        move(part, target)
        for folder in home.folders_above(target):
            sync_path(folder)
    except BaseException as error:
        _give_up(writer, thread_id, part, target)
        if isinstance(error, OSError):
            raise StoreError.from_os("write", target, error) from error
        raise


def _index(
    writer: Writer,
    home: Home,
    thread_id: str,
    target: Path,
    base: RolloutState | None,
    stopped: threading.Event,
    last: list[Operation],
) -> None:
    try:
        status = target.stat()
        archived = target.is_relative_to(home.archived_sessions)
        found = FoundFile(thread_id, target, archived, status.st_size, status.st_mtime_ns)
        with writer.scans.of(thread_id, stopped) as ours:
            if (not ours or not index_file(writer, home, found, base, stopped)) and stopped.is_set():
                raise Stopped
        # Where it was not stored somebody else who looked for the thread is at it, or a read will be.
        writer.call(Job(operations=last))
    except BaseException as error:
        _give_up(writer, thread_id, part_of(target), target)
        if isinstance(error, OSError):
            raise StoreError.from_os("read", target, error) from error
        raise


def _give_up(writer: Writer, thread_id: str, part: Path, target: Path) -> None:
    for path in (part, target):
        try:
            remove(path)
        except OSError as error:
            log.warning("could not remove %s: %s", path, error)
    with suppress(StoreError):
        writer.call(Job(operations=[forget_intent(thread_id)]))


def _fork_lines(
    descriptor: int,
    source: RolloutState,
    cut: Cut,
    record: ThreadRecord,
    at_ms: int,
    stopped: threading.Event,
) -> Iterator[bytes]:
    legacy = source.history_mode == "legacy"
    ordinal = 0

    def numbered(line: RolloutLine) -> bytes:
        return encode_line(line, None if legacy else ordinal)

    yield numbered(_first_line(descriptor, source, record, at_ms, legacy))
    for count, (offset, _, raw) in enumerate(read_lines(descriptor, 0)):
        if offset >= cut.end:
            break
        if count % _LOOK_EVERY == 0 and stopped.is_set():
            raise Stopped
        if raw is None:
            continue
        if b'"session_meta"' in raw[:200]:
            body = parse_object(raw)
            if body is not None and body.get("type") == "session_meta":
                continue
        if legacy:
            yield raw + b"\n"
            continue
        piece = _renumber(raw, ordinal + 1)
        if piece is not None:
            ordinal += 1
            yield piece
    if cut.open_turn is not None:
        turn_id, started_at = cut.open_turn
        now = at_ms // 1000
        began = now if started_at is None else min(started_at, now)
        ordinal += 1
        yield numbered(
            turn_aborted(
                at_ms,
                turn_id,
                started_at=began,
                completed_at=now,
                duration_ms=max(at_ms - began * 1000, 0),
            )
        )


def _first_line(
    descriptor: int, source: RolloutState, record: ThreadRecord, at_ms: int, legacy: bool
) -> RolloutLine:
    theirs = None if source.meta_offset is None else first_payload(descriptor, source.meta_offset)
    line = session_meta(
        at_ms,
        record.id,
        created_at_ms=record.created_at_ms,
        cwd=record.cwd,
        originator=record.originator or "",
        cli_version=record.cli_version,
        model_provider=record.model_provider,
        source=record.source,
        thread_source=record.thread_source,
        git=record.git,
        forked_from_id=source.thread_id,
        parent_thread_id=record.parent_thread_id,
    )
    payload = dict(line.payload)
    if legacy:
        payload["history_mode"] = "legacy"
    for name in ("base_instructions", "dynamic_tools"):
        if theirs is not None and name in theirs:
            payload[name] = theirs[name]
    return replace(line, payload=payload)


def _renumber(raw: bytes, ordinal: int) -> bytes | None:
    """The line with another ordinal; None where it is no line."""
    if head := _NUMBERED.match(raw):
        return b'%b"ordinal":%d,%b\n' % (head[1], ordinal, raw[head.end() :])
    body = parse_object(raw)
    if body is None:
        return None
    timestamp = {"timestamp": body.pop("timestamp")} if "timestamp" in body else {}
    body.pop("ordinal", None)
    return encode({**timestamp, "ordinal": ordinal, **body}) + b"\n"
