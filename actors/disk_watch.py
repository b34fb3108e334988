"""Telling clients when the disk fails and when it works again, and going on with what had to wait.

While there is trouble the disk is probed again and again; nothing else is tried unasked. What a full disk has
kept from running, the head of a queue, is tried once more when a probe has succeeded.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import trio

from actors.peer import Outgoing, Peer
from persistence.errors import StoreError
from persistence.store import Store
from protocol.jsonrpc import encode_notification
from protocol.notifications import WarningNote
from protocol.runtime import Runtime

log = logging.getLogger(__name__)

PROBE_SECONDS = 2.0
"""Between two looks at a disk that fails."""

WELL = "The disk takes again what is to be stored."


class DiskWatch:
    """Runs in the supervisor's nursery.

    Args:
        broadcast: sends to every client.
        go_on: tells every thread that the disk is well again.
    """

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        broadcast: Callable[[Outgoing], None],
        go_on: Callable[[], None],
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._broadcast = broadcast
        self._go_on = go_on
        # What everybody who was there has been told; who comes is told this much, and hears the rest.
        self._said = 0
        self._told: StoreError | None = None

    def welcome(self, peer: Peer) -> None:
        """Tell a client that has just come what the others have been told."""
        for text in self._store.health.notices[: self._said]:
            peer.deliver(self._warning(text))
        if self._told is not None:
            peer.deliver(self._warning(_text(self._told)))

    async def run(self) -> None:
        """Watch until cancelled."""
        health = self._store.health
        while True:
            for text in health.notices[self._said :]:
                self._broadcast(self._warning(text))
            self._said = len(health.notices)
            if health.trouble is not self._told:
                self._tell(health.trouble)
            with trio.move_on_after(PROBE_SECONDS if health.trouble else math.inf) as waiting:
                await health.changed()
            if waiting.cancelled_caught:
                await self._store.probe()

    def _tell(self, trouble: StoreError | None) -> None:
        self._told = trouble
        if trouble is not None:
            log.error("%s", _text(trouble))
            self._broadcast(self._warning(_text(trouble)))
        else:
            log.warning("%s", WELL)
            self._broadcast(self._warning(WELL))
            self._go_on()

    def _warning(self, text: str) -> Outgoing:
        note = WarningNote(message=text)
        return Outgoing(encode_notification("warning", note, self._runtime.now_ms()), "warning")


def _text(trouble: StoreError) -> str:
    if trouble.damaged:
        return (
            f"The database is damaged: {trouble}. What needs it fails. Restart the daemon: it sets the "
            "database aside and makes another from the sessions and from what can be read of it."
        )
    return (
        f"The disk does not take what is to be stored: {trouble}. Requests that change something fail until "
        "it does; reading goes on."
    )
