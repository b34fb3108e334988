"""A client of the explorer: every message that it gets is held against the reference model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spoold.testing import ClientState, SimulatedClient, SimulatedDaemon
from spoold.testing.client import Pending
from tests.simulation.reference_model import UNRECORDED, Facts, Stream, rule

Json = dict[str, Any]
Then = Callable[[Json | None], None]
"""Called with the result of a request, or None where it was refused; not at all where no answer came."""

_ATTACHES = ("thread/start", "thread/resume", "thread/fork")


class WatchedClient(SimulatedClient):
    """Attributes: ``streams`` of the connection by thread id; ``facts``, shared by all clients."""

    def __init__(self, daemon: SimulatedDaemon, name: str, facts: dict[str, Facts]) -> None:
        super().__init__(daemon, name)
        self.facts = facts
        self.streams: dict[str, Stream] = {}
        self.slow = False
        self.refusals: list[str] = []
        self._then: dict[Pending, Then] = {}

    async def connect(self, **capabilities: Any) -> Json:
        self.streams = {}
        self.slow = False
        return await super().connect(**capabilities)

    def ask(self, then: Then | None, method: str, **params: Any) -> Pending:
        """Send a request; ``then`` is called when it is answered."""
        pending = self.send(method, **params)
        if then is not None:
            self._then[pending] = then
        return pending

    def stream(self, thread_id: str) -> Stream:
        return self.streams.setdefault(thread_id, Stream())

    def resuming(self, thread_id: str) -> bool:
        """Whether the answer to a thread/resume is on its way: what it will show is not known yet."""
        return any(
            each.method == "thread/resume" and each.params["threadId"] == thread_id
            for each in self._pending.values()
        )

    def _heard(self, message: Json) -> None:
        if "method" not in message:
            rule(message["id"] in self._pending, f"{self.name}: request {message['id']} is answered twice")
            pending = self._pending[message["id"]]
            if "error" in message:
                self.refusals.append(f"{pending.method}: {message['error']['message']}")
            else:
                self._answered(pending, message["result"])
            super()._heard(message)
            then = self._then.pop(pending, None)
            if then is not None:
                then(message.get("result"))
            return
        params = message["params"]
        thread_id = params["thread"]["id"] if "thread" in params else params.get("threadId")
        if thread_id is not None:
            self.stream(thread_id).message(message)
            if "id" not in message:
                self.facts.setdefault(thread_id, Facts()).told(message)
        super()._heard(message)

    def _answered(self, pending: Pending, result: Json) -> None:
        if pending.method in _ATTACHES:
            thread_id = result["thread"]["id"]
            self.stream(thread_id).attach(result, here=thread_id in self.attached)
            self.facts.setdefault(thread_id, Facts())
        elif pending.method == "thread/unsubscribe":
            self.stream(pending.params["threadId"]).detach()

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
