"""Named instants at which a test can have the process killed: what a crash there leaves is then known.

``SPOOLD_TEST_KILL_AT=NAME:COUNT`` in the environment at the start: the process sends itself SIGKILL when
the point is reached for the COUNT-th time. Without it a point costs one look at a value.
"""

from __future__ import annotations

import os
import signal
import threading

VARIABLE = "SPOOLD_TEST_KILL_AT"

NAMES = (
    "before the append",
    "half of the append",
    "before the flush",
    "before the transaction",
    "before COMMIT",
    "after COMMIT",
    "after the callers are told",
    "before a queue's commit",
    "after a queue's commit",
    "before a claim is settled",
    "after a claim is settled",
)
"""Every point there is, in the order in which a commit comes to them; the last two belong to a restart."""


class _Fuse:
    def __init__(self, name: str, count: int) -> None:
        self.name = name
        self._left = count
        self._lock = threading.Lock()

    def reached(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def _fuse() -> _Fuse | None:
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return None
    name, _, count = wanted.partition(":")
    if name not in NAMES:
        raise ValueError(f"{VARIABLE}: no such point: {name}")
    return _Fuse(name, int(count))


_armed = _fuse()


def reach(name: str) -> None:
    """The process is at this point."""
    if _armed and _armed.name == name:
        _armed.reached()


def armed(name: str) -> bool:
    """Whether the process may end at this point: what it needs beforehand is then worth doing."""
    return _armed is not None and _armed.name == name
