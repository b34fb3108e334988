"""One script, two servers: what each sent, act by act, and where they differ.

An act is a request and the notifications until the one that ends it. What is compared is not the values but
the methods in their order and the members of every message, however deep.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from spoold.client import RpcFailed
from tests.support.daemon_process import DaemonProcess

STATUS = "thread/status/changed"

PRODUCT_NOTIFICATIONS = {
    "account/rateLimits/updated",
    "account/updated",
    "app/list/updated",
    "configWarning",
    "deprecationNotice",
    "mcpServer/startupStatus/updated",
    "remoteControl/status/changed",
    "skills/changed",
    "thread/environment/connected",
    "thread/environment/disconnected",
    "warning",
}
"""Chatter about the reference's products, and warnings about its machine: spoold need not send them."""

KNOWN = {
    "interrupt: spoold does not send thread/tokenUsage/updated here": (
        "the reference says once more what it has said after the last model response"
    ),
    "archive while a turn runs: spoold does not send thread/tokenUsage/updated here": (
        "the same: archiving interrupts the turn first"
    ),
    "revert again: reference [{'type': 'notLoaded'}, {'type': 'idle'}], spoold []": (
        "the reference reloads the thread before it finds that there is no such turn"
    ),
}
"""Differences that are meant, or known; with the reason. One that is gone must go from here, too."""

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass
class Act:
    """What one act brought: the answer first, then the notifications in their order."""

    name: str
    answer: Mapping[str, Any]
    notes: list[Mapping[str, Any]]

    @property
    def methods(self) -> list[str]:
        """The methods in order. Deltas may be joined, so a run of them counts once.

        Statuses are left out: the reference sends them beside the events of a turn, now earlier, now later.
        """
        names = [note["method"] for note in self.notes if note["method"] != STATUS]
        folded = ("delta", "Delta")
        return [
            name
            for before, name in zip([None, *names], names, strict=False)
            if name != before or not name.endswith(folded)
        ]

    @property
    def statuses(self) -> list[Any]:
        """The statuses in order; a repetition counts once."""
        found = [note["params"]["status"] for note in self.notes if note["method"] == STATUS]
        return [status for before, status in zip([None, *found], found, strict=False) if status != before]


class Performance:
    """The script on one server."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self.daemon = daemon
        self.acts: list[Act] = []
        self._seen = 0

    async def act(self, name: str, method: str, params: Any, until: str | None = None) -> Mapping[str, Any]:
        """One request; ``until`` is the notification that is its last."""
        client = self.daemon.client
        try:
            answer = {"result": await client.call(method, params)}
        except RpcFailed as error:
            answer = {"error": {"code": error.code, "message": error.message}}
        if until is not None:
            await client.wait_for(until)
        self.close(name, answer)
        return answer

    def close(self, name: str, answer: Mapping[str, Any]) -> None:
        """Take what has come since the last act."""
        new = [
            note
            for note in list(self.daemon.client.seen)[self._seen :]
            if note["method"] not in PRODUCT_NOTIFICATIONS
        ]
        self._seen = len(self.daemon.client.seen)
        self.acts.append(Act(name, answer, new))


def text(words: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": words, "text_elements": []}]


async def the_script(show: Performance) -> None:
    """Starts, turns of every outcome, reads, lists, errors."""
    client, model, work = show.daemon.client, show.daemon.model, show.daemon.work
    again = {"clientInfo": {"name": "again", "version": "1"}}
    await show.act("initialize twice", "initialize", again)
    started = await show.act("start", "thread/start", {"cwd": str(work)}, until="thread/started")
    thread = {"threadId": started["result"]["thread"]["id"]}

    async def turn(name: str, words: str, **params: Any) -> None:
        sent = {**thread, "input": text(words), **params}
        await show.act(name, "turn/start", sent, until="turn/completed")

    await turn("a turn", "say hello there")
    await turn("a turn with reasoning", "reason think about it ;; answer")
    await turn("a turn with a command", "shell echo out; exit 3 | say done")
    await turn("a turn with other settings", "say again", effort="high")
    await turn("a turn that fails", "http 400 no good")
    sent = {**thread, "input": text("hold gate one two three")}
    running = await client.call("turn/start", sent)
    await client.wait_for("item/agentMessage/delta")
    show.close("a turn that is interrupted, up to its first text", {"result": running})
    turn_id = {"turnId": running["turn"]["id"]}
    await show.act("interrupt", "turn/interrupt", {**thread, **turn_id}, until="turn/completed")
    model.release("gate")
    approval = {**thread, "input": text("shell touch made"), "approvalPolicy": "untrusted"}
    answer = await client.call("turn/start", approval)
    question = await client.wait_for("item/commandExecution/requestApproval")
    await client.answer(question, {"decision": "decline"})
    await client.wait_for("turn/completed")
    show.close("a turn with a question that is declined", {"result": answer})
    await show.act("read", "thread/read", thread)
    await show.act("read with turns", "thread/read", {**thread, "includeTurns": True})
    await show.act("turns", "thread/turns/list", {**thread, "limit": 2})
    await show.act("turns with items", "thread/turns/list", {**thread, "itemsView": "full"})
    await show.act("items", "thread/items/list", {**thread, "limit": 50})
    await show.act("list", "thread/list", {})
    await show.act("loaded", "thread/loaded/list", {})
    await show.act("resume", "thread/resume", thread, until="thread/goal/cleared")
    await show.act("account", "account/read", {})
    await show.act("read of no thread", "thread/read", {"threadId": "00000000-0000-7000-8000-000000000000"})
    await show.act("read of no id", "thread/read", {"threadId": "nope"})
    await show.act("interrupt of nothing", "turn/interrupt", {**thread, **turn_id})
    await show.act("unknown method", "no/such/method", {})
    await show.act("wrong type", "thread/read", {"threadId": 5})
    await show.act("unsubscribe", "thread/unsubscribe", thread)
    await the_lifecycle(show)


async def the_lifecycle(show: Performance) -> None:
    """A second thread: named, forked, cut, put away, brought back and deleted; and what is refused."""
    client = show.daemon.client
    nobody = {"threadId": "00000000-0000-7000-8000-000000000000"}
    started = await show.act("start another", "thread/start", {}, until="thread/started")
    thread = {"threadId": started["result"]["thread"]["id"]}

    async def turn(name: str, words: str) -> str:
        sent = {**thread, "input": text(words)}
        answer = await show.act(name, "turn/start", sent, until="turn/completed")
        turn_id: str = answer["result"]["turn"]["id"]
        return turn_id

    await turn("its first turn", "say one")
    second = await turn("its second turn", "say two")
    await show.act("name", "thread/name/set", {**thread, "name": " n "}, until="thread/name/updated")
    await show.act("empty name", "thread/name/set", {**thread, "name": " "})
    await show.act("name of nobody", "thread/name/set", {**nobody, "name": "n"})
    git = {"branch": "b", "sha": None}
    await show.act("metadata", "thread/metadata/update", {**thread, "gitInfo": git})
    await show.act("empty metadata", "thread/metadata/update", thread)
    await show.act("blank branch", "thread/metadata/update", {**thread, "gitInfo": {"branch": ""}})
    await show.act("metadata of nobody", "thread/metadata/update", {**nobody, "gitInfo": git})
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "injected"}]}
    await show.act("inject", "thread/inject_items", {**thread, "items": [item]})
    await show.act("inject nothing", "thread/inject_items", {**thread, "items": []})
    await show.act("inject into nobody", "thread/inject_items", {**nobody, "items": [item]})
    read = await show.act("read state", "thread/read", thread)
    known = read["result"]["readState"]["revision"]
    marked = {**thread, "operation": {"type": "read"}, "expectedRevision": known}
    await show.act("mark as read", "thread/readState/update", marked)
    await show.act("mark with an old revision", "thread/readState/update", marked)
    await show.act("search", "thread/search", {"searchTerm": "one"})
    await show.act("search for nothing", "thread/search", {"searchTerm": ""})
    forked = await show.act("fork", "thread/fork", thread, until="thread/tokenUsage/updated")
    fork = {"threadId": forked["result"]["thread"]["id"]}
    both = {"lastTurnId": second, "beforeTurnId": second}
    await show.act("fork with both ends", "thread/fork", {**thread, **both})
    await show.act("fork up to no turn", "thread/fork", {**thread, "lastTurnId": "nope"})
    await show.act("fork of nobody", "thread/fork", nobody)
    reverted = {**thread, "beforeTurnId": second}
    await show.act("revert", "thread/revert", reverted, until="thread/reverted")
    await show.act("revert again", "thread/revert", reverted)
    await show.act("read of what is left", "thread/read", {**thread, "includeTurns": True})
    await turn("a turn after it", "say three")
    await show.act("archive", "thread/archive", thread, until="thread/archived")
    await show.act("archive again", "thread/archive", thread)
    await show.act("archive nobody", "thread/archive", nobody)
    await show.act("archived list", "thread/list", {"archived": True})
    await show.act("read of an archived thread", "thread/read", thread)
    await show.act("resume of an archived thread", "thread/resume", thread)
    await show.act("fork of an archived thread", "thread/fork", thread)
    await show.act("turn in an archived thread", "turn/start", {**thread, "input": text("x")})
    await show.act("name of an archived thread", "thread/name/set", {**thread, "name": "n"})
    await show.act("unarchive", "thread/unarchive", thread, until="thread/unarchived")
    await show.act("unarchive nobody", "thread/unarchive", nobody)
    await show.act("resume what was unarchived", "thread/resume", thread, until="thread/goal/cleared")
    await show.act("unarchive what is loaded", "thread/unarchive", thread)
    running = await client.call("turn/start", {**thread, "input": text("hold last one two")})
    await client.wait_for("item/agentMessage/delta")
    show.close("a turn up to its first text", {"result": running})
    await show.act("archive while a turn runs", "thread/archive", thread, until="thread/archived")
    show.daemon.model.release("last")
    # The reference keeps a thread as long as there is a fork of it; one of ours needs nothing of its source.
    await show.act("delete a loaded thread", "thread/delete", fork, until="thread/deleted")
    await show.act("delete an archived thread", "thread/delete", thread, until="thread/deleted")
    await show.act("delete again", "thread/delete", thread)
    await show.act("read of what was deleted", "thread/read", fork)


def members(value: Any, path: str = "") -> set[str]:
    """Every member as a path. Elements of a list count together, told apart by their ``type``."""
    if isinstance(value, dict):
        found: set[str] = set()
        for name, inner in value.items():
            inner_path = f"{path}.{_ID.sub('ID', name)}"
            found |= {inner_path} | members(inner, inner_path)
        return found
    if isinstance(value, list):
        return {
            member
            for inner in value
            for member in members(
                inner, f"{path}[{inner.get('type', '') if isinstance(inner, dict) else ''}]"
            )
        }
    return set()


def differences(reference: Iterable[Act], ours: Iterable[Act]) -> list[str]:
    """What spoold did otherwise or left out, one line each."""
    found: list[str] = []
    for theirs, mine in zip(reference, ours, strict=True):
        if theirs.methods != mine.methods:
            found += [f"{theirs.name}: {line}" for line in _moved(theirs.methods, mine.methods)]
        if theirs.statuses != mine.statuses:
            found.append(f"{theirs.name}: reference {theirs.statuses}, spoold {mine.statuses}")
        own = _shapes(mine)
        for what, expected in _shapes(theirs).items():
            lacking = sorted(expected - own.get(what, expected))
            found += [f"{theirs.name}: {what} lacks {member}" for member in lacking]
        if theirs.answer.get("error", {}).get("code") != mine.answer.get("error", {}).get("code"):
            found.append(f"{theirs.name}: reference {theirs.answer}, spoold {mine.answer}")
    return found


def _moved(reference: list[str], ours: list[str]) -> Iterator[str]:
    for step in difflib.ndiff(reference, ours):
        if step.startswith("- "):
            yield f"spoold does not send {step[2:]} here"
        elif step.startswith("+ "):
            yield f"the reference does not send {step[2:]} here"


def _shapes(act: Act) -> dict[str, set[str]]:
    shapes = {"the answer": members(act.answer)}
    for note in act.notes:
        item = note.get("params", {}).get("item", {})
        what = f"{note['method']} {item.get('type', '')}".strip()
        shapes.setdefault(what, set()).update(members(note))
    return shapes
