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
    **{
        f"{act}: spoold does not send thread/readState/changed here": "read receipts are not kept yet"
        for act in (
            "a turn",
            "a turn with reasoning",
            "a turn with a command",
            "a turn with other settings",
            "a turn that fails",
            "a turn with a question that is declined",
        )
    },
    **{
        f"{act}: the answer lacks .result.{where}.{member}": "read receipts are not kept yet"
        for act, where in (
            ("read", "readState"),
            ("read with turns", "readState"),
            ("list", "readStates.ID"),
        )
        for member in ("firstUnread", "firstUnread.turnId", "firstUnread.type", "revision")
    },
    "list: the answer lacks .result.readStates.ID": "read receipts are not kept yet",
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
