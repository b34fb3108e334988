"""What a client knows of the queues it has filled, and what a daemon must still know after a crash.

``live`` sends requests to one thread, one after the other, so that a crash leaves at most one of them without
an answer. ``settle`` checks what a new daemon says, lets everything run, and checks again.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trio_websocket import ConnectionClosed

from spoold.client import Client, ConnectionLost, RpcFailed
from tests.support.every_message import user_text
from tests.support.scripted_model import ScriptedModel

Json = dict[str, Any]

INTERRUPTED = "queued turn dispatch was interrupted while app-server restarted"
DISPATCH_FAILURES = {INTERRUPTED, "the turn ended before its message was recorded"}


@dataclass
class Message:
    """One message that was to be queued. ``name`` is its client id, and is said in its text."""

    name: str
    text: str
    row_id: str | None = None
    delete_sent: bool = False
    deleted: bool = False
    again: bool = False

    @property
    def added(self) -> bool:
        """Whether the daemon has acknowledged it."""
        return self.row_id is not None


@dataclass
class Ledger:
    """One thread, as its client knows it."""

    prefix: str
    thread_id: str | None = None
    messages: dict[str, Message] = field(default_factory=dict)
    orders: list[list[str]] = field(default_factory=lambda: [[]])
    """What the order may be: as acknowledged, and as it is if the request without an answer was served."""
    ended: dict[str, str] = field(default_factory=dict)
    """The turns that the daemon has said are over, and how they ended."""
    shown: list[Json] = field(default_factory=list)
    """The turns, when all was settled."""
    sent: int = 0
    answered: int = 0

    def hear(self, message: Mapping[str, Any]) -> None:
        """A message has come; what it says of this thread's turns must stay so."""
        if message.get("method") == "turn/completed" and message["params"]["threadId"] == self.thread_id:
            turn = message["params"]["turn"]
            self.ended[turn["id"]] = turn["status"]

    async def call(self, client: Client, method: str, **params: Any) -> Any:
        """A request about the thread."""
        self.sent += 1
        result = await client.call(method, {"threadId": self.thread_id, **params})
        self.answered += 1
        return result

    def new_message(self, chance: random.Random) -> Message:
        """One more message; some make the model wait until they are released."""
        name = f"{self.prefix}-{len(self.messages)}"
        verb = f"hold {name}" if chance.random() < 0.3 else "say"
        message = self.messages[name] = Message(name, f"{verb} {name}")
        return message


async def live(client: Client, model: ScriptedModel, ledger: Ledger, chance: random.Random) -> None:
    """Fill, sort, thin out and drain one queue, until the script is over or the daemon dies."""
    try:
        await _live(client, model, ledger, chance)
    except (ConnectionLost, ConnectionClosed):
        return


async def _live(client: Client, model: ScriptedModel, ledger: Ledger, chance: random.Random) -> None:
    if ledger.thread_id is None:
        ledger.thread_id = (await client.call("thread/start", {}))["thread"]["id"]
    else:
        await ledger.call(client, "thread/resume")
    acts = (add, add, add, reorder, delete, release, rewrite)
    for act in (add, *chance.choices(acts, k=14)):
        await act(client, model, ledger, chance)


async def add(client: Client, model: ScriptedModel, ledger: Ledger, chance: random.Random) -> None:
    """thread/queue/add; now and then the message ends what runs, or goes into it."""
    message = ledger.new_message(chance)
    (when_busy,) = chance.choices(("enqueue", "interrupt", "steer"), (70, 15, 15))
    await send_add(client, ledger, message, when_busy)


async def send_add(client: Client, ledger: Ledger, message: Message, when_busy: str = "enqueue") -> None:
    """Add a message, perhaps once more."""
    before = ledger.orders[0]
    ledger.orders = [before, [*before, message.name], [message.name, *before]]
    turn = {
        "threadId": ledger.thread_id,
        "input": user_text(message.text),
        "clientUserMessageId": message.name,
    }
    result = await ledger.call(client, "thread/queue/add", turnStartParams=turn, whenBusy=when_busy)
    message.row_id = result["queuedTurn"]["id"]
    # In an idle thread both places are one; whether it was idle, the client does not know.
    last, first = [*before, message.name], [message.name, *before]
    ledger.orders = [last] if when_busy == "enqueue" else [last, first]
    if when_busy == "interrupt":
        await refresh(client, ledger)


async def listed(client: Client, ledger: Ledger) -> list[Json]:
    """The rows that wait."""
    result = await ledger.call(client, "thread/queue/list", limit=100)
    rows: list[Json] = result["data"]
    return rows


async def refresh(client: Client, ledger: Ledger) -> None:
    """Take over the order that the daemon shows, which must be one that it may have."""
    rows = await listed(client, ledger)
    check_order(ledger, rows)
    ledger.orders = [[row["clientUserMessageId"] for row in rows]]


async def reorder(client: Client, model: ScriptedModel, ledger: Ledger, chance: random.Random) -> None:
    """thread/queue/reorder of what is listed; a row may start meanwhile, then it is refused."""
    rows = await listed(client, ledger)
    check_order(ledger, rows)
    chance.shuffle(rows)
    before, after = ledger.orders[0], [row["clientUserMessageId"] for row in rows]
    ledger.orders = [before, after]
    try:
        await ledger.call(client, "thread/queue/reorder", queuedTurnIds=[row["id"] for row in rows])
    except RpcFailed:
        ledger.orders = [before]
    else:
        ledger.orders = [after]


async def delete(client: Client, model: ScriptedModel, ledger: Ledger, chance: random.Random) -> None:
    """thread/queue/delete of any message that was acknowledged."""
    known = [message for message in ledger.messages.values() if message.added]
    if not known:
        return
    message = chance.choice(known)
    perhaps_deleted = message.delete_sent
    # A failure between here and the answer leaves open whether it was deleted.
    message.delete_sent = True
    result = await ledger.call(client, "thread/queue/delete", queuedTurnId=message.row_id)
    if result["deleted"]:
        message.deleted = True
    elif result.get("turnId"):
        assert not message.deleted, f"{message.name} was deleted and is a turn"
        message.delete_sent = False
    else:
        assert perhaps_deleted, f"{message.name} is neither queued nor a turn"
        message.deleted = True


async def rewrite(client: Client, model: ScriptedModel, ledger: Ledger, chance: random.Random) -> None:
    """thread/queue/update of a row that waits."""
    rows = await listed(client, ledger)
    if rows:
        await pend(client, ledger, chance.choice(rows))


async def pend(client: Client, ledger: Ledger, row: Json) -> None:
    """Make a row pending, whatever it was; the text stays."""
    turn = row["turnStartParams"]
    try:
        await ledger.call(client, "thread/queue/update", queuedTurnId=row["id"], turnStartParams=turn)
    except RpcFailed as error:
        if "not found" not in error.message:
            raise


async def release(client: Client, model: ScriptedModel, ledger: Ledger, chance: random.Random) -> None:
    """Let the model go on with whatever it waits with."""
    for name in ledger.messages:
        model.release(name)


def check_order(ledger: Ledger, rows: list[Json]) -> None:
    """The pending rows are in an order that they may have."""
    pending = [row["clientUserMessageId"] for row in rows if row["status"]["type"] == "pending"]
    assert any(
        pending == [name for name in order if name in pending] and set(pending) <= set(order)
        for order in ledger.orders
    ), f"the order is {pending}, not of {ledger.orders}"


async def transcript(client: Client, ledger: Ledger) -> Counter[str]:
    """How often each message is recorded in a turn; turns that were over are whole."""
    read = await ledger.call(client, "thread/read", includeTurns=True)
    ledger.shown = read["thread"]["turns"]
    turns = {turn["id"]: turn for turn in ledger.shown}
    for turn_id, status in ledger.ended.items():
        assert turn_id in turns, f"turn {turn_id} was {status} and is gone"
        turn = turns[turn_id]
        assert turn["status"] == status, f"turn {turn_id} was {status} and is {turn['status']}"
        kinds = [item["type"] for item in turn["items"]]
        # What was added to steer a turn comes behind what the model had said until then.
        whole = re.fullmatch("((userMessage )+agentMessage )+", "".join(f"{kind} " for kind in kinds))
        assert status != "completed" or whole, f"turn {turn_id}: {kinds}"
    items = [item for turn in ledger.shown for item in turn["items"]]
    said = [item for item in items if item["type"] == "userMessage"]
    return Counter(item["content"][0]["text"].split()[-1] for item in said)


async def check_places(client: Client, ledger: Ledger) -> list[Json]:
    """Each message is where it may be, once; the rows that wait."""
    rows = await listed(client, ledger)
    recorded = await transcript(client, ledger)
    places = recorded + Counter(row["clientUserMessageId"] for row in rows)
    assert places.keys() <= ledger.messages.keys()
    for message in ledger.messages.values():
        found = places[message.name]
        where = f"{message} is {recorded[message.name]} times in the transcript, {found} times in all"
        assert found <= 1, where
        assert found == 0 or not message.deleted, where
        assert found == 1 or not message.added or message.delete_sent, where
    return rows


async def settle(client: Client, model: ScriptedModel, ledger: Ledger, chance: random.Random) -> None:
    """After a crash: check, add again what was not acknowledged, let all of it run, and check again."""
    if ledger.thread_id is None:
        return
    if not await exists(client, ledger):
        added = [message.name for message in ledger.messages.values() if message.added]
        assert added == [], f"the thread is gone, and with it {added}"
        assert ledger.ended == {}, f"the thread is gone, and with it the turns {ledger.ended}"
        ledger.thread_id, ledger.orders = None, [[]]
        return
    rows = await check_places(client, ledger)
    check_order(ledger, rows)
    await release(client, model, ledger, chance)
    await ledger.call(client, "thread/resume")
    for message in [each for each in ledger.messages.values() if not each.added]:
        await send_add(client, ledger, message)
    for row in rows:
        if row["status"]["type"] == "failed":
            assert row["status"]["error"] in DISPATCH_FAILURES
            ledger.messages[row["clientUserMessageId"]].again = True
            await pend(client, ledger, row)
    while await listed(client, ledger) or await busy(client, ledger):
        await client.wait_for("thread/status/changed", lambda note: note["threadId"] == ledger.thread_id)
    assert await check_places(client, ledger) == []
    asked = Counter(last_said(call.body) for call in model.requests)
    for message in ledger.messages.values():
        assert asked[message.name] <= 1 + message.again, f"{message} ran {asked[message.name]} times"
    ledger.orders = [[]]


async def exists(client: Client, ledger: Ledger) -> bool:
    """Whether the daemon knows the thread."""
    try:
        await ledger.call(client, "thread/queue/list")
    except RpcFailed as error:
        if "not found" not in error.message:
            raise
        return False
    return True


async def busy(client: Client, ledger: Ledger) -> bool:
    """Whether a turn runs."""
    read = await ledger.call(client, "thread/read")
    return bool(read["thread"]["status"]["type"] == "active")


def last_said(body: Json) -> str:
    """The name of the message that a request to the model is about."""
    said = [item for item in body["input"] if item.get("role") == "user"]
    return str(said[-1]["content"][-1]["text"]).split()[-1]
