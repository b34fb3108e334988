"""What can go wrong with the store, and whose fault it was."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

Fault = Literal["disk", "database", "closed"]
"""``disk``: the file system refused; ``database``: SQLite did; ``closed``: the store is shut down."""


class StoreError(Exception):
    """A read or a commit that did not happen.

    After a failed commit the rollout is as it was before (what was half-written is cut off, or read
    again before the next append), so the caller may try again.

    Attributes:
        fault: whose fault it was.
        path: the file concerned, or None.
        errno: the operating system's error number, or None.
    """

    def __init__(
        self, message: str, fault: Fault, *, path: Path | None = None, errno: int | None = None
    ) -> None:
        super().__init__(message)
        self.fault: Fault = fault
        self.path = path
        self.errno = errno

    @classmethod
    def from_os(cls, doing: str, path: Path, error: OSError) -> Self:
        """The file system's refusal; ``doing`` completes "could not ..."."""
        return cls(f"could not {doing} {path}: {error.strerror}", "disk", path=path, errno=error.errno)
