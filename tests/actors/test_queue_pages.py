"""What clients are shown of a queue stays small, however long its rows are, and all of it can be listed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from actors.queue_pages import PAGE_BYTES
from tests.actors.queue_stage import QueueScene
from tests.actors.stage import Stage

CHANGED = "thread/queue/changed"


@pytest.fixture
async def scene(stage: Stage) -> QueueScene:
    return QueueScene(stage)


def length(shown: dict[str, Any]) -> int:
    return len(json.dumps(shown, ensure_ascii=False, separators=(",", ":")).encode())


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in rows]


async def filled(scene: QueueScene, said: list[str]) -> tuple[str, list[str]]:
    """A thread in which a turn runs, and the ids of what waits behind it."""
    thread_id, _ = await scene.busy()
    added = await scene.fill(thread_id, *said)
    await scene.stage.handled(thread_id)
    return thread_id, added


async def pages(scene: QueueScene, thread_id: str, cursor: str | None) -> list[dict[str, Any]]:
    """All pages from there on."""
    found = [await scene.page(thread_id, cursor=cursor, limit=100).answer()]
    while (cursor := found[-1]["nextCursor"]) is not None:
        assert found[-1]["data"], f"the list stands still at {cursor}"
        found.append(await scene.page(thread_id, cursor=cursor, limit=100).answer())
    return found


# The last takes six bytes when it is quoted.
@pytest.mark.parametrize("char", ["x", "é", "\N{SPOOL OF THREAD}", '"', "\n", "\x01"])
async def test_a_change_and_a_page_are_as_long_as_a_page_may_be_and_no_row_is_left_out_or_shown_twice(
    scene: QueueScene, char: str
) -> None:
    # In both its shapes, a row takes between a ninth of a page and most of it.
    thread_id, added = await filled(scene, [char * 60_000] * 12)
    change = scene.owner.params(CHANGED)[-1]
    shown = ids(change["queuedTurns"])
    assert 0 < len(shown) < len(added)
    assert change["total"] == len(added)
    listed = await pages(scene, thread_id, change["nextCursor"])
    assert [*shown, *(row for page in listed for row in ids(page["data"]))] == added
    for each in (change, *listed):
        assert length(each) <= PAGE_BYTES


async def test_a_change_that_shows_every_row_names_no_cursor(scene: QueueScene) -> None:
    thread_id, added = await filled(scene, ["one", "two"])
    change = scene.owner.params(CHANGED)[-1]
    assert ids(change["queuedTurns"]) == added
    assert change.keys() == {"threadId", "queuedTurns", "total"}
    assert (await scene.page(thread_id).answer())["nextCursor"] is None


async def test_a_change_of_more_rows_than_it_shows_says_where_the_list_goes_on(scene: QueueScene) -> None:
    thread_id, added = await filled(scene, [f"row {number}" for number in range(103)])
    change = scene.owner.params(CHANGED)[-1]
    assert ids(change["queuedTurns"]) == added[:100]
    [rest] = await pages(scene, thread_id, change["nextCursor"])
    assert ids(rest["data"]) == added[100:]


async def test_a_row_that_is_longer_than_a_page_is_in_no_change_and_is_listed_alone(
    scene: QueueScene,
) -> None:
    thread_id, added = await filled(scene, ["before", "x" * PAGE_BYTES, "behind"])
    change = scene.owner.params(CHANGED)[-1]
    assert (ids(change["queuedTurns"]), change["total"], change["nextCursor"]) == (added[:1], 3, "1")
    assert [ids(page["data"]) for page in await pages(scene, thread_id, None)] == [[row] for row in added]
    await scene.delete(thread_id, added[0]).answer()
    await scene.stage.handled(thread_id)
    change = scene.owner.params(CHANGED)[-1]
    assert (change["queuedTurns"], change["total"], change["nextCursor"]) == ([], 2, "0")
