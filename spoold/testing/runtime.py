"""Clock, ids and chance that repeat: the ``Runtime`` of a simulated world."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime

import trio

EPOCH_MS = 1_795_000_000_000
"""Unix time in milliseconds at which every world begins."""

Chance = random.Random


class SeededRuntime:
    """``protocol.runtime.Runtime``: time is Trio's (so a MockClock moves it), ids count.

    It outlives its daemon: ids go on growing after a crash, as they do in the real world.
    """

    def __init__(self, seed: int = 0) -> None:
        self._random = Chance(seed)
        self._count = 0

    def now_ms(self) -> int:
        """Unix time in whole milliseconds; stands still while nothing waits for time."""
        return EPOCH_MS + int(trio.current_time() * 1000) % 10**9

    def monotonic(self) -> float:
        """Seconds of Trio's clock."""
        return trio.current_time()

    def new_id(self) -> str:
        """A UUIDv7 that is one more than the last one."""
        self._count += 1
        return str(uuid.UUID(int=(EPOCH_MS << 80) | (7 << 76) | (2 << 62) | self._count))

    def random(self) -> float:
        """A number in [0, 1)."""
        return self._random.random()

    def local_time(self, at_ms: int) -> str:
        """``YYYY-MM-DDThh-mm-ss`` in UTC."""
        return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%dT%H-%M-%S")
