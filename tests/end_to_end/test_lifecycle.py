"""Threads are named, forked, taken back, put away and brought back through the real program."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from spoold.client import Client, ConnectionLost, RpcFailed
from tests.support.daemon_process import DaemonProcess, open_daemon
from tests.support.every_message import user_text

STATUS = "thread/status/changed"


async def start(client: Client, text: str = "say something") -> str:
    thread_id: str = (await client.call("thread/start", {}))["thread"]["id"]
    assert (await client.run_turn(thread_id, text))["status"] == "completed"
    return thread_id


async def ids(client: Client, *, archived: bool = False) -> set[str]:
    rows = (await client.call("thread/list", {"archived": archived, "limit": 100}))["data"]
    return {row["id"] for row in rows}


def files(daemon: DaemonProcess) -> dict[str, str]:
    """Thread id -> the folder that has its rollout."""
    found: dict[str, str] = {}
    for name in ("sessions", "archived_sessions"):
        for path in (daemon.home / name).rglob("rollout-*.jsonl"):
            thread_id = path.stem[-36:]
            assert thread_id not in found, f"{thread_id} is in both folders"
            found[thread_id] = name
    return found


def told(client: Client, thread_id: str) -> list[str]:
    return [
        note["params"]["status"]["type"]
        for note in client.seen
        if note["method"] == STATUS and note["params"]["threadId"] == thread_id
    ]


async def test_a_life_of_a_thread_with_two_clients(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon, daemon.connect("other") as other:
        client = daemon.client
        source = await start(client, "say the first answer")
        thread = {"threadId": source}
        await client.call("thread/name/set", {**thread, "name": " a name "})
        named = await other.wait_for("thread/name/updated")
        assert named["params"]["threadName"] == "a name"
        updated = await client.call("thread/metadata/update", {**thread, "gitInfo": {"branch": "b"}})
        assert updated["thread"]["gitInfo"]["branch"] == "b"
        await client.call("thread/settings/update", {**thread, "model": "another-model"})
        await client.wait_for("thread/settings/updated")
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "put in"}]}
        await client.call("thread/inject_items", {**thread, "items": [item]})
        await client.run_turn(source, "say the second answer")
        request = daemon.model.requests[-1].body
        assert request["model"] == "another-model"
        assert "put in" in str(request["input"])

        fork = (await other.call("thread/fork", thread))["thread"]
        assert (fork["forkedFromId"], len(fork["turns"])) == (source, 2)
        await client.wait_for("thread/started", lambda params: params["thread"]["id"] == fork["id"])
        second = fork["turns"][1]["id"]
        await other.call("thread/revert", {"threadId": fork["id"], "beforeTurnId": second})
        await client.wait_for("thread/reverted")
        left = await client.call("thread/read", {"threadId": fork["id"], "includeTurns": True})
        assert len(left["thread"]["turns"]) == 1

        hits = (await client.call("thread/search", {"searchTerm": "second answer"}))["data"]
        assert [hit["thread"]["id"] for hit in hits] == [source]
        known = (await client.call("thread/read", thread))["readState"]
        marked = {**thread, "operation": {"type": "read"}, "expectedRevision": known["revision"]}
        await other.call("thread/readState/update", marked)
        with pytest.raises(RpcFailed, match="read state changed"):
            await client.call("thread/readState/update", marked)

        await other.call("thread/archive", thread)
        await client.wait_for("thread/archived")
        assert files(daemon)[source] == "archived_sessions"
        assert (source in await ids(client), source in await ids(client, archived=True)) == (False, True)
        with pytest.raises(RpcFailed, match=f"session {source} is archived"):
            await client.call("thread/resume", thread)
        back = (await other.call("thread/unarchive", thread))["thread"]
        assert (back["name"], back["status"]) == ("a name", {"type": "notLoaded"})
        await client.call("thread/resume", thread)
        await client.call("thread/delete", thread)
        await other.wait_for("thread/deleted")
        assert source not in files(daemon)
        with pytest.raises(RpcFailed, match=f"thread not loaded: {source}"):
            await client.call("thread/read", thread)
        for statuses in (told(client, source), told(other, source)):
            assert statuses == ["active", "idle", "active", "idle", "notLoaded", "idle", "notLoaded"]


async def test_rollback_for_clients_that_know_nothing_newer(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, check_messages=False) as daemon:
        client = daemon.client
        thread_id = await start(client, "say kept")
        await client.run_turn(thread_id, "say forgotten")
        rolled = await client.call("thread/rollback", {"threadId": thread_id, "numTurns": 1})
        assert [turn["items"][-1]["text"] for turn in rolled["thread"]["turns"]] == ["kept"]
        await client.wait_for("thread/reverted")
        await client.run_turn(thread_id, "say on")
        assert "forgotten" not in str(daemon.model.requests[-1].body["input"])
    async with open_daemon(tmp_path) as daemon:
        read = await daemon.client.call("thread/read", {"threadId": thread_id, "includeTurns": True})
        assert [turn["items"][-1]["text"] for turn in read["thread"]["turns"]] == ["kept", "on"]


ACTS = ("thread/archive", "thread/delete", "thread/name/set")
RESULT = {"thread/archive": "archived_sessions", "thread/delete": None, "thread/name/set": "sessions"}


async def test_kill_9_around_archive_and_delete_leaves_each_thread_in_one_place(tmp_path: Path) -> None:
    """What was answered has happened; what was not has happened or not, and nothing is in between."""
    answered: dict[str, str] = {}
    done: dict[str, str] = {}

    async def act(client: Client, thread_id: str, method: str) -> None:
        done[thread_id] = method
        params: dict[str, Any] = {"threadId": thread_id}
        if method == "thread/name/set":
            params["name"] = "named"
        try:
            await client.call(method, params)
        except ConnectionLost:
            return
        answered[thread_id] = method

    for kill_after in (0, 2, 5):
        async with open_daemon(tmp_path) as daemon, trio.open_nursery() as nursery:
            client = daemon.client
            threads = [await start(client) for _ in range(6)]
            before = len(answered)
            for index, thread_id in enumerate(threads):
                nursery.start_soon(act, client, thread_id, ACTS[index % 3])
            while len(answered) - before < kill_after:
                await trio.lowlevel.checkpoint()
            await daemon.end(signal.SIGKILL)

    async with open_daemon(tmp_path) as daemon:
        client = daemon.client
        active, archived = await ids(client), await ids(client, archived=True)
        where = files(daemon)
        assert {each for each, folder in where.items() if folder == "sessions"} == active
        assert {each for each, folder in where.items() if folder == "archived_sessions"} == archived
        for thread_id, method in done.items():
            place = where.get(thread_id)
            assert place in ("sessions", RESULT[method]), f"{method} left {thread_id} in {place}"
            if thread_id in answered:
                assert place == RESULT[method], f"{method} of {thread_id} was answered"
            if place is None:
                with pytest.raises(RpcFailed, match="thread not loaded"):
                    await client.call("thread/read", {"threadId": thread_id})
                continue
            read = await client.call("thread/read", {"threadId": thread_id, "includeTurns": True})
            assert [turn["status"] for turn in read["thread"]["turns"]] == ["completed"]
            if thread_id in answered and method == "thread/name/set":
                assert read["thread"]["name"] == "named"
            if place == "archived_sessions":
                await client.call("thread/unarchive", {"threadId": thread_id})
            await client.call("thread/resume", {"threadId": thread_id})
            await client.call("thread/delete", {"threadId": thread_id})
        assert files(daemon) == {}


async def test_sigterm_while_unloaded_threads_are_renamed_ends_well(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        threads = [await start(daemon.client) for _ in range(8)]
    outcomes: dict[str, str] = {}

    async def rename(client: Client, thread_id: str) -> None:
        try:
            await client.call("thread/name/set", {"threadId": thread_id, "name": "renamed"})
            outcomes[thread_id] = "done"
        except RpcFailed as error:
            outcomes[thread_id] = error.message
        except ConnectionLost:
            outcomes[thread_id] = "lost"

    async with open_daemon(tmp_path) as daemon, trio.open_nursery() as nursery:
        for thread_id in threads:
            nursery.start_soon(rename, daemon.client, thread_id)
        await trio.testing.wait_all_tasks_blocked()
        assert await daemon.end(signal.SIGTERM) == 0
    assert set(outcomes) == set(threads)
    assert set(outcomes.values()) <= {"done", "lost", "Server is draining; retry after reconnecting"}

    async with open_daemon(tmp_path) as daemon:
        for thread_id, outcome in outcomes.items():
            name = (await daemon.client.call("thread/read", {"threadId": thread_id}))["thread"]["name"]
            assert name != "renamed" or outcome in ("done", "lost")
            assert name is not None or outcome != "done"


async def test_archiving_in_the_middle_of_a_turn_keeps_what_was_said(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        client = daemon.client
        thread_id = await start(client)
        await client.call("turn/start", {"threadId": thread_id, "input": user_text("hold h half an answer")})
        await client.wait_for("item/agentMessage/delta")
        await client.call("thread/archive", {"threadId": thread_id})
        assert (await client.wait_for("turn/completed"))["params"]["turn"]["status"] == "interrupted"
        daemon.model.release("h")
        await client.call("thread/unarchive", {"threadId": thread_id})
        resumed = await client.call("thread/resume", {"threadId": thread_id})
        assert [turn["status"] for turn in resumed["thread"]["turns"]] == ["completed", "interrupted"]
        await client.run_turn(thread_id, "say on")
        assert "half an answer" in str(daemon.model.requests[-1].body["input"])
