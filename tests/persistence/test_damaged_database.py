"""A damaged database is set aside; what only it knew is read out of it as far as it can be, and told."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from persistence.database import open_for_writing
from persistence.queue import UNREADABLE, QueuedTurn, insert, pause, started
from persistence.salvage import salvage
from persistence.store import Batch, Goal, ReadState, ThreadQuery
from tests.persistence.sessions import START_MS, create, opened, uuid_of
from tests.support.in_memory import replay_hint

ROWS = 400
FIRST_MS = START_MS + 1000
"""What the clock says first."""


def row(number: int) -> QueuedTurn:
    return QueuedTurn(f"row-{number:04}", {"input": [], "text": "x" * 200}, number)


async def fill(root: Path) -> None:
    """Everything that no rollout says, of two threads."""
    async with opened(root) as store:
        for thread_id in (uuid_of(1), uuid_of(2)):
            await create(store, thread_id)
        queue = [insert(uuid_of(1), row(number)) for number in range(ROWS)]
        ran = QueuedTurn("row-ran", {}, 9999, state="dispatching", turn_id=uuid_of(9))
        queue += [*started(uuid_of(1), ran), pause(uuid_of(1), True)]
        goal = Goal("win", "active", None, 0, 0, 1, 1)
        await store.commit(
            Batch(
                uuid_of(1), queue=queue, goal=goal, read_state=ReadState(None, "r1"), facts={"git_sha": "c0"}
            )
        )


def root_page(database: Path, table: str) -> tuple[int, int]:
    """The number of a table's first page, and the size of one in bytes."""
    with closing(sqlite3.connect(database)) as connection:
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name=?", (table,)).fetchone()
        return page, size


def overwrite(database: Path, page: int, size: int, content: bytes) -> None:
    with database.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(content)


def files(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern))


def suspect(root: Path) -> Path:
    """As after damage was met: the next start looks at every page."""
    (root / "spoold.sqlite-damaged").touch()
    return root / "spoold.sqlite"


async def test_what_is_only_in_the_database_outlives_a_damaged_index(tmp_path: Path) -> None:
    await fill(tmp_path)
    database = suspect(tmp_path)
    page, size = root_page(database, "items")
    overwrite(database, page, size, os.urandom(size))
    damaged = database.read_bytes()
    async with opened(tmp_path) as store:
        (notice,) = store.health.notices
        assert f"{ROWS} queued turns could be read from it, and there were no others" in notice
        queue = await store.queue(uuid_of(1))
        assert [(each.id, each.order) for each in queue.rows] == [(row(n).id, n) for n in range(ROWS)]
        assert queue.paused
        assert (await store.queued_turn_started(uuid_of(1), row_id="row-ran")) is not None
        goal = await store.goal(uuid_of(1))
        assert goal is not None
        assert goal.objective == "win"
        assert await store.read_state(uuid_of(1)) == ReadState(None, "r1")
        record = await store.thread(uuid_of(1))
        assert record is not None
        assert record.git is not None
        assert record.git.sha == "c0"
        assert len((await store.threads_page(ThreadQuery())).records) == 2
    (aside,) = files(tmp_path, "spoold.sqlite.corrupt-*")
    assert aside.read_bytes() == damaged
    assert files(tmp_path, "salvage-*") == []


async def test_rows_before_and_behind_a_damaged_page_are_taken_over_and_the_loss_is_told(
    tmp_path: Path,
) -> None:
    await fill(tmp_path)
    database = suspect(tmp_path)
    with closing(sqlite3.connect(database)) as connection:
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    content = database.read_bytes()
    # A leaf of the queue's table, found by a row in the middle of it.
    page = content.index(f"{row(ROWS // 2).id}{uuid_of(1)}".encode()) // size + 1
    overwrite(database, page, size, bytes(size))
    async with opened(tmp_path) as store:
        (notice,) = store.health.notices
        assert "others may be lost" in notice
        found = [each.order for each in (await store.queue(uuid_of(1))).rows]
        lost = sorted(set(range(ROWS)) - set(found))
        assert 0 < len(lost) < ROWS // 4
        assert found[0] == 0
        assert found[-1] == ROWS - 1
        assert f"{len(found)} queued turns" in notice


@pytest.mark.parametrize("seed", range(12))
async def test_a_start_survives_any_damage_and_never_shows_a_row_that_never_was(
    tmp_path: Path, seed: int
) -> None:
    with replay_hint(seed=seed):
        chance = random.Random(seed)
        await fill(tmp_path)
        database = suspect(tmp_path)
        content = bytearray(database.read_bytes())
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(content))
            length = chance.choice((1, 16, 512, 4096, 20_000))
            content[at : at + length] = chance.randbytes(len(content[at : at + length]))
        if chance.random() < 0.3:
            del content[chance.randrange(len(content)) :]
        database.write_bytes(content)
        known = {row(number).id for number in range(ROWS)}
        async with opened(tmp_path) as store:
            queue = await store.queue(uuid_of(1))
            assert len((await store.threads_page(ThreadQuery())).records) == 2
            if store.health.notices:
                assert "set aside" in store.health.notices[0]
            else:
                # Nothing but the text of rows can have been hit.
                assert len(queue.rows) == ROWS
            assert len({each.id for each in queue.rows} - known) <= ROWS - len(queue.rows) + 8


async def test_a_row_whose_text_is_damaged_is_shown_as_failed_beside_the_others(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await create(store, uuid_of(1))
        queue = [insert(uuid_of(1), row(number)) for number in range(3)]
        spoil = (
            "UPDATE thread_queued_turns SET turn_start_params=? WHERE queued_turn_id=?",
            ('{"in', row(1).id),
        )
        await store.commit(Batch(uuid_of(1), queue=[*queue, spoil]))
        found = (await store.queue(uuid_of(1))).rows
    assert [(each.state, each.failure) for each in found] == [
        ("pending", None),
        ("failed", UNREADABLE),
        ("pending", None),
    ]


async def test_a_crash_between_setting_aside_and_taking_the_place_loses_nothing(tmp_path: Path) -> None:
    await fill(tmp_path)
    # What there is at that instant: the damaged one under its new name, the new one not yet under its own.
    (tmp_path / "spoold.sqlite").rename(tmp_path / "spoold.sqlite-mended")
    async with opened(tmp_path) as store:
        assert len((await store.queue(uuid_of(1))).rows) == ROWS
    assert not (tmp_path / "spoold.sqlite-mended").exists()


async def test_what_belongs_to_a_database_that_was_set_aside_is_not_taken_for_the_new_ones(
    tmp_path: Path,
) -> None:
    await fill(tmp_path)
    database = tmp_path / "spoold.sqlite"
    database.rename(tmp_path / "spoold.sqlite-mended")
    # The crash came before the damaged one's log was set aside, too; all of it is valid.
    with closing(sqlite3.connect(tmp_path / "damaged")) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t AS SELECT 1")
        shutil.copy(tmp_path / "damaged-wal", tmp_path / "spoold.sqlite-wal")
    async with opened(tmp_path) as store:
        assert len((await store.queue(uuid_of(1))).rows) == ROWS
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
    assert [path.name for path in files(tmp_path, "*corrupt*")] == [f"spoold.sqlite.corrupt-{FIRST_MS}-wal"]


def test_what_an_unfinished_mending_has_left_is_not_mistaken_for_a_database(tmp_path: Path) -> None:
    mended = tmp_path / "spoold.sqlite-mended"
    mended.write_bytes(b"half of it")
    database = tmp_path / "spoold.sqlite"
    database.write_bytes(b"no database " * 100)
    notices: list[str] = []
    open_for_writing(database, START_MS, notices).close()
    assert "0 queued turns could be read from it; others may be lost" in notices[0]
    assert not mended.exists()
    notices.clear()
    open_for_writing(database, START_MS, notices).close()
    assert notices == []


def test_a_row_that_the_new_table_does_not_take_is_counted_as_lost(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    columns = (
        "queued_turn_id, thread_id, turn_start_params, client_user_message_id, queue_order, state, failure, "
        "created_at_ms, updated_at_ms, dispatch_turn_id, dispatch_item_id"
    )
    with closing(sqlite3.connect(broken)) as connection, connection:
        connection.execute(f"CREATE TABLE thread_queued_turns ({columns})")
        for number in range(3):
            connection.execute(*insert(uuid_of(1), row(number)))
        # Two rows in one place, and a number that is none.
        connection.execute(*insert(uuid_of(1), replace(row(3), order=1)))
        connection.execute(*insert(uuid_of(1), row(4)))
        connection.execute("UPDATE thread_queued_turns SET queue_order='four' WHERE queue_order=4")
    with closing(open_for_writing(tmp_path / "spoold.sqlite", START_MS, [])) as connection:
        salvaged = salvage(broken, (), connection)
        found = {each[0] for each in connection.execute("SELECT queued_turn_id FROM thread_queued_turns")}
    assert (salvaged.rows, salvaged.whole) == (3, False)
    assert {row(0).id, row(2).id} < found
