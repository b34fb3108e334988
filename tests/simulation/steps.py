"""The steps of which a schedule is made: one thing that a client, the disk or the world does.

A step is a name and three numbers. What the numbers mean depends on what there is (the client, the thread,
the text...), so that a step that was cut out of a schedule leaves the others meaningful. A step that is
impossible now does nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from persistence.fault_points import NAMES
from tests.simulation.reference_model import Queued, Register
from tests.simulation.scene import CLIENTS, THREADS, Scene

Json = dict[str, Any]
Step = tuple[str, int, int, int]

DECISIONS = ("accept", "decline", "cancel", "acceptForSession")
JUMPS = (0.001, 0.2, 5.0, 70.0, 1900.0)
FAULTS = ("append", "half an append", "flush", "commit")


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
            asked = client.threads[thread].requests[request_id]
            if "questions" in asked:
                client.answer({"id": request_id}, {"answers": {"q": {"answers": ["so"]}}})
            else:
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


async def put_away(scene: Scene, a: int, b: int, c: int) -> None:
    """thread/archive, thread/unarchive, and now and then thread/delete."""
    client, thread = scene.client(a), scene.thread(b)
    if client is None or thread is None:
        return
    facts, method = scene.facts[thread], ("archive", "unarchive", "archive", "unarchive", "delete")[c % 5]
    register, value = (facts.deleted, True) if method == "delete" else (facts.archived, method == "archive")
    write = register.write(value, scene.tick())

    def then(result: Json | None) -> None:
        if result is not None:
            write.done = scene.tick()
        elif not scene.faulty:  # what the disk has cut in the middle is finished later
            register.refused(write)

    client.ask(then, f"thread/{method}", threadId=thread)


async def update(scene: Scene, a: int, b: int, c: int) -> None:
    """thread/queue/update: a failed row is pending again, a pending one stays so."""
    client, thread = scene.client(a), scene.thread(b)
    if client is None or thread is None:
        return

    def then(result: Json | None) -> None:
        rows = (result or {}).get("data", ())
        if rows and client.connected:
            row = rows[c % len(rows)]
            said = row["turnStartParams"]
            client.send("thread/queue/update", threadId=thread, queuedTurnId=row["id"], turnStartParams=said)

    client.ask(then, "thread/queue/list", threadId=thread, limit=100)


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
            # One that went into the running turn at once is promised by that turn.
            message.added, message.row_id = "turnId" not in result, result["queuedTurn"]["id"]

    busy = ("interrupt", "steer", "enqueue", "enqueue", "enqueue")[c % 5]
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


# -- the model, time, the machine ---------------------------------------------------------------------------


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
        put_away,
        update,
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
