"""The locks by which programs that share a home agree who may write to a thread.

The reference server keeps a file ``thread-writer-locks/ID.lock`` below the home for every thread that it has
loaded, holds a ``flock`` on it, and removes it when it lets the thread go. We do exactly the same, so that
neither program appends to a rollout that the other one is appending to. Between processes of ours the lock on
the home (``Home.claim``) decides already.

The file may be removed between opening and locking it, and a lock on a file that nobody finds any more
protects nothing: the lock counts only if the file in the folder is still the one that is locked.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Hashable
from pathlib import Path

from persistence.errors import StoreError
from persistence.home import FILE_MODE, FOLDER_MODE, Home
from protocol.errors import ActiveWriter

log = logging.getLogger(__name__)

_DOING = "lock"


class WriterLocks:
    """Claims threads for this process, one file descriptor for each.

    Args:
        home: the home that is perhaps shared.
    """

    def __init__(self, home: Home) -> None:
        self._folder = home.root / "thread-writer-locks"

    def claim(self, thread_id: str) -> WriterLock:
        """Claim a thread for writing. Waits for nothing; a few system calls.

        Args:
            thread_id: canonical, so that it is a file name.

        Raises:
            ActiveWriter: another process (or another claim of this one) has it.
            StoreError: the file system cannot lock.
        """
        path = self._folder / f"{thread_id}.lock"
        try:
            self._folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
            while True:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if _is_at(path, descriptor):
                        return WriterLock(path, descriptor)
                except BaseException:
                    os.close(descriptor)
                    raise
                os.close(descriptor)
        except BlockingIOError:
            raise ActiveWriter(thread_id) from None
        except OSError as error:
            raise StoreError.from_os(_DOING, path, error) from error


class WriterLock:
    """A thread that is ours to write to, until ``release`` or the end of the process."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Let others have the thread; a second call does nothing.

        Raises:
            StoreError: the file could not be removed. The lock is gone all the same.
        """
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        try:
            # While it is still locked: whoever opens it now will find that it is gone, and make a new one.
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError.from_os("remove", self._path, error) from error
        finally:
            os.close(descriptor)


class ThreadClaims:
    """The threads that this process has loaded, each claimed by whoever serves it.

    A file system that cannot lock keeps nobody from working: the locks protect from other programs only.
    """

    def __init__(self, home: Home) -> None:
        self._locks = WriterLocks(home)
        # Invariant: a lock is here from ``hold`` to ``release``.
        self._held: dict[Hashable, WriterLock] = {}

    def hold(self, owner: Hashable, thread_id: str) -> None:
        """Claim the thread, unless this owner has it already.

        Raises:
            ActiveWriter: another process has it.
        """
        if owner in self._held:
            return
        try:
            self._held[owner] = self._locks.claim(thread_id)
        except StoreError as error:
            log.warning("thread %s is not locked: %s", thread_id, error)

    def release(self, owner: Hashable) -> None:
        """Let others have the owner's thread."""
        lock = self._held.pop(owner, None)
        if lock is None:
            return
        try:
            lock.release()
        except StoreError as error:
            log.warning("a lock was left behind: %s", error)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
