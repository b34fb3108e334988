"""What a client shows of one thread: the fold of a snapshot and of the messages after it.

The rules are those of docs/attach.md, for a client that must end with what the server has:

* a snapshot replaces everything, and so does the list of open requests that follows it;
* a delta is appended, a completed item replaces what was streamed of it;
* items are in the order in which they were completed, those in progress after them: so history has them;
* what a turn leaves unfinished goes: text whose stream was cut (steered, tried again), and everything at
  the end of the turn. What history does not keep (a declined command) is left out of ``shown``, only.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

Json = dict[str, Any]

GROWS = {
    "item/agentMessage/delta": ("text", None),
    "item/commandExecution/outputDelta": ("aggregatedOutput", None),
    "item/reasoning/summaryTextDelta": ("summary", "summaryIndex"),
    "item/reasoning/textDelta": ("content", "contentIndex"),
}
"""Deltas: the member of the item that grows, and where that is a list, what says which part."""


class ClientState:
    """See the module docstring.

    Attributes:
        thread_id: whose messages count; that of the first answer, if none was named.
        status, name, usage, goal: of the thread, as they came last.
        settings: the members ``model``, ``approvalPolicy`` and ``effort`` of its settings.
        turns: status and error by turn id, in order.
        items: by turn id and item id, in the order in which they are shown.
        finished: ids of the items that were completed.
        requests: open server requests by id.
        seq, epoch: of the last notification while attached; what a client sends when it comes back.
        ended: how often each turn was said to have ended.
    """

    def __init__(self, thread_id: str | None = None) -> None:
        self.thread_id = thread_id
        self.status: Json | None = None
        self.name: str | None = None
        self.usage: Json | None = None
        self.goal: Json | None = None
        self.settings: Json = {}
        self.turns: dict[str, Json] = {}
        self.items: dict[str, dict[str, Json]] = {}
        self.finished: set[str] = set()
        self.requests: dict[int | str, Json] = {}
        self.seq: int | None = None
        self.epoch: str | None = None
        self.ended: dict[str, int] = {}

    # -- what comes ------------------------------------------------------------------------------------

    def attached(self, result: Mapping[str, Any]) -> None:
        """The result of thread/start or thread/resume.

        One with ``replayed`` changes nothing of the turns: what was missed comes after it. In both cases
        the open requests are asked again.
        """
        result = copy.deepcopy(dict(result))
        thread = result["thread"]
        if self.thread_id is None:
            self.thread_id = thread["id"]
        if thread["id"] != self.thread_id:
            return
        self.requests.clear()
        self.status, self.name = thread["status"], thread["name"]
        self._set({**result, "effort": result.get("reasoningEffort")})
        if result.get("replayed"):
            return
        self.goal = self.usage = None
        self.seq, self.epoch = result.get("seq"), result.get("epoch")
        self.turns.clear()
        self.items.clear()
        self.finished.clear()
        for turn in thread["turns"]:
            self._turn(turn)
            running = turn["status"] == "inProgress"
            entries = {item["id"]: item for item in turn["items"]}
            self.items[turn["id"]] = entries
            self.finished.update(key for key, item in entries.items() if not running or _is_done(item))

    def message(self, message: Mapping[str, Any]) -> None:
        """A notification or a server request, in the order in which they come."""
        method, params = message["method"], copy.deepcopy(message["params"])
        about = params["thread"]["id"] if "thread" in params else params.get("threadId")
        if self.thread_id not in (None, about):
            return
        if "id" in message:
            self.requests[message["id"]] = {"method": method, **params}
            return
        if "seq" in message:
            self.seq, self.epoch = message["seq"], message["epoch"]
        match method:
            case "thread/started":
                self.status, self.name = params["thread"]["status"], params["thread"]["name"]
            case "thread/status/changed":
                self.status = params["status"]
            case "thread/name/updated":
                self.name = params["threadName"]
            case "thread/settings/updated":
                self._set(params["threadSettings"])
            case "thread/goal/updated":
                self.goal = params["goal"]
            case "thread/goal/cleared":
                self.goal = None
            case "thread/tokenUsage/updated":
                self.usage = params["tokenUsage"]
            case "serverRequest/resolved":
                self.requests.pop(params["requestId"], None)
            case "turn/started":
                self._turn(params["turn"])
                self.items.setdefault(params["turn"]["id"], {})
            case "turn/completed":
                self._completed(params["turn"])
            case "item/started":
                self._started(params["turnId"], params["item"])
            case "item/completed":
                entries = self.items.setdefault(params["turnId"], {})
                entries.pop(params["item"]["id"], None)
                self.finished.add(params["item"]["id"])
                unfinished = {key: entries.pop(key) for key in list(entries) if key not in self.finished}
                entries.update({params["item"]["id"]: params["item"], **unfinished})
            case "error":
                if params["willRetry"]:
                    self._cut_stream(params["turnId"])
            case "item/reasoning/summaryPartAdded":
                _part(self._item(params)["summary"], params["summaryIndex"])
            case _ if method in GROWS:
                self._grow(params, *GROWS[method])

    def all(self, messages: Iterable[Mapping[str, Any]]) -> ClientState:
        """Fold a whole log: answers that hold a thread are snapshots, other answers are skipped."""
        for message in messages:
            if "method" in message:
                self.message(message)
            elif "thread" in (message.get("result") or {}):
                self.attached(message["result"])
        return self

    # -- what is shown ---------------------------------------------------------------------------------

    def shown(self) -> Json:
        """Everything a user could see, as plain values that can be compared."""
        return {
            "status": self.status,
            "name": self.name,
            "usage": self.usage,
            "goal": self.goal,
            "settings": self.settings,
            "turns": self.turns,
            "items": {
                turn: [item for item in entries.values() if item.get("status") != "declined"]
                for turn, entries in self.items.items()
            },
            "requests": self.requests,
        }

    def text(self, turn_id: str) -> str:
        """The text of all agent messages of a turn."""
        entries = self.items[turn_id].values()
        return "".join(item["text"] for item in entries if item["type"] == "agentMessage")

    # -- how ---------------------------------------------------------------------------------------------

    def _set(self, settings: Json) -> None:
        self.settings = {key: settings.get(key) for key in ("model", "approvalPolicy", "effort")}

    def _turn(self, turn: Json) -> None:
        self.turns[turn["id"]] = {key: turn[key] for key in ("status", "error", "startedAt", "completedAt")}

    def _completed(self, turn: Json) -> None:
        turn_id = turn["id"]
        self.ended[turn_id] = self.ended.get(turn_id, 0) + 1
        self._turn(turn)
        entries = self.items.setdefault(turn_id, {})
        self.items[turn_id] = {key: item for key, item in entries.items() if key in self.finished}

    def _started(self, turn_id: str, item: Json) -> None:
        if item["type"] == "userMessage":
            self._cut_stream(turn_id)
        self.items.setdefault(turn_id, {})[item["id"]] = item

    def _cut_stream(self, turn_id: str) -> None:
        entries = self.items.get(turn_id, {})
        for key, item in list(entries.items()):
            if key not in self.finished and item["type"] in ("agentMessage", "reasoning"):
                del entries[key]

    def _item(self, params: Json) -> Json:
        return self.items[params["turnId"]][params["itemId"]]

    def _grow(self, params: Json, member: str, index: str | None) -> None:
        item = self._item(params)
        if index is None:
            item[member] = (item[member] or "") + params["delta"]
        else:
            _part(item[member], params[index])
            item[member][params[index]] += params["delta"]


def _is_done(item: Json) -> bool:
    """Whether an item of a running turn's snapshot is finished: the others have no end yet."""
    if "status" in item:
        return bool(item["status"] != "inProgress")
    return item.get("completedAtMs") is not None


def _part(parts: list[str], index: int) -> None:
    parts.extend("" for _ in range(index + 1 - len(parts)))
