"""What a client knows of a thread: the fold of a snapshot and of the events after it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

_GROWS = {
    "item/agentMessage/delta": ("text", None),
    "item/commandExecution/outputDelta": ("aggregatedOutput", None),
    "item/reasoning/summaryTextDelta": ("summary", "summaryIndex"),
    "item/reasoning/textDelta": ("content", "contentIndex"),
}


@dataclass
class View:
    """Items by turn, in order; the status of each turn and of the thread; open requests by id."""

    status: Any = None
    turns: dict[str, str] = field(default_factory=dict)
    items: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    requests: dict[int, Any] = field(default_factory=dict)

    def snapshot(self, result: dict[str, Any]) -> None:
        self.status = result["thread"]["status"]
        for turn in result["thread"]["turns"]:
            self.turns[turn["id"]] = turn["status"]
            self.items[turn["id"]] = {item["id"]: item for item in turn["items"]}

    def event(self, message: dict[str, Any]) -> None:
        method, params = message["method"], message["params"]
        if "id" in message:
            self.requests[message["id"]] = params
            return
        match method:
            case "thread/status/changed":
                self.status = params["status"]
            case "turn/started" | "turn/completed":
                self.turns[params["turn"]["id"]] = params["turn"]["status"]
                self.items.setdefault(params["turn"]["id"], {})
            case "item/started" | "item/completed":
                self.items.setdefault(params["turnId"], {})[params["item"]["id"]] = params["item"]
            case "item/reasoning/summaryPartAdded":
                _part(self.items[params["turnId"]][params["itemId"]]["summary"], params["summaryIndex"])
            case "serverRequest/resolved":
                del self.requests[params["requestId"]]
            case _ if method in _GROWS:
                self._grow(params, *_GROWS[method])

    def _grow(self, params: dict[str, Any], member: str, index: str | None) -> None:
        item = self.items[params["turnId"]][params["itemId"]]
        if index is None:
            item[member] = (item[member] or "") + params["delta"]
        else:
            _part(item[member], params[index])
            item[member][params[index]] += params["delta"]

    def comparable(self) -> Any:
        """Without what depends on when one looked: times, and items that were never finished."""
        items = {
            turn: [
                {key: value for key, value in item.items() if not key.endswith("AtMs")}
                for item in entries.values()
            ]
            for turn, entries in self.items.items()
        }
        return self.status, self.turns, items, self.requests


def _part(parts: list[str], index: int) -> None:
    parts.extend("" for _ in range(index + 1 - len(parts)))
