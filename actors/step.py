"""What a step may use besides the state and the message: time, ids, and whether the daemon is leaving."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from protocol.errors import InvalidRequest
from protocol.runtime import Runtime


@dataclass(frozen=True, slots=True)
class StepContext:
    """Passed to every decision.

    Attributes:
        runtime: clock and ids.
        next_request_id: a fresh server request id; they count from 0 over the whole daemon.
        draining: whether new turns are refused.
        pause_queue: whether an interrupted turn pauses the queue (the default is that it drains on).
        epoch: names this life of the daemon; see ``actors.replay``.
    """

    runtime: Runtime
    next_request_id: Callable[[], int]
    draining: Callable[[], bool]
    epoch: str = ""
    pause_queue: bool = False

    @property
    def now_ms(self) -> int:
        """Unix milliseconds."""
        return self.runtime.now_ms()


def draining_error() -> InvalidRequest:
    """What new work is answered with while the daemon shuts down."""
    return InvalidRequest(
        "Server is draining; retry after reconnecting", data={"reason": "serverShuttingDown"}
    )
