"""A thread with a queue: its acts as handlers do them, turns that end as the test says, and what is where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from actors.queue_rows import Queue
from actors.queueing import (
    QueueAdd,
    QueueDelete,
    QueueList,
    QueueReorder,
    QueueStart,
    QueueUpdate,
    wire_of,
)
from actors.waiting_rows import WaitingRows
from agent.events import TurnOutcome
from persistence import queue as rows
from persistence.queue import QueuedTurn, StoredQueue, read_queue
from persistence.store import Batch
from protocol.errors import RpcError
from protocol.queue_methods import (
    QueueAddParams,
    QueueDeleteParams,
    QueueListParams,
    QueueReorderParams,
    QueueStartParams,
    QueueUpdateParams,
)
from protocol.threads import TurnError
from tests.actors.acts_stage import Scene, takes
from tests.actors.stage import text_input
from tests.support.in_memory import PuppetRunner, PuppetTurn, RecordingReply

End = Literal["complete", "fail", "interrupt"]

UNREADABLE = 7
"""As ``input`` of a row: no turn can be made of it."""


def row_of(thread_id: str, row_id: str, order: int, said: Any = UNREADABLE, **changes: Any) -> QueuedTurn:
    given = text_input(said) if isinstance(said, str) else said
    return QueuedTurn(row_id, {"threadId": thread_id, "input": given}, order, **changes)


def texts(views: Sequence[dict[str, Any]]) -> list[str]:
    """What the rows of an answer say."""
    return [row["input"][0]["text"] for row in views]


class QueueScene(Scene):
    """Acts are by the owner. Turns are waited for with ``next_turn`` and ended with ``end``."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._met: list[PuppetTurn] = []

    # -- acts ------------------------------------------------------------------------------------------

    def refused(self, error: RpcError) -> RecordingReply:
        reply = self.owner.reply()
        reply.error(error)
        return reply

    def add_raw(self, thread_id: str, **wire: Any) -> RecordingReply:
        params = QueueAddParams.from_wire({"threadId": thread_id, **wire})
        try:
            turn = wire_of(params, wire.get("turnStartParams"))
        except RpcError as error:
            return self.refused(error)
        return self.act(self.owner, thread_id, QueueAdd(params, turn))

    def add(
        self, thread_id: str, text: str, client_id: str | None = None, busy: str = "enqueue", **turn: Any
    ) -> RecordingReply:
        """In the canonical shape."""
        said = {"threadId": thread_id, "input": text_input(text), **turn}
        if client_id is not None:
            said["clientUserMessageId"] = client_id
        return self.add_raw(thread_id, turnStartParams=said, whenBusy=busy)

    def submit(self, thread_id: str, text: str, client_id: str, busy: str = "enqueue") -> RecordingReply:
        """In the reference's shape."""
        said = text_input(text)
        return self.add_raw(thread_id, input=said, clientUserMessageId=client_id, whenBusy=busy)

    def update_raw(self, thread_id: str, **wire: Any) -> RecordingReply:
        params = QueueUpdateParams.from_wire({"threadId": thread_id, **wire})
        try:
            turn = wire_of(params, wire.get("turnStartParams"))
        except RpcError as error:
            return self.refused(error)
        return self.act(self.owner, thread_id, QueueUpdate(params, turn))

    def update(self, thread_id: str, row_id: str, text: str) -> RecordingReply:
        said = {"threadId": thread_id, "input": text_input(text)}
        return self.update_raw(thread_id, queuedTurnId=row_id, turnStartParams=said)

    def delete(self, thread_id: str, row_id: str) -> RecordingReply:
        params = QueueDeleteParams(thread_id=thread_id, queued_turn_id=row_id)
        return self.act(self.owner, thread_id, QueueDelete(params))

    def reorder(self, thread_id: str, ids: list[str], *, submissions: bool = False) -> RecordingReply:
        name = "queuedSubmissionIds" if submissions else "queuedTurnIds"
        params = QueueReorderParams.from_wire({"threadId": thread_id, name: ids})
        return self.act(self.owner, thread_id, QueueReorder(params))

    def go_on(self, thread_id: str, row_id: str | None = None) -> RecordingReply:
        """thread/queue/start."""
        params = QueueStartParams(thread_id=thread_id, queued_turn_id=row_id)
        return self.act(self.owner, thread_id, QueueStart(params))

    def page(self, thread_id: str, **wire: Any) -> RecordingReply:
        params = QueueListParams.from_wire({"threadId": thread_id, **wire})
        return self.act(self.owner, thread_id, QueueList(params))

    async def rows(self, thread_id: str) -> list[dict[str, Any]]:
        """All rows, as clients see them."""
        found: list[dict[str, Any]] = (await self.page(thread_id, limit=100).answer())["data"]
        return found

    async def waiting(self, thread_id: str) -> list[str]:
        """What waits, in order."""
        return texts(await self.rows(thread_id))

    async def fill(self, thread_id: str, *said: str) -> list[str]:
        """Queue these; the ids of their rows."""
        return [(await self.add(thread_id, text).answer())["queuedTurn"]["id"] for text in said]

    async def store_row(self, thread_id: str, row: QueuedTurn) -> None:
        """Behind the actor's back: only while the thread is not loaded."""
        operations = [rows.insert(thread_id, row)]
        if row.state == "dispatching":
            operations = [rows.insert(thread_id, row_of(thread_id, row.id, row.order)), rows.change(row)]
        await self.stage.store.commit(Batch(thread_id, queue=operations))

    # -- turns -----------------------------------------------------------------------------------------

    async def direct(self, thread_id: str, text: str = "direct") -> tuple[str, PuppetTurn]:
        """turn/start, until its task runs."""
        turn_id, turn = await self.stage.begin(self.owner, thread_id, text)
        self._met.append(turn)
        return turn_id, turn

    async def next_turn(self, thread_id: str) -> PuppetTurn:
        """The next run that the test has not met yet."""
        runner = self.stage.actor(thread_id)._runtime.runner
        assert isinstance(runner, PuppetRunner)
        number = 1
        while (turn := await runner.turn(number)) in self._met:
            number += 1
        self._met.append(turn)
        return turn

    async def end(
        self, thread_id: str, turn: PuppetTurn, how: End = "complete", *, taken: bool = False
    ) -> None:
        """End a turn and wait until the thread has handled that, and what follows from it at once."""
        if how == "complete" and not taken:
            await takes(turn)
        turn_id = turn.job.turn_id
        if how == "interrupt":
            await self.stage.interrupt(self.owner, thread_id, turn_id).answer()
        elif how == "fail":
            turn.end(TurnOutcome(error=TurnError(message="for the test", codex_error_info="other")))
        else:
            turn.end()
        await self.over(turn_id)
        await self.stage.handled(thread_id)

    async def over(self, turn_id: str) -> str:
        """Wait for the turn's end: its status."""
        await self.owner.until(lambda _: turn_id in self._ends())
        return self._ends()[turn_id]

    def _ends(self) -> dict[str, str]:
        notes = self.owner.params("turn/completed")
        return {note["turn"]["id"]: note["turn"]["status"] for note in notes}

    async def resume(self, thread_id: str) -> None:
        await self.stage.resume(self.owner, thread_id).answer()
        await self.stage.handled(thread_id)

    async def busy(self, **params: Any) -> tuple[str, PuppetTurn]:
        """A thread in which a direct turn runs that has taken its message."""
        thread_id = await self.stage.start(self.owner, **params)
        _, turn = await self.direct(thread_id)
        await takes(turn)
        await self.stage.handled(thread_id)
        self.mark()
        return thread_id, turn

    # -- what is where ---------------------------------------------------------------------------------

    def running(self, thread_id: str) -> str | None:
        """The id of the turn that runs."""
        state = self.stage.actor(thread_id).state
        return None if state is None or state.turn is None else state.turn.id

    async def said(self, thread_id: str) -> list[str]:
        """The user messages of the transcript."""
        turns = (await self.read(thread_id, turns=True))["thread"]["turns"]
        items = [item for turn in turns for item in turn["items"] if item["type"] == "userMessage"]
        return [item["content"][0]["text"] for item in items]

    async def stored(self, thread_id: str) -> StoredQueue:
        """The rows as they are; ``Store.queue`` would take a living claim for one that a crash has left."""
        return await self.stage.store._read(lambda connection: read_queue(connection, thread_id))

    async def same_on_disk(self, thread_id: str) -> None:
        """What the actor holds is what is stored."""
        state = self.stage.actor(thread_id).state
        assert state is not None
        stored = await self.stored(thread_id)
        left = tuple(row for row in stored.rows if row.state != "dispatching")
        claims = sorted((row for row in stored.rows if row.state == "dispatching"), key=lambda row: row.id)
        queue = replace(state.queue, claims=tuple(sorted(state.queue.claims, key=lambda row: row.id)))
        assert Queue(WaitingRows(left), tuple(claims), stored.paused) == queue
        state.queue.rows.check()
        if not claims:
            assert await self.stage.store.queue(thread_id) == stored
