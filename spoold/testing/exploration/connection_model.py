"""What may come next over one connection, of one thread.

Turns come one after another, sequence numbers without a gap; a prompt is asked once and does not outlive its
turn. (That every request is answered once is checked by the client itself, who knows what it has asked.)
"""

from __future__ import annotations

from spoold.testing.client_state import GROWS
from spoold.testing.exploration.rules import Json, rule


class Stream:
    """What has come over one connection, of one thread."""

    def __init__(self) -> None:
        self.attached = False
        self.seq: int | None = None
        self.epoch: str | None = None
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
        self.attached, self.seq, self.epoch = True, result.get("seq"), result.get("epoch")
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
            same = self.epoch in (None, message["epoch"])
            rule(same, f"rule 4: {method} is of another life of the daemon")
            self.epoch = message["epoch"]
            gap = self.seq is not None and seq != self.seq + 1
            rule(not gap or (method in GROWS and seq > (self.seq or 0)), f"rule 4: {seq} follows {self.seq}")
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
