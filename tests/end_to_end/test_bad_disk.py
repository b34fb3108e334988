"""A disk that is full, broken or read-only under a running daemon: nothing is lost, everybody is told.

The disk is ``tests.support.faulty_disk``; that a really full file system is the same, the last test shows.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from spoold.client import Client, RpcFailed
from tests.support.daemon_process import SPOOLD, open_daemon
from tests.support.every_message import user_text
from tests.support.faulty_disk import FaultyDisk, Mode
from tests.support.in_memory import replay_hint

DATABASE = ("*spoold.sqlite*",)
ROLLOUTS = ("*.jsonl",)

REFUSALS: tuple[tuple[Mode, Sequence[str]], ...] = (
    ("full", ()),
    ("full", DATABASE),
    ("full", ROLLOUTS),
    ("io", ()),
    ("sync", ()),
    ("sync", DATABASE),
    ("sync", ROLLOUTS),
    ("readonly", ()),
)
AT_ONCE = 4


async def warned(client: Client, *words: str) -> str:
    """Wait for a warning to everybody that has these words."""
    note = await client.wait_for(
        "warning", lambda note: note["threadId"] is None and all(word in note["message"] for word in words)
    )
    return str(note["params"]["message"])


async def was_warned(client: Client, words: str) -> None:
    """The same, for a client that waits for other things too and may have passed it over."""
    await client.call("thread/loaded/list", {})
    notes = [note["params"] for note in client.seen if note["method"] == "warning"]
    assert any(note["threadId"] is None and words in note["message"] for note in notes)


async def add(client: Client, thread_id: str, text: str, **more: Any) -> Any:
    turn = {"threadId": thread_id, "input": user_text(text), "clientUserMessageId": text.split()[-1]}
    return await client.call("thread/queue/add", {"threadId": thread_id, "turnStartParams": turn, **more})


async def hold(client: Client, thread_id: str) -> None:
    """A turn whose message is recorded and whose model waits to be released."""
    await client.call("turn/start", {"threadId": thread_id, "input": user_text("hold direct")})
    await client.wait_for("item/completed", lambda note: note["item"]["type"] == "userMessage")


async def waiting(client: Client, thread_id: str) -> list[str]:
    """What is queued."""
    rows = (await client.call("thread/queue/list", {"threadId": thread_id, "limit": 100}))["data"]
    return [row["clientUserMessageId"] for row in rows]


async def said(client: Client, thread_id: str) -> list[str]:
    """The last words of the user's messages in the transcript."""
    read = await client.call("thread/read", {"threadId": thread_id, "includeTurns": True})
    items = [item for turn in read["thread"]["turns"] for item in turn["items"]]
    return [item["content"][0]["text"].split()[-1] for item in items if item["type"] == "userMessage"]


async def drained(client: Client, thread_id: str, *names: str) -> None:
    """Wait until these have run."""
    while not set(names) <= set(await said(client, thread_id)) or await waiting(client, thread_id):
        await client.wait_for("turn/completed", lambda note: note["threadId"] == thread_id)


async def refuse_for_a_while(folder: Path, library: Path, mode: Mode, only: Sequence[str]) -> None:
    disk = FaultyDisk(library, folder / "home", journal=False)
    async with (
        open_daemon(folder, variables=disk.variables) as daemon,
        daemon.connect("other") as other,
    ):
        client = daemon.client
        thread_id = (await client.call("thread/start", {}))["thread"]["id"]
        await client.run_turn(thread_id, "say first")
        await hold(client, thread_id)
        await add(client, thread_id, "say one")

        disk.fail(mode, only=only)
        if only != ROLLOUTS:
            with pytest.raises(RpcFailed, match="could not") as refused:
                await add(client, thread_id, "say lost")
            assert refused.value.code == -32603
        daemon.model.release("direct")
        ended = (await client.wait_for("turn/completed"))["params"]["turn"]
        assert (ended["status"], "could not be recorded" in ended["error"]["message"]) == ("failed", True)
        await warned(other, "The disk does not take")
        await was_warned(client, "The disk does not take")
        async with daemon.connect("late") as late:
            await warned(late, "The disk does not take")
            assert await said(late, thread_id) == ["first", "direct"]
            listed = (await late.call("thread/list", {}))["data"]
            assert [thread["id"] for thread in listed] == [thread_id]
            assert await waiting(late, thread_id) == ["one"]
            await late.call("thread/resume", {"threadId": thread_id})

        disk.heal()
        await warned(other, "takes again")
        await was_warned(client, "takes again")
        await drained(client, thread_id, "one")
        await add(client, thread_id, "say two")
        await drained(client, thread_id, "two")
        assert await said(client, thread_id) == ["first", "direct", "one", "two"]
        assert not (daemon.home / "disk-probe").exists()


async def test_while_the_disk_refuses_requests_fail_clearly_reading_goes_on_and_all_is_well_afterwards(
    tmp_path: Path, faulty_disk_library: Path
) -> None:
    limit = trio.CapacityLimiter(AT_ONCE)

    async def one(number: int, mode: Mode, only: Sequence[str]) -> None:
        async with limit:
            with replay_hint(mode=mode, only=only):
                await refuse_for_a_while(tmp_path / str(number), faulty_disk_library, mode, only)

    async with trio.open_nursery() as nursery:
        for number, (mode, only) in enumerate(REFUSALS):
            nursery.start_soon(one, number, mode, only)


async def test_a_rollout_that_cannot_be_read_fails_its_readers_only(
    tmp_path: Path, faulty_disk: FaultyDisk
) -> None:
    async with open_daemon(tmp_path, variables=faulty_disk.variables) as daemon:
        client = daemon.client
        threads = [(await client.call("thread/start", {}))["thread"]["id"] for _ in range(2)]
        for thread_id in threads:
            await client.run_turn(thread_id, "say hello")
        faulty_disk.fail("read", only=[f"*{threads[0]}.jsonl"])
        with pytest.raises(RpcFailed, match="Input/output error"):
            await said(client, threads[0])
        assert await said(client, threads[1]) == ["hello"]
        assert len((await client.call("thread/list", {}))["data"]) == 2
        faulty_disk.heal()
        assert await said(client, threads[0]) == ["hello"]


async def test_a_daemon_that_starts_on_a_full_disk_serves_when_there_is_room(
    tmp_path: Path, faulty_disk: FaultyDisk
) -> None:
    async with open_daemon(tmp_path) as daemon:
        thread_id = (await daemon.client.call("thread/start", {}))["thread"]["id"]
        await daemon.client.run_turn(thread_id, "say before")
    faulty_disk.fail("full")
    async with open_daemon(tmp_path, variables=faulty_disk.variables, may_log_errors=True) as daemon:
        client = daemon.client
        await warned(client, "The disk does not take")
        with pytest.raises(RpcFailed, match="could not open"):
            await client.call("thread/list", {})
        faulty_disk.heal()
        await warned(client, "takes again")
        assert len((await client.call("thread/list", {}))["data"]) == 1
        await client.call("thread/resume", {"threadId": thread_id})
        await add(client, thread_id, "say after")
        await drained(client, thread_id, "after")


async def test_a_database_that_somebody_locks_fails_what_needs_it_until_it_is_free(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        client = daemon.client
        thread_id = (await client.call("thread/start", {}))["thread"]["id"]
        await client.run_turn(thread_id, "say first")
        somebody = sqlite3.connect(daemon.home / "spoold.sqlite", isolation_level=None)
        somebody.execute("BEGIN IMMEDIATE")
        with pytest.raises(RpcFailed, match="database is locked"):
            await add(client, thread_id, "say lost")
        await warned(client, "database is locked")
        assert await said(client, thread_id) == ["first"]
        somebody.execute("ROLLBACK")
        somebody.close()
        await warned(client, "takes again")
        await add(client, thread_id, "say one")
        await drained(client, thread_id, "one")


# -- a damaged database --------------------------------------------------------------------------------------


async def leave_a_queue(folder: Path) -> str:
    """A thread with a turn, and with rows that wait for it to be loaded again; the daemon is killed."""
    async with open_daemon(folder) as daemon:
        client = daemon.client
        thread_id = str((await client.call("thread/start", {}))["thread"]["id"])
        await client.run_turn(thread_id, "say first")
        await hold(client, thread_id)
        for number in range(30):
            await add(client, thread_id, f"say m{number}")
        await daemon.end(signal.SIGKILL)
    return thread_id


def damage_table(database: Path, table: str) -> None:
    """Overwrite the first page of a table, in the file alone."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        found = "SELECT rootpage FROM sqlite_master WHERE name=?"
        (page,) = connection.execute(found, (table,)).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with database.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(os.urandom(size))
    # As after a crash: then a start looks at every page.
    database.with_name("spoold.sqlite-damaged").touch()


async def test_a_damaged_index_is_set_aside_and_the_queue_is_taken_over_whole(tmp_path: Path) -> None:
    thread_id = await leave_a_queue(tmp_path)
    damage_table(tmp_path / "home/spoold.sqlite", "turns")
    async with open_daemon(tmp_path, may_log_errors=True) as daemon:
        client = daemon.client
        text = await warned(client, "was damaged")
        (aside,) = daemon.home.glob("spoold.sqlite.corrupt-*")
        assert aside.name in text
        assert "30 queued turns could be read from it, and there were no others" in text
        assert await waiting(client, thread_id) == [f"m{number}" for number in range(30)]
        assert await said(client, thread_id) == ["first", "direct"]
        await client.call("thread/resume", {"threadId": thread_id})
        await drained(client, thread_id, "m29")
        assert await said(client, thread_id) == ["first", "direct", *(f"m{number}" for number in range(30))]


async def test_a_damaged_queue_is_set_aside_and_everybody_is_told(tmp_path: Path) -> None:
    thread_id = await leave_a_queue(tmp_path)
    damage_table(tmp_path / "home/spoold.sqlite", "thread_queued_turns")
    async with open_daemon(tmp_path, may_log_errors=True) as daemon:
        client = daemon.client
        text = await warned(client, "was damaged")
        assert "others may be lost" in text
        async with daemon.connect("late") as late:
            assert await warned(late, "was damaged") == text
        assert await said(client, thread_id) == ["first", "direct"]
        await client.call("thread/resume", {"threadId": thread_id})
        await add(client, thread_id, "say after")
        await drained(client, thread_id, "after")
    # It is told by the daemon that has found it, not for ever.
    async with open_daemon(tmp_path) as daemon:
        assert len((await daemon.client.call("thread/list", {}))["data"]) == 1
        assert not [note for note in daemon.client.seen if note["method"] == "warning"]


# -- a real one ----------------------------------------------------------------------------------------------

SIZE = 3 * 1024 * 1024

# The settings lie below what is mounted: they are copied into it.
IN_A_SMALL_FILE_SYSTEM = (
    "unshare",
    "--user",
    "--map-root-user",
    "--mount",
    "sh",
    "-c",
    'cp "$0/config.toml" "$0.toml" && '
    f'mount -t tmpfs -o size={SIZE} small "$0" && cp "$0.toml" "$0/config.toml" && exec "$@"',
)


def small_file_systems_work(folder: Path) -> bool:
    """Whether this machine lets its user mount one."""
    (folder / "try").mkdir()
    (folder / "try/config.toml").touch()
    done = subprocess.run([*IN_A_SMALL_FILE_SYSTEM, folder / "try", "true"], capture_output=True)
    return done.returncode == 0


def fill(path: Path) -> None:
    """Write to a file until there is no room."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


async def add_until_it_is_refused(client: Client, thread_id: str, added: list[str]) -> None:
    for number in range(1000):
        name = f"{number}-{'x' * 20_000}"
        await add(client, thread_id, f"say {name}")
        added.append(name)


async def test_a_file_system_that_is_really_full_is_met_and_left_in_the_same_way(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or not small_file_systems_work(tmp_path):
        pytest.skip("no file system can be mounted here")
    home = tmp_path / "home"
    program = (*IN_A_SMALL_FILE_SYSTEM, str(home), *SPOOLD)
    async with open_daemon(tmp_path, program=program) as daemon:
        client = daemon.client
        thread_id = (await client.call("thread/start", {}))["thread"]["id"]
        await client.run_turn(thread_id, "say first")
        await hold(client, thread_id)
        inside = Path(f"/proc/{daemon.process.pid}/root{home}")
        filler = inside / "filler"
        fill(filler)
        # The database has some room left in its files.
        added: list[str] = []
        with pytest.raises(RpcFailed, match="could not"):
            await add_until_it_is_refused(client, thread_id, added)
        await warned(client, "The disk does not take")
        assert await said(client, thread_id) == ["first", "direct"]
        filler.unlink()
        await warned(client, "takes again")
        daemon.model.release("direct")
        await drained(client, thread_id, *added)
        assert await said(client, thread_id) == ["first", "direct", *added]
