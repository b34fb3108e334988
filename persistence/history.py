"""Pages of turns and items. A page reads from the rollout only the lines of the items it shows."""

from __future__ import annotations

import json
import os
import sqlite3
from dataclasses import dataclass
from typing import Any, Literal

from persistence.item_codec import error_from_rollout, item_from_rollout, legacy_item
from persistence.open_rollout import OpenRollout
from persistence.rollout_files import parse_object
from persistence.thread_list import page_limit
from protocol.errors import InvalidRequest, NotSupported
from protocol.items import ThreadItem
from protocol.thread_methods import ItemsPage, ListedItem, TurnsPage
from protocol.threads import ItemsView, SortDirection, Turn, TurnStatus

_TURN = "turn_id, ordinal, status, error, started_at, completed_at, duration_ms"
_ITEM = "ordinal, turn_id, item_id, kind, start_offset, length, started_at_ms, completed_at_ms"
_TURNS_SCOPE = "turns"
_ITEMS_SCOPE = "itemsByCreatedAtOrdinal"


@dataclass(frozen=True, slots=True)
class _Anchor:
    ordinal: int
    inclusive: bool

    def condition(self, direction: SortDirection) -> str:
        comparison = ">" if direction == "asc" else "<"
        return f" AND ordinal {comparison}{'=' if self.inclusive else ''} {self.ordinal}"


class History:
    """The history of one thread, read in one transaction through ``connection``.

    ``live_turn_id`` is the turn that runs right now: open turns other than it were cut by a crash.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        rollout: OpenRollout,
        live_turn_id: str | None = None,
    ) -> None:
        self._connection = connection
        self._rollout = rollout
        self._state = rollout.state
        self._live_turn_id = live_turn_id

    def turns(
        self, cursor: str | None, limit: int | None, direction: SortDirection, view: ItemsView
    ) -> TurnsPage:
        """One page of turns.

        Raises:
            InvalidRequest: the cursor is none of ours.
            StoreError: the rollout cannot be read.
        """
        anchor = self._anchor(cursor, _TURNS_SCOPE) if cursor is not None else None
        count = page_limit(limit)
        rows = self._select("turns", _TURN, anchor, direction, count + 1)
        page = TurnsPage(data=self._build_turns(rows[:count], view))
        if rows:
            page.backwards_cursor = self._cursor(rows[0], _TURNS_SCOPE, inclusive=True)
            if len(rows) > count:
                page.next_cursor = self._cursor(rows[count - 1], _TURNS_SCOPE, inclusive=False)
        return page

    def all_turns(self) -> list[Turn]:
        """Every turn with its items, oldest first.

        Raises:
            StoreError: the rollout cannot be read.
        """
        return self._build_turns(self._select("turns", _TURN, None, "asc", -1), "full")

    def items(
        self, turn_id: str | None, cursor: str | None, limit: int | None, direction: SortDirection
    ) -> ItemsPage:
        """One page of items, of the thread or of one turn. Lines that became unreadable are left out.

        Raises:
            NotSupported: the thread's history is legacy.
            InvalidRequest: the cursor is none of ours.
            StoreError: the rollout cannot be read.
        """
        if self._state.history_mode != "paginated":
            raise NotSupported("thread/items/list is not supported yet")
        anchor = self._anchor(cursor, _ITEMS_SCOPE) if cursor is not None else None
        count = page_limit(limit)
        if turn_id is None:
            rows = self._select("items", _ITEM, anchor, direction, count + 1)
        else:
            rows = self._items_of(turn_id, None, anchor, direction, count + 1)
        page = ItemsPage(data=[])
        with self._rollout.reading() as descriptor:
            for row in rows[:count]:
                item = _read_item(descriptor, row)
                if item is not None:
                    page.data.append(
                        ListedItem(
                            turn_id=row["turn_id"],
                            item=item,
                            started_at_ms=row["started_at_ms"],
                            completed_at_ms=row["completed_at_ms"],
                        )
                    )
        if rows:
            page.backwards_cursor = self._cursor(rows[0], _ITEMS_SCOPE, inclusive=True)
            if len(rows) > count:
                page.next_cursor = self._cursor(rows[count - 1], _ITEMS_SCOPE, inclusive=False)
        return page

    def newest_cursors(self) -> tuple[str | None, str | None]:
        """Cursors at the newest turn and the newest item; None for legacy or empty history."""
        if self._state.history_mode != "paginated":
            return None, None
        turns = self._select("turns", _TURN, None, "desc", 1)
        items = self._select("items", _ITEM, None, "desc", 1)
        return (
            self._cursor(turns[0], _TURNS_SCOPE, inclusive=True) if turns else None,
            self._cursor(items[0], _ITEMS_SCOPE, inclusive=True) if items else None,
        )

    def _select(
        self,
        table: Literal["turns", "items"],
        columns: str,
        anchor: _Anchor | None,
        direction: SortDirection,
        limit: int,
    ) -> list[sqlite3.Row]:
        condition = anchor.condition(direction) if anchor is not None else ""
        statement = (
            f"SELECT {columns} FROM {table} WHERE thread_id=?{condition} "  # noqa: S608
            f"ORDER BY ordinal {direction} LIMIT ?"
        )
        return self._connection.execute(statement, (self._state.thread_id, limit)).fetchall()

    def _items_of(
        self,
        turn_id: str,
        kind: str | None,
        anchor: _Anchor | None,
        direction: SortDirection,
        limit: int,
    ) -> list[sqlite3.Row]:
        condition = anchor.condition(direction) if anchor is not None else ""
        # Left to itself SQLite walks all items of the thread, which come in order already.
        statement = (
            f"SELECT {_ITEM} FROM items INDEXED BY items_of_turn "  # noqa: S608
            f"WHERE thread_id=? AND turn_id=? AND kind=coalesce(?, kind){condition} "
            f"ORDER BY ordinal {direction} LIMIT ?"
        )
        values = (self._state.thread_id, turn_id, kind, limit)
        return self._connection.execute(statement, values).fetchall()

    def _build_turns(self, rows: list[sqlite3.Row], view: ItemsView) -> list[Turn]:
        if view == "notLoaded" or not rows:
            return [self._turn(row, [], view) for row in rows]
        with self._rollout.reading() as descriptor:
            turns = []
            for row in rows:
                items = (_read_item(descriptor, each) for each in self._item_rows(row["turn_id"], view))
                turns.append(self._turn(row, [item for item in items if item is not None], view))
            return turns

    def _item_rows(self, turn_id: str, view: ItemsView) -> list[sqlite3.Row]:
        if view == "full":
            return self._items_of(turn_id, None, None, "asc", -1)
        first = self._items_of(turn_id, "userMessage", None, "asc", 1)
        return first + self._items_of(turn_id, "agentMessage", None, "desc", 1)

    def _turn(self, row: sqlite3.Row, items: list[ThreadItem], view: ItemsView) -> Turn:
        status: TurnStatus = row["status"]
        if row["status"] == "open":
            status = "inProgress" if row["turn_id"] == self._live_turn_id else "interrupted"
        error = error_from_rollout(json.loads(row["error"])) if row["error"] is not None else None
        return Turn(
            id=row["turn_id"],
            root_turn_id=row["turn_id"],
            items=items,
            items_view=view,
            status=status,
            error=error,
            started_at=row["started_at"],
            completed_at=row["completed_at"],
            duration_ms=row["duration_ms"],
        )

    # Cursors: JSON text. Paginated ones name an ordinal, legacy ones a turn.

    def _cursor(self, row: sqlite3.Row, scope: str, *, inclusive: bool) -> str:
        body: dict[str, Any]
        if self._state.history_mode == "paginated":
            body = {
                "requestedThreadId": self._state.thread_id,
                "rolloutOrdinal": row["ordinal"],
                "includeAnchor": inclusive,
                "scope": {"kind": scope},
            }
        else:
            body = {"turnId": row["turn_id"], "includeAnchor": inclusive}
        return json.dumps(body, separators=(",", ":"))

    def _anchor(self, cursor: str, scope: str) -> _Anchor:
        body = parse_object(cursor.encode("utf-8", "replace")) or {}
        inclusive = body.get("includeAnchor")
        if self._state.history_mode == "paginated":
            ours = body.get("requestedThreadId") == self._state.thread_id
            ordinal = body.get("rolloutOrdinal") if ours and body.get("scope") == {"kind": scope} else None
        else:
            ordinal = self._ordinal_of(body.get("turnId"))
        if isinstance(inclusive, bool) and type(ordinal) is int and 0 <= ordinal < 2**62:
            return _Anchor(ordinal, inclusive)
        raise InvalidRequest(f"invalid cursor: {cursor}")

    def _ordinal_of(self, turn_id: object) -> object:
        if not isinstance(turn_id, str):
            return None
        statement = "SELECT ordinal FROM turns WHERE thread_id=? AND turn_id=?"
        row = self._connection.execute(statement, (self._state.thread_id, turn_id)).fetchone()
        return row["ordinal"] if row is not None else None


def _read_item(descriptor: int, row: sqlite3.Row) -> ThreadItem | None:
    raw = os.pread(descriptor, row["length"], row["start_offset"])
    payloads = [
        payload
        for line in raw.splitlines()
        if (body := parse_object(line)) is not None and isinstance(payload := body.get("payload"), dict)
    ]
    if not payloads:
        return None
    if payloads[0].get("type") == "item_completed":
        item = payloads[0].get("item")
        if not isinstance(item, dict):
            return None
        return item_from_rollout(item, row["started_at_ms"], row["completed_at_ms"])
    kind = payloads[0].get("type")
    return legacy_item([payload for payload in payloads if payload.get("type") == kind], row["item_id"])
