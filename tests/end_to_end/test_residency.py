"""Threads that were started and left cost nothing in the end; what a thread lets go of, nobody misses."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import trio

from tests.support.daemon_process import DaemonProcess, open_daemon

Json = dict[str, Any]

AT_A_TIME = 8
THREADS = 200
WARM = 5 * AT_A_TIME
DELAY = 1.5
"""Seconds after which a left thread is unloaded."""
GROWTH = 1.2
REPORT = "SPOOLD_TEST_REPORT"
"""Environment variable: a file that gets the measured numbers."""


def memory(pid: int) -> dict[str, int]:
    """Resident and proportional memory of a process, in KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines[1:])
    return {name: int(fields[name].split()[0]) for name in ("Rss", "Pss")}


def children(pid: int) -> list[int]:
    return [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


def write_report(report: Json) -> None:
    if (path := os.environ.get(REPORT)) is not None:
        Path(path).write_text(json.dumps(report))


async def start_and_leave(daemon: DaemonProcess, count: int) -> None:
    """Threads with one short turn each and a command in it, then nobody is attached."""
    limit = trio.CapacityLimiter(AT_A_TIME)

    async def one(number: int) -> None:
        async with limit, daemon.connect(f"client {number}") as client:
            thread_id = (await client.call("thread/start", {}))["thread"]["id"]
            turn = await client.run_turn(thread_id, f"shell echo {number} | say hello {'there ' * 50}")
            assert turn["status"] == "completed"

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(one, number)


async def all_unloaded(daemon: DaemonProcess, closed: int) -> None:
    """Wait until the client has been told of that many threads, in all, that they are closed."""
    for _ in range(closed):
        await daemon.client.wait_for("thread/closed")
    assert (await daemon.client.call("thread/loaded/list", {}))["data"] == []


async def test_two_hundred_threads_that_were_left_leave_no_process_and_no_memory_behind(
    tmp_path: Path,
) -> None:
    delay = ("-c", f"thread_unload_delay_secs={DELAY}")
    async with open_daemon(tmp_path, arguments=delay, check_messages=False) as daemon:
        pid = daemon.process.pid
        fresh = memory(pid)
        # What is loaded on first use (libraries, the database's cache) stays: it counts to the start.
        await start_and_leave(daemon, WARM)
        await all_unloaded(daemon, WARM)
        start = memory(pid)
        await start_and_leave(daemon, THREADS)
        full = memory(pid)
        await all_unloaded(daemon, THREADS)
        end = memory(pid)
        assert children(pid) == []
        report = {"fresh": fresh, "start": start, "full": full, "end": end}
        write_report(report)
        assert end["Rss"] < GROWTH * start["Rss"], report
        assert end["Pss"] < GROWTH * start["Pss"], report


async def test_a_watched_thread_whose_runtime_was_let_go_goes_on_as_if_nothing_had_been(
    tmp_path: Path,
) -> None:
    """The same words to three threads: one keeps its runtime, one lets it go, one is unloaded."""
    bounds = ("-c", "spoold.max_resident_runtimes=1", "-c", "thread_unload_delay_secs=0")
    async with open_daemon(tmp_path, arguments=bounds) as daemon:
        client = daemon.client
        asked: dict[str, list[Json]] = {}
        shown: dict[str, Json] = {}
        for way in ("stays", "lets go", "unloaded"):
            started = await client.call("thread/start", {"developerInstructions": "Be kind."})
            thread_id = started["thread"]["id"]
            await client.run_turn(thread_id, "shell echo one | say hello")
            if way == "lets go":
                # There may be one runtime: another thread's turn takes its place.
                other = (await client.call("thread/start", {}))["thread"]["id"]
                await client.run_turn(other, "say hello")
            if way == "unloaded":
                await client.call("thread/unsubscribe", {"threadId": thread_id})
                await client.wait_for("thread/closed", lambda note, at=thread_id: note["threadId"] == at)
                await client.call("thread/resume", {"threadId": thread_id})
            before = len(daemon.model.requests)
            await client.run_turn(thread_id, "say again")
            asked[way] = [_comparable(call.body) for call in daemon.model.requests[before:]]
            read = await client.call("thread/read", {"threadId": thread_id, "includeTurns": True})
            shown[way] = [[item["type"] for item in turn["items"]] for turn in read["thread"]["turns"]]
        assert asked["lets go"] == asked["stays"] == asked["unloaded"]
        assert shown["lets go"] == shown["stays"] == shown["unloaded"]


def _comparable(body: Json) -> Json:
    """Without the names of things: ids, and the chance and time in what a command's output begins with."""
    items = []
    for item in body["input"]:
        item = {key: value for key, value in item.items() if key not in ("id", "call_id")}
        if "output" in item:
            item["output"] = item["output"].partition("Output:\n")[2]
        items.append(item)
    return {"input": items, "instructions": body.get("instructions"), "tools": body.get("tools")}
