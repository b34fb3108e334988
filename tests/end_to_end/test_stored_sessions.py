"""Sessions on the disk, whoever wrote them and however they are damaged, through the program."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from spoold.client import RpcFailed
from tests.end_to_end.test_bad_input import works
from tests.support.daemon_process import DaemonProcess, open_daemon
from tests.support.scripted_model import ScriptedModel, open_scripted_model

Line = dict[str, Any] | bytes
STARTED_S = 1_795_177_443
USAGE = {
    "input_tokens": 10, "cached_input_tokens": 0, "cache_write_input_tokens": 0, "output_tokens": 5,
    "reasoning_output_tokens": 0, "total_tokens": 15,
}  # fmt: skip


@pytest.fixture
async def model(nursery: trio.Nursery) -> AsyncIterator[ScriptedModel]:
    async with open_scripted_model(nursery) as model:
        yield model


def thread_id_of(number: int) -> str:
    return f"01a1f8e9-ee21-7cc3-87b6-{number:012x}"


def turn_id_of(number: int) -> str:
    return f"01a1f8e9-ef65-79c1-a783-{number:012x}"


def written(at: int, kind: str, payload: dict[str, Any], ordinal: int | None) -> dict[str, Any]:
    line: dict[str, Any] = {"timestamp": f"2026-11-20T12:24:{at % 60:02d}.177Z"}
    if ordinal is not None:
        line["ordinal"] = ordinal
    return line | {"type": kind, "payload": payload}


def meta(thread_id: str, mode: str) -> tuple[str, dict[str, Any]]:
    return "session_meta", {
        "account_scoped": True, "session_id": thread_id, "id": thread_id,
        "timestamp": "2026-11-20T12:24:02.852Z", "cwd": "/somewhere/else", "originator": "another",
        "cli_version": "0.169.0", "source": "vscode", "model_provider": "scripted",
        "base_instructions": {"text": "Answer.", "provenance": {"type": "model", "model": "m"}},
        "history_mode": mode, "runtime_workspace_roots": ["/somewhere/else"],
        "context_window": {"window_id": turn_id_of(999)},
    }  # fmt: skip


def event(kind: str, **members: Any) -> tuple[str, dict[str, Any]]:
    return "event_msg", {"type": kind, **members}


def message(role: str, text: str) -> tuple[str, dict[str, Any]]:
    kind = "output_text" if role == "assistant" else "input_text"
    return "response_item", {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def settings(turn_id: str) -> tuple[str, dict[str, Any]]:
    return "turn_context", {
        "turn_id": turn_id, "root_turn_id": turn_id, "cwd": "/somewhere/else", "approval_policy": "never",
        "permission_profile": {"type": "disabled"}, "model": "their-model", "summary": "none",
        "sandbox_policy": {"type": "danger-full-access"},
    }  # fmt: skip


def counted() -> tuple[str, dict[str, Any]]:
    info = {"total_token_usage": USAGE, "last_token_usage": USAGE, "model_context_window": 258_400}
    return event("token_count", info=info)


def over(turn_id: str, text: str) -> tuple[str, dict[str, Any]]:
    times = {"started_at": STARTED_S, "completed_at": STARTED_S + 1, "duration_ms": 54}
    return event("task_complete", turn_id=turn_id, last_agent_message=text, **times)


def paginated_turn(thread_id: str, number: int, said: str, answer: str) -> list[tuple[str, dict[str, Any]]]:
    turn_id = turn_id_of(number)

    def item(**body: Any) -> tuple[str, dict[str, Any]]:
        at = STARTED_S * 1000
        return event(
            "item_completed", thread_id=thread_id, turn_id=turn_id, item=body,
            started_at_ms=at, completed_at_ms=at,
        )  # fmt: skip

    return [
        event("task_started", turn_id=turn_id, root_turn_id=turn_id, started_at=STARTED_S),
        settings(turn_id),
        message("user", said),
        item(type="UserMessage", id=f"u-{number}", content=[{"type": "text", "text": said}]),
        item(type="Reasoning", id=f"rs-{number}", summary_text=["hm"], raw_content=[]),
        item(type="AgentMessage", id=f"m-{number}", content=[{"type": "Text", "text": answer}]),
        message("assistant", answer),
        counted(),
        over(turn_id, answer),
    ]


def legacy_turn(number: int, said: str, answer: str) -> list[tuple[str, dict[str, Any]]]:
    turn_id = turn_id_of(number)
    return [
        event("task_started", turn_id=turn_id, started_at=STARTED_S),
        settings(turn_id),
        message("user", said),
        event("user_message", message=said, images=[], local_images=[], text_elements=[]),
        event("agent_reasoning", text="hm"),
        event("agent_message", message=answer, phase=None),
        message("assistant", answer),
        counted(),
        over(turn_id, answer),
    ]


def lines_of(thread_id: str, mode: str) -> list[Line]:
    """A session of two turns."""
    if mode == "paginated":
        first = paginated_turn(thread_id, 1, "one", "first answer")
        entries = [meta(thread_id, mode), *first, *paginated_turn(thread_id, 2, "two", "second answer")]
    else:
        entries = [meta(thread_id, mode), *legacy_turn(1, "one", "first answer")]
        entries += legacy_turn(2, "two", "second answer")
    numbered = mode == "paginated"
    return [
        written(number, kind, payload, number if numbered else None)
        for number, (kind, payload) in enumerate(entries)
    ]


def put(folder: Path, thread_id: str, lines: list[Line], *, tail: bytes = b"") -> Path:
    """Write a session file as the other program names it."""
    path = folder / f"home/sessions/2026/11/20/rollout-2026-11-20T12-24-02-{thread_id}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"".join(line + b"\n" for line in encoded) + tail)
    return path


async def texts(daemon: DaemonProcess, thread_id: str) -> list[list[str]]:
    """Every turn as the texts of its messages."""
    read = await daemon.client.call("thread/read", {"threadId": thread_id, "includeTurns": True})
    return [
        [
            item["text"] if item["type"] == "agentMessage" else item["content"][0]["text"]
            for item in turn["items"]
            if item["type"] in {"agentMessage", "userMessage"}
        ]
        for turn in read["thread"]["turns"]
    ]


TWO_TURNS = [["one", "first answer"], ["two", "second answer"]]


@pytest.mark.parametrize("mode", ["paginated", "legacy"])
async def test_a_session_of_the_reference_is_listed_read_resumed_and_gone_on_with(
    tmp_path: Path, model: ScriptedModel, mode: str
) -> None:
    thread_id = thread_id_of(1)
    path = put(tmp_path, thread_id, lines_of(thread_id, mode))
    before = path.read_bytes()
    async with open_daemon(tmp_path, model=model) as daemon:
        client = daemon.client
        (row,) = (await client.call("thread/list", {}))["data"]
        assert (row["id"], row["preview"], row["path"], row["cwd"]) == (
            thread_id, "one", str(path), "/somewhere/else",
        )  # fmt: skip
        assert await texts(daemon, thread_id) == TWO_TURNS
        page = await client.call("thread/turns/list", {"threadId": thread_id, "limit": 1})
        assert [turn["status"] for turn in page["data"]] == ["completed"]
        resumed = await client.call("thread/resume", {"threadId": thread_id})
        assert (resumed["model"], resumed["cwd"]) == ("their-model", "/somewhere/else")
        assert path.read_bytes() == before, "looking at a session changes nothing in it"
        turn = await client.run_turn(thread_id, "say third answer", cwd=str(daemon.work))
        assert turn["status"] == "completed"
        asked = json.dumps(model.requests[-1].body["input"])
        assert re.search("one.*first answer.*two.*second answer.*say third", asked)
    assert path.read_bytes().startswith(before)
    async with open_daemon(tmp_path, model=model) as daemon:
        assert await texts(daemon, thread_id) == [*TWO_TURNS, ["say third answer", "third answer"]]


async def test_a_home_of_both_forms_lists_all_and_survives_the_loss_of_the_database(
    tmp_path: Path, model: ScriptedModel
) -> None:
    for number in range(10):
        mode = "legacy" if number % 2 else "paginated"
        put(tmp_path, thread_id_of(number), lines_of(thread_id_of(number), mode))
    rows = []
    for _ in range(2):
        async with open_daemon(tmp_path, model=model) as daemon:
            rows.append((await daemon.client.call("thread/list", {"limit": 100}))["data"])
        for leftover in (tmp_path / "home").glob("spoold.sqlite*"):
            leftover.unlink()
    assert rows[0] == rows[1]
    assert sorted(row["id"] for row in rows[0]) == [thread_id_of(number) for number in range(10)]


GARBAGE: list[tuple[str, bytes]] = [
    ("text", b"this is not JSON"),
    ("a truncated line", b'{"timestamp":"2026-11-20T12:24:03.177Z","type":"event_msg","payl'),
    ("binary", bytes(range(256)).replace(b"\n", b"")),
    ("zeros", b"\0" * 5000),
    ("an array", b"[1, 2, 3]"),
    ("deep nesting", b"[" * 10_000),
    ("an unknown type", b'{"timestamp":"2026-11-20T12:24:03.177Z","type":"novelty","payload":{}}'),
    ("a wrong payload", b'{"timestamp":"2026-11-20T12:24:03.177Z","type":"event_msg","payload":5}'),
    ("a wrong event", b'{"timestamp":5,"type":"event_msg","payload":{"type":"item_completed","item":[]}}'),
    ("a long line", b"x" * (4 << 20)),
    ("a blank line", b""),
]


@pytest.mark.parametrize("mode", ["paginated", "legacy"])
async def test_lines_that_nobody_can_read_are_skipped_and_the_rest_is_there(
    tmp_path: Path, model: ScriptedModel, mode: str
) -> None:
    for number, (_, garbage) in enumerate(GARBAGE):
        lines = lines_of(thread_id_of(number), mode)
        # One behind every line: the middle of a turn, and between two of them.
        mixed = [lines[0], *(each for line in lines[1:] for each in (line, garbage))]
        put(tmp_path, thread_id_of(number), mixed)
    async with open_daemon(tmp_path, model=model) as daemon:
        client = daemon.client
        listed = (await client.call("thread/list", {"limit": 100}))["data"]
        assert len(listed) == len(GARBAGE)
        for number, (name, _) in enumerate(GARBAGE):
            thread_id = thread_id_of(number)
            assert await texts(daemon, thread_id) == TWO_TURNS, name
            await client.call("thread/resume", {"threadId": thread_id})
            turn = await client.run_turn(thread_id, "say third", cwd=str(daemon.work))
            assert turn["status"] == "completed", name
            assert len(await texts(daemon, thread_id)) == 3, name


@pytest.mark.parametrize(
    "tail",
    [
        b'{"timestamp":"2026-11-20T12:24:59.177Z","ordinal":19,"type":"event_msg","payload":{"type":"task_st',
        b"{",
        "é".encode()[:1],
        b"\0" * 4096,
    ],
    ids=["half a line", "one byte", "half a character", "zeros of a lost block"],
)
async def test_a_last_line_that_was_half_written_is_left_out_and_the_next_one_is_whole(
    tmp_path: Path, model: ScriptedModel, tail: bytes
) -> None:
    thread_id = thread_id_of(1)
    path = put(tmp_path, thread_id, lines_of(thread_id, "paginated"), tail=tail)
    async with open_daemon(tmp_path, model=model) as daemon:
        assert await texts(daemon, thread_id) == TWO_TURNS
        await daemon.client.call("thread/resume", {"threadId": thread_id})
        await daemon.client.run_turn(thread_id, "say third", cwd=str(daemon.work))
    for leftover in (tmp_path / "home").glob("spoold.sqlite*"):
        leftover.unlink()
    async with open_daemon(tmp_path, model=model) as daemon:
        assert await texts(daemon, thread_id) == [*TWO_TURNS, ["say third", "third"]]
    readable = 0
    for line in path.read_bytes().split(b"\n"):
        try:
            readable += isinstance(json.loads(line), dict)
        except ValueError:
            continue
    assert readable > len(lines_of(thread_id, "paginated")) + 5, "the new turn's lines stand by themselves"


async def test_what_is_no_session_at_all_disturbs_nobody(tmp_path: Path, model: ScriptedModel) -> None:
    good, bad = thread_id_of(1), [thread_id_of(number) for number in range(2, 7)]
    put(tmp_path, good, lines_of(good, "paginated"))
    put(tmp_path, bad[0], [])
    put(tmp_path, bad[1], [b"\xff\xfe\x00garbage"] * 5)
    put(tmp_path, bad[2], lines_of(bad[2], "paginated")[1:])
    put(tmp_path, bad[3], [b"[" * 100_000])
    day = tmp_path / "home/sessions/2026/11/20"
    (day / f"rollout-2026-11-20T12-24-02-{bad[4]}.jsonl").mkdir()
    (day / "rollout-nonsense.jsonl").write_text("x")
    (day / "notes.txt").write_text("x")
    (day / "dangling.jsonl").symlink_to("/nowhere")
    os.mkfifo(day / f"rollout-2026-11-20T12-24-02-{thread_id_of(8)}.jsonl")
    async with open_daemon(tmp_path, model=model) as daemon:
        client = daemon.client
        listed = (await client.call("thread/list", {"limit": 100}))["data"]
        assert good in [row["id"] for row in listed]
        assert await texts(daemon, good) == TWO_TURNS
        for thread_id in bad[:2] + bad[3:]:
            with pytest.raises(RpcFailed) as caught:
                await client.call("thread/resume", {"threadId": thread_id})
            assert caught.value.code == -32600, "a clear refusal, no internal error"
        await works(daemon, client)


async def test_a_session_that_vanishes_is_refused_and_not_listed(
    tmp_path: Path, model: ScriptedModel
) -> None:
    thread_id = thread_id_of(1)
    path = put(tmp_path, thread_id, lines_of(thread_id, "paginated"))
    async with open_daemon(tmp_path, model=model) as daemon:
        client = daemon.client
        assert len((await client.call("thread/list", {}))["data"]) == 1
        path.unlink()
        assert (await client.call("thread/list", {}))["data"] == []
        with pytest.raises(RpcFailed, match="no rollout found"):
            await client.call("thread/resume", {"threadId": thread_id})
        await works(daemon, client)


async def test_a_database_of_garbage_is_set_aside_and_made_again_from_the_sessions(
    tmp_path: Path, model: ScriptedModel
) -> None:
    thread_id = thread_id_of(1)
    put(tmp_path, thread_id, lines_of(thread_id, "paginated"))
    (tmp_path / "home/spoold.sqlite").write_bytes(b"this is no database" * 1000)
    async with open_daemon(tmp_path, model=model, may_log_errors=True) as daemon:
        client = daemon.client
        listed = (await client.call("thread/list", {}))["data"]
        assert [row["id"] for row in listed] == [thread_id]
        assert "set aside as spoold.sqlite.corrupt-" in daemon.stderr
        thread = (await client.call("thread/start", {"ephemeral": True}))["thread"]
        assert (await client.run_turn(thread["id"], "say fine"))["status"] == "completed"


async def test_a_thread_that_another_program_has_loaded_is_refused_until_it_lets_go(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        client = daemon.client
        thread_id = (await client.call("thread/start"))["thread"]["id"]
        await client.run_turn(thread_id, "say hello")
        path = daemon.home / "thread-writer-locks" / f"{thread_id}.lock"
        assert path.exists(), "claimed while it is loaded"
    assert not path.exists()
    with path.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        async with open_daemon(tmp_path) as daemon:
            with pytest.raises(RpcFailed, match="already has an active writer"):
                await daemon.client.call("thread/resume", {"threadId": thread_id})
            with pytest.raises(RpcFailed, match="already has an active writer"):
                await daemon.client.call("thread/name/set", {"threadId": thread_id, "name": "n"})
            read = await daemon.client.call("thread/read", {"threadId": thread_id, "includeTurns": True})
            assert len(read["thread"]["turns"]) == 1
            fcntl.flock(other, fcntl.LOCK_UN)
            await daemon.client.call("thread/resume", {"threadId": thread_id})
            assert (await daemon.client.run_turn(thread_id, "say more"))["status"] == "completed"
