"""The rules of ARCHITECTURE sections 3 and 4, as what any client may and may not see.

No daemon is imitated here. Two things are kept. A ``Stream`` per connection knows what may come next over it:
one answer per request, turns one after another, sequence numbers without a gap, prompts that are asked once
and do not outlive their turn. ``Facts`` per thread know what was promised to anybody, and so must be found by
everybody, also after a crash:

* a write that was acknowledged has happened, one that was refused has not, one without an answer may have;
  which of several that overlap came last, nobody knows (``Register``);
* a message that was queued is in exactly one of queue and transcript, unless it was deleted, then in neither;
* a turn whose end was told is there, with that status and those items, whatever happens; what was told of a
  turn that has not ended survives the process, not the machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

DELTAS = (
    "item/agentMessage/delta",
    "item/commandExecution/outputDelta",
    "item/reasoning/summaryTextDelta",
    "item/reasoning/textDelta",
)
UNRECORDED = "the turn could not be recorded"
"""How the error of a turn begins that the disk has failed: it is told to have failed, and read as cut off."""


class Broken(AssertionError):
    """A rule is broken."""


def rule(held: bool, what: str) -> None:
    """Raise ``Broken`` unless it is so."""
    if not held:
        raise Broken(what)


# -- one connection ---------------------------------------------------------------------------------------


class Stream:
    """What has come over one connection, of one thread."""

    def __init__(self) -> None:
        self.attached = False
        self.seq: int | None = None
        self.turn: str | None = None
        self.knows_turn = False
        self.prompts: set[int] = set()

    def attach(self, result: Json, *, here: bool) -> None:
        """The answer that attaches; ``here``: this connection was attached already."""
        if not result.get("replayed"):
            running = [turn["id"] for turn in result["thread"]["turns"] if turn["status"] == "inProgress"]
            rule(len(running) <= 1, f"rule 5: two turns run: {running}")
            self.turn = running[0] if running else None
            self.knows_turn = bool(running) or result["thread"]["status"]["type"] != "active"
        elif not here:
            self.knows_turn = False
        self.attached, self.seq = True, result.get("seq")
        self.prompts = set()

    def detach(self) -> None:
        """The answer to thread/unsubscribe, or the thread is not loaded any more."""
        self.attached, self.knows_turn, self.seq = False, False, None

    def message(self, message: Json) -> None:
        """A notification, or a request of the daemon."""
        method, params = message["method"], message["params"]
        if "id" in message:
            rule(self.attached, f"rule 4: {method} was asked of who is not attached")
            rule(message["id"] not in self.prompts, f"rule 4: request {message['id']} was asked twice")
            self.prompts.add(message["id"])
            return
        if (seq := message.get("seq")) is not None:
            rule(self.attached, f"rule 4: {method} is numbered for who is not attached")
            gap = self.seq is not None and seq != self.seq + 1
            rule(not gap or (method in DELTAS and seq > (self.seq or 0)), f"rule 4: {seq} follows {self.seq}")
            self.seq = seq
        match method:
            case "turn/started":
                new = params["turn"]["id"]
                rule(not self.knows_turn or self.turn is None, f"rule 5: {new} starts while {self.turn} runs")
                rule(not self.prompts, f"prompts {self.prompts} outlive their turn")
                self.turn, self.knows_turn = new, True
            case "turn/completed":
                ended = params["turn"]["id"]
                rule(not self.knows_turn or self.turn == ended, f"rule 2: {ended} ends, not {self.turn}")
                self.turn, self.knows_turn = None, True
            case "serverRequest/resolved":
                self.prompts.discard(params["requestId"])
            case "thread/closed" | "thread/archived" | "thread/deleted":
                self.detach()
                self.turn, self.prompts = None, set()


# -- one thread -------------------------------------------------------------------------------------------


@dataclass
class Write:
    """One write to a register, in the world's own order of events."""

    value: Any
    sent: int
    done: int | None = None


class Register:
    """A value that clients write concurrently, and every value that a read may give."""

    def __init__(self, value: Any) -> None:
        self._writes = [Write(value, 0, 0)]

    def write(self, value: Any, now: int) -> Write:
        """A write was sent."""
        self._writes.append(write := Write(value, now))
        return write

    def refused(self, write: Write) -> None:
        """It has not happened."""
        self._writes.remove(write)

    def possible(self) -> list[Any]:
        """What may be read now."""
        return [write.value for write in self._writes if not self._overwritten(write)]

    def _overwritten(self, write: Write) -> bool:
        done = write.done
        return done is not None and any(
            other.done is not None and other.sent > done for other in self._writes
        )


@dataclass
class Queued:
    """A message that was to be queued."""

    added: bool = False
    refused: bool = False
    row_id: str | None = None
    delete_sent: bool = False
    deleted: bool = False


@dataclass
class ToldTurn:
    """What was told of a turn. ``status`` None: not its end. ``recorded``: the end is on disk, too."""

    status: str | None = None
    recorded: bool = True
    items: dict[str, str] = field(default_factory=dict)


class Facts:
    """What was promised of one thread."""

    def __init__(self) -> None:
        self.materialised = False
        self.name: Register | None = Register(None)
        self.archived = Register(False)
        self.deleted = Register(False)
        self.queued: dict[str, Queued] = {}
        self.turns: dict[str, ToldTurn] = {}

    @property
    def promised(self) -> bool:
        """Whether the thread must be on disk."""
        return self.materialised or bool(self.turns) or any(each.added for each in self.queued.values())

    @property
    def said_something(self) -> bool:
        """Whether a user message is in its history: lists leave out threads without one."""
        return any("userMessage" in turn.items.values() for turn in self.turns.values())

    def told(self, message: Json) -> None:
        """Somebody was told something."""
        params = message["params"]
        match message["method"]:
            case "turn/started":
                self.turns.setdefault(params["turn"]["id"], ToldTurn())
                self.materialised = True
            case "item/completed":
                item = params["item"]
                if item.get("status") != "declined":
                    turn = self.turns.setdefault(params["turnId"], ToldTurn())
                    turn.items[item["id"]] = item["type"]
            case "turn/completed":
                turn = self.turns.setdefault(params["turn"]["id"], ToldTurn())
                status = params["turn"]["status"]
                rule(turn.status in (None, status), f"turn {params['turn']['id']} ends as {status}, too")
                turn.status = status
                error = params["turn"]["error"] or {}
                turn.recorded = not str(error.get("message")).startswith(UNRECORDED)

    def died(self, *, power: bool) -> None:
        """The daemon is dead. With the machine may go what was told of turns whose end is not on disk."""
        for turn_id, turn in list(self.turns.items()):
            if power and (turn.status is None or not turn.recorded):
                del self.turns[turn_id]
        if power and not any(turn.status for turn in self.turns.values()):
            self.materialised = any(each.added for each in self.queued.values())

    def check_history(self, turns: list[Json], running: str | None) -> None:
        """What thread/read shows. ``running``: the id of the turn that runs now."""
        shown = {turn["id"]: turn for turn in turns}
        rule(len(shown) == len(turns), "a turn is shown twice")
        for turn_id, told in self.turns.items():
            rule(turn_id in shown, f"section 4: turn {turn_id} ({told.status}) is lost")
            status = shown[turn_id]["status"]
            if told.status is not None and (told.recorded or status != "interrupted"):
                rule(status == told.status, f"section 4: {turn_id} ended as {told.status}, shown as {status}")
            items = {item["id"] for item in shown[turn_id]["items"]}
            lost = {key: kind for key, kind in told.items.items() if key not in items}
            rule(not lost, f"section 4: items of {turn_id} are lost: {lost}")
        open_turns = [turn["id"] for turn in turns if turn["status"] == "inProgress"]
        rule(open_turns == ([running] if running else []), f"{open_turns} are in progress, {running} runs")

    def check_places(self, rows: list[Json], turns: list[Json]) -> None:
        """Each queued message is where it may be."""
        items = [item for turn in turns for item in turn["items"] if item["type"] == "userMessage"]
        places = [row["clientUserMessageId"] for row in rows] + [item["clientId"] for item in items]
        for name, message in self.queued.items():
            found = places.count(name)
            where = f"section 4: {name} ({message}) is in {found} places"
            rule(found <= 1, where)
            rule(found == 0 or not (message.deleted or message.refused), where)
            rule(found == 1 or not message.added or message.delete_sent, where)
