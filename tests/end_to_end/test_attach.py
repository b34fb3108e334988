"""Attaching, through the program: whoever leaves and comes back ends with what the server has."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import trio

from spoold.client import Client, RpcFailed
from spoold.testing.client_state import ClientState
from tests.support.daemon_process import DaemonProcess, open_daemon
from tests.support.every_message import user_text
from tests.support.in_memory import replay_hint

Json = dict[str, Any]

SCRIPT = (
    "thinksh First I think ;; echo zero | both Looking around. ;; echo one | shell echo two ;; echo three"
    " | esc echo four | hold {hold} and then it was cut"
)
DECISIONS = {
    "echo zero": "accept",
    "echo one": "accept",
    "echo two": "decline",
    "echo three": "accept",
    "echo four": "accept",
}
WAYS = ("snapshot", "afterSeq")
AT_A_TIME = 4


class Attached:
    """A client and what it shows of one thread."""

    def __init__(self, client: Client, state: ClientState | None = None) -> None:
        self.client = client
        self.state = state or ClientState()
        self.taken = 0
        self.left_at = 0

    async def attach(self, thread_id: str, way: str = "snapshot") -> Json:
        params: Json = {"threadId": thread_id}
        if way == "afterSeq" and self.state.seq is not None:
            params |= {"afterSeq": self.state.seq, "epoch": self.state.epoch}
        # The answer and the messages around it come in one order, which the client's log does not keep: what
        # belongs to the thread comes behind the answer.
        self.client.forget()
        result: Json = await self.client.call("thread/resume", params)
        self.state.attached(result)
        return result

    async def follow(
        self, *, to: str = "turn/completed", events: int | None = None, stay: Any = None
    ) -> None:
        """Take messages up to one of method ``to``, or that many; ``stay`` gets each."""
        async with aclosing(self.client.messages()) as messages:
            async for message in messages:
                self.state.message(message)
                self.taken += 1
                if stay is not None:
                    await stay(message)
                if self.taken == events or (message["method"] == to and "seq" in message):
                    return


async def one_turn(daemon: DaemonProcess, number: int, leave_after: int) -> int:
    """A turn that one client sees whole, while two leave after some event and come back; how many events."""
    hold = f"gate{number}"
    async with daemon.connect("stays") as client, daemon.connect() as first, daemon.connect() as second:
        thread_id = (await client.call("thread/start", {}))["thread"]["id"]
        stays = Attached(client)
        await stays.attach(thread_id)
        leaving = [Attached(first), Attached(second)]
        for each in leaving:
            await each.attach(thread_id)
        asked: Json = {"threadId": thread_id, "input": user_text(SCRIPT.format(hold=hold))}
        turn_id = (await client.call("turn/start", asked))["turn"]["id"]

        async def act(message: Json) -> None:
            if message["method"] == "item/commandExecution/requestApproval":
                decision = next(
                    word for line, word in DECISIONS.items() if line in message["params"]["command"]
                )
                await client.answer(message, {"decision": decision})
            if message["method"] == "item/agentMessage/delta" and message["params"]["delta"] == "and":
                await client.call("turn/interrupt", {"threadId": thread_id, "turnId": turn_id})

        async def come_back(old: Attached, way: str) -> None:
            with trio.move_on_after(10):
                await old.follow(events=leave_after)
            async with daemon.connect() as again:
                back = Attached(again, old.state if way == "afterSeq" else None)
                result = await back.attach(thread_id, way)
                if way == "afterSeq":
                    assert result["replayed"] == (old.state.seq is not None)
                await again.call("thread/loaded/list", {})
                if not back.state.ended.get(turn_id) and result["thread"]["status"]["type"] == "active":
                    await back.follow()
                await settled(back, thread_id)
                states[way] = back.state.shown()

        states: dict[str, Json] = {}
        async with trio.open_nursery() as nursery:
            for each, way in zip(leaving, WAYS, strict=True):
                nursery.start_soon(come_back, each, way)
            await stays.follow(stay=act)
        await settled(stays, thread_id)
        final = stays.state.shown()
        assert stays.state.ended == {turn_id: 1}
        assert final["turns"][turn_id]["status"] == "interrupted"
        for way in WAYS:
            with replay_hint(leave_after=leave_after, way=way):
                assert states[way] == final
        return stays.taken


async def settled(attached: Attached, thread_id: str) -> None:
    """Everything that was sent before the answer to a question that the thread itself answers."""
    await attached.client.call("thread/read", {"threadId": thread_id})
    seen = list(attached.client.seen)[attached.client._cursor :]
    for message in seen:
        attached.state.message(message)
    attached.client._cursor += len(seen)


async def test_who_leaves_after_any_event_and_comes_back_either_way_ends_with_what_stayed(
    tmp_path: Path,
) -> None:
    async with open_daemon(tmp_path, settings={"approval_policy": "untrusted"}) as daemon:
        events = await one_turn(daemon, 0, 1)
        assert events > 30
        limit = trio.CapacityLimiter(AT_A_TIME)

        async def run(number: int) -> None:
            async with limit:
                await one_turn(daemon, number, number)

        async with trio.open_nursery() as nursery:
            for number in range(2, events + 1):
                nursery.start_soon(run, number)


@pytest.mark.parametrize("after", [-1, -(2**40), 1.5, "1", True, [], {}, 2**64])
async def test_a_number_that_is_none_is_refused_and_a_huge_one_is_from_the_future(
    tmp_path: Path, after: Any
) -> None:
    async with open_daemon(tmp_path) as daemon:
        client = daemon.client
        thread_id = (await client.call("thread/start", {}))["thread"]["id"]
        await client.run_turn(thread_id, "say hello")
        params = {"threadId": thread_id, "afterSeq": after, "epoch": client.seen[0]["epoch"]}
        if after == 2**64:
            result = await client.call("thread/resume", params)
            assert not result["replayed"]
            assert len(result["thread"]["turns"]) == 1
        else:
            with pytest.raises(RpcFailed, match="afterSeq") as refused:
                await client.call("thread/resume", params)
            assert refused.value.code in (-32600, -32602)
        assert (await client.run_turn(thread_id, "say still here"))["status"] == "completed"
