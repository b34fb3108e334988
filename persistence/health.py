"""Whether the home can be written, and what of it must be told to everybody.

A commit that fails because of the disk as a whole, not because of what it was about, is trouble. Trouble is
over when a probe has written and flushed a file and a row: a commit that succeeds proves nothing, it may have
needed no room. A damaged database is not probed: it stays as it is until the next start sets it aside.
"""

from __future__ import annotations

import os
from contextlib import suppress

import trio

from persistence.appending import sync, sync_path, write_all
from persistence.errors import StoreError
from persistence.home import FILE_MODE, Home
from persistence.jobs import Job
from persistence.queue import pause
from persistence.writer import Writer

PROBE_BYTES = 64 * 1024
"""More than a commit mostly needs: a disk that has only this little left is not well."""
PROBE_NAME = "disk-probe"
_NOBODY = "probe"


class DiskHealth:
    """What the last commits and probes have found.

    Attributes:
        trouble: why nothing can be written, or None.
        notices: what has happened to the home's files that whoever uses this daemon should know.
    """

    def __init__(self) -> None:
        self.trouble: StoreError | None = None
        # Invariant: grows only.
        self.notices: list[str] = []
        self._changed = trio.Event()

    @property
    def refuses(self) -> bool:
        """Whether nothing can be written; a damaged database may still take what is not near the damage."""
        return self.trouble is not None and not self.trouble.damaged

    def met(self, error: StoreError) -> None:
        """A commit, or the opening of the database, has failed with this."""
        if error.lasting and (self.trouble is None or (error.damaged and not self.trouble.damaged)):
            self._set(error)

    def mended(self) -> None:
        """A probe has succeeded."""
        if self.trouble is not None:
            self._set(None)

    def notice(self, text: str) -> None:
        """Something everybody should know."""
        self.notices.append(text)
        self._wake()

    async def changed(self) -> None:
        """Wait until ``trouble`` is another, or there is one more notice."""
        await self._changed.wait()

    async def well(self) -> None:
        """Wait until there is no trouble."""
        while self.trouble is not None:
            await self._changed.wait()

    def _set(self, trouble: StoreError | None) -> None:
        self.trouble = trouble
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def probe(writer: Writer, home: Home, trouble: StoreError) -> None:
    """Write and flush a file of ``PROBE_BYTES`` and a row, and remove both. For a worker thread.

    The file is written beside the one that could not be, which is flushed, too.

    Raises:
        StoreError: it cannot be done.
    """
    failed = trouble.path
    beside = failed is not None and failed.parent.is_dir()
    path = (failed.parent if failed is not None and beside else home.root) / PROBE_NAME
    try:
        if failed is not None and failed.is_file():
            sync_path(failed)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
        try:
            write_all(descriptor, bytes(PROBE_BYTES))
            sync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StoreError.from_os("write", path, error) from error
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
    writer.call(Job(operations=[pause(_NOBODY, True), pause(_NOBODY, False)]))
