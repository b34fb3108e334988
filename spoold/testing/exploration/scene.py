"""What is there while a schedule runs: the world, its clients, what was promised to them, and the checks."""

from __future__ import annotations

from typing import Any

import trio
import trio.testing

from spoold.testing.exploration.rules import Json, rule
from spoold.testing.exploration.thread_model import Facts, Register
from spoold.testing.exploration.watched_client import WatchedClient
from spoold.testing.world import World

CLIENTS = 3
THREADS = 3
UNLOAD_SECONDS = 300
"""After which a thread that nobody is attached to is unloaded, in these worlds."""
FAULTS_SAY = ("disk I/O error')",)
"""How a complaint ends that a fault has caused, and no bug."""

QUESTION = '{"questions": [{"id": "q", "header": "h", "question": "well?"}]}'

SAYS = (
    "say one two three",
    "deltas 6 some text",
    "hold {gate} first then",
    "wait {gate} late",
    "esc echo {gate}; sleep 1 | say after",
    "shell echo {gate}; hold {gate} | say after",
    "reason why ;; because",
    "cut this is cut",
    "http 500",
    "failed server_error no",
    "incomplete max_output_tokens",
    "commentary so ;; then",
    "call request_user_input " + QUESTION + " | say after",
    "hold {gate} one two | say never",
    "call lookup {} | say after",
    "shell echo {gate}; sleep 90 | say after",
    "esc echo {gate} | esc echo more | say after",
    "shell echo one {gate} ;; echo two; sleep 2 | say after",
    "burst 25 9000",
)


class Scene:
    """One world that is being explored."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.daemon = world.daemon
        self.facts: dict[str, Facts] = {}
        self.clients = [WatchedClient(self.daemon, name, self.facts) for name in "abc"[:CLIENTS]]
        self.faulty = self.ever_faulty = False
        self.stopping = False
        self.gates: list[str] = []
        self.now = 0
        self._serial = 0
        self._observers = 0
        self._buried = 0

    # -- what the numbers mean --------------------------------------------------------------------------

    def client(self, number: int) -> WatchedClient | None:
        """A client, if it is connected."""
        client = self.clients[number % CLIENTS]
        return client if client.connected else None

    def thread(self, number: int) -> str | None:
        """A thread, if somebody has heard of one."""
        known = list(self.facts)
        return known[number % len(known)] if known else None

    def text(self, number: int) -> tuple[str, str]:
        """A new message: its name, and what it says."""
        self._serial += 1
        gate = f"g{self._serial}"
        said = SAYS[number % len(SAYS)].replace("{gate}", gate)
        if gate in said:
            self.gates.append(gate)
        return f"m{self._serial}", said

    def observer(self) -> WatchedClient:
        """A client that has seen nothing yet; not connected."""
        self._observers += 1
        return WatchedClient(self.daemon, f"observer{self._observers}", self.facts)

    def tick(self) -> int:
        """The order of events, for registers."""
        self.now += 1
        return self.now

    def write(
        self,
        client: WatchedClient,
        register: Register,
        value: Any,
        method: str,
        *,
        doubtful: bool = False,
        **params: Any,
    ) -> None:
        """Send a request that writes a register. ``doubtful``: what the disk has refused may come yet."""
        write = register.write(value, self.tick())

        def then(result: Json | None) -> None:
            if result is not None:
                write.done = self.tick()
            elif not (doubtful and self.faulty):
                register.refused(write)

        client.ask(then, method, **params)

    def alone(self) -> list[str]:
        """The threads that nobody is attached to, or is about to be."""
        here = [client for client in self.clients if client.connected]
        if any(client.slow or client.waits_for() for client in here) or not self.daemon.running:
            return []
        return [thread for thread in self.facts if not any(thread in client.attached for client in here)]

    async def alive(self) -> bool:
        """Wait for the end of one that dies; whether the daemon runs."""
        if self.daemon.dying:
            await self.daemon.ended()
        return self.daemon.running

    # -- crashes and bugs -------------------------------------------------------------------------------

    async def bury(self) -> None:
        """After a crash: what was told only of what had not ended may be gone, once all has been heard."""
        if len(self.daemon.deaths) > self._buried:
            await self.daemon.ended()
            await trio.testing.wait_all_tasks_blocked()
            while len(self.daemon.deaths) > self._buried:
                for facts in self.facts.values():
                    facts.died(power=self.daemon.deaths[self._buried])
                self._buried += 1

    def healed(self) -> None:
        """The disk is well again, and nothing that it has done is an excuse any more."""
        self.faulty = False
        self.world.complaints.clear()

    def told_of_bugs(self) -> None:
        """Nothing was logged that only a bug can cause."""
        bugs = [text for text in self.world.complaints if not (self.faulty and text.endswith(FAULTS_SAY))]
        rule(not bugs, f"logged: {bugs}")
        for client in self.clients:
            rule(self.ever_faulty or not client.blamed, f"{client.name} is told {client.blamed}")
