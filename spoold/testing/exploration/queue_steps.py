"""Steps of the queue."""

from __future__ import annotations

from spoold.testing.exploration.rules import Json, rule
from spoold.testing.exploration.scene import CLIENTS, Scene
from spoold.testing.exploration.step import of_thread
from spoold.testing.exploration.watched_client import WatchedClient

BUSY = ("interrupt", "steer", "enqueue", "enqueue", "enqueue")


async def add(scene: Scene, a: int, b: int, c: int) -> None:
    """thread/queue/add; what is left of the first number says what shall be done while a turn runs."""
    client, thread = scene.client(a), scene.thread(b)
    if client is None or thread is None:
        return
    message_id, text = scene.text(c)
    busy, facts = BUSY[a // CLIENTS % len(BUSY)], scene.facts[thread]
    message = facts.says(message_id, scene.tick())
    message.in_order = busy == "enqueue"
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
            message.done = scene.tick()

    client.ask(then, "thread/queue/add", threadId=thread, turnStartParams=said, whenBusy=busy)


@of_thread
async def add_again(scene: Scene, client: WatchedClient, thread: str, c: int) -> None:
    """An add that was acknowledged is sent once more, as by a client that has lost the answer."""
    facts = scene.facts[thread]
    added = [name for name, message in facts.said.items() if message.added and not message.delete_sent]
    if not added:
        return
    message_id = added[c % len(added)]
    message = facts.said[message_id]
    if message.doubtful or facts.cuts:
        return

    def then(result: Json | None) -> None:
        gone = message.delete_sent or message.doubtful or facts.deleted.allows(True)
        if result is not None and "queuedTurn" in result and not gone:
            row_id = result["queuedTurn"]["id"]
            rule(
                row_id == message.row_id, f"{message_id} is row {message.row_id}, and added again as {row_id}"
            )

    message.again = True
    text = {"type": "text", "text": "say again"}
    said = {"threadId": thread, "input": [text], "clientUserMessageId": message_id}
    client.ask(then, "thread/queue/add", threadId=thread, turnStartParams=said)


@of_thread
async def delete(scene: Scene, client: WatchedClient, thread: str, c: int) -> None:
    """thread/queue/delete."""
    rows = [each for each in scene.facts[thread].said.values() if each.added and not each.delete_sent]
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


@of_thread
async def update(scene: Scene, client: WatchedClient, thread: str, c: int) -> None:
    """thread/queue/update, with another text: a failed row is pending again, a pending one stays so."""

    def then(result: Json | None) -> None:
        rows = (result or {}).get("data", ())
        if not rows or not client.connected:
            return
        row = rows[c % len(rows)]
        text = f"say again {scene.tick()}"
        said = {**row["turnStartParams"], "input": [{"type": "text", "text": text}]}

        def updated(result: Json | None) -> None:
            if result is not None:
                shown = result["queuedTurn"]["turnStartParams"]["input"][0]["text"]
                rule(shown == text, f"an update to {text!r} is shown as {shown!r}")

        about = {"threadId": thread, "queuedTurnId": row["id"], "turnStartParams": said}
        client.ask(updated, "thread/queue/update", **about)

    client.ask(then, "thread/queue/list", threadId=thread, limit=100)


@of_thread
async def reorder(scene: Scene, client: WatchedClient, thread: str, c: int) -> None:
    """thread/queue/reorder: the first row becomes the last."""

    def then(result: Json | None) -> None:
        ids = [row["id"] for row in (result or {}).get("data", ())]
        if len(ids) > 1 and client.connected:
            scene.facts[thread].reordered()
            wanted = [*ids[1:], ids[0]]

            def reordered(result: Json | None) -> None:
                shown = [row["id"] for row in result["queuedTurns"]] if result is not None else wanted
                rule(shown == wanted, f"a reorder to {wanted} gives {shown}")

            client.ask(reordered, "thread/queue/reorder", threadId=thread, queuedTurnIds=wanted)

    client.ask(then, "thread/queue/list", threadId=thread, limit=100)


@of_thread
async def go_on(scene: Scene, client: WatchedClient, thread: str, c: int) -> None:
    """thread/queue/start."""
    client.send("thread/queue/start", threadId=thread)


STEPS = (add, add_again, delete, update, reorder, go_on)
