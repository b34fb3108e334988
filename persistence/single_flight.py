"""Work that two threads must not do at once: the second waits, and then finds it done."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_LOOK_SECONDS = 0.2
"""Between two looks whether to stop waiting."""


class SingleFlight:
    """Each piece of work, by its name, is in one thread's hands at a time."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        # Invariant: guarded by _changed, which is notified when it shrinks.
        self._under_way: set[str] = set()

    @contextmanager
    def of(self, name: str, stopped: threading.Event | None = None) -> Iterator[bool]:
        """Wait until nobody else is at it. Inside, look first whether there is anything left to do.

        Yields whether it is ours now; False: ``stopped`` was set while we waited.
        """
        with self._changed:
            while name in self._under_way and not (stopped is not None and stopped.is_set()):
                self._changed.wait(None if stopped is None else _LOOK_SECONDS)
            ours = name not in self._under_way
            self._under_way.add(name)
        try:
            yield ours
        finally:
            if ours:
                with self._changed:
                    self._under_way.remove(name)
                    self._changed.notify_all()
