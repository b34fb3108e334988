"""What is there while a schedule runs: the world, its clients, what was promised to them, and the checks."""

from __future__ import annotations

from typing import Any

import trio
import trio.testing

from spoold.testing.exploration.reference_model import Facts, Register, rule
from spoold.testing.exploration.watched_client import WatchedClient
from spoold.testing.world import World

Json = dict[str, Any]
CLIENTS = 3
THREADS = 3
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
)


class Scene:
    """One world that is being explored."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.daemon = world.daemon
        self.facts: dict[str, Facts] = {}
        self.clients = [WatchedClient(self.daemon, name, self.facts) for name in "abc"[:CLIENTS]]
        self.faulty = False
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

    async def alive(self) -> bool:
        """Wait for the end of one that dies; whether the daemon runs."""
        if self.daemon.dying:
            await self.daemon.ended()
        return self.daemon.running

    # -- checks -----------------------------------------------------------------------------------------

    async def compare(self) -> None:
        """When all is quiet: everybody shows what the server has, and what was promised is there."""
        await self.daemon.settled()
        if not await self.alive():
            return
        self._observers += 1
        observer = WatchedClient(self.daemon, f"observer{self._observers}", self.facts)
        try:
            await observer.connect()
            loaded = (await observer.call("thread/loaded/list"))["data"]
            for thread_id in list(self.facts):
                if thread_id in loaded:
                    observer.ask(None, "thread/resume", threadId=thread_id)
            await self.daemon.settled()
            await self._compare_lists(observer)
            for thread_id in list(self.facts):
                await self._compare_thread(observer, thread_id)
        finally:
            await observer.disconnect()

    async def _compare_lists(self, observer: WatchedClient) -> None:
        if not self.daemon.running:
            return
        lists = [observer.send("thread/list", archived=which, limit=100) for which in (False, True)]
        await self.daemon.settled()
        if any(each.answer is None or "error" in each.answer for each in lists) or self.daemon.dying:
            return
        shown = [{row["id"] for row in (each.answer or {})["result"]["data"]} for each in lists]
        for thread_id, facts in self.facts.items():
            for archived, ids in enumerate(shown):
                if thread_id in ids:
                    rule(bool(archived) in facts.archived.possible(), f"{thread_id} is listed: {archived=}")
                    rule(facts.deleted.possible() != [True], f"{thread_id} was deleted, and is listed")
            listed = any(thread_id in ids for ids in shown)
            promised = facts.promised and facts.said_something and True not in facts.deleted.possible()
            rule(listed or not promised, f"section 4: {thread_id} is not listed")

    async def _compare_thread(self, observer: WatchedClient, thread_id: str) -> None:
        if not self.daemon.running:
            return
        facts = self.facts[thread_id]
        read = observer.send("thread/read", threadId=thread_id, includeTurns=True)
        rows = observer.send("thread/queue/list", threadId=thread_id, limit=100)
        await self.daemon.settled()
        if read.answer is None or rows.answer is None or self.daemon.dying:
            return
        gone = facts.deleted.possible()
        if gone == [True]:
            rule("error" in read.answer, f"section 4: {thread_id} was deleted, and can be read")
        if True in gone:
            return
        if "error" in read.answer:
            rule(
                not facts.promised or self.faulty,
                f"{thread_id} cannot be read: {read.answer['error']['message']}",
            )
            return
        thread = read.answer["result"]["thread"]
        running = [turn["id"] for turn in thread["turns"] if turn["status"] == "inProgress"]
        active = thread["status"]["type"] == "active"
        rule(bool(running) == active, f"{thread_id} is {thread['status']} and {running} is in progress")
        if "error" not in rows.answer:
            waiting = rows.answer["result"]["data"]
            if not any(client.connected and client.slow for client in self.clients):
                facts.observed(waiting, thread["turns"])
            facts.check_places(waiting, thread["turns"])
        facts.check_history(thread["turns"], running[0] if running else None)
        branch = (thread["gitInfo"] or {}).get("branch")
        for what, register, value in (
            ("named", facts.name, thread["name"]),
            ("on branch", facts.branch, branch),
        ):
            rule(register.allows(value), f"{thread_id} is {what} {value}, not one of {register.possible()}")
        if thread_id in observer.attached:
            reference = observer.shown(thread_id)
            objective = (reference["goal"] or {}).get("objective")
            possible = facts.goal.possible()
            rule(facts.goal.allows(objective), f"{thread_id} works for {objective}, not one of {possible}")
            for client in self.clients:
                if client.knows(thread_id) and not client.slow:
                    shown = client.shown(thread_id)
                    rule(shown == reference, difference(client.name, shown, reference))

    async def bury(self) -> None:
        """After a crash: what was told only of what had not ended may be gone, once all has been heard."""
        if len(self.daemon.deaths) > self._buried:
            await self.daemon.ended()
            await trio.testing.wait_all_tasks_blocked()
            while len(self.daemon.deaths) > self._buried:
                for facts in self.facts.values():
                    facts.died(power=self.daemon.deaths[self._buried])
                self._buried += 1

    def told_of_bugs(self) -> None:
        """Nothing was logged that only a bug can cause."""
        bugs = [text for text in self.world.complaints if not (self.faulty and text.endswith(FAULTS_SAY))]
        rule(not bugs, f"logged: {bugs}")


def difference(name: str, shown: Json, reference: Json) -> str:
    """The members in which a client differs from the server."""
    lines = [
        f"{name} shows {key} {shown[key]}\nthe server has {reference[key]}"
        for key in shown
        if shown[key] != reference[key]
    ]
    return "rule 4: " + "\n".join(lines)
