"""Steps of a conversation: threads and turns begin, are steered, interrupted, asked and answered."""

from __future__ import annotations

from typing import Any

from spoold.testing.exploration.rules import Json
from spoold.testing.exploration.scene import THREADS, Scene
from spoold.testing.exploration.step import of_client, of_thread
from spoold.testing.exploration.watched_client import WatchedClient

DECISIONS = ("accept", "decline", "cancel", "acceptForSession")
TOOLS = [{"type": "function", "name": "lookup", "description": "looks it up", "inputSchema": {}}]
UNREADABLE: tuple[Any, ...] = ({"nothing": "here"}, [], "accept", None)


@of_client
async def start_thread(scene: Scene, client: WatchedClient, b: int, c: int) -> None:
    """thread/start, with a tool of the client's own."""
    if len(scene.facts) < THREADS:
        policy = ("on-request", "never", "untrusted")[b % 3]
        client.send("thread/start", approvalPolicy=policy, dynamicTools=TOOLS, ephemeral=c % 8 == 7)


@of_thread
async def resume(scene: Scene, client: WatchedClient, thread: str, c: int) -> None:
    """thread/resume, from the beginning or from where the client has been."""
    known = client.threads.get(thread)
    coming = thread in client.attached or client.resuming(thread)
    if c % 2 and known is not None and known.seq is not None and not coming:
        client.send("thread/resume", threadId=thread, afterSeq=known.seq, epoch=known.epoch)
    else:
        client.send("thread/resume", threadId=thread)


@of_thread
async def unsubscribe(scene: Scene, client: WatchedClient, thread: str, c: int) -> None:
    """thread/unsubscribe."""
    client.send("thread/unsubscribe", threadId=thread)


@of_thread
async def turn(scene: Scene, client: WatchedClient, thread: str, c: int) -> None:
    """turn/start."""
    _say(scene, client, thread, c, "turn/start")


@of_thread
async def steer(scene: Scene, client: WatchedClient, thread: str, c: int) -> None:
    """turn/steer, of the turn that the client knows to be running."""
    if (turn_id := client.stream(thread).turn) is not None:
        _say(scene, client, thread, c, "turn/steer", expectedTurnId=turn_id)


@of_thread
async def interrupt(scene: Scene, client: WatchedClient, thread: str, c: int) -> None:
    """turn/interrupt, of the turn that the client knows to be running."""
    if (turn_id := client.stream(thread).turn) is None:
        return

    def then(result: Json | None) -> None:
        if result is not None:
            scene.facts[thread].interrupts(turn_id)

    client.ask(then, "turn/interrupt", threadId=thread, turnId=turn_id)


@of_thread
async def answer(scene: Scene, client: WatchedClient, thread: str, c: int) -> None:
    """Answer every open question of a thread."""
    if thread not in client.attached:
        return
    for request_id, asked in list(client.threads[thread].requests.items()):
        result: Json
        if "questions" in asked:
            result = {"answers": {"q": {"answers": ["so"]}}}
        elif "tool" in asked:
            result = {"contentItems": [{"type": "inputText", "text": "found"}], "success": c % 2 == 0}
        else:
            decision = DECISIONS[c % len(DECISIONS)]
            scene.facts[thread].answers.setdefault(asked["itemId"], set()).add(decision)
            result = {"decision": decision}
        client.answer({"id": request_id}, result)


@of_client
async def answer_badly(scene: Scene, client: WatchedClient, b: int, c: int) -> None:
    """Answer what nobody can read, or allow what this client was never asked about."""
    questions = [
        (thread, request_id, asked)
        for other in scene.clients
        for thread in sorted(other.attached)
        for request_id, asked in other.threads[thread].requests.items()
    ]
    if not questions:
        return
    thread, request_id, asked = questions[b % len(questions)]
    # The question may be on its way to who attaches, or has attached.
    coming = thread in client.attached or client.resuming(thread)
    if request_id in client.asked or coming or c % 2:
        client.answer({"id": request_id}, UNREADABLE[c % len(UNREADABLE)])
    else:
        scene.facts[thread].answers.setdefault(asked.get("itemId", ""), set())
        client.answer({"id": request_id}, {"decision": "accept"})


def _say(scene: Scene, client: WatchedClient, thread: str, c: int, method: str, **params: str) -> None:
    message_id, text = scene.text(c)
    message = scene.facts[thread].says(message_id, scene.tick())

    def then(result: Json | None) -> None:
        message.refused = result is None
        if result is not None:
            message.turn = result["turn"]["id"] if "turn" in result else result["turnId"]

    said = [{"type": "text", "text": text}]
    client.ask(then, method, threadId=thread, input=said, clientUserMessageId=message_id, **params)


STEPS = (start_thread, resume, unsubscribe, turn, steer, interrupt, answer, answer_badly)
