"""The interface through which every room asks for time, ids and chance.

Nothing below ``spoold/`` reads a clock, makes an id or draws a random number by itself: a run whose
``Runtime`` and scheduler are seeded can then be replayed. This page only names the interface; the
implementation on the real machine is in ``spoold/system_runtime.py``.
"""

from __future__ import annotations

from typing import Protocol


class Runtime(Protocol):
    """Clock, ids and randomness of one daemon."""

    def now_ms(self) -> int:
        """Wall clock, Unix time in whole milliseconds."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never steps back; only differences mean anything."""
        ...

    def new_id(self) -> str:
        """A new UUIDv7 as lower-case text, greater than every id made before by this runtime."""
        ...

    def random(self) -> float:
        """A number in [0, 1)."""
        ...

    def local_time(self, at_ms: int) -> str:
        """``YYYY-MM-DDThh-mm-ss`` in the machine's time zone, as rollout file names carry it."""
        ...
