"""One home, one daemon, any number of processes: sharing, leaving, and taking over."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import stat
import struct
import tempfile
import termios
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

from spoold.client import Client, RpcFailed, connect_websocket
from tests.support.shared_home import Member, open_shared_home, until


@pytest.fixture
def short_home() -> Iterator[Path]:
    """A home whose control socket needs no link: ``tmp_path`` may be long already."""
    with tempfile.TemporaryDirectory(prefix="home-") as folder:
        yield Path(folder)


async def start_thread(client: Client) -> str:
    started = await client.call("thread/start", {})
    thread_id: str = started["thread"]["id"]
    return thread_id


async def begin_turn(client: Client, thread_id: str, text: str) -> str:
    parts = [{"type": "text", "text": text, "text_elements": []}]
    started = await client.call("turn/start", {"threadId": thread_id, "input": parts})
    turn_id: str = started["turn"]["id"]
    return turn_id


async def ended(client: Client, turn_id: str) -> dict[str, Any]:
    note = await client.wait_for("turn/completed", lambda params: params["turn"]["id"] == turn_id)
    turn: dict[str, Any] = note["params"]["turn"]
    return turn


def unread(member: Member) -> int:
    """Bytes that its client has written and it has not read."""
    assert member.process.stdin is not None
    answer = fcntl.ioctl(member.process.stdin.fileno(), termios.FIONREAD, b"\0" * 4)
    count: int = struct.unpack("i", answer)[0]
    return count


async def test_a_thread_of_the_first_process_is_resumed_and_run_through_the_second(tmp_path: Path) -> None:
    async with (
        open_shared_home(tmp_path) as home,
        home.process("first") as first,
        home.process("second") as second,
    ):
        thread_id = await start_thread(first.client)
        await first.client.run_turn(thread_id, "say one")
        resumed = await second.client.call("thread/resume", {"threadId": thread_id})
        assert [turn["status"] for turn in resumed["thread"]["turns"]] == ["completed"]
        turn = await second.client.run_turn(thread_id, "say two")
        assert turn["status"] == "completed"
        # It is one daemon: the first client is subscribed and sees the turn of the second.
        assert (await ended(first.client, turn["id"]))["status"] == "completed"
        assert first.said == [f"spoold owns {home.home}"]
        assert second.said == [f"spoold is attached to process {first.pid}, which owns {home.home}"]


async def test_archived_and_unarchived_by_the_first_it_runs_through_the_second_unseen(tmp_path: Path) -> None:
    async with (
        open_shared_home(tmp_path) as home,
        home.process("first") as first,
        home.process("second") as second,
    ):
        thread_id = await start_thread(first.client)
        await first.client.run_turn(thread_id, "say one")
        await first.client.call("thread/archive", {"threadId": thread_id})
        await first.client.call("thread/unarchive", {"threadId": thread_id})
        await second.client.call("thread/resume", {"threadId": thread_id})
        turn = await second.client.run_turn(thread_id, "say two")
        assert turn["status"] == "completed"
        read = await first.client.call("thread/read", {"threadId": thread_id, "includeTurns": True})
        assert len(read["thread"]["turns"]) == 2
        about = [
            note["params"].get("turn", {}).get("id")
            for note in first.client.seen
            if note["method"] in ("turn/started", "turn/completed")
        ]
        assert turn["id"] not in about, "whoever archived the thread is not subscribed to it any more"


async def test_the_owner_stays_for_attached_clients_and_leaves_with_the_last(tmp_path: Path) -> None:
    async with (
        open_shared_home(tmp_path) as home,
        home.process("owner") as owner,
        home.process("second") as second,
        home.process("third") as third,
    ):
        thread_id = await start_thread(owner.client)
        await owner.leave()
        await until(lambda: any("stays for 2 attached clients" in line for line in owner.said))
        await second.client.call("thread/resume", {"threadId": thread_id})
        assert (await second.client.run_turn(thread_id, "say still here"))["status"] == "completed"
        assert await second.finish() == 0
        assert await start_thread(third.client)
        assert owner.process.returncode is None
        assert await third.finish() == 0
        assert await owner.process.wait() == 0
        assert not home.control_socket.exists()


async def test_what_the_last_client_left_running_is_finished_first(tmp_path: Path) -> None:
    async with open_shared_home(tmp_path) as home, home.process("owner") as owner:
        async with home.process("second") as second:
            thread_id = await start_thread(second.client)
            await owner.leave()
            await begin_turn(second.client, thread_id, "hold gate all of it")
            await home.model.held("gate")
            assert await second.finish() == 0
        # Whoever comes meanwhile is served: nobody waits for the end of the owner.
        async with home.process("third") as third:
            resumed = await third.client.call("thread/resume", {"threadId": thread_id})
            assert [turn["status"] for turn in resumed["thread"]["turns"]] == ["inProgress"]
            assert third.said == [f"spoold is attached to process {owner.pid}, which owns {home.home}"]
        home.model.release("gate")
        assert await owner.process.wait() == 0
        async with home.process("fourth") as fourth:
            read = await fourth.client.call("thread/read", {"threadId": thread_id, "includeTurns": True})
            assert [turn["status"] for turn in read["thread"]["turns"]] == ["completed"]


async def test_an_owner_without_attached_clients_interrupts_and_ends_with_its_own(tmp_path: Path) -> None:
    async with open_shared_home(tmp_path) as home, home.process("owner") as owner:
        async with home.process("second") as second:
            assert await second.finish() == 0
        thread_id = await start_thread(owner.client)
        await begin_turn(owner.client, thread_id, "hold gate all of it")
        await home.model.held("gate")
        assert await owner.finish() == 0


async def test_when_the_owner_is_killed_the_attached_process_takes_the_home_over(tmp_path: Path) -> None:
    async with (
        open_shared_home(tmp_path) as home,
        home.process("owner") as owner,
        home.process("second") as second,
    ):
        client = second.client
        thread_id = await start_thread(client)
        await client.run_turn(thread_id, "say one")
        turn_id = await begin_turn(client, thread_id, "hold gate all of it")
        await home.model.held("gate")
        await client.wait_for("item/agentMessage/delta")

        owner.process.send_signal(signal.SIGSTOP)
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(RpcFailed) as failed:
                    await client.call("thread/loaded/list")
                assert (failed.value.code, failed.value.data) == (-32603, {"reason": "ownerLost"})
                assert str(owner.pid) in failed.value.message

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            await until(lambda: unread(second) == 0)
            owner.kill()

        warning = await client.wait_for("warning")
        assert str(owner.pid) in warning["params"]["message"]
        assert "thread/resume" in warning["params"]["message"]
        resumed = await client.call("thread/resume", {"threadId": thread_id})
        turns = resumed["thread"]["turns"]
        assert [turn["status"] for turn in turns] == ["completed", "interrupted"]
        assert turns[1]["id"] == turn_id
        assert (await client.run_turn(thread_id, "say three"))["status"] == "completed"

        with pytest.raises(RpcFailed, match="Already initialized"):
            await client.initialize("second")
        assert second.said[1:] == [
            f"spoold lost process {owner.pid}, which owned {home.home}",
            f"spoold owns {home.home} now: process {owner.pid} has ended",
        ]
        # It is an owner like any other.
        async with home.process("third") as third:
            read = await third.client.call("thread/read", {"threadId": thread_id})
            assert read["thread"]["status"]["type"] == "idle"
        assert await second.finish() == 0


async def test_three_processes_that_lose_their_owner_have_one_again(tmp_path: Path) -> None:
    async with open_shared_home(tmp_path) as home, AsyncExitStack() as stack:
        owner = await stack.enter_async_context(home.process("owner"))
        others = [await stack.enter_async_context(home.process(f"racer{number}")) for number in range(3)]
        owner.kill()
        for member in others:
            await member.client.wait_for("warning")
        winners = [member for member in others if any("has ended" in line for line in member.said)]
        assert len(winners) == 1, [member.said for member in others]
        thread_id = await start_thread(others[0].client)
        for member in others:
            await member.client.wait_for("thread/started", lambda note: note["thread"]["id"] == thread_id)
            if member is not winners[0]:
                assert (
                    f"spoold is attached to process {winners[0].pid}, which owns {home.home}" in member.said
                )


async def test_owners_that_die_one_after_the_other_are_survived(tmp_path: Path) -> None:
    async with (
        open_shared_home(tmp_path) as home,
        home.process("first") as first,
        home.process("second") as second,
        home.process("third") as third,
    ):
        thread_id = await start_thread(second.client)
        await second.client.run_turn(thread_id, "say kept")
        first.kill()
        for member in (second, third):
            await member.client.wait_for("warning")
        took_over = any("has ended" in line for line in second.said)
        heir, last = (second, third) if took_over else (third, second)
        heir.kill()
        warning = await last.client.wait_for("warning")
        assert str(heir.pid) in warning["params"]["message"]
        read = await last.client.call("thread/read", {"threadId": thread_id, "includeTurns": True})
        assert [turn["status"] for turn in read["thread"]["turns"]] == ["completed"]


async def test_an_owner_that_is_told_to_end_is_followed_too(tmp_path: Path) -> None:
    async with (
        open_shared_home(tmp_path) as home,
        home.process("owner") as owner,
        home.process("second") as second,
    ):
        thread_id = await start_thread(second.client)
        turn_id = await begin_turn(second.client, thread_id, "hold gate all of it")
        await home.model.held("gate")
        owner.process.send_signal(signal.SIGTERM)
        assert (await ended(second.client, turn_id))["status"] == "interrupted"
        await second.client.wait_for("warning")
        assert await owner.process.wait() == 0
        resumed = await second.client.call("thread/resume", {"threadId": thread_id})
        assert [turn["status"] for turn in resumed["thread"]["turns"]] == ["interrupted"]


async def test_a_question_of_a_dead_owner_is_withdrawn_and_its_id_is_not_used_again(tmp_path: Path) -> None:
    async with (
        open_shared_home(tmp_path, approval_policy="untrusted") as home,
        home.process("owner") as owner,
        home.process("second") as second,
    ):
        client = second.client
        thread_id = await start_thread(client)
        await begin_turn(client, thread_id, "shell touch asked | say done")
        asked = await client.wait_for("item/commandExecution/requestApproval")
        owner.kill()
        resolved = await client.wait_for("serverRequest/resolved")
        assert resolved["params"] == {"threadId": thread_id, "requestId": asked["id"]}
        await client.wait_for("warning")
        await client.call("thread/resume", {"threadId": thread_id})
        await begin_turn(client, thread_id, "shell touch other | say done")
        again = await client.wait_for("item/commandExecution/requestApproval")
        assert again["id"] != asked["id"]
        # The late answer means nothing to the new owner.
        await client.answer(asked, {"decision": "accept"})
        await client.answer(again, {"decision": "decline"})
        await client.wait_for("turn/completed")
        assert not (tmp_path / "work" / "other").exists()


async def test_a_client_that_opted_out_is_not_warned(tmp_path: Path) -> None:
    async with (
        open_shared_home(tmp_path) as home,
        home.process("owner") as owner,
        home.process("second", handshake=False) as second,
    ):
        await second.client.initialize("second", optOutNotificationMethods=["warning"])
        owner.kill()
        await until(lambda: any("has ended" in line for line in second.said))
        await second.client.call("thread/loaded/list")
        assert [note["method"] for note in second.client.seen] == []


async def test_a_client_that_has_not_said_hello_when_the_owner_dies_says_it_to_the_next(
    tmp_path: Path,
) -> None:
    async with (
        open_shared_home(tmp_path) as home,
        home.process("owner") as owner,
        home.process("second", handshake=False) as second,
    ):
        with pytest.raises(RpcFailed, match="Not initialized"):
            await second.client.call("thread/loaded/list")
        owner.process.send_signal(signal.SIGSTOP)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(second.client.initialize, "second")
            await trio.testing.wait_all_tasks_blocked()
            await until(lambda: unread(second) == 0)
            owner.kill()
        assert await start_thread(second.client)


async def test_requests_before_the_end_of_stdin_are_answered_through_the_owner(tmp_path: Path) -> None:
    async with open_shared_home(tmp_path) as home, home.process("owner"):
        lines = [
            b'{"id":1,"method":"initialize","params":{"clientInfo":{"name":"pipe","version":"1"}}}',
            b'{"method":"initialized"}',
            b"",
            b'{"id":"\xc3\xa9","method":"thread/loaded/list","params":{}}',
            b'{"id":3,"method":"\xff"}',
            b"[]",
            b'{"id":4,"method":"no/such","params":{}}',
            b'{"id":5,"method":"thread/list","params":{}}',
        ]
        result = await home.run("serve", stdin=b"\n".join(lines))
        assert result.returncode == 0, result.stderr
        answers = [json.loads(line) for line in result.stdout.splitlines()]
        assert [answer.get("id") for answer in answers if answer.get("id") is not None] == [1, "é", 4, 5]
        assert [answer["error"]["code"] for answer in answers if answer.get("id", 0) is None] == [-32700] * 2


async def test_threads_of_an_attached_client_work_where_that_was_started(tmp_path: Path) -> None:
    async with (
        open_shared_home(tmp_path) as home,
        home.process("owner") as owner,
        home.process("second", work="other é % folder") as second,
    ):
        there = tmp_path / "other é % folder"
        for given, meant in ((None, there), ("sub", there / "sub"), ("/", Path("/"))):
            started = await second.client.call("thread/start", {"cwd": given})
            assert started["cwd"] == str(meant)
        started = await owner.client.call("thread/start", {})
        assert started["cwd"] == str(tmp_path / "work")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, -signal.SIGINT)])
async def test_a_signal_ends_an_attached_process_and_not_its_owner(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    async with open_shared_home(tmp_path) as home, home.process("owner") as owner:
        async with home.process("second") as second:
            second.process.send_signal(number)
            assert await second.process.wait() == code
        assert await start_thread(owner.client)


@pytest.mark.parametrize(
    "arguments", [["ws://127.0.0.1:0"], ["unix://"], ["off"], ["stdio://", "ws://127.0.0.1:0"]]
)
async def test_who_would_listen_on_an_owned_home_is_refused_with_the_owner(
    tmp_path: Path, arguments: list[str]
) -> None:
    async with open_shared_home(tmp_path) as home, home.process("owner") as owner:
        options = [word for url in arguments for word in ("--listen", url)]
        result = await home.run("serve", *options)
        assert (result.returncode, result.stdout) == (1, b"")
        [line] = result.stderr.decode().splitlines()
        assert f"is in use by process {owner.pid}, which listens on unix://{home.control_socket}" in line


async def test_an_owner_on_a_websocket_is_attached_to(tmp_path: Path) -> None:
    async with (
        open_shared_home(tmp_path) as home,
        home.process("owner", arguments=["--stdio", "--listen", "ws://127.0.0.1:0"]) as owner,
        home.process("second") as second,
    ):
        [address] = [line.split()[-1] for line in owner.said if "listens on" in line]
        async with connect_websocket(address) as remote:
            await remote.initialize("remote")
            thread_id = await start_thread(second.client)
            await remote.wait_for("thread/started", lambda note: note["thread"]["id"] == thread_id)


async def test_the_control_socket_is_its_users_alone_and_says_what_it_is(
    tmp_path: Path, short_home: Path
) -> None:
    async with open_shared_home(tmp_path, home=short_home) as home, home.process("owner"):
        path = home.control_socket
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        async with connect_websocket(f"unix://{path}") as client:
            await client.initialize("other program")
            assert await start_thread(client)
        stream = await trio.open_unix_socket(str(path))
        await stream.send_all(
            b"GET /rpc HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            b"x-codex-app-server-compression: zstd-stream-v1\r\n\r\n"
        )
        head = (await stream.receive_some(65536)).lower()
        await stream.aclose()
        assert head.startswith(b"http/1.1 101 ")
        assert b"x-codex-websocket-max-unfragmented-message-bytes: 16777216\r\n" in head
        assert b"compression" not in head


async def test_a_home_too_deep_for_a_socket_is_shared_through_a_short_one(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    async with (
        open_shared_home(tmp_path, home=deep) as home,
        home.process("owner") as owner,
        home.process("second") as second,
    ):
        assert len(os.fsencode(home.control_socket)) > 107
        place = home.control_socket.readlink()
        assert len(os.fsencode(place)) <= 107
        assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(place.stat().st_mode) == 0o600
        async with connect_websocket(f"unix://{place}") as client:
            await client.initialize("follows links")
        assert second.said == [f"spoold is attached to process {owner.pid}, which owns {deep}"]
        owner.kill()
        await second.client.wait_for("warning")
        assert not place.exists(), "what the dead owner left is cleaned up"
        place = home.control_socket.readlink()
        assert await second.finish() == 0
        assert not place.parent.exists()
        assert not home.control_socket.is_symlink()


async def test_the_socket_of_a_process_that_died_is_replaced(tmp_path: Path, short_home: Path) -> None:
    async with open_shared_home(tmp_path, home=short_home) as home:
        async with home.process("first") as first:
            first.kill()
            await first.process.wait()
        assert home.control_socket.exists()
        async with home.process("second") as second, home.process("third") as third:
            assert second.said == [f"spoold owns {home.home}"]
            assert third.said == [f"spoold is attached to process {second.pid}, which owns {home.home}"]


async def test_another_program_on_the_control_socket_is_left_alone(tmp_path: Path, short_home: Path) -> None:
    async with open_shared_home(tmp_path, home=short_home) as home:
        home.control_socket.parent.mkdir(mode=0o700)
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(home.control_socket))
            other.listen()
            async with home.process("owner") as owner:
                assert await start_thread(owner.client)
                assert any("another process listens there" in line for line in owner.said)
                assert await owner.finish() == 0
            assert home.control_socket.exists()


async def test_an_attached_client_that_does_not_read_is_waited_for(tmp_path: Path) -> None:
    async with (
        open_shared_home(tmp_path, config="\n[spoold]\noutbox_bytes = 65536\n") as home,
        home.process("owner") as owner,
        home.process("second") as second,
    ):
        thread_id = await start_thread(second.client)
        await owner.client.call("thread/loaded/list")
        second.process.send_signal(signal.SIGSTOP)
        turn_id = await begin_turn(owner.client, thread_id, "burst 400 10000")
        await owner.client.wait_for("thread/status/changed", lambda note: note["status"]["type"] == "idle")
        second.process.send_signal(signal.SIGCONT)
        await ended(second.client, turn_id)
        notes = [note for note in second.client.seen if note["method"] == "item/agentMessage/delta"]
        assert len("".join(note["params"]["delta"] for note in notes)) == 400 * 10000
