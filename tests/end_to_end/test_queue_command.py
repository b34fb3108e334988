"""``spoold queue``: the program as a process, against a daemon that runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import trio

from tests.support.daemon_process import DaemonProcess, clean_environment, open_daemon

LIMIT = 60
"""Seconds after which a program that hangs fails its test."""
UNKNOWN = "01a1fb8c-6aaf-74f0-ae25-6bbe22dff957"


async def queue(
    folder: Path, *arguments: str, given: bytes = b"", command: tuple[str, ...] = ("queue",)
) -> subprocess.CompletedProcess[bytes]:
    """Run ``spoold queue`` on the home below ``folder``; ``given`` is its standard input."""
    with trio.fail_after(LIMIT):
        return await trio.run_process(
            [sys.executable, "-m", "spoold", *command, *arguments],
            env=clean_environment(folder),
            stdin=given,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )


async def lines(folder: Path, *arguments: str, given: bytes = b"") -> list[str]:
    """The lines of a command that must go well."""
    result = await queue(folder, *arguments, given=given)
    assert (result.returncode, result.stderr) == (0, b"")
    return result.stdout.decode().splitlines()


async def result_of(folder: Path, *arguments: str) -> Any:
    """The result that ``--json`` prints."""
    [line] = await lines(folder, *arguments, "--json")
    return json.loads(line)


def refused(result: subprocess.CompletedProcess[bytes], code: int, *parts: str) -> None:
    said = result.stderr.decode()
    assert (result.returncode, result.stdout) == (code, b""), said
    assert said.startswith("Error: ")
    assert said.count("\n") == 1
    for part in parts:
        assert part in said


async def busy_thread(daemon: DaemonProcess, text: str = "hold gate working") -> tuple[str, str]:
    """A thread in the middle of a turn that ends with ``model.release("gate")``: their ids."""
    started = await daemon.client.call("thread/start", {})
    thread: str = started["thread"]["id"]
    parts = [{"type": "text", "text": text, "text_elements": []}]
    turn = await daemon.client.call("turn/start", {"threadId": thread, "input": parts})
    await daemon.model.held("gate")
    return thread, turn["turn"]["id"]


async def ended_turns(daemon: DaemonProcess, count: int) -> list[str]:
    """How the next turns end."""
    notes = [await daemon.client.wait_for("turn/completed") for _ in range(count)]
    return [note["params"]["turn"]["status"] for note in notes]


async def user_texts(daemon: DaemonProcess, thread: str) -> list[str]:
    read = await daemon.client.call("thread/read", {"threadId": thread, "includeTurns": True})
    return [
        part["text"]
        for turn in read["thread"]["turns"]
        for item in turn["items"]
        if item["type"] == "userMessage"
        for part in item["content"]
    ]


async def test_rows_are_added_listed_reordered_and_deleted_while_a_turn_runs_and_then_run(
    tmp_path: Path,
) -> None:
    async with open_daemon(tmp_path) as daemon:
        thread, _ = await busy_thread(daemon)
        ids = []
        for text in ("say one", "say two\nand more", "say three"):
            [line] = await lines(tmp_path, "add", thread, text)
            ids.append(line.split()[0])
        first, second, third = ids
        assert await lines(tmp_path, "list", thread) == [
            f"{first}  pending  say one",
            f"{second}  pending  say two [...]",
            f"{third}  pending  say three",
        ]
        assert await lines(tmp_path, "reorder", thread, third, first, second) == [
            f"{third}  pending  say three",
            f"{first}  pending  say one",
            f"{second}  pending  say two [...]",
        ]
        assert await lines(tmp_path, "delete", thread, first) == [f"deleted {first}"]
        daemon.model.release("gate")
        assert await ended_turns(daemon, 3) == ["completed"] * 3
        assert await user_texts(daemon, thread) == ["hold gate working", "say three", "say two\nand more"]


async def test_json_is_the_result_of_the_wire(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        thread, _ = await busy_thread(daemon)
        added = await result_of(tmp_path, "add", thread, "say one", "--client-id", "mine")
        row = added["queuedTurn"]
        assert row["clientUserMessageId"] == "mine"
        assert await result_of(tmp_path, "list", thread) == {"data": [row], "nextCursor": None}
        assert await result_of(tmp_path, "reorder", thread, row["id"]) == {"queuedTurns": [row]}
        assert await result_of(tmp_path, "delete", thread, row["id"]) == {"deleted": True}
        daemon.model.release("gate")


async def test_a_second_add_under_one_client_id_is_the_first_row_before_and_after_it_ran(
    tmp_path: Path,
) -> None:
    async with open_daemon(tmp_path) as daemon:
        thread, _ = await busy_thread(daemon)
        [line] = await lines(tmp_path, "add", thread, "say one", "--client-id", "mine")
        assert await lines(tmp_path, "add", thread, "say two", "--client-id", "mine") == [line]
        daemon.model.release("gate")
        assert await ended_turns(daemon, 2) == ["completed"] * 2
        again = await result_of(tmp_path, "add", thread, "say three", "--client-id", "mine")
        assert again["queuedTurn"]["id"] == line.split()[0]
        read = await daemon.client.call("thread/read", {"threadId": thread, "includeTurns": True})
        started = {"type": "started", "turnId": read["thread"]["turns"][-1]["id"]}
        assert again["queuedTurn"]["status"] == started
        assert await user_texts(daemon, thread) == ["hold gate working", "say one"]


async def test_when_busy_rejects_with_the_turn_that_runs_or_interrupts_it(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        thread, turn = await busy_thread(daemon)
        refused(
            await queue(tmp_path, "add", thread, "say one", "--when-busy", "reject"),
            1,
            turn,
            "--when-busy enqueue",
        )
        await lines(tmp_path, "add", thread, "say instead", "--when-busy", "interrupt")
        assert await ended_turns(daemon, 2) == ["interrupted", "completed"]
        assert await user_texts(daemon, thread) == ["hold gate working", "say instead"]


async def test_when_busy_steers_the_message_into_the_turn_that_runs(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        thread, turn = await busy_thread(daemon)
        [line] = await lines(tmp_path, "add", thread, "say steered", "--when-busy", "steer")
        assert f"started (turn {turn})  say steered" in line
        daemon.model.release("gate")
        note = await daemon.client.wait_for("turn/completed")
        assert note["params"]["turn"]["id"] == turn
        assert await user_texts(daemon, thread) == ["hold gate working", "say steered"]


async def test_an_interrupted_turn_lets_the_queue_run_on_unless_it_is_set_to_pause(tmp_path: Path) -> None:
    for name, config in (("drain", ""), ("pause", '\n[queue]\non_interrupt = "pause"\n')):
        folder = tmp_path / name
        async with open_daemon(folder, config=config) as daemon:
            thread, turn = await busy_thread(daemon)
            [line] = await lines(folder, "add", thread, "say next")
            await daemon.client.call("turn/interrupt", {"threadId": thread, "turnId": turn})
            assert await ended_turns(daemon, 1) == ["interrupted"]
            if name == "pause":
                assert await lines(folder, "list", thread) == [line]
                await daemon.client.call("thread/queue/start", {"threadId": thread})
            assert await ended_turns(daemon, 1) == ["completed"]


async def test_a_row_that_has_become_a_turn_answers_with_it(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        thread, _ = await busy_thread(daemon)
        added = await result_of(tmp_path, "add", thread, "say one")
        row = added["queuedTurn"]["id"]
        daemon.model.release("gate")
        assert await ended_turns(daemon, 2) == ["completed"] * 2
        read = await daemon.client.call("thread/read", {"threadId": thread, "includeTurns": True})
        turn = read["thread"]["turns"][-1]["id"]
        refused(await queue(tmp_path, "delete", thread, row), 1, f"row {row} has become turn {turn} already")
        turn_start = {"threadId": thread, "input": [{"type": "text", "text": "late", "text_elements": []}]}
        updated = await daemon.client.call(
            "thread/queue/update", {"threadId": thread, "queuedTurnId": row, "turnStartParams": turn_start}
        )
        assert updated["turnId"] == turn


async def test_a_list_of_more_rows_than_a_page_has_them_all_and_a_change_shows_the_first_hundred(
    tmp_path: Path,
) -> None:
    async with open_daemon(tmp_path) as daemon:
        thread, _ = await busy_thread(daemon)
        for number in range(105):
            parts = [{"type": "text", "text": f"say {number}", "text_elements": []}]
            turn = {"threadId": thread, "input": parts}
            await daemon.client.call("thread/queue/add", {"threadId": thread, "turnStartParams": turn})
        listed = await lines(tmp_path, "list", thread)
        assert [line.split("  ")[2] for line in listed] == [f"say {number}" for number in range(105)]
        whole = await result_of(tmp_path, "list", thread)
        assert len(whole["data"]) == 105
        assert whole["nextCursor"] is None
        note = await daemon.client.wait_for("thread/queue/changed", lambda params: params["total"] == 105)
        shown = [row["id"] for row in note["params"]["queuedTurns"]]
        assert shown == [row["id"] for row in whole["data"][:100]]
        # Otherwise all of them would run while the daemon is asked to end.
        await daemon.end()


async def test_a_dash_reads_the_text_from_standard_input(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        thread, _ = await busy_thread(daemon)
        [line] = await lines(tmp_path, "add", thread, "-", given="say grün\n".encode())
        assert line.endswith("  pending  say grün")
        refused(await queue(tmp_path, "add", thread, "-", given=b"\xff"), 1, "no UTF-8")
        refused(await queue(tmp_path, "add", thread, "-"), 2, "TEXT is empty")
        await lines(tmp_path, "delete", thread, line.split()[0])
        daemon.model.release("gate")


async def test_control_characters_of_a_message_never_reach_the_terminal(tmp_path: Path) -> None:
    text = "say \x1b]0;owned\x07 \x9b31m \x7f \u202egnp \r done"
    async with open_daemon(tmp_path) as daemon:
        thread, _ = await busy_thread(daemon)
        results = [
            await queue(tmp_path, "add", thread, "-", given=text.encode()),
            await queue(tmp_path, "list", thread),
            await queue(tmp_path, "list", thread, "--json"),
            await queue(tmp_path, "delete", thread, "\x1b[2J"),
            await queue(tmp_path, "list", "\x1b[2J\u202e"),
        ]
        for result in results:
            said = (result.stdout + result.stderr).decode()
            assert said.endswith("\n")
            assert all(char.isprintable() or char == "\n" for char in said), said
        shown = results[1].stdout.decode()
        assert r"say \x1b]0;owned\x07 \x9b31m \x7f \u202egnp" in shown
        assert json.loads(results[2].stdout)["data"][0]["input"][0]["text"] == text
        row = shown.split()[0]
        await lines(tmp_path, "delete", thread, row)
        daemon.model.release("gate")


async def test_an_empty_queue_has_no_line_and_says_so_on_stderr(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        started = await daemon.client.call("thread/start", {})
        await daemon.client.run_turn(started["thread"]["id"], "say hello")
        result = await queue(tmp_path, "list", started["thread"]["id"])
        assert (result.returncode, result.stdout) == (0, b"")
        assert result.stderr == b"the queue is empty\n"


async def test_what_cannot_be_done_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        thread, _ = await busy_thread(daemon)
        for arguments in (["list"], ["add", "say one"], ["delete", "row"], ["reorder", "row"]):
            refused(await queue(tmp_path, arguments[0], UNKNOWN, *arguments[1:]), 1, UNKNOWN, "THREAD")
        refused(await queue(tmp_path, "list", "bad"), 1, "invalid thread id", "THREAD")
        hint = f"`spoold queue list {thread}`"
        refused(await queue(tmp_path, "delete", thread, "nothing"), 1, "no row nothing", hint)
        refused(await queue(tmp_path, "reorder", thread, "nothing"), 1, "exactly once", hint)
        refused(await queue(tmp_path, "add", thread, "x", "--when-busy", "wait"), 2, "--when-busy", "enqueue")
        refused(await queue(tmp_path, "add", thread), 2, "TEXT")
        refused(await queue(tmp_path, "reorder", thread), 2, "ROW")
        deleted = await queue(tmp_path, "delete", thread, "nothing", "--json")
        assert (deleted.returncode, json.loads(deleted.stdout)) == (1, {"deleted": False})
        daemon.model.release("gate")


async def test_without_a_daemon_it_says_so_and_makes_no_home(tmp_path: Path) -> None:
    refused(await queue(tmp_path, "list", UNKNOWN), 1, "no daemon runs on home", "spoold serve", "--home")
    assert not (tmp_path / "home").exists()


async def test_a_daemon_that_died_counts_as_none(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        await daemon.end()
    refused(await queue(tmp_path, "list", UNKNOWN), 1, "no daemon runs on home")


async def test_the_home_may_be_named_before_and_after_the_command(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        started = await daemon.client.call("thread/start", {})
        await daemon.client.run_turn(started["thread"]["id"], "say hello")
        thread, home = started["thread"]["id"], str(daemon.home)
        elsewhere = tmp_path / "elsewhere"
        for before, after in (((), ("--home", home)), (("--home", home), ())):
            result = await queue(elsewhere, "list", thread, *after, command=(*before, "queue"))
            assert result.returncode == 0, result.stderr
