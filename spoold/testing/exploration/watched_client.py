"""A client of the explorer: every message that it gets is held against the reference model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from spoold.testing.channel import MemoryChannel
from spoold.testing.client import ATTACHES, Pending, SimulatedClient
from spoold.testing.client_state import ClientState
from spoold.testing.exploration.connection_model import Stream
from spoold.testing.exploration.rules import UNRECORDED, Json, rule
from spoold.testing.exploration.thread_model import Facts
from spoold.testing.world import SimulatedDaemon

Then = Callable[[Json | None], None]
"""Called with the result of a request, or None where it was refused; not at all where no answer came."""

INTERNAL = -32603
NO_THREAD = "invalid thread-store request"
"""What queue methods say of a thread that is not there: with the code of an internal error, too."""

_SAYS = ("turn/start", "turn/steer", "thread/queue/add")


class WatchedClient(SimulatedClient):
    """See the module docstring.

    Attributes:
        facts: what was promised to anybody; shared by all clients.
        streams: what has come over this connection, by thread id.
        slow: it does not read at present.
        asked: ids of the questions that have come over this connection.
        answers, refusals: how often each method was answered.
        blamed: what it was told of faults of the daemon.
        happened: how often something rare has happened to it.
    """

    def __init__(self, daemon: SimulatedDaemon, name: str, facts: dict[str, Facts]) -> None:
        super().__init__(daemon, name)
        self.facts = facts
        self.streams: dict[str, Stream] = {}
        self.slow = False
        self.asked: set[int | str] = set()
        self.answers: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.blamed: list[str] = []
        self.happened: Counter[str] = Counter()
        self._then: dict[Pending, Then] = {}
        # Invariant: client ids of messages whose turn/start was not answered when a turn started, by turn.
        self._unanswered: dict[str, set[str]] = {}
        # Invariant: threads whose history was cut while we were attached, until the next snapshot.
        self._outdated: set[str] = set()

    async def connect(self, **capabilities: Any) -> Json:
        """See ``SimulatedClient.connect``."""
        self.streams = {}
        self.slow = False
        self.asked.clear()
        return await super().connect(**capabilities)

    def ask(self, then: Then | None, method: str, **params: Any) -> Pending:
        """Send a request; ``then`` is called when it is answered."""
        pending = self.send(method, **params)
        if then is not None:
            self._then[pending] = then
        return pending

    def say_raw(self, data: bytes) -> None:
        """Send any bytes."""
        assert self._channel is not None
        self._channel.raw(data)

    def knows(self, thread_id: str) -> bool:
        """Whether it should show what the server has."""
        return thread_id in self.attached and thread_id not in self._outdated

    def waits_for(self) -> list[str]:
        """The methods that were asked for and are not answered."""
        return [each.method for each in self._pending.values()]

    def stream(self, thread_id: str) -> Stream:
        """What has come over this connection of a thread."""
        return self.streams.setdefault(thread_id, Stream())

    def resuming(self, thread_id: str) -> bool:
        """Whether the answer to a thread/resume is on its way: what it will show is not known yet."""
        return any(
            each.method == "thread/resume" and each.params["threadId"] == thread_id
            for each in self._pending.values()
        )

    def _heard(self, message: Json) -> None:
        if "method" in message:
            self._notified(message)
        else:
            self._replied(message)

    def _replied(self, message: Json) -> None:
        if message["id"] not in range(1, self._next_id):
            rule("error" in message, f"{self.name}: {message['id']} was never asked, and is answered")
            return
        rule(message["id"] in self._pending, f"{self.name}: request {message['id']} is answered twice")
        pending = self._pending[message["id"]]
        if "error" in message:
            self.refusals[pending.method] += 1
            code, text = message["error"]["code"], message["error"]["message"]
            self.happened[f"error {code}"] += 1
            if code == INTERNAL and NO_THREAD not in text:
                self.blamed.append(text)
        else:
            self.answers[pending.method] += 1
            self._answered(pending, message["result"])
        super()._heard(message)
        then = self._then.pop(pending, None)
        if then is not None:
            then(message.get("result"))

    def _notified(self, message: Json) -> None:
        params = message["params"]
        thread_id = params["thread"]["id"] if "thread" in params else params.get("threadId")
        if thread_id is not None:
            if "id" in message:
                self.asked.add(message["id"])
            self._check_order(message, params)
            self.stream(thread_id).message(message)
            if "id" not in message:
                self._learn(thread_id, params.get("thread"))
                self.facts[thread_id].told(message)
        super()._heard(message)
        if message["method"] == "thread/reverted" and thread_id in self.attached:
            self._outdated.add(thread_id)
            self.send("thread/resume", threadId=thread_id)

    def _check_order(self, message: Json, params: Json) -> None:
        """Rule 3: an answer comes before what it has caused; rule 6: nobody's thread is put away."""
        match message["method"]:
            case "turn/started":
                self._unanswered[params["turn"]["id"]] = self._saying("turn/start")
            case "item/started" | "item/completed" if params["item"]["type"] == "userMessage":
                said, facts = params["item"]["clientId"], self.facts[params["threadId"]]
                known = facts.said.get(said)
                # The first one has begun the turn, unless a goal did; the others are steered into it.
                waited = self._unanswered.pop(params["turnId"], set())
                goal = facts.goal.possible() != [None]
                # One that is added again was answered before.
                again = known is not None and known.again
                early = (said in self._saying(*_SAYS) and not again) or (said in waited and not goal)
                rule(not early, f"rule 3: {said} is shown, or its turn, before its request is answered")
            case "thread/closed":
                thread_id = params["threadId"]
                excused = thread_id not in self.attached or self.facts[thread_id].may_close
                rule(excused, f"rule 6: {thread_id} is closed under {self.name}")
                self.happened["unloaded"] += 1

    def _saying(self, *methods: str) -> set[str]:
        said = [each.params for each in self._pending.values() if each.method in methods]
        ids = [params.get("turnStartParams", params).get("clientUserMessageId") for params in said]
        return {each for each in ids if each is not None}

    def _end(self, channel: MemoryChannel) -> None:
        super()._end(channel)
        if self.closed is not None:
            self.happened[f"closed {self.closed[0]}"] += 1

    def _answered(self, pending: Pending, result: Json) -> None:
        if pending.method in ATTACHES:
            thread_id = result["thread"]["id"]
            self.stream(thread_id).attach(result, here=thread_id in self.attached)
            self._learn(thread_id, result["thread"])
            self._unanswered.clear()  # of turns that have begun while we were away
            if result.get("replayed"):
                self.happened["replayed"] += 1
            else:
                self._outdated.discard(thread_id)
        elif pending.method == "thread/unsubscribe":
            self.stream(pending.params["threadId"]).detach()

    def _learn(self, thread_id: str, thread: Json | None) -> None:
        if thread_id not in self.facts:
            # A fork begins with what its parent had.
            new = thread is not None and thread["forkedFromId"] is None
            ephemeral = thread is not None and thread["ephemeral"]
            self.facts[thread_id] = Facts(new=new, ephemeral=ephemeral)

    def shown(self, thread_id: str) -> Any:
        """What it shows of a thread, as values that can be compared.

        A turn that could not be recorded was told to have failed, and is read as one that was cut off.
        """
        state: ClientState = self.threads[thread_id]
        shown = state.shown()
        for turn_id, turn in shown["turns"].items():
            if str((turn["error"] or {}).get("message")).startswith(UNRECORDED):
                shown["turns"][turn_id] = {
                    **turn,
                    "status": "interrupted",
                    "error": None,
                    "completedAt": None,
                }
        return shown
