"""Steps that change or show a thread as a whole: names, goals, settings, archives, forks, cut histories."""

from __future__ import annotations

from spoold.testing.exploration.rules import Json, rule
from spoold.testing.exploration.scene import THREADS, Scene
from spoold.testing.exploration.step import of_client, of_thread
from spoold.testing.exploration.watched_client import WatchedClient


@of_thread
async def name(scene: Scene, client: WatchedClient, thread: str, c: int) -> None:
    """thread/name/set."""
    value = f"name {scene.tick()}"
    scene.write(client, scene.facts[thread].name, value, "thread/name/set", threadId=thread, name=value)


@of_thread
async def branch(scene: Scene, client: WatchedClient, thread: str, c: int) -> None:
    """thread/metadata/update."""
    value = f"branch {scene.tick()}"
    register, info = scene.facts[thread].branch, {"branch": value}
    scene.write(client, register, value, "thread/metadata/update", threadId=thread, gitInfo=info)


@of_thread
async def goal(scene: Scene, client: WatchedClient, thread: str, c: int) -> None:
    """thread/goal/set, of another objective or only of a status, and thread/goal/clear."""
    register = scene.facts[thread].goal
    if c % 4 == 3:
        scene.write(client, register, None, "thread/goal/clear", threadId=thread)
    elif c % 4 == 2:
        client.send("thread/goal/set", threadId=thread, status=("paused", "active")[c // 4 % 2])
    else:
        value = f"goal {scene.tick()}"
        budget = 100 if c % 8 == 1 else None
        about: Json = {"threadId": thread, "objective": value, "tokenBudget": budget}
        scene.write(client, register, value, "thread/goal/set", **about)


@of_thread
async def change_settings(scene: Scene, client: WatchedClient, thread: str, c: int) -> None:
    """thread/settings/update."""
    changes = ({"effort": "low"}, {"effort": "high"}, {"approvalPolicy": "never"}, {"summary": "concise"})
    client.send("thread/settings/update", threadId=thread, **changes[c % len(changes)])


@of_thread
async def put_away(scene: Scene, client: WatchedClient, thread: str, c: int) -> None:
    """thread/archive, thread/unarchive, and now and then thread/delete."""
    facts, method = scene.facts[thread], ("archive", "unarchive", "archive", "unarchive", "delete")[c % 5]
    register, value = (facts.deleted, True) if method == "delete" else (facts.archived, method == "archive")
    facts.may_close = facts.may_close or method != "unarchive"
    # What the disk has cut in the middle is finished later.
    scene.write(client, register, value, f"thread/{method}", doubtful=True, threadId=thread)


@of_thread
async def fork(scene: Scene, client: WatchedClient, thread: str, c: int) -> None:
    """thread/fork: it has all turns that had ended when it was asked for."""
    if len(scene.facts) >= THREADS:
        return
    ended = scene.facts[thread].ended()

    def then(result: Json | None) -> None:
        if result is not None:
            has = [turn["id"] for turn in result["thread"]["turns"]]
            lost = [turn_id for turn_id in ended if turn_id not in has]
            rule(not lost or bool(scene.facts[thread].cuts), f"the fork has not {lost} of {ended}")

    client.ask(then, "thread/fork", threadId=thread)


@of_thread
async def revert(scene: Scene, client: WatchedClient, thread: str, c: int) -> None:
    """thread/revert to a turn that somebody has seen, or thread/rollback."""
    facts = scene.facts[thread]
    turns = sorted(facts.turns)
    if c % 3 == 0 or not turns:
        facts.cut(client.send("thread/rollback", threadId=thread, numTurns=1 + c % 2), None)
    else:
        before = turns[-1 - c // 3 % len(turns)]
        facts.cut(client.send("thread/revert", threadId=thread, beforeTurnId=before), before)


@of_thread
async def inject(scene: Scene, client: WatchedClient, thread: str, c: int) -> None:
    """thread/inject_items."""
    text = {"type": "input_text", "text": "<context>known</context>"}
    items = [{"type": "message", "role": "user", "content": [text]}]

    def then(result: Json | None) -> None:
        if result is not None:
            scene.facts[thread].injected = True

    client.ask(then, "thread/inject_items", threadId=thread, items=items)


@of_thread
async def mark(scene: Scene, client: WatchedClient, thread: str, c: int) -> None:
    """thread/readState/update, with the revision that a read has shown: each may be used once."""
    operation = {"type": ("read", "unread")[c % 2]}

    def then(result: Json | None) -> None:
        state = (result or {}).get("readState")
        if state is None or not client.connected:
            return
        used = state["revision"]

        def marked(result: Json | None) -> None:
            if result is not None:
                scene.facts[thread].revised(used)

        about = {"threadId": thread, "expectedRevision": used, "operation": operation}
        client.ask(marked, "thread/readState/update", **about)

    client.ask(then, "thread/read", threadId=thread)


@of_thread
async def stop_commands(scene: Scene, client: WatchedClient, thread: str, c: int) -> None:
    """The thread/backgroundTerminals methods."""
    if c % 3 == 0:
        client.send("thread/backgroundTerminals/clean", threadId=thread)
        return

    def then(result: Json | None) -> None:
        for row in (result or {}).get("data", ())[:1]:
            if client.connected:
                about = {"threadId": thread, "processId": row["processId"]}
                client.send("thread/backgroundTerminals/terminate", **about)

    client.ask(then, "thread/backgroundTerminals/list", threadId=thread)


@of_client
async def look(scene: Scene, client: WatchedClient, b: int, c: int) -> None:
    """Everything that only shows something."""
    thread = scene.thread(b)
    if thread is None or c % 7 == 0:
        client.send("thread/list", limit=2)
    elif c % 7 == 1:
        client.send("thread/turns/list", threadId=thread, limit=2)
    elif c % 7 == 2:
        client.send("thread/read", threadId=thread, includeTurns=True)
    elif c % 7 == 3:
        client.send("thread/items/list", threadId=thread, limit=3)
    elif c % 7 == 4:
        client.send("thread/search", searchTerm="say")
    elif c % 7 == 5:
        client.send("thread/goal/get", threadId=thread)
    else:
        client.send("thread/loaded/list")


STEPS = (
    name,
    branch,
    goal,
    change_settings,
    put_away,
    fork,
    revert,
    inject,
    mark,
    stop_commands,
    look,
)
