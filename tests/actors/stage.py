"""The real supervisor, actors and store on a real home; clients and turns are the test's puppets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from actors.messages import (
    Message,
    Read,
    Shutdown,
    TurnInterrupt,
    TurnStart,
    TurnSteer,
    Unsubscribe,
)
from actors.supervisor import Supervisor
from actors.thread_actor import ThreadActor
from agent.events import ApprovalAnswer, CommandApproval, ItemCompleted, ItemDelta, ItemStarted
from persistence.config import Config
from persistence.home import Home
from persistence.store import Batch, Store, StoreError, ThreadRecord
from protocol.errors import RpcError
from protocol.items import AgentMessageItem, CommandExecutionItem
from protocol.jsonrpc import Response
from protocol.thread_methods import ThreadReadParams, ThreadResumeParams, ThreadStartParams
from protocol.turn_methods import TurnInterruptParams, TurnStartParams, TurnSteerParams
from protocol.user_input import TextInput
from tests.support.in_memory import PuppetRunner, PuppetTurn, RecordingPeer, RecordingReply, SeededRuntime

LIMIT = 30
"""Seconds after which a test that waits for what never comes fails."""


class FragileStore(Store):
    """The real store, except while ``broken`` says that a batch fails, or how, or that a read does."""

    broken: Callable[[Batch], bool | StoreError] | None = None
    unreadable = False
    loads = 0

    async def _write(self, batch: Batch) -> None:
        failure = self.broken(batch) if self.broken is not None else False
        if isinstance(failure, StoreError) and failure.appended:
            await super()._write(Batch(batch.thread_id, batch.lines, create=batch.create))
        if failure:
            await trio.lowlevel.checkpoint()
            raise failure if isinstance(failure, StoreError) else StoreError("the disk is full", "disk")
        await super()._write(batch)

    async def thread(self, thread_id: str) -> ThreadRecord | None:
        self.loads += 1
        return await super().thread(thread_id)

    async def all_turns(self, thread_id: str, *, live_turn_id: str | None = None) -> Any:
        if self.unreadable:
            await trio.lowlevel.checkpoint()
            raise StoreError("the disk cannot be read", "disk")
        return await super().all_turns(thread_id, live_turn_id=live_turn_id)


class Stage:
    """Attributes: ``runners``, one per incarnation of a thread, in the order they were made."""

    def __init__(self, home: Home, store: FragileStore, config: Config) -> None:
        self.home = home
        self.store = store
        self.runners: list[PuppetRunner] = []
        self.supervisor = Supervisor(SeededRuntime(), store, config, self._new_runner, str(home.root), home)
        self._peers = 0

    def _new_runner(self) -> PuppetRunner:
        self.runners.append(PuppetRunner())
        return self.runners[-1]

    def peer(self) -> RecordingPeer:
        """A client after its handshake."""
        self._peers += 1
        peer = RecordingPeer(self._peers)
        self.supervisor.peer_ready(peer)
        return peer

    def actor(self, thread_id: str) -> ThreadActor:
        actor = self.supervisor.loaded(thread_id)
        assert actor is not None
        return actor

    # -- requests: each gives the slot in which the answer comes -----------------------------------------

    def post(self, thread_id: str, message: Message) -> None:
        """As a handler does it: a refusal by the supervisor is the answer."""
        try:
            self.supervisor.post(thread_id, message)
        except RpcError as error:
            message.reply.error(error)  # type: ignore[union-attr]

    async def start(self, peer: RecordingPeer, **params: Any) -> str:
        reply = peer.reply()
        self.supervisor.start_thread(ThreadStartParams.from_wire(params), reply)
        thread_id: str = (await reply.answer())["thread"]["id"]
        return thread_id

    def resume(self, peer: RecordingPeer, thread_id: str, **params: Any) -> RecordingReply:
        reply = peer.reply()
        try:
            self.supervisor.resume(ThreadResumeParams.from_wire({"threadId": thread_id, **params}), reply)
        except RpcError as error:
            reply.error(error)
        return reply

    def turn(self, peer: RecordingPeer, thread_id: str, text: str = "hello", **params: Any) -> RecordingReply:
        reply = peer.reply()
        wire = {"threadId": thread_id, "input": text_input(text), **params}
        self.post(thread_id, TurnStart(reply, TurnStartParams.from_wire(wire)))
        return reply

    def steer(self, peer: RecordingPeer, thread_id: str, turn_id: str, text: str = "and") -> RecordingReply:
        reply = peer.reply()
        wire = {"threadId": thread_id, "expectedTurnId": turn_id, "input": text_input(text)}
        self.post(thread_id, TurnSteer(reply, TurnSteerParams.from_wire(wire)))
        return reply

    def interrupt(self, peer: RecordingPeer, thread_id: str, turn_id: str) -> RecordingReply:
        reply = peer.reply()
        self.post(thread_id, TurnInterrupt(reply, TurnInterruptParams(thread_id=thread_id, turn_id=turn_id)))
        return reply

    def read(self, peer: RecordingPeer, thread_id: str, *, turns: bool = False) -> RecordingReply:
        reply = peer.reply()
        self.post(thread_id, Read(reply, ThreadReadParams(thread_id=thread_id, include_turns=turns)))
        return reply

    def unsubscribe(self, peer: RecordingPeer, thread_id: str) -> RecordingReply:
        reply = peer.reply()
        self.post(thread_id, Unsubscribe(reply))
        return reply

    def answer(self, peer: RecordingPeer, request_id: Any, result: Any, *, failed: bool = False) -> None:
        error = {"code": -32000, "message": "no"} if failed else None
        self.supervisor.answer(peer, Response(request_id, result, error, failed))

    def shut_down(self, thread_id: str) -> None:
        """What the supervisor does to each thread when the daemon ends."""
        self.actor(thread_id).mailbox.put_always(Shutdown())

    async def handled(self, thread_id: str) -> None:
        """Wait until the thread has handled everything that was in its mailbox."""
        await self.read(RecordingPeer(0), thread_id).answer()

    # -- whole moves -------------------------------------------------------------------------------------

    async def begin(
        self, peer: RecordingPeer, thread_id: str, text: str = "hello", **params: Any
    ) -> tuple[str, PuppetTurn]:
        """Start a turn and wait until its task runs: its id, and the puppet."""
        actor = self.actor(thread_id)
        runner = actor._runtime.runner
        assert isinstance(runner, PuppetRunner)
        before = len(runner.turns)
        turn_id: str = (await self.turn(peer, thread_id, text, **params).answer())["turn"]["id"]
        return turn_id, await runner.turn(before + 1)

    async def whole_turn(self, peer: RecordingPeer, thread_id: str, answer: str = "hi") -> str:
        """A turn that answers and ends; the peer is subscribed."""
        ended = len(peer.params("turn/completed"))
        turn_id, turn = await self.begin(peer, thread_id)
        await says(turn, f"msg-{turn_id}", answer)
        turn.end()
        await peer.got("turn/completed", ended + 1)
        return turn_id

    def lines(self, thread_id: str) -> list[dict[str, Any]]:
        """The thread's rollout; empty where there is none."""
        found = list(self.home.sessions.rglob(f"*{thread_id}.jsonl"))
        assert len(found) <= 1
        return [json.loads(line) for path in found for line in path.read_text().splitlines()]

    def terminal_lines(self, thread_id: str) -> list[str]:
        """The turn ids of the terminal lines."""
        kinds = ("task_complete", "turn_aborted")
        return [
            line["payload"]["turn_id"]
            for line in self.lines(thread_id)
            if line["type"] == "event_msg" and line["payload"]["type"] in kinds
        ]


def text_input(text: str) -> list[dict[str, Any]]:
    return [TextInput(text=text).to_wire()] if text else []


async def says(turn: PuppetTurn, item_id: str, text: str) -> None:
    """A whole message of the model, one delta a word."""
    await turn.post(ItemStarted(AgentMessageItem(id=item_id, started_at_ms=1)))
    for word in text.split():
        await turn.post(ItemDelta("agentMessage", item_id, word))
    item = AgentMessageItem(id=item_id, text=text, started_at_ms=1, completed_at_ms=2)
    await turn.post(ItemCompleted(item, context=(raw_message(text),)))


def raw_message(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


def question(item_id: str = "call-1", *argv: str) -> CommandApproval:
    words = argv or ("touch", "file")
    item = CommandExecutionItem(id=item_id, command=" ".join(words), cwd="/", started_at_ms=1)
    return CommandApproval(item, reason=None, amendment=list(words), argv=words)


class Asked:
    """A question that a puppet has put, and in time its answer."""

    def __init__(self) -> None:
        self.answers: list[ApprovalAnswer] = []
        self.done = trio.Event()

    async def ask(self, turn: PuppetTurn, what: CommandApproval) -> None:
        self.answers.append(await turn.port.ask(what))
        self.done.set()


async def _watch(limit: float) -> None:
    """Every wait of these tests is bounded."""
    await trio.sleep(limit)
    raise TimeoutError(f"the test waited for {limit} s for what never came")


@asynccontextmanager
async def opened(tmp_path: Path, *settings: str, limit: float = LIMIT) -> AsyncIterator[Stage]:
    """A stage; ``settings`` are ``key=value``, ``limit`` is how long the whole test may take."""
    home = Home.open(tmp_path / "home")
    store = FragileStore(home, SeededRuntime())
    stage = Stage(home, store, Config.load(home, settings))
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        await nursery.start(stage.supervisor.run)
        nursery.start_soon(_watch, limit)
        try:
            yield stage
        finally:
            nursery.cancel_scope.cancel()
