"""The disk of a simulated world: real files and a real database, slow and faulty where the seed says so.

The product's writer works in a thread. Here its work is done by a task, at seeded moments: it takes what
waits as one group, and its callers hear of it later still. Between its stages others go on, so that a reader
may see the files between an append and its commit.

A crash takes a copy of the home in the very instant and throws the original away, so nothing that the dying
daemon still does is on disk afterwards. What was written and not flushed survives when only the process dies;
when the power fails, then or later, it is lost from a seeded byte on, or is space that was never filled; and
so are names whose folder was not flushed (``unflushed_names``). A transaction that was not committed is lost
either way, one that was committed never. What was cut off a file stays cut off.
"""

from __future__ import annotations

import errno
import os
import queue
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import trio

from persistence.errors import StoreError
from persistence.fault_points import NAMES
from persistence.home import Home
from persistence.jobs import Append, Job
from persistence.writer import Writer
from spoold.testing.runtime import EPOCH_MS, Chance
from spoold.testing.trace import Trace
from spoold.testing.unflushed_names import UnflushedNames

What = Literal["append", "half an append", "flush", "commit"]
_AT = {"half an append": "half of the append", "commit": "before COMMIT"}


class Crash(BaseException):
    """The daemon is dead. No handler of the daemon's may catch it."""


@dataclass(slots=True)
class _Rule:
    """What happens at a point, from the time on when it was reached ``after`` times, ``times`` times."""

    at: str
    after: int
    times: int
    act: Callable[[], None]

    def due(self) -> bool:
        """Count one more time; whether it is one of those."""
        self.after -= 1
        self.times -= self.after < 0
        return self.after < 0


class Disk:
    """What goes wrong, and when. Implements ``persistence.fault_points.Watch``.

    Attributes:
        slowness: the longest time in seconds that a group of writes takes, and again until it is told.
        points: how often each named instant was reached.
        died_at: how often the daemon has died there, because it was told to.
    """

    def __init__(self, chance: Chance, trace: Trace, crash: Callable[[bool], None], graves: Path) -> None:
        self.slowness = 0.002
        self.points = dict.fromkeys(NAMES, 0)
        self.died_at = dict.fromkeys(NAMES, 0)
        self._chance = chance
        self._trace = trace
        self._crash = crash
        self._rules: list[_Rule] = []
        self._ticks = 0
        # By inode: how much of a file is sure to survive, if that is not all of it. Where a new file gets the
        # number of one that is gone, ``writing`` finds it empty.
        self._flushed: dict[int, int] = {}
        self._names = UnflushedNames(graves)

    # -- what a test asks for ---------------------------------------------------------------------------

    def crash_at(self, name: str, after: int = 0, *, power: bool = False) -> None:
        """The daemon dies when a point of ``persistence.fault_points.NAMES`` is reached.

        ``after``: how often it is passed before. ``power``: it dies with the machine under it.

        Raises:
            ValueError: there is no such point.
        """
        if name not in NAMES:
            raise ValueError(f"no point {name!r}; there are {', '.join(NAMES)}")

        def act() -> None:
            self._trace.note("dies at", name)
            self.died_at[name] += 1
            self._crash(power)
            raise Crash

        # Before all others: where something fails in the same instant, nobody is left to hear of it.
        self._rules.insert(0, _Rule(name, after, 1, act))

    def fail(self, what: What, after: int = 0, times: int = 1) -> None:
        """Something fails, after ``after`` times, ``times`` times: appends for want of room, else I/O errors.

        Raises:
            ValueError: there is no such fault.
        """
        if what not in (faults := get_args(What)):
            raise ValueError(f"no such fault: {what!r}; there are {', '.join(faults)}")

        def act() -> None:
            self._trace.note("fault", what)
            if what == "commit":
                raise sqlite3.OperationalError("disk I/O error")
            code = errno.EIO if what == "flush" else errno.ENOSPC
            raise OSError(code, os.strerror(code))

        self._rules.append(_Rule(_AT.get(what, what), after, times, act))

    def heal(self) -> None:
        """Nothing goes wrong any more but what has gone wrong."""
        self._rules.clear()
        self.slowness = 0.002

    # -- ``Watch`` --------------------------------------------------------------------------------------

    def reached(self, name: str) -> None:
        """See ``Watch``."""
        self.points[name] += 1
        self._apply(name)

    def wants(self, name: str) -> bool:
        """See ``Watch``."""
        return any(rule.at == name for rule in self._rules)

    def writing(self, descriptor: int) -> None:
        """See ``Watch``."""
        status = os.fstat(descriptor)
        # Less than before, where bytes were taken back.
        self._flushed[status.st_ino] = self._safe(status)
        self._apply("append")

    def wrote(self, descriptor: int) -> None:
        """See ``Watch``. Files get a time of this world: the index compares it."""
        self._ticks += 1
        stamp = EPOCH_MS * 1_000_000 + self._ticks * 1_000
        os.utime(descriptor, ns=(stamp, stamp))

    def flushing(self, descriptor: int) -> None:
        """See ``Watch``."""
        self._apply("flush")

    def flushed(self, descriptor: int) -> None:
        """See ``Watch``."""
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            self._names.flushed(status.st_ino)
        else:
            self._flushed[status.st_ino] = status.st_size

    def made(self, path: Path) -> None:
        """See ``Watch``."""
        if path.is_file():
            self._flushed[path.stat().st_ino] = 0
        self._names.made(path)

    def moved(self, path: Path, target: Path) -> None:
        """See ``Watch``."""
        self._names.moved(path, target)

    def removing(self, path: Path) -> None:
        """See ``Watch``."""
        self._names.removing(path)

    def _safe(self, status: os.stat_result) -> int:
        return min(self._flushed.get(status.st_ino, status.st_size), status.st_size)

    def _apply(self, name: str) -> None:
        due = [rule for rule in self._rules if rule.at == name and rule.due()]
        self._rules = [rule for rule in self._rules if rule.times > 0]
        for rule in due:
            rule.act()  # which raises: the others at this instant have had their time, too

    # -- a crash ----------------------------------------------------------------------------------------

    def keep(self, home: Path, copy: Path, *, power: bool) -> None:
        """Copy what a crash at this instant leaves of the home, which becomes the home."""
        shutil.copytree(home, copy, copy_function=shutil.copy2)
        kept = {each.stat().st_ino: copy / each.relative_to(home) for each in (home, *home.rglob("*"))}
        self._flushed = {inode: safe for inode, safe in self._flushed.items() if inode in kept}
        if power:
            for inode, safe in self._flushed.items():
                self._lose_end(kept[inode], safe)
            for lost in self._names.lose(home, copy, self._chance):
                self._trace.note("loses", lost)
            # What is there is on the disk.
            self._flushed.clear()
        else:
            now = {inode: each.stat().st_ino for inode, each in kept.items()}
            self._flushed = {now[inode]: safe for inode, safe in self._flushed.items()}
            self._names.now_in(now)
        self._rules.clear()

    def _lose_end(self, path: Path, safe: int) -> None:
        status = path.stat()
        if safe >= status.st_size:
            return
        left = self._chance.randint(safe, status.st_size)
        os.truncate(path, left)
        filled = self._chance.random() < 0.5
        if not filled:
            # The file system has noted how long the file is before it has written what is in it.
            os.truncate(path, status.st_size)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        end = "" if filled else ", the others are zero"
        self._trace.note("loses", f"{path} keeps {left} of {status.st_size} bytes, {safe} were flushed{end}")

    async def pause(self) -> None:
        """As long as the disk takes."""
        if self._chance.random() < 0.5:
            for _ in range(self._chance.randrange(4)):
                await trio.lowlevel.checkpoint()
        else:
            await trio.sleep(self._chance.random() * self.slowness)


class SimulatedWriter(Writer):
    """The product's writer, driven by a task in ``nursery`` (which outlives the daemon) and by its callers.

    Args:
        home: see ``Writer``.
        disk: how slow it is.
        nursery: where the task runs.
        trace: where commits are noted.
    """

    def __init__(self, home: Home, disk: Disk, nursery: trio.Nursery, trace: Trace) -> None:
        super().__init__(home)
        self._disk = disk
        self._nursery = nursery
        self._trace = trace
        self._connection: sqlite3.Connection | None = None
        self._wake = trio.Event()
        # The group that is being written, and whether there is more of it to do.
        self._group: Iterator[None] = iter(())
        self._writing = False
        # Invariant: commits that are done and not told, in the order in which they were done.
        self._untold: list[tuple[Callable[[StoreError | None], None], StoreError | None]] = []
        # Invariant: commits that are not told, by what tells them.
        self._commits: dict[int, Callable[[StoreError | None], None]] = {}
        self.dead = False

    @property
    def busy(self) -> bool:
        """Whether something waits to be written or told."""
        return not self.dead and (self._writing or not self._jobs.empty() or bool(self._untold))

    def start(self, now_ms: int, opened: Callable[[StoreError | None], None]) -> None:
        """See ``Writer.start``: the database is open on return."""
        self._connection = self._open(now_ms, opened)
        if self._connection is not None:
            self._nursery.start_soon(self._drive)

    def submit(self, job: Job) -> None:
        """See ``Writer.submit``."""
        if isinstance(job, Append):
            self._tell_later(job)
        elif self._jobs.qsize() > _MOST_WAITING:
            self._work_waiting()  # who submits this much has no event loop, and would wait for us
        super().submit(job)
        self._wake.set()
        if self._closed:
            self._tell_all()

    def call(self, job: Job) -> None:
        """See ``Writer.call``: all that waits is worked off before this returns."""
        outcome: list[StoreError | None] = []
        job.done = outcome.append
        super().submit(job)
        if not outcome:
            self._work_waiting()
        if outcome[0] is not None:
            raise outcome[0]

    def join(self, seconds: float) -> bool:
        """See ``Writer.join``: what waits is worked off now, unless the daemon has crashed."""
        connection = self._connection
        if connection is None:
            return True
        # The crash may come just now, while what was accepted is written.
        with suppress(Crash):
            if not self.dead:
                self._work_waiting()
                self._close(connection)
                self._tell_all()
        if self.dead:
            self._die(connection)
        self._connection = None
        self._wake.set()
        return True

    def _die(self, connection: sqlite3.Connection) -> None:
        gone = StoreError("the daemon has crashed", "closed")
        self._finish()  # on files that are nobody's any more
        for tell in list(self._commits.values()):
            tell(gone)
        self._refuse_waiting(gone)
        self._untold.clear()
        self._commits.clear()
        with suppress(sqlite3.Error):
            connection.close()

    def _tell_later(self, job: Append) -> None:
        tell, batch = job.done, job.batch
        assert batch is not None
        self._commits[id(tell)] = tell
        kinds = " ".join(f"{line.type}:{line.payload.get('type', '')}" for line in batch.lines)
        facts = " ".join(sorted(batch.facts))
        said = (
            f"{batch.thread_id} [{kinds}] fsync={batch.fsync} facts=[{facts}] "
            f"queue={len(batch.queue)} {batch.relocate or ''}"
        )

        def done(error: StoreError | None) -> None:
            if not self.dead:
                self._trace.note("commit", f"{said} -> {error or 'ok'}")
            self._untold.append((tell, error))

        job.done = done

    async def _drive(self) -> None:
        try:
            while not self._over():
                if self._jobs.empty():
                    self._wake = trio.Event()
                    await self._wake.wait()
                await self._disk.pause()
                if self._over():
                    return
                self._begin()
                while not self._over() and self._step():
                    await self._disk.pause()
                while self._untold and not self.dead:
                    await self._disk.pause()
                    self._tell_first()
        except Crash:
            return

    def _over(self) -> bool:
        return self._connection is None or self.dead

    def _work_waiting(self) -> None:
        self._finish()
        while self._connection is not None and not self._jobs.empty():
            self._begin()
            self._finish()

    def _begin(self) -> None:
        assert self._connection is not None
        group = []
        with suppress(queue.Empty):
            while True:
                group.append(self._jobs.get_nowait())
        self._group, self._writing = self._stages(self._connection, group), True

    def _step(self) -> bool:
        """The next stage of the group; whether there is another one."""
        self._writing = next(self._group, True) is None
        return self._writing

    def _finish(self) -> None:
        """For who cannot wait."""
        while self._writing:
            self._step()

    def _tell_first(self) -> None:
        if self._untold:
            tell, error = self._untold.pop(0)
            self._commits.pop(id(tell), None)
            tell(error)

    def _tell_all(self) -> None:
        while self._untold:
            self._tell_first()


_MOST_WAITING = 32
