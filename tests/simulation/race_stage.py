"""What the races have in common: a thread with some clients, what they ask, and the rules at the end."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

import actors.supervisor
from actors.loading import load_thread
from actors.state import ThreadState
from actors.thread_actor import ThreadActor
from spoold.testing import SimulatedClient, World
from spoold.testing.client import Pending
from spoold.testing.races import Race, Scenario, explore
from tests.simulation.test_world import messages, queued, rows

Json = dict[str, Any]

EVERYTHING = "SPOOLD_TEST_EVERYTHING"
"""Environment variable: one more task is put off, in every race."""

UNLOAD_SECONDS = 60.0
SETTINGS = (f"thread_unload_delay_secs={UNLOAD_SECONDS:.0f}",)
APPROVAL = "item/commandExecution/requestApproval"
_MERGED = "/delta"


class Scene:
    """One run of a race.

    Attributes:
        clients: by name, in the order in which they came.
        thread: the thread that it is about; it has one turn, "say first".
        asked: the requests of the race.
        since: how much each client had heard when the window opened.
    """

    def __init__(self, world: World, race: Race) -> None:
        self.world = world
        self.race = race
        self.daemon = world.daemon
        self.clients: dict[str, SimulatedClient] = {}
        self.thread = ""
        self.asked: list[tuple[SimulatedClient, Pending]] = []
        self.since: dict[str, int] = {}
        # Unlike any other of this world: what nobody waits at any more stays released.
        self.gate = f"gate{race.number}"

    # -- before the window ------------------------------------------------------------------------------

    async def come(self, *names: str) -> list[SimulatedClient]:
        """Clients connect, again if they were here."""
        for name in names:
            if name not in self.clients:
                self.clients[name] = SimulatedClient(self.daemon, name)
            await self.clients[name].connect()
        return [self.clients[name] for name in names]

    async def make_thread(self, first: SimulatedClient, *others: SimulatedClient, **params: Any) -> None:
        """``first`` makes the thread, the others attach to it."""
        self.thread = await first.start_thread(**params)
        await first.turn_ended(await first.start_turn(self.thread, "say first"))
        for each in others:
            await each.call("thread/resume", threadId=self.thread)
        await self.daemon.settled()

    async def hold_turn(self, client: SimulatedClient, text: str = "one two") -> str:
        """A turn that waits in the middle of its text for ``open_gate``: its id."""
        turn = await client.start_turn(self.thread, f"hold {self.gate} {text}")
        await self.world.model.held(self.gate)
        await self.daemon.settled()
        return turn

    async def leave(self) -> None:
        """Everybody disconnects."""
        for client in self.clients.values():
            await client.disconnect()
        await self.daemon.settled()

    @asynccontextmanager
    async def window(self, *, ends: bool = False) -> AsyncIterator[None]:
        """The race: what is done in here, and all that comes of it until the world is at rest.

        ``ends``: until the daemon has ended, and sent everybody away.
        """
        await self.daemon.settled()
        self.since = {name: len(client.log) for name, client in self.clients.items()}
        with self.race:
            yield
            if ends:
                await self.daemon.ended()
            await self.daemon.settled()
        for client in self.clients.values() if ends else ():
            assert client.closed == (1001, "server is shutting down")

    # -- in the window ----------------------------------------------------------------------------------

    def ask(self, client: SimulatedClient, method: str, **params: Any) -> Pending:
        """Send a request about the thread."""
        pending = client.send(method, threadId=self.thread, **params)
        self.asked.append((client, pending))
        return pending

    def start_turn(self, client: SimulatedClient, text: str) -> Pending:
        """turn/start."""
        return self.ask(client, "turn/start", input=[{"type": "text", "text": text}])

    def add(self, client: SimulatedClient, text: str) -> Pending:
        """thread/queue/add."""
        pending = client.send("thread/queue/add", **queued(self.thread, text))
        self.asked.append((client, pending))
        return pending

    def open_gate(self) -> None:
        """The held turn may go on."""
        self.world.model.release(self.gate)

    # -- after it ---------------------------------------------------------------------------------------

    def heard(self, client: SimulatedClient, method: str) -> list[Json]:
        """What came of this kind since the window opened."""
        return [
            each["params"]
            for each in client.log[self.since.get(client.name, 0) :]
            if each.get("method") == method and "id" not in each
        ]

    async def observer(self) -> SimulatedClient:
        """Who has seen nothing of the race."""
        if "observer" not in self.clients:
            await self.come("observer")
        return self.clients["observer"]

    async def history(self) -> list[Json]:
        """The turns, as a client that comes now is told."""
        observer = await self.observer()
        read = await observer.call("thread/read", threadId=self.thread, includeTurns=True)
        turns: list[Json] = read["thread"]["turns"]
        return turns

    async def waiting(self) -> list[str]:
        """What waits in the queue."""
        found = await rows(await self.observer(), self.thread)
        return [row["turnStartParams"]["input"][0]["text"] for row in found]

    async def said(self) -> list[str]:
        """What users have said in the transcript, without the first turn."""
        return messages(await self.history())[1:]

    def check_answers(self) -> None:
        """Every request has got its answer; a second one would have broken the client."""
        for client, pending in self.asked:
            assert pending.done.is_set(), f"{client.name}: {pending.method} got no answer"
            assert pending.answer is not None or not client.connected, pending.method

    async def check_shown(self) -> None:
        """Who is attached shows what somebody is shown who attaches now; nothing came twice."""
        observer = await self.observer()
        await observer.call("thread/resume", threadId=self.thread)
        await self.daemon.settled()
        server = observer.threads[self.thread].shown()
        for client in self.clients.values():
            if self.thread in client.attached:
                assert client.threads[self.thread].shown() == server, client.name
                check_numbers(client, self.thread)

    def check_ends(self, turn_id: str) -> str:
        """Who knows of the turn, and is still there, was told exactly once that it has ended: as what."""
        told = {}
        for client in self.clients.values():
            shown = client.threads.get(self.thread)
            if client.connected and shown is not None and turn_id in shown.turns:
                ends = [
                    each["params"]["turn"]["status"]
                    for each in client.log
                    if each.get("method") == "turn/completed" and each["params"]["turn"]["id"] == turn_id
                ]
                assert len(ends) == 1, f"{client.name} was told of {len(ends)} ends"
                told[client.name] = ends[0]
        assert len(set(told.values())) == 1, told
        return str(next(iter(told.values())))

    async def done(self) -> None:
        """The rules that hold after every race; then the world is as it was."""
        self.check_answers()
        assert self.world.complaints == []
        await (await self.observer()).call("thread/delete", threadId=self.thread)
        await self.leave()


def check_numbers(client: SimulatedClient, thread: str) -> None:
    """Sequence numbers count by one over an attachment, but for deltas that were sent as one."""
    seq: int | None = None
    for message in client.log:
        result = message.get("result") or {}
        if "thread" in result and result["thread"]["id"] == thread and not result.get("replayed"):
            seq = result.get("seq")
        elif "seq" in message and message["params"].get("threadId") == thread:
            step = 1 if seq is None else message["seq"] - seq
            merged = message["method"].endswith(_MERGED) or "Delta" in message["method"]
            assert step == 1 or (merged and step > 1), f"{client.name}: {seq}, then {message}"
            seq = message["seq"]


class Loads:
    """Which actors live, and which threads were loaded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.of: list[str] = []
        self._living: list[ThreadActor] = []
        run = ThreadActor.run

        async def watched_run(actor: ThreadActor) -> None:
            self._living.append(actor)
            try:
                await run(actor)
            finally:
                self._living.remove(actor)

        async def counted(store: Any, config: Any, wanted: Any, thread_id: str, cwd: str) -> ThreadState:
            self.of.append(thread_id)
            state = await load_thread(store, config, wanted, thread_id, cwd)
            others = [each for each in self.living(thread_id) if each.state is not None]
            assert not others, "an actor loads a thread that another one has"
            return state

        monkeypatch.setattr(ThreadActor, "run", watched_run)
        monkeypatch.setattr(actors.supervisor, "load_thread", counted)

    def living(self, thread_id: str) -> list[ThreadActor]:
        """The actors of a thread."""
        return [each for each in self._living if each.thread_id == thread_id]


def check_all(race: Scenario, bound: int) -> None:
    """Run every schedule of a race, and say how many there were. One that can go both ways must do so."""
    explored = explore(race, bound + (EVERYTHING in os.environ), settings=SETTINGS)
    print(f"{race.__name__}: {explored}")
    assert explored.complete
    assert len(explored.outcomes) > 1 or explored.outcomes[""], explored


async def until_unloaded() -> None:
    """To the very instant at which a thread that nobody uses since now is unloaded."""
    await trio.sleep_until(trio.current_time() + UNLOAD_SECONDS)
