"""Bytes onto the disk: writing them all, making folders, flushing."""

from __future__ import annotations

import os
from pathlib import Path

from persistence.fault_points import armed, reach, watch
from persistence.home import FOLDER_MODE


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


def make_folders(folder: Path) -> list[Path]:
    """Make a folder and those above it, for their owner only.

    Returns:
        What must be flushed before a new file in ``folder`` is sure to be found again.

    Raises:
        OSError: one cannot be made.
    """
    made: list[Path] = []
    missing = folder
    while not missing.exists():
        made.append(missing)
        missing = missing.parent
    for each in reversed(made):
        each.mkdir(mode=FOLDER_MODE, exist_ok=True)
    return [folder, *(each.parent for each in made)]


def sync_path(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    onlooker = watch()
    try:
        if onlooker is not None:
            onlooker.flushing(descriptor)
        os.fsync(descriptor)
        if onlooker is not None:
            onlooker.flushed(descriptor)
    finally:
        os.close(descriptor)
