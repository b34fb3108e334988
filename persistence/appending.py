"""Bytes into a rollout file: encoding lines as the file's form wants them, writing, flushing."""

from __future__ import annotations

import os
from pathlib import Path

from persistence.fault_points import armed, reach
from persistence.home import FOLDER_MODE
from persistence.indexer import Indexer, Line
from persistence.rollout_lines import RolloutLine, as_legacy, encode_line


def encode_lines(indexer: Indexer, lines: list[RolloutLine]) -> list[bytes]:
    """The lines' bytes, each fed to the index as if it were already in the file."""
    state, pieces = indexer.state, []
    offset = state.indexed_bytes
    for line in lines:
        legacy = state.history_mode == "legacy"
        for each in as_legacy(line) if legacy else (line,):
            ordinal = None if legacy else state.next_ordinal
            piece = encode_line(each, ordinal)
            indexer.feed(offset, len(piece), Line(each.timestamp_ms, ordinal, each.type, each.payload))
            offset += len(piece)
            pieces.append(piece)
    return pieces


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it; after an ``OSError`` part of it may be written."""
    view = memoryview(data)
    reach("before the append")
    if armed("half of the append"):
        view = view[os.write(descriptor, view[: len(view) // 2]) :]
        reach("half of the append")
    while view:
        view = view[os.write(descriptor, view) :]


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
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
