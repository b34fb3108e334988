"""The rules of ARCHITECTURE sections 3 and 4, as what any client may and may not see.

No daemon is imitated here. Two things are kept. A ``Stream`` per connection knows what may come next over it:
one answer per request, turns one after another, sequence numbers without a gap, prompts that are asked once
and do not outlive their turn. ``Facts`` per thread know what was promised to anybody, and so must be found by
everybody, also after a crash:

* a write that was acknowledged has happened, one that was refused has not, one without an answer may have;
  which of several that overlap came last, nobody knows (``Register``);
* a message that was queued is in exactly one of queue and transcript, unless it was deleted, then in neither;
* a turn whose end was told is there, with that status and those items, whatever happens; what was told of a
  turn that has not ended survives the process, not the machine;
* messages that were queued one after the other run in that order;
* turns that a ``thread/revert`` has cut off never come back. While one is on its way, nobody knows which of
  the turns of these days it takes (``doubtful``); the next read settles it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from spoold.testing.client import Pending

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
        self.started: set[str] = set()

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
                rule(new not in self.started, f"rule 2: {new} starts twice")
                self.turn, self.knows_turn = new, True
                self.started.add(new)
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

    ANYTHING = object()

    value: Any
    sent: int
    done: int | None = None


class Register:
    """A value that clients write concurrently, and every value that a read may give."""

    def __init__(self, value: Any) -> None:
        self._writes = [Write(value, 0, 0)]

    @classmethod
    def unknown(cls) -> Register:
        """One whose first value nobody has promised."""
        return cls(Write.ANYTHING)

    def allows(self, value: Any) -> bool:
        """Whether this may be read now."""
        return any(each is Write.ANYTHING or each == value for each in self.possible())

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
class Said:
    """A message of a user: sent at once, or queued.

    Attributes:
        sent, done: when, in the world's own order of events.
        in_order: it waits for its turn behind those before it.
        doubtful: a cut may have taken it.
    """

    sent: int = 0
    done: int | None = None
    in_order: bool = False
    doubtful: bool = False
    added: bool = False
    refused: bool = False
    row_id: str | None = None
    delete_sent: bool = False
    deleted: bool = False


@dataclass
class ToldTurn:
    """What was told of a turn.

    Attributes:
        status: how it has ended; None: its end was not told.
        recorded: the end is on disk, too.
        items: those that were completed, id and type.
        doubtful: a cut may have taken it.
    """

    status: str | None = None
    recorded: bool = True
    items: dict[str, str] = field(default_factory=dict)
    doubtful: bool = False


class Facts:
    """What was promised of one thread.

    Args:
        new: it has begun empty; a fork has not.

    Attributes:
        cuts: requests that cut the history and were not seen to have been worked off.
    """

    def __init__(self, *, new: bool = True) -> None:
        self.materialised = False
        self.injected = False
        self.name = Register(None) if new else Register.unknown()
        self.branch = Register(None) if new else Register.unknown()
        self.goal = Register(None)
        self.archived = Register(False)
        self.deleted = Register(False)
        self.said: dict[str, Said] = {}
        self.turns: dict[str, ToldTurn] = {}
        self.cuts: list[tuple[Pending, list[str]]] = []
        self._gone: set[str] = set()
        self._revisions: set[str] = set()

    @property
    def promised(self) -> bool:
        """Whether the thread must be on disk."""
        begun = self.materialised or self.injected or bool(self.turns)
        return begun or any(each.added for each in self.said.values())

    @property
    def said_something(self) -> bool:
        """Whether a user message is in its history: lists leave out threads without one."""
        return any("userMessage" in turn.items.values() and not turn.doubtful for turn in self.turns.values())

    def told(self, message: Json) -> None:
        """Somebody was told something."""
        params = message["params"]
        match message["method"]:
            case "turn/started":
                self._turn(params["turn"]["id"])
                self.materialised = True
            case "item/completed":
                item = params["item"]
                if item.get("status") != "declined":
                    self._turn(params["turnId"]).items[item["id"]] = item["type"]
            case "turn/completed":
                turn = self._turn(params["turn"]["id"])
                status = params["turn"]["status"]
                rule(turn.status in (None, status), f"turn {params['turn']['id']} ends as {status}, too")
                turn.status = status
                error = params["turn"]["error"] or {}
                turn.recorded = not str(error.get("message")).startswith(UNRECORDED)

    def _turn(self, turn_id: str) -> ToldTurn:
        if turn_id not in self.turns:
            told = ToldTurn(doubtful=bool(self.cuts))
            if turn_id in self._gone:
                return told  # somebody hears of it late
            self.turns[turn_id] = told
        return self.turns[turn_id]

    def says(self, message_id: str, now: int) -> Said:
        """A message is on its way."""
        message = self.said[message_id] = Said(sent=now, doubtful=bool(self.cuts))
        return message

    def revised(self, revision: str) -> None:
        """A change of the read state has succeeded that was based on this revision."""
        rule(revision not in self._revisions, f"two changes of the read state are based on {revision}")
        self._revisions.add(revision)

    def reordered(self) -> None:
        """Somebody changes the order of those that wait."""
        for message in self.said.values():
            message.in_order = False

    def cut(self, request: Pending, before: str | None) -> None:
        """A request was sent that cuts the history off, before this turn if it is known."""
        taken = [] if before is None else [turn_id for turn_id in self.turns if turn_id >= before]
        self.cuts.append((request, taken))
        for turn in self.turns.values():
            turn.doubtful = True
        for message in self.said.values():
            message.doubtful = True

    def observed(self, rows: list[Json], turns: list[Json]) -> None:
        """What a read shows when all is quiet and heard: whether cuts have happened, and what they took."""
        if not self.cuts or not all(request.done.is_set() for request, _ in self.cuts):
            return
        shown = {turn["id"] for turn in turns}
        for request, taken in self.cuts:
            if request.answer is not None and "result" in request.answer:
                rule(not shown.intersection(taken), f"section 4: {taken} were cut off, and are shown")
        self.cuts.clear()
        for turn_id, turn in list(self.turns.items()):
            if turn.doubtful and turn_id not in shown:
                self._gone.add(turn_id)
                del self.turns[turn_id]
            turn.doubtful = False
        places = self._places(rows, turns)
        for name, message in self.said.items():
            # One that was said to a running turn is nowhere yet, and may come.
            if message.doubtful and message.added and name not in places:
                message.deleted = message.delete_sent = True
            message.doubtful = False

    def died(self, *, power: bool) -> None:
        """The daemon is dead. With the machine may go what was told of turns whose end is not on disk."""
        for turn_id, turn in list(self.turns.items()):
            if power and (turn.status is None or not turn.recorded):
                del self.turns[turn_id]
        if power and not any(turn.status for turn in self.turns.values()):
            self.materialised = any(each.added for each in self.said.values())

    def check_history(self, turns: list[Json], running: str | None) -> None:
        """What thread/read shows. ``running``: the id of the turn that runs now."""
        shown = {turn["id"]: turn for turn in turns}
        rule(len(shown) == len(turns), "a turn is shown twice")
        back = self._gone.intersection(shown)
        rule(not back, f"section 4: {back} were cut off, and are back")
        for turn_id, told in self.turns.items():
            rule(turn_id in shown or told.doubtful, f"section 4: turn {turn_id} ({told.status}) is lost")
            if turn_id not in shown:
                continue
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
        places = self._places(rows, turns)
        for name, message in self.said.items():
            found = places.count(name)
            where = f"section 4: {name} ({message}) is in {found} places"
            rule(found <= 1, where)
            rule(found == 0 or not (message.deleted or message.refused), where)
            rule(found == 1 or not message.added or message.delete_sent or message.doubtful, where)
        waited = [self.said[name] for name in places if name in self.said and self.said[name].in_order]
        for early, late in combinations(waited, 2):
            rule(late.done is None or late.done > early.sent, f"rule 5: {late} comes after {early}")

    def _places(self, rows: list[Json], turns: list[Json]) -> list[str]:
        items = [item for turn in turns for item in turn["items"] if item["type"] == "userMessage"]
        return [item["clientId"] for item in items] + [row["clientUserMessageId"] for row in rows]
