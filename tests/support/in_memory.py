"""Clients, turns and time under a test's control: the actors run for real, around them nothing is hidden."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import trio

from actors.peer import Outgoing
from agent.events import TurnEvent, TurnJob, TurnOutcome, TurnPort
from agent.turn import TurnControl
from protocol.base import encode
from protocol.errors import RpcError
from spoold.testing.runtime import SeededRuntime

__all__ = ["PuppetRunner", "PuppetTurn", "RecordingPeer", "RecordingReply", "SeededRuntime", "replay_hint"]


class RecordingPeer:
    """A client that keeps what it gets, in order. ``log`` holds decoded messages."""

    def __init__(self, peer_id: int, name: str = "tester") -> None:
        self.id = peer_id
        self.client_name = name
        self.log: list[dict[str, Any]] = []
        self._arrived = trio.lowlevel.ParkingLot()
        self._replies = 0

    def deliver(self, message: Outgoing) -> None:
        self.log.append(json.loads(message.data))
        self._arrived.unpark_all()

    def reply(self) -> RecordingReply:
        """A slot for the answer of one request of this client."""
        self._replies += 1
        return RecordingReply(self, self._replies)

    def methods(self) -> list[str]:
        """What came, as method names; answers are ``result`` or ``error``."""
        return [entry.get("method") or ("error" if "error" in entry else "result") for entry in self.log]

    def params(self, method: str) -> list[dict[str, Any]]:
        """The params of every message of one method."""
        return [entry["params"] for entry in self.log if entry.get("method") == method]

    async def until(self, held: Callable[[list[dict[str, Any]]], bool]) -> None:
        """Wait until the log satisfies ``held``."""
        while not held(self.log):
            await self._arrived.park()

    async def got(self, method: str, count: int = 1) -> dict[str, Any]:
        """Wait for the ``count``-th message of a method."""
        await self.until(lambda _: len(self.params(method)) >= count)
        return self.params(method)[count - 1]


class RecordingReply:
    """Implements ``actors.peer.Reply``; a second answer fails the test."""

    def __init__(self, peer: RecordingPeer, request_id: int) -> None:
        self.peer = peer
        self._id = request_id
        self._done = trio.Event()
        self.value: Any = None
        self.failure: RpcError | None = None

    def result(self, value: object) -> None:
        assert not self._done.is_set(), f"request {self._id} is answered twice"
        self.value = json.loads(encode(value))
        self.peer.deliver(Outgoing(encode({"id": self._id, "result": value})))
        self._done.set()

    def error(self, error: RpcError) -> None:
        assert not self._done.is_set(), f"request {self._id} is answered twice"
        self.failure = error
        self.peer.deliver(Outgoing(encode({"id": self._id, "error": error.to_wire()})))
        self._done.set()

    async def answer(self) -> Any:
        """Wait for the answer: the result's value; an error is raised."""
        await self._done.wait()
        if self.failure is not None:
            raise self.failure
        return self.value


class PuppetTurn:
    """One run of a turn whose every move the test makes."""

    def __init__(self, job: TurnJob, port: TurnPort, control: TurnControl) -> None:
        self.job = job
        self.port = port
        self.control = control
        self.cancelled = False
        self.ended = trio.Event()
        self._end = trio.Event()
        self._outcome: TurnOutcome | BaseException = TurnOutcome()
        self.steered = control.unconsumed

    async def post(self, event: TurnEvent) -> None:
        await self.port.post(event)

    def end(self, outcome: TurnOutcome | BaseException | None = None) -> None:
        """Let the turn return, or raise."""
        self._outcome = outcome or TurnOutcome()
        self._end.set()

    async def run(self) -> TurnOutcome:
        try:
            await self._end.wait()
        except trio.Cancelled:
            self.cancelled = True
            raise
        finally:
            self.ended.set()
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome


class PuppetRunner:
    """Implements ``actors.turn_task.TurnRunner``: every run of a turn waits in ``turns``.

    ``busy`` is the test's to set; ``drops`` counts how often everything was let go of.
    """

    def __init__(self) -> None:
        self.turns: list[PuppetTurn] = []
        self.bound: trio.Nursery | None = None
        self.busy = False
        self.drops = 0
        self._started = trio.lowlevel.ParkingLot()

    def bind(self, nursery: trio.Nursery) -> None:
        self.bound = nursery

    def drop(self) -> None:
        assert not self.busy
        self.drops += 1

    async def run_turn(
        self, job: TurnJob, provider: str, port: TurnPort, control: TurnControl
    ) -> TurnOutcome:
        turn = PuppetTurn(job, port, control)
        self.turns.append(turn)
        self._started.unpark_all()
        return await turn.run()

    async def turn(self, number: int = 1) -> PuppetTurn:
        """Wait for the ``number``-th run."""
        while len(self.turns) < number:
            await self._started.park()
        return self.turns[number - 1]


@contextmanager
def replay_hint(**facts: object) -> Iterator[None]:
    """Adds to a failure what is needed to run it again."""
    try:
        yield
    except BaseException as error:
        error.add_note("replay with " + ", ".join(f"{key}={value!r}" for key, value in facts.items()))
        raise
