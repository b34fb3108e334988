"""What the writer thread is asked to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from persistence.errors import StoreError
from persistence.indexer import Operation, RolloutState
from persistence.rollout_lines import RolloutLine

NO_ROW = -1
"""``Apply.expected`` of a thread that was not in the index."""


@dataclass(slots=True)
class Batch:
    """Lines to append to one thread's rollout.

    Attributes:
        thread_id: whose rollout.
        lines: in order; they are all appended or none.
        fsync: whether they must be on the disk itself before the commit returns.
        create: absolute path of the file when this batch makes it; its first line is the session_meta.
    """

    thread_id: str
    lines: list[RolloutLine]
    fsync: bool = False
    create: Path | None = None


@dataclass(slots=True)
class Job:
    """Something to do in the writer thread. ``done`` is called there, once, with what went wrong."""

    done: Callable[[StoreError | None], None] = lambda error: None
    operations: list[Operation] = field(default_factory=list)


@dataclass(slots=True)
class Append(Job):
    """Append a batch."""

    batch: Batch | None = None


@dataclass(slots=True)
class Apply(Job):
    """Store what a scan has found, if the thread's row still is where the scan began.

    ``expected`` is that row's ``indexed_bytes``, ``NO_ROW`` where there was none. ``applied`` tells.
    """

    state: RolloutState | None = None
    expected: int = -1
    applied: bool = False


@dataclass(slots=True)
class Release(Job):
    """Forget the live state of a thread."""

    thread_id: str = ""
