"""Bytes and names onto the disk: writing them all, flushing, moving and removing."""

from __future__ import annotations

import os
from pathlib import Path

from persistence.fault_points import armed, reach, watch


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it; after an ``OSError`` part of it may be written."""
    view = memoryview(data)
    onlooker = watch()
    reach("before the append")
    if onlooker is not None:
        onlooker.writing(descriptor)
    if armed("half of the append"):
        view = view[os.write(descriptor, view[: len(view) // 2]) :]
        reach("half of the append")
    while view:
        view = view[os.write(descriptor, view) :]
    if onlooker is not None:
        onlooker.wrote(descriptor)


def sync(descriptor: int) -> None:
    """Flush a file or a folder that is open to the disk."""
    onlooker = watch()
    if onlooker is not None:
        onlooker.flushing(descriptor)
    os.fsync(descriptor)
    if onlooker is not None:
        onlooker.flushed(descriptor)


def sync_path(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def made(path: Path) -> None:
    """A file or folder was made."""
    if (onlooker := watch()) is not None:
        onlooker.made(path)


def move(path: Path, target: Path) -> None:
    """Give a file another name; on the disk when one of the folders was flushed."""
    path.rename(target)
    if (onlooker := watch()) is not None:
        onlooker.moved(path, target)


def remove(path: Path) -> None:
    """Remove a file, if it is there; on the disk when its folder was flushed."""
    if (onlooker := watch()) is not None:
        onlooker.removing(path)
    path.unlink(missing_ok=True)
