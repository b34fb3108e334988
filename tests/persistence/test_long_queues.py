"""What the database does for a row of a queue does not depend on how many rows there are."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from persistence import queue as rows
from persistence.database import open_for_writing
from persistence.queue import QueuedTurn, find_started, read_queue
from tests.persistence.sessions import uuid_of

THREAD, OTHER = uuid_of(0xD01), uuid_of(0xD02)
FEW, MANY = 100, 2000


def row(number: int, order: int | None = None, **changes: Any) -> QueuedTurn:
    said = {
        "threadId": THREAD,
        "input": [{"type": "text", "text": "row"}],
        "clientUserMessageId": f"c{number}",
    }
    return QueuedTurn(uuid_of(number), said, number if order is None else order, **changes)


def ran(number: int) -> QueuedTurn:
    return row(number, state="dispatching", turn_id=uuid_of(1), item_id=uuid_of(2))


@pytest.fixture
def databases(tmp_path: Path) -> Iterator[dict[int, sqlite3.Connection]]:
    """By number of rows: one with so many that wait and so many that ran, in two threads."""
    made = {}
    for count in (FEW, MANY):
        made[count] = open_for_writing(tmp_path / f"{count}.sqlite", 1, [])
        made[count].row_factory = sqlite3.Row
        made[count].execute("BEGIN")
        for thread_id, base in ((THREAD, 0x10000), (OTHER, 0x20000)):
            for number in range(base, base + count):
                made[count].execute(*rows.insert(thread_id, row(number)))
                for operation in rows.started(thread_id, ran(number + 0x100000)):
                    made[count].execute(*operation)
        made[count].execute("COMMIT")
    yield made
    for connection in made.values():
        connection.close()


def steps(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], object]) -> int:
    """How many instructions of SQLite's virtual machine it takes; what it does is taken back."""
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    connection.execute("BEGIN")
    connection.set_progress_handler(step, 1)
    work(connection)
    connection.set_progress_handler(None, 1)
    connection.execute("ROLLBACK")
    return count


ON_ONE_ROW: dict[str, Callable[[sqlite3.Connection], object]] = {
    "add": lambda connection: connection.execute(*rows.insert(THREAD, row(0x9999, 1 << 30))),
    "change": lambda connection: connection.execute(*rows.change(ran(0x10030))),
    "remove": lambda connection: connection.execute(*rows.remove(uuid_of(0x10030))),
    "start": lambda connection: [connection.execute(*each) for each in rows.started(THREAD, ran(0x10030))],
    "find by row": lambda connection: find_started(connection, THREAD, row_id=uuid_of(0x110030)),
    "find by client": lambda connection: find_started(connection, THREAD, client_id=f"c{0x110030}"),
}


@pytest.mark.parametrize("work", list(ON_ONE_ROW))
def test_the_database_does_as_much_for_a_row_among_many_as_among_few(
    databases: dict[int, sqlite3.Connection], work: str
) -> None:
    few, many = (steps(databases[count], ON_ONE_ROW[work]) for count in (FEW, MANY))
    assert 0 < few <= many <= few + 5


ON_ALL: dict[str, Callable[[sqlite3.Connection], object]] = {
    "read": lambda connection: read_queue(connection, THREAD),
    "reorder": lambda connection: connection.execute(
        *rows.reorder(
            [
                row(int(each.id[-5:], 16), (1 << 30) - each.order)
                for each in read_queue(connection, THREAD).rows
            ]
        )
    ),
    "forget": lambda connection: [connection.execute(*each) for each in rows.forget_queue(THREAD)],
}


@pytest.mark.parametrize("work", list(ON_ALL))
def test_what_concerns_all_rows_of_a_thread_costs_the_same_by_row(
    databases: dict[int, sqlite3.Connection], work: str
) -> None:
    few, many = (steps(databases[count], ON_ALL[work]) / count for count in (FEW, MANY))
    # And it is only that thread's rows: the other's, as many, would double it.
    assert many <= few


def test_forgetting_a_thread_does_not_go_through_the_rows_of_others(
    databases: dict[int, sqlite3.Connection],
) -> None:
    few, many = (
        steps(databases[count], lambda c: [c.execute(*each) for each in rows.forget_queue(uuid_of(9))])
        for count in (FEW, MANY)
    )
    assert few == many
