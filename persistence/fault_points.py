"""Named instants at which a test can interfere: what a crash or a failing disk leaves there is then known.

``SPOOLD_TEST_KILL_AT=NAME:COUNT`` in the environment at the start: the process sends itself SIGKILL when
the point is reached for the COUNT-th time. Inside a simulated world (``spoold.testing``) a ``Watch`` is told
of every point, of what is written and flushed, and of names that come and go. Without either a point costs
one look at a value.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

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


class Watch(Protocol):
    """Who looks on. Every method may raise: what the disk or the database would, or what ends the daemon."""

    def reached(self, name: str) -> None:
        """The writer is at this point."""
        ...

    def wants(self, name: str) -> bool:
        """Whether something may happen at this point: what it needs beforehand is then worth doing."""
        ...

    def writing(self, descriptor: int) -> None:
        """Bytes are about to be appended to this file."""
        ...

    def wrote(self, descriptor: int) -> None:
        """They are in the file, not on the disk."""
        ...

    def flushing(self, descriptor: int) -> None:
        """This file or folder is about to be flushed."""
        ...

    def flushed(self, descriptor: int) -> None:
        """All that is in it is on the disk."""
        ...

    def made(self, path: Path) -> None:
        """There is a new file or folder; neither it nor its name is on the disk."""
        ...

    def moved(self, path: Path, target: Path) -> None:
        """A file has another name; that is not on the disk."""
        ...

    def removing(self, path: Path) -> None:
        """A file is about to be removed, if there is one of this name."""
        ...


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
_watch: Watch | None = None


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Inside, ``watch`` is told of everything. For one thread, and for one world at a time."""
    global _watch
    assert _watch is None, "one world at a time"
    _watch = watch
    try:
        yield
    finally:
        _watch = None


def watch() -> Watch | None:
    """Who looks on, if anybody does."""
    return _watch


def reach(name: str) -> None:
    """The process is at this point."""
    if _armed and _armed.name == name:
        _armed.reached()
    if _watch is not None:
        _watch.reached(name)


def armed(name: str) -> bool:
    """Whether the process may end at this point: what it needs beforehand is then worth doing."""
    if _watch is not None and _watch.wants(name):
        return True
    return _armed is not None and _armed.name == name
