"""What was promised of one thread, to anybody, and so must be found by everybody, also after a crash.

* A write that was acknowledged has happened, one that was refused has not, one without an answer may have;
  which of several that overlap came last, nobody knows (``Register``).
* A message that was queued is in exactly one of queue and transcript, unless it was deleted, then in neither.
  Those that were queued one after the other run in that order. One that a turn has accepted is in the
  transcript when that turn has ended.
* A turn whose end was told is there, with that status and those items, whatever happens; what was told of a
  turn that has not ended survives the process, not the machine.
* A command ran only if somebody has accepted it; a turn that was interrupted has ended so.
* Turns that a ``thread/revert`` has cut off never come back. While one is on its way, nobody knows which of
  the turns of these days it takes (``doubtful``); the next read settles it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from spoold.testing.client import Pending
from spoold.testing.exploration.rules import UNRECORDED, Json, rule


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
        again: it was added once more, perhaps after it had been deleted.
        in_order: it waits for its turn behind those before it.
        turn: the turn that has accepted it.
        doubtful: a cut may have taken it.
    """

    sent: int = 0
    done: int | None = None
    again: bool = False
    in_order: bool = False
    turn: str | None = None
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
        interrupted: somebody was told that it is.
        crashed: the daemon has died since it began.
        doubtful: a cut may have taken it.
    """

    status: str | None = None
    recorded: bool = True
    interrupted: bool = False
    crashed: bool = False
    items: dict[str, str] = field(default_factory=dict)
    doubtful: bool = False

    @property
    def for_good(self) -> bool:
        """Whether its end was told, and is on disk."""
        return self.status is not None and self.recorded


class Facts:
    """What was promised of one thread.

    Args:
        new: it has begun empty; a fork has not.
        ephemeral: nothing of it is promised to outlive anything.

    Attributes:
        cuts: requests that cut the history and were not seen to have been worked off.
        answers: decisions that clients have sent, by the item that was asked about.
        may_close: somebody has asked for what ends or may end the thread's stay in memory.
    """

    def __init__(self, *, new: bool = True, ephemeral: bool = False) -> None:
        self.ephemeral = ephemeral
        self.materialised = False
        self.injected = False
        self.name = Register(None) if new else Register.unknown()
        self.branch = Register(None) if new else Register.unknown()
        self.goal = Register(None)
        self.archived = Register(False)
        self.deleted = Register(False)
        self.said: dict[str, Said] = {}
        self.turns: dict[str, ToldTurn] = {}
        self.answers: dict[str, set[str]] = {}
        self.may_close = False
        self.cuts: list[tuple[Pending, list[str]]] = []
        self._gone: set[str] = set()
        # Invariant: the messages that waited when all was quiet last, in order; None: it may have changed.
        self._order: list[str] | None = None
        self._revisions: set[str] = set()

    @property
    def promised(self) -> bool:
        """Whether the thread must be on disk."""
        begun = self.materialised or self.injected or bool(self.turns)
        return not self.ephemeral and (begun or any(each.added for each in self.said.values()))

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
                self._check_decision(item)
                if item.get("status") != "declined":
                    self._turn(params["turnId"]).items[item["id"]] = item["type"]
            case "turn/completed":
                turn = self._turn(params["turn"]["id"])
                status = params["turn"]["status"]
                rule(turn.status in (None, status), f"turn {params['turn']['id']} ends as {status}, too")
                turn.status = status
                error = params["turn"]["error"] or {}
                turn.recorded = not str(error.get("message")).startswith(UNRECORDED)

    def _check_decision(self, item: Json) -> None:
        if item["id"] in self.answers:
            given = self.answers[item["id"]]
            said = f"{item['id']} is {item['status']}, the answers were {sorted(given)}"
            rule(item["status"] != "declined" or bool({"decline", "cancel"} & given), said)
            rule(item["status"] != "completed" or bool({"accept", "acceptForSession"} & given), said)

    def interrupts(self, turn_id: str) -> None:
        """Somebody was told that this turn is interrupted."""
        if turn_id in self.turns:
            self.turns[turn_id].interrupted = True

    def ended(self) -> list[str]:
        """The turns that nothing can take away any more."""
        return [turn_id for turn_id, turn in self.turns.items() if turn.for_good and not turn.doubtful]

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
        self._order = None
        for message in self.said.values():
            message.in_order = False

    def cut(self, request: Pending, before: str | None) -> None:
        """A request was sent that cuts the history off, before this turn if it is known."""
        taken = [] if before is None else [turn_id for turn_id in self.turns if turn_id >= before]
        self.cuts.append((request, taken))
        self.may_close = True
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
            turn.crashed = True
            if power and not turn.for_good:
                del self.turns[turn_id]
        if power and not any(turn.status for turn in self.turns.values()):
            self.materialised = any(each.added for each in self.said.values())

    def check_history(self, turns: list[Json], running: str | None, *, faulty: bool) -> None:
        """What thread/read shows.

        Args:
            turns: of the thread.
            running: the id of the turn that runs now.
            faulty: the disk may have kept an end from being recorded.
        """
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
            cut_off = status == "interrupted" and shown[turn_id]["completedAt"] is None
            rule(not cut_off or told.crashed or faulty, f"section 4: {turn_id} has no end, and nothing died")
            items = {item["id"] for item in shown[turn_id]["items"]}
            interrupted = not (told.interrupted and told.for_good) or told.status == "interrupted"
            rule(interrupted, f"{turn_id} was interrupted, and ended as {told.status}")
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
            rule(found == 0 or not ((message.deleted and not message.again) or message.refused), where)
            accepted = self.turns.get(message.turn or "")
            kept = (message.added and not message.delete_sent) or (accepted is not None and accepted.for_good)
            rule(found == 1 or not kept or message.doubtful, where)
        waited = [self.said[name] for name in places if name in self.said and self.said[name].in_order]
        for early, late in combinations(waited, 2):
            rule(late.done is None or late.done > early.sent, f"rule 5: {late} comes after {early}")
        waits = [row["clientUserMessageId"] for row in rows]
        before = [name for name in self._order or () if name in waits]
        now = [name for name in waits if name in before]
        rule(before == now, f"section 4: {before} waited in this order, and nobody has made it {now}")
        self._order = waits

    def _places(self, rows: list[Json], turns: list[Json]) -> list[str]:
        items = [item for turn in turns for item in turn["items"] if item["type"] == "userMessage"]
        return [item["clientId"] for item in items] + [row["clientUserMessageId"] for row in rows]
