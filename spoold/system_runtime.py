"""The real clock, real ids and real chance: the ``Runtime`` of a daemon that is not under test."""

from __future__ import annotations

import random
import resource
import time
import uuid

import uuid_utils

MOST_OPEN_FILES = 65_536
"""Children inherit the limit, and some go through all numbers below it before they start."""


def allow_open_files() -> None:
    """Raise the soft limit of open files to the hard one: every loaded thread and every client takes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class SystemRuntime:
    """``protocol.runtime.Runtime`` on this machine. For one thread: the Trio loop's."""

    def __init__(self) -> None:
        self._random = random.Random()  # noqa: S311 - spreads retries, guards nothing
        self._last_id = 0

    def now_ms(self) -> int:
        """Wall clock, Unix time in whole milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds on a clock that never steps back."""
        return time.monotonic()

    def new_id(self) -> str:
        """A UUIDv7 greater than every one made before, also when the wall clock is set back."""
        fresh: int = uuid_utils.uuid7().int
        # Invariant: _last_id only grows. Adding one keeps version and variant: they lie above the 62
        # random bits, which would all have to be ones to carry into them.
        self._last_id = max(fresh, self._last_id + 1)
        return str(uuid.UUID(int=self._last_id))

    def random(self) -> float:
        """A number in [0, 1)."""
        return self._random.random()

    def local_time(self, at_ms: int) -> str:
        """``YYYY-MM-DDThh-mm-ss`` in the machine's time zone."""
        return time.strftime("%Y-%m-%dT%H-%M-%S", time.localtime(at_ms // 1000))
