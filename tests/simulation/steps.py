"""The steps of which a schedule is made: one thing that a client, the disk or the world does.

A step is a name and three numbers. What the numbers mean depends on what there is (the client, the thread,
the text...), so that a step that was cut out of a schedule leaves the others meaningful. A step that is
impossible now does nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio
import trio.testing

from persistence.fault_points import NAMES
from spoold.testing import World
from tests.simulation.reference_model import Facts, Queued, Register, rule
from tests.simulation.watched_client import WatchedClient

Json = dict[str, Any]
Step = tuple[str, int, int, int]
CLIENTS = 3
THREADS = 3

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
)
DECISIONS = ("accept", "decline", "cancel", "acceptForSession")
JUMPS = (0.001, 0.2, 5.0, 70.0, 1900.0)
FAULTS = ("append", "half an append", "flush", "commit")


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
            for thread_id in list(self.facts):
                await self._compare_thread(observer, thread_id)
        finally:
            await observer.disconnect()

    async def _compare_thread(self, observer: WatchedClient, thread_id: str) -> None:
        if not self.daemon.running:
            return
        facts = self.facts[thread_id]
        read = observer.send("thread/read", threadId=thread_id, includeTurns=True)
        rows = observer.send("thread/queue/list", threadId=thread_id, limit=100)
        await self.daemon.settled()
        if read.answer is None or rows.answer is None or self.daemon.dying:
            return
        if "error" in read.answer:
            known = (
                facts.materialised or any(facts.turns) or any(each.added for each in facts.queued.values())
            )
            rule(not known or self.faulty, f"{thread_id} cannot be read: {read.answer['error']['message']}")
            return
        thread = read.answer["result"]["thread"]
        running = [turn["id"] for turn in thread["turns"] if turn["status"] == "inProgress"]
        active = thread["status"]["type"] == "active"
        rule(bool(running) == active, f"{thread_id} is {thread['status']} and {running} is in progress")
        facts.check_history(thread["turns"], running[0] if running else None)
        if facts.name is not None:
            possible = facts.name.possible()
            rule(thread["name"] in possible, f"{thread_id} is named {thread['name']}, not one of {possible}")
        if "error" not in rows.answer:
            facts.check_places(rows.answer["result"]["data"], thread["turns"])
        if thread_id in observer.attached:
            reference = observer.shown(thread_id)
            for client in self.clients:
                if thread_id in client.attached and not client.slow:
                    shown = client.shown(thread_id)
                    if self.faulty or True in self.daemon.deaths:
                        # What was counted went with the machine, or with a turn that could not be recorded.
                        shown["usage"] = reference["usage"]
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
        rule(not self.world.complaints, f"logged: {self.world.complaints}")


def difference(name: str, shown: Json, reference: Json) -> str:
    """The members in which a client differs from the server."""
    lines = [
        f"{name} shows {key} {shown[key]}\nthe server has {reference[key]}"
        for key in shown
        if shown[key] != reference[key]
    ]
    return "rule 4: " + "\n".join(lines)


Act = Callable[[Scene, int, int, int], Awaitable[None]]


# -- clients ------------------------------------------------------------------------------------------------


async def connect(scene: Scene, a: int, b: int, c: int) -> None:
    client = scene.clients[a % CLIENTS]
    if not client.connected and await scene.alive():
        await client.connect()


async def disconnect(scene: Scene, a: int, b: int, c: int) -> None:
    await scene.clients[a % CLIENTS].disconnect(lose=b % 2 == 0)


async def stop_reading(scene: Scene, a: int, b: int, c: int) -> None:
    if (client := scene.client(a)) is not None:
        client.stop_reading()
        client.slow = True


async def go_on_reading(scene: Scene, a: int, b: int, c: int) -> None:
    if (client := scene.client(a)) is not None:
        client.go_on_reading()
        client.slow = False


async def start_thread(scene: Scene, a: int, b: int, c: int) -> None:
    if (client := scene.client(a)) is not None and len(scene.facts) < THREADS:
        client.send("thread/start", approvalPolicy=("on-request", "never")[b % 2])


async def resume(scene: Scene, a: int, b: int, c: int) -> None:
    client, thread = scene.client(a), scene.thread(b)
    if client is None or thread is None:
        return
    known = client.threads.get(thread)
    coming = thread in client.attached or client.resuming(thread)
    if c % 2 and known is not None and known.seq is not None and not coming:
        client.send("thread/resume", threadId=thread, afterSeq=known.seq, epoch=known.epoch)
    else:
        client.send("thread/resume", threadId=thread)


async def unsubscribe(scene: Scene, a: int, b: int, c: int) -> None:
    client, thread = scene.client(a), scene.thread(b)
    if client is not None and thread is not None:
        client.send("thread/unsubscribe", threadId=thread)


async def turn(scene: Scene, a: int, b: int, c: int) -> None:
    client, thread = scene.client(a), scene.thread(b)
    if client is not None and thread is not None:
        _, text = scene.text(c)
        client.send("turn/start", threadId=thread, input=[{"type": "text", "text": text}])


async def steer(scene: Scene, a: int, b: int, c: int) -> None:
    client, thread = scene.client(a), scene.thread(b)
    if client is None or thread is None or (turn_id := client.stream(thread).turn) is None:
        return
    _, text = scene.text(c)
    said = [{"type": "text", "text": text}]
    client.send("turn/steer", threadId=thread, expectedTurnId=turn_id, input=said)


async def interrupt(scene: Scene, a: int, b: int, c: int) -> None:
    client, thread = scene.client(a), scene.thread(b)
    if client is not None and thread is not None and (turn_id := client.stream(thread).turn) is not None:
        client.send("turn/interrupt", threadId=thread, turnId=turn_id)


async def answer(scene: Scene, a: int, b: int, c: int) -> None:
    client, thread = scene.client(a), scene.thread(b)
    if client is not None and thread in client.attached and thread is not None:
        for request_id in list(client.threads[thread].requests):
            client.answer({"id": request_id}, {"decision": DECISIONS[c % len(DECISIONS)]})


async def name(scene: Scene, a: int, b: int, c: int) -> None:
    client, thread = scene.client(a), scene.thread(b)
    if client is None or thread is None:
        return
    register, value = scene.facts[thread].name or Register(None), f"name {scene.tick()}"
    write = register.write(value, scene.now)

    def then(result: Json | None) -> None:
        if result is None:
            register.refused(write)
        else:
            write.done = scene.tick()

    client.ask(then, "thread/name/set", threadId=thread, name=value)


async def fork(scene: Scene, a: int, b: int, c: int) -> None:
    client, thread = scene.client(a), scene.thread(b)
    if client is not None and thread is not None and len(scene.facts) < THREADS:
        # A fork begins with a name that nobody has promised.
        def then(result: Json | None) -> None:
            if result is not None:
                scene.facts[result["thread"]["id"]].name = None

        client.ask(then, "thread/fork", threadId=thread)


async def look(scene: Scene, a: int, b: int, c: int) -> None:
    client, thread = scene.client(a), scene.thread(b)
    if client is None:
        return
    if thread is None or c % 3 == 0:
        client.send("thread/list")
    elif c % 3 == 1:
        client.send("thread/turns/list", threadId=thread, limit=2)
    else:
        client.send("thread/read", threadId=thread, includeTurns=True)


# -- the queue ----------------------------------------------------------------------------------------------


async def add(scene: Scene, a: int, b: int, c: int) -> None:
    client, thread = scene.client(a), scene.thread(b)
    if client is None or thread is None:
        return
    message_id, text = scene.text(c)
    message = scene.facts[thread].queued[message_id] = Queued()
    said = {
        "threadId": thread,
        "input": [{"type": "text", "text": text}],
        "clientUserMessageId": message_id,
    }

    def then(result: Json | None) -> None:
        if result is None:
            message.refused = True
        else:
            message.added, message.row_id = True, result["queuedTurn"]["id"]

    busy = "interrupt" if c % 7 == 0 else "enqueue"
    client.ask(then, "thread/queue/add", threadId=thread, turnStartParams=said, whenBusy=busy)


async def delete(scene: Scene, a: int, b: int, c: int) -> None:
    client, thread = scene.client(a), scene.thread(b)
    if client is None or thread is None:
        return
    rows = [each for each in scene.facts[thread].queued.values() if each.added and not each.delete_sent]
    if not rows:
        return
    message = rows[c % len(rows)]
    message.delete_sent = True

    def then(result: Json | None) -> None:
        if result is not None and result["deleted"]:
            message.deleted = True
        else:
            message.delete_sent = False

    client.ask(then, "thread/queue/delete", threadId=thread, queuedTurnId=message.row_id)


async def reorder(scene: Scene, a: int, b: int, c: int) -> None:
    client, thread = scene.client(a), scene.thread(b)
    if client is None or thread is None:
        return

    def then(result: Json | None) -> None:
        ids = [row["id"] for row in (result or {}).get("data", ())]
        if len(ids) > 1 and client.connected:
            client.send("thread/queue/reorder", threadId=thread, queuedTurnIds=[*ids[1:], ids[0]])

    client.ask(then, "thread/queue/list", threadId=thread, limit=100)


async def go_on(scene: Scene, a: int, b: int, c: int) -> None:
    client, thread = scene.client(a), scene.thread(b)
    if client is not None and thread is not None:
        client.send("thread/queue/start", threadId=thread)


# -- the model, time, the machine -----------------------------------------------------------------------------


async def release(scene: Scene, a: int, b: int, c: int) -> None:
    if scene.gates:
        gate = scene.gates.pop(a % len(scene.gates))
        scene.world.model.release(gate)
        scene.world.commands.release(gate)


async def switches(scene: Scene, a: int, b: int, c: int) -> None:
    for _ in range(a % 12):
        await trio.lowlevel.checkpoint()


async def settle(scene: Scene, a: int, b: int, c: int) -> None:
    await scene.daemon.settled()


async def jump(scene: Scene, a: int, b: int, c: int) -> None:
    await trio.sleep(JUMPS[a % len(JUMPS)])


async def compare(scene: Scene, a: int, b: int, c: int) -> None:
    await scene.compare()


async def slow_disk(scene: Scene, a: int, b: int, c: int) -> None:
    scene.daemon.disk.slowness = (0.002, 0.5, 20.0)[a % 3]


async def fault(scene: Scene, a: int, b: int, c: int) -> None:
    scene.faulty = True
    scene.daemon.disk.fail(FAULTS[a % len(FAULTS)], after=b % 6, times=1 + c % 2)  # type: ignore[arg-type]


async def crash_at(scene: Scene, a: int, b: int, c: int) -> None:
    scene.daemon.disk.crash_at(NAMES[a % len(NAMES)], b % 5, power=c % 2 == 0)


async def crash(scene: Scene, a: int, b: int, c: int) -> None:
    if scene.daemon.running and not scene.daemon.dying:
        await scene.daemon.crash(power=a % 2 == 0)


async def stop(scene: Scene, a: int, b: int, c: int) -> None:
    if scene.daemon.running and not scene.daemon.dying:
        scene.stopping = True
        scene.daemon.ask_to_stop()


async def restart(scene: Scene, a: int, b: int, c: int) -> None:
    if not await scene.alive():
        scene.stopping = False
        await scene.daemon.start()


ACTS: dict[str, Act] = {
    act.__name__: act
    for act in (
        connect,
        disconnect,
        stop_reading,
        go_on_reading,
        start_thread,
        resume,
        unsubscribe,
        turn,
        steer,
        interrupt,
        answer,
        name,
        fork,
        look,
        add,
        delete,
        reorder,
        go_on,
        release,
        switches,
        settle,
        jump,
        compare,
        slow_disk,
        fault,
        crash_at,
        crash,
        stop,
        restart,
    )
}
