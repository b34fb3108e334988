"""What the writer thread is asked to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from persistence.database import Operation
from persistence.errors import StoreError
from persistence.facts import (
    UNSET,
    Goal,
    ReadState,
    Unset,
    clear_goal,
    set_facts,
    set_goal,
    set_read_state,
)
from persistence.indexer import RolloutState
from persistence.relocation import Action
from persistence.rollout_lines import RolloutLine

NO_ROW = -1
"""``Apply.expected`` of a thread that was not in the index."""


@dataclass(slots=True)
class Batch:
    """What to write of one thread: lines for its rollout, and what its rollout does not say.

    All but the lines and the move of the file is one transaction of the database.

    Attributes:
        thread_id: whose.
        lines: to append, in order; they are all appended or none. There may be none.
        fsync: whether the whole rollout must be on the disk itself before the commit returns.
        create: absolute path of the file when this batch makes it; its first line is the session_meta.
        facts: what overrides the rollout: ``name``, ``git_sha``, ``git_branch``, ``git_origin_url``; None
            clears, what is not named stays.
        read_state: the new read state; None leaves it.
        goal: the new goal; None removes it.
        queue: changes of the thread's queue, made by ``persistence.queue``.
        relocate: what happens to the file, after the lines.
        also: ids of threads that go with it; of their files what can be moved is moved.
        now_ms: the moment of the facts and the move; 0 takes the moment of the commit.
    """

    thread_id: str
    lines: list[RolloutLine] = field(default_factory=list)
    fsync: bool = False
    create: Path | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    read_state: ReadState | None = None
    goal: Goal | Unset | None = UNSET
    queue: list[Operation] = field(default_factory=list)
    relocate: Action | None = None
    also: list[str] = field(default_factory=list)
    now_ms: int = 0

    def fact_operations(self) -> list[Operation]:
        """What to store of it besides the lines' rows.

        Raises:
            ValueError: a fact that is none.
        """
        operations = [*set_facts(self.thread_id, self.facts, self.now_ms), *self.queue]
        if self.read_state is not None:
            operations.append(set_read_state(self.thread_id, self.read_state))
        if self.goal is None:
            operations.append(clear_goal(self.thread_id))
        elif self.goal is not UNSET:
            operations.append(set_goal(self.thread_id, self.goal))
        return operations


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
class Drop(Job):
    """Take a thread out of the index because its file is gone, if it still is.

    ``path`` is the row's when the file was missed, relative to the home. ``dropped`` tells.
    """

    thread_id: str = ""
    path: str = ""
    dropped: bool = False


@dataclass(slots=True)
class Release(Job):
    """Forget the live state of a thread."""

    thread_id: str = ""
