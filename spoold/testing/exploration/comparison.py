"""The rules that hold when all is quiet: everybody shows what the server has, and what was promised is there.

Everything here gives up without a word when the daemon dies meanwhile.
"""

from __future__ import annotations

from spoold.testing.client import Pending
from spoold.testing.exploration.rules import Json, rule
from spoold.testing.exploration.scene import Scene
from spoold.testing.exploration.thread_model import Facts
from spoold.testing.exploration.watched_client import WatchedClient

PAGES = (("turns", 2), ("items", 3))
"""What is read in pages, and of how many."""


async def compare_all(scene: Scene) -> None:
    """Hold what a new client is shown against what was promised, and against what the others show."""
    await scene.daemon.settled()
    if not await scene.alive():
        return
    observer = scene.observer()
    try:
        await observer.connect()
        loaded = (await observer.call("thread/loaded/list"))["data"]
        for thread_id in list(scene.facts):
            if thread_id in loaded:
                observer.send("thread/resume", threadId=thread_id)
        await scene.daemon.settled()
        await _compare_lists(scene, observer)
        for thread_id, facts in list(scene.facts.items()):
            await _compare_thread(scene, observer, thread_id, facts)
    finally:
        await observer.disconnect()


async def check_unloaded(scene: Scene, alone: list[str]) -> None:
    """Rule 6: what nobody was attached to for longer than the unload delay is not loaded, unless it works."""
    await scene.daemon.settled()
    if not alone or not await scene.alive() or scene.stopping:
        return
    observer = scene.observer()
    try:
        await observer.connect()
        for thread_id in (await observer.call("thread/loaded/list"))["data"]:
            if thread_id in alone:
                read = await observer.call("thread/read", threadId=thread_id)
                state = read["thread"]["status"]["type"]
                rule(state == "active", f"rule 6: {thread_id} is {state}, alone for long, and loaded")
    finally:
        await observer.disconnect()


async def check_queues(scene: Scene) -> None:
    """Rule 5: in an idle thread only a failed row keeps others waiting."""
    client = scene.clients[0]
    for thread_id in sorted(client.attached):
        facts = scene.facts[thread_id]
        # An archive or delete that the disk has cut in the middle is finished by the next start.
        if facts.ephemeral or facts.deleted.allows(True) or facts.archived.allows(True):
            continue
        rows = (await client.call("thread/queue/list", threadId=thread_id, limit=100))["data"]
        if rows:
            state = rows[0]["status"]["type"]
            rule(state == "failed", f"rule 5: {thread_id} is idle, and its first row is {state}")


def check_reached(scene: Scene) -> None:
    """Rule 12: nothing waits for an answer for ever. And what must be on disk can be resumed."""
    for client in scene.clients:
        rule(not client.waits_for(), f"rule 12: {client.name} waits for {client.waits_for()}")
    for thread_id, facts in scene.facts.items():
        here = facts.archived.possible() == facts.deleted.possible() == [False]
        attached = thread_id in scene.clients[0].attached
        rule(attached or not here or not facts.promised, f"section 4: {thread_id} cannot be resumed")


async def _answers(scene: Scene, *requests: Pending) -> list[Json] | None:
    await scene.daemon.settled()
    if not scene.daemon.running or scene.daemon.dying:
        return None
    answers = [request.answer for request in requests if request.answer is not None]
    waits = [request.method for request in requests if request.answer is None]
    rule(not waits, f"rule 12: {waits} are not answered")
    return answers


async def _compare_lists(scene: Scene, observer: WatchedClient) -> None:
    if not observer.connected:
        return
    archives = [observer.send("thread/list", archived=which, limit=100) for which in (False, True)]
    answers = await _answers(scene, *archives)
    if answers is None or any("error" in answer for answer in answers):
        return
    shown = [{row["id"] for row in answer["result"]["data"]} for answer in answers]
    for thread_id, facts in scene.facts.items():
        for archived, ids in enumerate(shown):
            if thread_id in ids:
                rule(facts.archived.allows(bool(archived)), f"{thread_id} is listed: {archived=}")
                rule(facts.deleted.allows(False), f"{thread_id} was deleted, and is listed")
        listed = any(thread_id in ids for ids in shown)
        promised = facts.promised and facts.said_something and not facts.deleted.allows(True)
        rule(listed or not promised, f"section 4: {thread_id} is not listed")


async def _read(scene: Scene, observer: WatchedClient, thread_id: str) -> list[Json] | None:
    """The answers to thread/read and thread/queue/list, after which nothing more has happened."""
    while observer.connected:
        since = len(observer.log)
        answers = await _answers(
            scene,
            observer.send("thread/read", threadId=thread_id, includeTurns=True),
            observer.send("thread/queue/list", threadId=thread_id, limit=100),
        )
        # To look may be what a queue has waited for, on a disk that has failed.
        if answers is None or not any("method" in message for message in observer.log[since:]):
            return answers
    return None


async def _compare_thread(scene: Scene, observer: WatchedClient, thread_id: str, facts: Facts) -> None:
    answers = await _read(scene, observer, thread_id)
    if answers is None:
        return
    read, rows = answers
    if facts.deleted.allows(True):
        there = "error" not in read and not facts.deleted.allows(False)
        rule(not there, f"section 4: {thread_id} was deleted, and can be read")
        return
    if "error" in read:
        excused = not facts.promised or scene.faulty
        rule(excused, f"section 4: {thread_id} cannot be read: {read['error']['message']}")
        return
    thread = read["result"]["thread"]
    if not facts.ephemeral:
        _compare_facts(scene, facts, thread, None if "error" in rows else rows["result"]["data"])
    if thread_id in observer.attached:
        reference = observer.shown(thread_id)
        objective = (reference["goal"] or {}).get("objective")
        _allowed(facts, thread_id, "goal", objective)
        for client in scene.clients:
            if client.knows(thread_id) and not client.slow:
                shown = client.shown(thread_id)
                rule(shown == reference, _difference(client.name, shown, reference))
    await _compare_pages(scene, observer, thread)


def _compare_facts(scene: Scene, facts: Facts, thread: Json, rows: list[Json] | None) -> None:
    turns = thread["turns"]
    running = [turn["id"] for turn in turns if turn["status"] == "inProgress"]
    active = thread["status"]["type"] == "active"
    rule(bool(running) == active, f"{thread['id']} is {thread['status']} and {running} is in progress")
    if rows is not None:
        if not any(client.connected and client.slow for client in scene.clients):
            facts.observed(rows, turns)
        facts.check_places(rows, turns)
    facts.check_history(turns, running[0] if running else None, faulty=scene.ever_faulty)
    _allowed(facts, thread["id"], "name", thread["name"])
    _allowed(facts, thread["id"], "branch", (thread["gitInfo"] or {}).get("branch"))


def _allowed(facts: Facts, thread_id: str, member: str, value: str | None) -> None:
    register = getattr(facts, member)
    rule(register.allows(value), f"{member} of {thread_id} is {value}, not one of {register.possible()}")


async def _compare_pages(scene: Scene, observer: WatchedClient, thread: Json) -> None:
    turns = thread["turns"]
    whole = {
        "turns": [turn["id"] for turn in turns],
        "items": [item["id"] for turn in turns for item in turn["items"]],
    }
    for what, limit in PAGES:
        for direction in ("asc", "desc"):
            ids: list[str] = []
            cursor: str | None = None
            while cursor is not None or not ids:
                if not observer.connected:
                    return
                about = {"limit": limit, "cursor": cursor, "sortDirection": direction}
                page = observer.send(f"thread/{what}/list", threadId=thread["id"], **about)
                answers = await _answers(scene, page)
                if answers is None or "error" in answers[0]:
                    return
                found = answers[0]["result"]["data"]
                ids += [each["id"] if what == "turns" else each["item"]["id"] for each in found]
                cursor = answers[0]["result"]["nextCursor"]
                if not found:
                    break
            if direction == "desc":
                ids.reverse()
            rule(ids == whole[what], f"pages of {what} ({direction}) give {ids}, thread/read {whole[what]}")


def _difference(name: str, shown: Json, reference: Json) -> str:
    lines = [
        f"{name} shows {key} {shown[key]}\nthe server has {reference[key]}"
        for key in shown
        if shown[key] != reference[key]
    ]
    return "rule 4: " + "\n".join(lines)
