"""What a damaged database still says of what nothing else knows: the queues, goals, names and read states.

The index is made again from the rollouts. The rows of these tables are not in any rollout: they are read out
of the file that was set aside, from the first of each table to where reading fails, and from the last back to
there. Damage may have left a row that can be read and is wrong: one that the new table does not take is
counted with those that could not be read; a queued turn whose text is spoiled is shown as such.

Rejected: sqlite3's ``.recover``, which is in the command line program only and puts what it finds on pages
without a table into a table of its own, where nobody would look for it.
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
import tempfile
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from persistence.errors import fails_everything

log = logging.getLogger(__name__)

_KEYS = {
    "thread_queued_turns": "queued_turn_id",
    "queued_turns_started": "queued_turn_id",
    "queue_pauses": "thread_id",
    "thread_facts": "thread_id",
    "read_states": "thread_id",
    "goals": "thread_id",
}
"""The tables, and the one column that is the key of each. All are clustered by it."""

QUEUE = "thread_queued_turns"


@dataclass(slots=True)
class Salvaged:
    """What was found of the queues.

    Attributes:
        rows: how many queued turns the new database has from the old one.
        whole: whether these are all there were, as far as can be told.
    """

    rows: int = 0
    whole: bool = True

    def __str__(self) -> str:
        turns = "One queued turn" if self.rows == 1 else f"{self.rows} queued turns"
        if self.whole:
            return f"{turns} could be read from it, and there were no others"
        return f"{turns} could be read from it; others may be lost"


def salvage(broken: Path, side_files: tuple[str, ...], connection: sqlite3.Connection) -> Salvaged:
    """Copy what can be read into a new database. The damaged file is only read.

    Args:
        broken: the damaged database.
        side_files: suffixes of what lies beside it and belongs to it.
        connection: the new one.

    Raises:
        OSError: there is no room, or the damaged file cannot be read at all.
        sqlite3.Error: the new database cannot be written.
    """
    found = Salvaged()
    # Opening it may change it: what is salvaged from is a copy.
    with tempfile.TemporaryDirectory(prefix="salvage-", dir=broken.parent) as folder:
        copy = Path(folder, "database")
        shutil.copyfile(broken, copy)
        for suffix in side_files:
            with suppress(FileNotFoundError):
                shutil.copyfile(broken.with_name(broken.name + suffix), copy.with_name(copy.name + suffix))
        with closing(sqlite3.connect(copy, isolation_level=None)) as damaged:
            for table, key in _tables(damaged).items():
                _copy(damaged, connection, table, key, found)
    return found


def _tables(damaged: sqlite3.Connection) -> dict[str, str]:
    """Those that are there, or all where that cannot be read."""
    try:
        there = {row[0] for row in damaged.execute("SELECT name FROM sqlite_master WHERE type='table'")}
    except (sqlite3.Error, UnicodeDecodeError):
        return _KEYS
    return {table: key for table, key in _KEYS.items() if table in there}


def _copy(
    damaged: sqlite3.Connection, connection: sqlite3.Connection, table: str, key: str, found: Salvaged
) -> None:
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    listed, marks = ", ".join(columns), ", ".join("?" * len(columns))
    insert = f"INSERT INTO {table} ({listed}) VALUES ({marks})"  # noqa: S608
    at = columns.index(key)
    rows, whole = _read_both_ways(damaged, f"SELECT {listed} FROM {table} ORDER BY {key}", at)  # noqa: S608
    stored = sum(_store(connection, (insert, row)) for row in rows.values())
    if table == QUEUE:
        found.rows = stored
        found.whole = whole and stored == len(rows)
    elif not whole or stored < len(rows):
        log.warning("%d rows of %s were read from the damaged database, not all", stored, table)


def _read_both_ways(
    damaged: sqlite3.Connection, select: str, key: int
) -> tuple[dict[object, tuple[object, ...]], bool]:
    """The rows by their keys, and whether reading came to an end."""
    rows: dict[object, tuple[object, ...]] = {}
    for direction in ("ASC", "DESC"):
        try:
            for row in damaged.execute(f"{select} {direction}"):
                rows[row[key]] = row
        except (sqlite3.Error, UnicodeDecodeError) as error:
            log.warning("reading a table of the damaged database stopped after %d rows: %s", len(rows), error)
            continue
        return rows, True
    return rows, False


def _store(connection: sqlite3.Connection, operation: tuple[str, tuple[object, ...]]) -> bool:
    try:
        connection.execute(*operation)
    except sqlite3.Error as error:
        if fails_everything(error):
            raise
        log.warning("a row of the damaged database is not taken over: %s", error)
        return False
    return True
