"""What no rollout says: names, repository facts, read states, goals. Over the index, and outliving it."""

from __future__ import annotations

import json
import sqlite3
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import persistence.rebuild
import persistence.writer
from persistence.database import Operation
from persistence.home import Home
from persistence.store import Batch, Goal, ReadState, Store, StoreError, ThreadQuery, ThreadRecord
from protocol.threads import GitInfo
from tests.persistence.sessions import (
    START_MS,
    CountingRuntime,
    add_turn,
    create,
    event,
    foreign_meta,
    numbered,
    opened,
    uuid_of,
    write_rollout,
)
from tests.persistence.test_search import texts

THREAD = uuid_of(1)
GOAL = Goal("finish", "active", 1000, 10, 20, START_MS, START_MS + 1)


async def record(store: Store, thread_id: str = THREAD) -> ThreadRecord:
    found = await store.thread(thread_id)
    assert found is not None
    return found


def delete_database(root: Path) -> None:
    for path in root.glob("spoold.sqlite*"):
        path.unlink()


async def test_a_name_is_shown_listed_searched_and_noted_for_others(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await create(store, THREAD)
        await store.commit(Batch(THREAD, facts={"name": "Später"}, now_ms=START_MS))
        assert (await record(store)).name == "Später"
        page = await store.threads_page(ThreadQuery(search_term="pät"))
        assert [each.name for each in page.records] == ["Später"]
    index = tmp_path / "session_index.jsonl"
    assert stat.S_IMODE(index.stat().st_mode) == 0o600
    line = {"id": THREAD, "thread_name": "Später", "updated_at": "2026-11-18T11:06:40.000Z"}
    assert json.loads(index.read_text(encoding="utf-8")) == line


async def test_a_name_outlives_the_database(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await create(store, THREAD)
        await create(store, uuid_of(2))
        for name in ("first", "second"):
            await store.commit(Batch(THREAD, facts={"name": name}))
            await store.commit(Batch(uuid_of(2), facts={"name": name}))
        await store.commit(Batch(uuid_of(2), facts={"name": None}))
        assert (await record(store, uuid_of(2))).name is None
    delete_database(tmp_path)
    async with opened(tmp_path) as store:
        await store.threads_page(ThreadQuery())
        assert (await record(store)).name == "second"
        assert (await record(store, uuid_of(2))).name is None


async def test_a_name_given_later_by_another_program_takes_the_place_of_ours(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await create(store, THREAD)
        await store.commit(Batch(THREAD, facts={"name": "ours"}, now_ms=START_MS))
    line = {"id": THREAD, "thread_name": "theirs", "updated_at": "2026-11-18T11:06:40.001Z"}
    with (tmp_path / "session_index.jsonl").open("a") as file:
        file.write(f"{json.dumps(line)}\n")
    async with opened(tmp_path) as store:
        await store.threads_page(ThreadQuery())
        assert (await record(store)).name == "theirs"
        await store.commit(Batch(THREAD, facts={"name": "ours again"}, now_ms=START_MS + 2))
    async with opened(tmp_path) as store:
        await store.threads_page(ThreadQuery())
        assert (await record(store)).name == "ours again"


async def test_a_name_given_while_a_start_reads_the_names_that_others_gave_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as store:
        await create(store, THREAD)
        await store.commit(Batch(THREAD, facts={"name": "first"}, now_ms=START_MS))
    theirs = {"id": THREAD, "thread_name": "theirs", "updated_at": "2026-11-18T11:06:41.000Z"}
    with (tmp_path / "session_index.jsonl").open("a") as file:
        file.write(json.dumps(theirs) + "\n")
    read_names = persistence.rebuild.name_operations

    def then_rename(*args: Any) -> list[Operation]:
        found = read_names(*args)
        trio.from_thread.run(store.commit, Batch(THREAD, facts={"name": "newest"}, now_ms=START_MS + 2000))
        return found

    store = Store(Home(tmp_path), CountingRuntime())
    monkeypatch.setattr(persistence.rebuild, "name_operations", then_rename)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        page = await store.threads_page(ThreadQuery())
        assert [each.name for each in page.records] == ["newest"]
        nursery.cancel_scope.cancel()


async def test_a_session_index_that_cannot_be_written_does_not_fail_a_renaming(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "session_index.jsonl").mkdir()
    async with opened(tmp_path) as store:
        await create(store, THREAD)
        await store.commit(Batch(THREAD, facts={"name": "n"}))
        assert (await record(store)).name == "n"
    assert "could not be noted" in caplog.text


async def test_repository_facts_override_one_by_one_and_null_clears(tmp_path: Path) -> None:
    write_rollout(
        tmp_path, THREAD, numbered(THREAD, foreign_meta(THREAD, "paginated"), event("task_started"))
    )
    async with opened(tmp_path) as store:
        said = (await record(store)).git
        assert said == GitInfo(sha="c0ffee", branch="main", origin_url="https://example.invalid/r")
        await store.commit(Batch(THREAD, facts={"git_branch": "topic"}))
        assert (await record(store)).git == said.model_copy(update={"branch": "topic"})
        await store.commit(Batch(THREAD, facts={"git_sha": None}))
        expected = said.model_copy(update={"branch": "topic", "sha": None})
        assert (await record(store)).git == expected
        await store.commit(Batch(THREAD, facts={"git_branch": None, "git_origin_url": None}))
        assert (await record(store)).git is None


@pytest.mark.parametrize("facts", [{"preview": "x"}, {"name": 5}, {"name; DROP TABLE threads": "x"}])
async def test_a_fact_that_is_none_is_refused(tmp_path: Path, facts: dict[str, Any]) -> None:
    async with opened(tmp_path) as store:
        await create(store, THREAD)
        with pytest.raises(ValueError, match="fact"):
            await store.commit(Batch(THREAD, facts=facts))


async def test_a_fact_may_be_there_before_the_rollout(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.commit(Batch(THREAD, facts={"git_branch": "early"}))
        assert await store.thread(THREAD) is None
        await create(store, THREAD)
        assert (await record(store)).git == GitInfo(branch="early")


async def test_read_states_and_goals_are_kept_changed_and_removed(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await create(store, THREAD)
        assert (await store.read_state(THREAD), await store.goal(THREAD)) == (None, None)
        await store.commit(Batch(THREAD, read_state=ReadState("turn", "1"), goal=GOAL))
        await store.commit(Batch(uuid_of(2), read_state=ReadState(None, "2")))
        await store.commit(Batch(THREAD, facts={"name": "n"}))
    async with opened(tmp_path) as store:
        assert await store.read_state(THREAD) == ReadState("turn", "1")
        many = [uuid_of(number) for number in range(2000)]
        states = {THREAD: ReadState("turn", "1"), uuid_of(2): ReadState(None, "2")}
        assert await store.read_states(many) == states
        assert await store.goal(THREAD) == GOAL
        await store.commit(Batch(THREAD, goal=None))
        assert await store.goal(THREAD) is None


async def test_facts_that_cannot_be_stored_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    async with opened(tmp_path) as store:
        await create(store, THREAD)
        with monkeypatch.context() as patch:
            patch.setattr(persistence.writer, "transact", broken)
            with pytest.raises(StoreError, match="could not write"):
                await store.commit(Batch(THREAD, facts={"name": "n"}))
        assert (await record(store)).name is None
        assert not (tmp_path / "session_index.jsonl").exists()


async def test_threads_are_listed_by_parent_or_by_ancestor(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for number in range(1, 5):
            await create(store, uuid_of(number), parent_thread_id=uuid_of(number - 1))

        async def listed(**query: Any) -> set[str]:
            return {record.id for record in (await store.threads_page(ThreadQuery(**query))).records}

        assert await listed(parent_id=uuid_of(1)) == {uuid_of(2)}
        assert await listed(ancestor_id=uuid_of(1)) == {uuid_of(2), uuid_of(3), uuid_of(4)}
        assert await listed(ancestor_id=uuid_of(4)) == set()


async def test_half_a_line_in_the_session_index_spoils_only_itself(tmp_path: Path) -> None:
    (tmp_path / "session_index.jsonl").write_bytes(b'{"id":"x","thread')
    async with opened(tmp_path) as store:
        await create(store, THREAD)
        await store.commit(Batch(THREAD, facts={"name": "n"}))
    delete_database(tmp_path)
    async with opened(tmp_path) as store:
        await store.threads_page(ThreadQuery())
        assert (await record(store)).name == "n"


async def test_descendants_of_a_thread_that_is_its_own_ancestor_come_to_an_end(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await create(store, uuid_of(1), parent_thread_id=uuid_of(2))
        await create(store, uuid_of(2), parent_thread_id=uuid_of(1))
        assert await store.descendants(uuid_of(1)) == [uuid_of(2)]
        assert await store.descendants(uuid_of(9)) == []


INDEX = ("rollouts", "threads", "turns", "items")
names = st.none() | st.text(max_size=5)
steps = st.one_of(
    st.tuples(st.just("facts"), st.dictionaries(st.sampled_from(["name", "git_sha", "git_branch"]), names)),
    st.tuples(st.just("move"), st.sampled_from(["archive", "unarchive"])),
    st.tuples(st.just("turn"), st.text(max_size=5)),
    st.tuples(st.just("restart"), st.just("")),
)


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(runs=st.lists(steps, max_size=12))
def test_a_rebuilt_index_with_facts_is_the_one_written_live(runs: list[tuple[str, Any]]) -> None:
    async def everything(store: Store) -> Any:
        found = []
        for archived in (False, True):
            page = await store.threads_page(ThreadQuery(archived=archived, sort_key="updated_at"))
            found.append((page, await store.thread(THREAD), await store.all_turns(THREAD)))
        return found

    async def main(root: Path) -> None:
        now, turns, begun = START_MS, 0, False
        remaining = list(runs)
        while remaining or not begun:
            async with opened(root) as store:
                if not begun:
                    await create(store, THREAD)
                    begun = True
                while remaining:
                    kind, what = remaining.pop(0)
                    now += 1000
                    match kind:
                        case "restart":
                            break
                        case "facts":
                            await store.commit(Batch(THREAD, facts=what, now_ms=now))
                        case "move":
                            await store.commit(Batch(THREAD, relocate=what, now_ms=now))
                        case "turn":
                            turns += 1
                            await add_turn(store, THREAD, turns, now, what)
                live = await everything(store)
        said = texts(root)
        connection = sqlite3.connect(root / "spoold.sqlite")
        for table in (*INDEX, "search", "search_threads"):
            connection.execute(f"DELETE FROM {table}")
        connection.commit()
        connection.close()
        async with opened(root) as store:
            assert await everything(store) == live
        assert texts(root) == said

    with tempfile.TemporaryDirectory() as folder:
        trio.run(main, Path(folder))
