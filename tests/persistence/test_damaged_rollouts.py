"""Garbage in a rollout spoils itself and nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import persistence.rollout_files
from persistence.indexer import Indexer, RolloutState, parse_line
from persistence.rollout_files import CHUNK, read_lines
from persistence.store import Batch, ThreadQuery
from tests.persistence.sessions import (
    START_MS,
    add_turn,
    create,
    event,
    foreign_meta,
    numbered,
    opened,
    turn_of,
    unnumbered,
    uuid_of,
    write_rollout,
)

THREAD = uuid_of(1)
GARBAGE = [
    b"\n",
    b"   \n",
    b"garbage\n",
    b'{"timestamp":"2026-11-18T11:06:40.000Z","type":"event_msg","payload":{"type":"task_star\n',
    b"[]\n",
    b"42\n",
    b"null\n",
    b'{"type":"event_msg"}\n',
    b'{"type":5,"payload":{}}\n',
    b'{"type":"event_msg","payload":[]}\n',
    b'{"type":"event_msg","payload":{"type":"task_started"}}\n',
    b'{"type":"event_msg","payload":{"type":{"a":1}}}\n',
    b'{"type":"event_msg","payload":{"type":"item_completed","item":7}}\n',
    b'{"type":"event_msg","payload":{"type":"item_completed","item":{"type":[],"id":{}}}}\n',
    b'{"type":"event_msg","payload":{"type":"item_completed","item":{"type":{"a":[]},"id":"x"}}}\n',
    b'{"type":"event_msg","ordinal":-5,"payload":{"type":"token_count","info":7}}\n',
    b'{"type":"event_msg","ordinal":1e400,"payload":{"type":"turn_aborted","turn_id":9}}\n',
    b'{"type":"session_meta","payload":{"id":"somebody else","cwd":7}}\n',
    b'{"type":"compacted","payload":{"replacement_history":"none"}}\n',
    b"\xff\xfe\x00\x01" * 20 + b"\n",
    b"[" * 100_000 + b"\n",
    b'{"a":' * 10_000 + b"\n",
    bytes(range(256)) * 4 + b"\n",
]


def simple(thread_id: str) -> list[dict[str, object]]:
    turn = turn_of(thread_id, 0)
    item = {"type": "UserMessage", "id": "u", "content": [{"type": "text", "text": "hello"}]}
    return numbered(
        thread_id,
        foreign_meta(thread_id, "paginated"),
        event("task_started", turn_id=turn),
        event("item_completed", turn_id=turn, item=item),
        event("task_complete", turn_id=turn),
    )


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda line: repr(line[:40]))
@pytest.mark.parametrize("position", [0, 1, 3, 4])
async def test_a_garbage_line_anywhere_is_passed_over(tmp_path: Path, garbage: bytes, position: int) -> None:
    lines: list[object] = list(simple(THREAD))
    lines.insert(position, garbage)
    write_rollout(tmp_path, THREAD, lines)  # type: ignore[arg-type]
    async with opened(tmp_path) as store:
        (record,) = (await store.threads_page(ThreadQuery())).records
        assert (record.preview, record.cwd) == ("hello", "/somewhere/place")
        (turn,) = await store.all_turns(THREAD)
        assert [item.id for item in turn.items] == ["u"]
        await store.resume_state(THREAD)
        await add_turn(store, THREAD, 1, START_MS + 60_000)
        assert [turn.status for turn in await store.all_turns(THREAD)] == ["completed", "completed"]


@pytest.mark.parametrize("content", [b"", b"\n", b"\x00" * 5000, b"junk\n" * 50, b"half a line"])
async def test_a_file_of_nothing_but_garbage_is_no_thread(tmp_path: Path, content: bytes) -> None:
    write_rollout(tmp_path, THREAD, [content])
    write_rollout(tmp_path, uuid_of(2), simple(uuid_of(2)))
    write_rollout(tmp_path, uuid_of(3), [content], archived=True)
    async with opened(tmp_path) as store:
        page = await store.threads_page(ThreadQuery())
        assert [record.id for record in page.records] == [uuid_of(2)]
        assert (await store.threads_page(ThreadQuery(archived=True))).records == []
        assert await store.thread(THREAD) is None


async def test_a_thread_whose_first_line_is_lost_is_still_there(tmp_path: Path) -> None:
    write_rollout(tmp_path, THREAD, [b'{"timestamp":"2026-11\n', *simple(THREAD)[1:]])
    async with opened(tmp_path) as store:
        (record,) = (await store.threads_page(ThreadQuery(source_kinds=["unknown"]))).records
        assert (record.preview, record.history_mode) == ("hello", "paginated")
        assert (await store.resume_state(THREAD)).session_meta == {}


@pytest.mark.parametrize("half", [b'{"timestamp":"2026', b"\xff\x00", b'{"type":"event_msg","payload":{}}'])
async def test_a_half_written_last_line_spoils_only_itself(tmp_path: Path, half: bytes) -> None:
    path = write_rollout(tmp_path, THREAD, [*simple(THREAD), half])
    async with opened(tmp_path) as store:
        assert len(await store.all_turns(THREAD)) == 1
        await add_turn(store, THREAD, 1, START_MS + 60_000)
        assert len(await store.all_turns(THREAD)) == 2
    content = path.read_bytes()
    assert half + b'\n{"timestamp"' in content
    assert content.endswith(b"\n")


async def test_a_last_line_counts_once_it_is_complete(tmp_path: Path) -> None:
    lines = [json.dumps(line).encode() for line in simple(THREAD)]
    path = write_rollout(tmp_path, THREAD, [b"\n".join(lines[:3])])
    async with opened(tmp_path) as store:
        assert (await store.all_turns(THREAD))[0].items == []
        with path.open("ab") as file:
            file.write(b"\n" + lines[3] + b"\n")
        (turn,) = await store.all_turns(THREAD)
        assert (len(turn.items), turn.status) == (1, "completed")


async def test_a_huge_line_is_passed_over_without_being_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(persistence.rollout_files.read_lines, "__kwdefaults__", {"max_line": 1000})
    path = write_rollout(tmp_path, THREAD, simple(THREAD))
    huge = b'{"type":"response_item","payload":{"text":"' + b"x" * (3 * CHUNK) + b'"}}\n'
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], huge, *lines[2:]]))
    async with opened(tmp_path) as store:
        (turn,) = await store.all_turns(THREAD)
        assert [item.id for item in turn.items] == ["u"]
        assert (await store.resume_state(THREAD)).context == []


def test_lines_are_read_whole_whatever_the_chunks(tmp_path: Path) -> None:
    lines = [b"a", b"", b"b" * (CHUNK - 3), b"c" * (2 * CHUNK + 1), b"d" * 70, b"e" * CHUNK, b""]
    path = tmp_path / "lines"
    path.write_bytes(b"".join(line + b"\n" for line in lines) + b"not yet")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        found = list(read_lines(descriptor, 0))
        assert [raw for _, _, raw in found] == lines
        assert [length for _, length, _ in found] == [len(line) + 1 for line in lines]
        assert [offset for offset, _, _ in found] == [
            sum(len(x) + 1 for x in lines[:n]) for n in range(len(lines))
        ]
        assert [raw for _, _, raw in read_lines(descriptor, found[4][0])] == lines[4:]
        short = [raw for _, _, raw in read_lines(descriptor, 0, max_line=70)]
        assert short == [b"a", b"", None, None, b"d" * 70, None, b""]
    finally:
        os.close(descriptor)


def test_a_damaged_ordinal_does_not_spoil_the_numbering_of_the_rest() -> None:
    indexer = Indexer(RolloutState(THREAD, "p", 0))
    for ordinal in (0, 1, 2**60, 3, 9, 4, None):
        head = {} if ordinal is None else {"ordinal": ordinal}
        raw = json.dumps({"timestamp": "x", **head, "type": "event_msg", "payload": {"type": "odd"}}).encode()
        indexer.feed(0, 0, parse_line(raw))
    # 0, 1, (damaged) 2, 3, 9, (behind) 10, (missing) 11
    assert indexer.state.next_ordinal == 12


async def test_lone_surrogates_are_stored_and_come_back(tmp_path: Path) -> None:
    odd = "a\ud800b"
    async with opened(tmp_path) as store:
        await create(store, THREAD, "hello")
        from persistence.rollout_lines import response_item
        from tests.persistence.sessions import message

        await store.commit(Batch(THREAD, [response_item(START_MS, message("user", odd))]))
        context = (await store.resume_state(THREAD)).context
        assert context[-1] == message("user", odd)


async def test_a_second_file_of_one_thread_is_left_alone(tmp_path: Path) -> None:
    write_rollout(tmp_path, THREAD, simple(THREAD))
    write_rollout(tmp_path, THREAD, unnumbered(foreign_meta(THREAD, "legacy")), archived=True)
    async with opened(tmp_path) as store:
        assert len((await store.threads_page(ThreadQuery())).records) == 1
        assert (await store.threads_page(ThreadQuery(archived=True))).records == []
