"""Stored threads as records, and pages of them.

A page is walked over an index by (sort key, thread id); the cursor names the last row of the page before,
so a page costs what it holds, no thread is left out when times are equal, and none comes twice.
"""

from __future__ import annotations

import json
import os.path
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from persistence.facts import MERGED, NAME
from persistence.home import Home
from persistence.rollout_lines import format_timestamp, parse_timestamp
from persistence.search_index import THREAD_SHIFT
from protocol.errors import InvalidRequest
from protocol.threads import GitInfo, HistoryMode, SortDirection, ThreadSortKey

DEFAULT_LIMIT = 25
MAX_LIMIT = 1000
INTERACTIVE = ("cli", "vscode", "custom")
"""The sources listed when the client does not say which."""

_SORT_COLUMNS = {
    "created_at": "created_at_ms",
    "updated_at": "updated_at_ms",
    "recency_at": "recency_at_ms",
}
_SELECT = (
    "SELECT r.thread_id, r.path, r.archived, r.recognised, r.history_mode, r.created_at_ms, "  # noqa: S608
    "r.updated_at_ms, r.recency_at_ms, t.preview, t.model_provider, t.model, t.reasoning_effort, t.cwd, "
    "t.source, t.thread_source, t.originator, t.cli_version, t.forked_from_id, t.parent_thread_id, "
    f"{MERGED} "
    "FROM rollouts r CROSS JOIN threads t ON t.thread_id = r.thread_id "
    "LEFT JOIN thread_facts f ON f.thread_id = r.thread_id WHERE "
)
_MATCHING = (
    "r.thread_id IN (SELECT thread_id FROM search_threads WHERE number IN "  # noqa: S608
    f"(SELECT rowid >> {THREAD_SHIFT} FROM search WHERE search MATCH ?))"
)
# UNION leaves out what was found already, so that a circle comes to an end.
_BELOW = (
    "WITH RECURSIVE below (id) AS (SELECT ? UNION "
    "SELECT t.thread_id FROM below JOIN threads t ON t.parent_thread_id = below.id)"
)


@dataclass(slots=True)
class ThreadRecord:
    """A stored thread, as its index row tells. Times are Unix milliseconds; ``path`` is absolute."""

    id: str
    path: Path
    created_at_ms: int
    updated_at_ms: int
    recency_at_ms: int
    preview: str
    name: str | None
    model_provider: str
    model: str | None
    reasoning_effort: str | None
    cwd: str
    source: Any
    thread_source: str | None
    originator: str | None
    cli_version: str
    archived: bool
    history_mode: HistoryMode
    git: GitInfo | None
    forked_from_id: str | None
    parent_thread_id: str | None


@dataclass(slots=True)
class ThreadQuery:
    """Which threads to list, and in what order. None or empty: that filter does not apply.

    ``source_kinds`` None or empty means the interactive ones. ``limit`` None is 25, 0 acts as 1, large
    ones act as 1000. ``cwds`` match exactly, apart from ``.``, ``..`` and trailing slashes. ``matching`` is
    an expression of the full-text search.
    """

    cursor: str | None = None
    limit: int | None = None
    sort_key: ThreadSortKey = "created_at"
    direction: SortDirection = "desc"
    model_providers: Sequence[str] | None = None
    source_kinds: Sequence[str] | None = None
    archived: bool = False
    cwds: Sequence[str] | None = None
    search_term: str | None = None
    excluded_ids: Sequence[str] | None = None
    parent_id: str | None = None
    ancestor_id: str | None = None
    matching: str | None = None


@dataclass(slots=True)
class ThreadsPage:
    """A page of threads. A cursor continues behind the row it names, in whichever direction is asked."""

    records: list[ThreadRecord] = field(default_factory=list)
    next_cursor: str | None = None
    backwards_cursor: str | None = None


def page_limit(limit: int | None) -> int:
    """How many rows a page has: 25 by default, at least 1, at most 1000."""
    return DEFAULT_LIMIT if limit is None else min(max(limit, 1), MAX_LIMIT)


def read_record(connection: sqlite3.Connection, home: Home, thread_id: str) -> ThreadRecord | None:
    """The record of one thread, or None where its file never held a rollout line."""
    row = connection.execute(f"{_SELECT} r.thread_id=? AND r.recognised=1", (thread_id,)).fetchone()
    return _record(home, row) if row is not None else None


def read_descendants(connection: sqlite3.Connection, thread_id: str) -> list[str]:
    """The ids of all threads below this one, in the order of their beginning: parents first."""
    statement = f"{_BELOW} SELECT id FROM below WHERE id <> ? ORDER BY id"  # noqa: S608
    return [row["id"] for row in connection.execute(statement, (thread_id, thread_id))]


def read_page(connection: sqlite3.Connection, home: Home, query: ThreadQuery) -> ThreadsPage:
    """One page.

    Raises:
        InvalidRequest: the cursor is none of ours, or the sort key needs a section.
    """
    column = _SORT_COLUMNS.get(query.sort_key)
    if column is None:
        raise InvalidRequest("section-position sorting requires a section filter")
    conditions, values = _conditions(query)
    descending = query.direction == "desc"
    if query.cursor is not None:
        at, thread_id = _parse_cursor(query.cursor, last=not descending)
        conditions.append(f"(r.{column}, r.thread_id) {'<' if descending else '>'} (?, ?)")
        values += [at, thread_id]
    order = "DESC" if descending else "ASC"
    limit = page_limit(query.limit)
    statement = (
        f"{_SELECT} {' AND '.join(conditions)} ORDER BY r.{column} {order}, r.thread_id {order} LIMIT ?"
    )
    rows = connection.execute(statement, (*values, limit + 1)).fetchall()
    page = ThreadsPage([_record(home, row) for row in rows[:limit]])
    if page.records:
        page.backwards_cursor = _cursor(rows[0], column)
        if len(rows) > limit:
            page.next_cursor = _cursor(rows[limit - 1], column)
    return page


def _conditions(query: ThreadQuery) -> tuple[list[str], list[Any]]:
    # The first condition is the WHERE of the partial indexes, word for word.
    conditions = ["r.archived=1 AND r.recognised=1" if query.archived else "r.archived=0 AND r.listed=1"]
    values: list[Any] = []

    def among(column: str, allowed: Sequence[str], negated: str = "") -> None:
        conditions.append(f"{column} {negated} IN ({', '.join('?' * len(allowed))})")
        values.extend(allowed)

    among("t.source_kind", _expand(query.source_kinds or INTERACTIVE))
    if query.model_providers:
        among("t.model_provider", query.model_providers)
    if query.cwds:
        normal = [os.path.normpath(cwd) for cwd in query.cwds]
        among("t.cwd", sorted({*query.cwds, *normal, *(f"{cwd}/" for cwd in normal)}))
    if query.search_term:
        conditions.append(f"(instr(t.preview, ?) > 0 OR instr(coalesce({NAME}, ''), ?) > 0)")
        values += [query.search_term, query.search_term]
    if query.excluded_ids:
        among("r.thread_id", query.excluded_ids, "NOT")
    if query.matching is not None:
        conditions.append(_MATCHING)
        values.append(query.matching)
    if query.ancestor_id is not None:
        conditions.append(f"r.thread_id IN ({_BELOW} SELECT id FROM below WHERE id <> ?)")  # noqa: S608
        values += [query.ancestor_id, query.ancestor_id]
    if query.parent_id is not None:
        conditions.append("t.parent_thread_id = ?")
        values.append(query.parent_id)
    return conditions, values


def _expand(kinds: Sequence[str]) -> list[str]:
    agents = ("subAgentReview", "subAgentCompact", "subAgentThreadSpawn", "subAgentOther")
    return [*kinds, *(agents if "subAgent" in kinds else ())]


def _cursor(row: sqlite3.Row, column: str) -> str:
    return f"{format_timestamp(row[column])}|{row['thread_id']}"


def _parse_cursor(cursor: str, *, last: bool) -> tuple[int, str]:
    timestamp, bar, thread_id = cursor.partition("|")
    at = parse_timestamp(timestamp)
    if at is None or (bar and not thread_id):
        raise InvalidRequest(f"invalid cursor: {cursor}")
    if not bar:
        # A bare moment stands behind all rows of that moment.
        thread_id = "\U0010ffff" if last else ""
    return at, thread_id


def _record(home: Home, row: sqlite3.Row) -> ThreadRecord:
    git = None
    if row["git_sha"] or row["git_branch"] or row["git_origin_url"]:
        git = GitInfo(sha=row["git_sha"], branch=row["git_branch"], origin_url=row["git_origin_url"])
    return ThreadRecord(
        id=row["thread_id"],
        path=home.root / row["path"],
        created_at_ms=row["created_at_ms"],
        updated_at_ms=row["updated_at_ms"],
        recency_at_ms=row["recency_at_ms"],
        preview=row["preview"],
        name=row["name"],
        model_provider=row["model_provider"],
        model=row["model"],
        reasoning_effort=row["reasoning_effort"],
        cwd=row["cwd"],
        source=json.loads(row["source"]),
        thread_source=row["thread_source"],
        originator=row["originator"],
        cli_version=row["cli_version"],
        archived=bool(row["archived"]),
        history_mode=row["history_mode"],
        git=git,
        forked_from_id=row["forked_from_id"],
        parent_thread_id=row["parent_thread_id"],
    )
