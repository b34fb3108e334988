"""Sessions that the reference program wrote, in both its forms, are listed, read and gone on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from persistence.store import Batch, ThreadQuery
from protocol.items import ContextCompactionItem, ReasoningItem
from tests.persistence.sessions import (
    START_MS,
    add_turn,
    completed,
    event,
    foreign_meta,
    message,
    numbered,
    opened,
    turn_begin,
    turn_end,
    turn_of,
    unnumbered,
    uuid_of,
    write_rollout,
)

THREAD = uuid_of(1)
FIRST, SECOND, THIRD = (turn_of(THREAD, number) for number in range(3))
USAGE = {"input_tokens": 10, "cached_input_tokens": 0, "output_tokens": 5, "total_tokens": 15}


def item(turn_id: str, at: int, **body: Any) -> tuple[str, dict[str, Any]]:
    times = {"started_at_ms": START_MS + at, "completed_at_ms": START_MS + at + 1}
    return event("item_completed", thread_id=THREAD, turn_id=turn_id, item=body, **times)


def started(turn_id: str) -> tuple[str, dict[str, Any]]:
    return event("task_started", turn_id=turn_id, root_turn_id=turn_id, started_at=1_795_000_001)


PAGINATED = numbered(
    THREAD,
    foreign_meta(THREAD, "paginated"),
    started(FIRST),
    ("response_item", message("developer", "instructions")),
    ("world_state", {"full": True, "state": {}}),
    (
        "turn_context",
        {
            "turn_id": FIRST,
            "cwd": "/elsewhere",
            "approval_policy": "never",
            "model": "m1",
            "effort": "low",
            "summary": "none",
            "sandbox_policy": {"type": "danger-full-access"},
        },
    ),
    ("response_item", message("user", "do it")),
    item(
        FIRST,
        0,
        type="UserMessage",
        id=uuid_of(50),
        content=[{"type": "text", "text": "do it", "text_elements": []}],
    ),
    item(FIRST, 1, type="Reasoning", id="rs-1", summary_text=["thinking"], raw_content=[]),
    (
        "response_item",
        {"type": "function_call", "name": "exec_command", "arguments": "{}", "call_id": "call-1"},
    ),
    item(
        FIRST,
        2,
        type="CommandExecution",
        id="call-1",
        process_id="7",
        cwd="file:///somewhere/place",
        command=["/bin/bash", "-lc", "echo hi"],
        parsed_cmd=[{"type": "unknown", "cmd": "echo hi"}],
        source="unified_exec_startup",
        status="completed",
        aggregated_output="hi\n",
        exit_code=0,
        duration={"secs": 0, "nanos": 23_795},
    ),
    item(FIRST, 3, type="Hologram", id="h-1"),
    item(FIRST, 4, type="AgentMessage", id="msg-1", content=[{"type": "Text", "text": "done"}]),
    ("token_usage_record", {"thread_id": THREAD, "usage": USAGE}),
    event(
        "token_count",
        info={"total_token_usage": USAGE, "last_token_usage": USAGE, "model_context_window": 258_400},
    ),
    event(
        "task_complete",
        turn_id=FIRST,
        last_agent_message="done",
        started_at=1_795_000_001,
        completed_at=1_795_000_009,
        duration_ms=8123,
    ),
    started(SECOND),
    item(
        SECOND,
        9,
        type="UserMessage",
        id=uuid_of(51),
        content=[{"type": "text", "text": "fail", "text_elements": []}],
    ),
    event(
        "task_complete",
        turn_id=SECOND,
        last_agent_message=None,
        started_at=1_795_000_010,
        completed_at=1_795_000_010,
        duration_ms=35,
        error={"message": "busy", "codex_error_info": {"http_connection_failed": {"http_status_code": 401}}},
    ),
    ("something_new", {"odd": True}),
    started(THIRD),
)

LEGACY = unnumbered(
    foreign_meta(THREAD, "legacy"),
    started(FIRST),
    ("response_item", message("user", "do it")),
    event("user_message", message="do it", images=[], local_images=["/tmp/a.png"], text_elements=[]),
    event("agent_reasoning", text="one"),
    ("response_item", {"type": "reasoning", "summary": []}),
    event("agent_reasoning", text="two"),
    event("agent_message", message="looking", phase="commentary"),
    event("agent_message", message="done", phase=None),
    event("context_compacted"),
    event(
        "task_complete", turn_id=FIRST, started_at=1_795_000_001, completed_at=1_795_000_009, duration_ms=8
    ),
    started(SECOND),
    event("user_message", message="more", images=[]),
    event("turn_aborted", turn_id=SECOND, reason="interrupted", completed_at=1_795_000_012),
)


async def test_a_paginated_session_is_listed_with_everything_its_row_shows(tmp_path: Path) -> None:
    path = write_rollout(tmp_path, THREAD, PAGINATED)
    async with opened(tmp_path) as store:
        (record,) = (await store.threads_page(ThreadQuery())).records
    assert (record.id, record.path, record.preview, record.archived) == (THREAD, path, "do it", False)
    assert (record.model_provider, record.model, record.reasoning_effort) == ("mock_provider", "m1", "low")
    assert (record.cwd, record.source, record.originator) == ("/somewhere/place", "vscode", "elsewhere")
    assert record.git is not None
    assert (record.git.sha, record.git.branch) == ("c0ffee", "main")
    assert record.created_at_ms == START_MS - 300
    assert record.recency_at_ms == START_MS + 1000 * (len(PAGINATED) - 1)
    assert record.history_mode == "paginated"


async def test_a_paginated_session_is_read_turn_by_turn(tmp_path: Path) -> None:
    write_rollout(tmp_path, THREAD, PAGINATED)
    async with opened(tmp_path) as store:
        first, second, third = await store.all_turns(THREAD)
    assert [each.type for each in first.items] == [
        "userMessage",
        "reasoning",
        "commandExecution",
        "agentMessage",
    ]
    command = first.items[2].to_wire()
    assert command["command"] == "/bin/bash -lc 'echo hi'"
    assert (command["cwd"], command["source"]) == ("/somewhere/place", "unifiedExecStartup")
    assert (command["startedAtMs"], command["completedAtMs"]) == (START_MS + 2, START_MS + 3)
    assert (first.status, first.started_at, first.completed_at, first.duration_ms) == (
        "completed",
        1_795_000_001,
        1_795_000_009,
        8123,
    )
    assert second.status == "failed"
    assert second.error is not None
    assert second.error.codex_error_info == {"httpConnectionFailed": {"httpStatusCode": 401}}
    assert (third.status, third.completed_at) == ("interrupted", None)


async def test_an_open_turn_is_in_progress_while_it_lives(tmp_path: Path) -> None:
    write_rollout(tmp_path, THREAD, PAGINATED)
    async with opened(tmp_path) as store:
        turns = await store.all_turns(THREAD, live_turn_id=THIRD)
    assert turns[-1].status == "inProgress"


async def test_a_paginated_session_is_resumed_from_where_it_ends(tmp_path: Path) -> None:
    write_rollout(tmp_path, THREAD, PAGINATED)
    async with opened(tmp_path) as store:
        state = await store.resume_state(THREAD)
    assert [each.get("role", each["type"]) for each in state.context] == [
        "developer",
        "user",
        "function_call",
    ]
    assert state.token_usage is not None
    assert (state.token_usage.total.total_tokens, state.token_usage.model_context_window) == (15, 258_400)
    assert state.turn_context is not None
    assert state.turn_context["cwd"] == "/elsewhere"
    assert state.session_meta["base_instructions"]["text"] == "Be brief."
    assert state.interrupted


async def test_a_compaction_replaces_the_context_before_it(tmp_path: Path) -> None:
    kept = message("user", "kept")
    lines = numbered(
        THREAD,
        foreign_meta(THREAD, "paginated"),
        ("response_item", message("user", "old")),
        ("compacted", {"message": "summary", "replacement_history": [kept]}),
        ("response_item", message("user", "new")),
    )
    write_rollout(tmp_path, THREAD, lines)
    async with opened(tmp_path) as store:
        assert (await store.resume_state(THREAD)).context == [kept, message("user", "new")]


async def test_an_old_compaction_without_replacement_keeps_the_users_words_and_the_summary(
    tmp_path: Path,
) -> None:
    lines = unnumbered(
        foreign_meta(THREAD, "legacy"),
        ("response_item", message("user", "mine")),
        ("response_item", message("assistant", "its")),
        ("compacted", {"message": "summary"}),
    )
    write_rollout(tmp_path, THREAD, lines)
    async with opened(tmp_path) as store:
        context = (await store.resume_state(THREAD)).context
    assert context == [message("user", "mine"), message("user", "summary")]


async def test_a_legacy_session_is_read_with_numbered_items_without_times(tmp_path: Path) -> None:
    write_rollout(tmp_path, THREAD, LEGACY)
    async with opened(tmp_path) as store:
        first, second = await store.all_turns(THREAD)
    assert [(each.id, each.type) for each in first.items] == [
        ("item-1", "userMessage"),
        ("item-2", "reasoning"),
        ("item-3", "agentMessage"),
        ("item-4", "agentMessage"),
        ("item-5", "contextCompaction"),
    ]
    assert isinstance(first.items[1], ReasoningItem)
    assert first.items[1].summary == ["one", "two"]
    assert {(each.started_at_ms, each.completed_at_ms) for each in first.items} == {(None, None)}
    assert [each.id for each in second.items] == ["item-6"]
    assert (first.status, second.status) == ("completed", "interrupted")


async def test_the_summary_of_a_turn_is_the_question_and_the_final_answer(tmp_path: Path) -> None:
    write_rollout(tmp_path, THREAD, LEGACY)
    async with opened(tmp_path) as store:
        page = await store.turns_page(THREAD, cursor=None, limit=1, direction="asc", view="summary")
        bare = await store.turns_page(THREAD, cursor=None, limit=1, direction="asc", view="notLoaded")
    assert [each.id for each in page.data[0].items] == ["item-1", "item-4"]
    assert (bare.data[0].items, bare.data[0].items_view) == ([], "notLoaded")


async def test_a_session_without_turn_markers_has_a_turn_for_every_user_message(tmp_path: Path) -> None:
    lines = unnumbered(
        foreign_meta(THREAD, "legacy"),
        event("user_message", message="first"),
        event("agent_message", message="one"),
        event("user_message", message="second"),
        event("agent_message", message="two"),
    )
    del lines[0]["payload"]["history_mode"]
    write_rollout(tmp_path, THREAD, lines)
    async with opened(tmp_path) as store:
        turns = await store.all_turns(THREAD)
        again = await store.all_turns(THREAD)
    assert [[each.id for each in turn.items] for turn in turns] == [
        ["item-1", "item-2"],
        ["item-3", "item-4"],
    ]
    assert [turn.status for turn in turns] == ["completed", "completed"]
    assert [turn.id for turn in turns] == [turn.id for turn in again]


async def test_a_legacy_session_goes_on_in_the_legacy_form(tmp_path: Path) -> None:
    path = write_rollout(tmp_path, THREAD, LEGACY)
    async with opened(tmp_path) as store:
        await store.resume_state(THREAD)
        begin = turn_begin(THREAD, THIRD, "again", START_MS + 60_000)
        extra = [
            completed(THREAD, THIRD, ReasoningItem(id="r", summary=["x", "y"]), START_MS + 60_001),
            completed(THREAD, THIRD, ContextCompactionItem(id="c"), START_MS + 60_002),
        ]
        end = turn_end(THREAD, THIRD, "sure", START_MS + 61_000)
        await store.commit(Batch(THREAD, begin + extra + end, fsync=True))
        live = await store.all_turns(THREAD)
    (tmp_path / "spoold.sqlite").unlink()
    async with opened(tmp_path) as store:
        rebuilt = await store.all_turns(THREAD)
        assert await store.history_cursors(THREAD) == (None, None)
    assert live == rebuilt
    assert [each.type for each in live[2].items] == [
        "userMessage",
        "reasoning",
        "contextCompaction",
        "agentMessage",
    ]
    appended = [json.loads(line) for line in path.read_bytes().splitlines()[len(LEGACY) :]]
    assert all("ordinal" not in line for line in appended)
    assert "item_completed" not in {line["payload"].get("type") for line in appended}


async def test_a_paginated_session_goes_on_with_the_next_ordinal(tmp_path: Path) -> None:
    path = write_rollout(tmp_path, THREAD, PAGINATED)
    async with opened(tmp_path) as store:
        await add_turn(store, THREAD, 7, START_MS + 60_000)
    ordinals = [json.loads(line)["ordinal"] for line in path.read_bytes().splitlines()]
    assert ordinals == list(range(len(ordinals)))


async def test_the_name_of_a_renamed_thread_is_taken_from_the_session_index(tmp_path: Path) -> None:
    write_rollout(tmp_path, THREAD, LEGACY)
    names = [
        {"id": THREAD, "thread_name": "old"},
        {"id": THREAD, "thread_name": "new"},
        {"id": 7},
    ]
    text = "\n".join([*map(json.dumps, names), "garbage", ""])
    (tmp_path / "session_index.jsonl").write_text(text)
    async with opened(tmp_path) as store:
        (record,) = (await store.threads_page(ThreadQuery())).records
    assert record.name == "new"


async def test_an_archived_file_is_listed_among_the_archived_only(tmp_path: Path) -> None:
    write_rollout(tmp_path, THREAD, LEGACY, archived=True)
    async with opened(tmp_path) as store:
        assert (await store.threads_page(ThreadQuery())).records == []
        (record,) = (await store.threads_page(ThreadQuery(archived=True))).records
        assert record.archived
        assert (await store.thread(THREAD)) == record
