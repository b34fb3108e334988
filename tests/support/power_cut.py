"""What a power cut leaves of a folder: some of what was flushed, and any part of what was not.

A process writes into the kernel's memory. Of each file, what it had written when a flush of that file began
is on the disk once the flush has succeeded; all later writes may have reached it or not, in any order, in
part, or as space that was allotted and never filled. What a failed flush was to write, no later flush brings
back. A name belongs to its folder: a new, moved or removed one is sure when the folder has been flushed (for
a move: either folder, as one transaction of a journaling file system). The unsure changes of one folder reach
the disk in their order.

``cut_power`` chooses one of these outcomes and makes the folder so. SQLite's -shm is memory, not a file that
anybody expects to find: it is removed.
"""

from __future__ import annotations

import math
import os
import random
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tests.support.faulty_disk import FaultyDisk, Record

SECTOR = 512
"""Bytes that reach a disk all or not at all; some tears keep to it, some do not."""

_NAMING = ("create", "mkdir", "rename", "unlink", "rmdir")


@dataclass(frozen=True, slots=True)
class _Change:
    """A write or truncation, as it can be done again: ``data`` at ``offset``, or a new size and no data."""

    offset: int
    data: bytes | None


def cut_power(disk: FaultyDisk, chance: random.Random) -> list[str]:
    """Leave of the disk's folder what a power cut could have left. No process may use it.

    The journal begins anew: what is left is on the disk.

    Returns:
        What became of each file and name that was unsure, for the account of a failure.
    """
    journal = disk.journal()
    places = _places(disk)
    names = {record.inode: record.target or record.path for record in journal}
    account: list[str] = []
    for inode, unsure in _unsure_writes(journal).items():
        path = places.get(inode)
        if path is not None and not names[inode].endswith("-shm"):
            fate = _cut_file(path, unsure, chance)
            account.append(f"{names[inode]}: {len(unsure)} unsure writes, {fate}")
    for record in _undone_names(journal, chance):
        _undo_name(disk, record)
        if not record.path.startswith("thread-writer-locks/"):
            account.append(f"undone: {record.kind} {record.path} {record.target}".rstrip())
    for path in disk.folder.rglob("*-shm"):
        path.unlink()
    disk.forget()
    return account


def _places(disk: FaultyDisk) -> dict[int, Path]:
    """Where each file of the journal is now, by its number."""
    places: dict[int, Path] = {}
    for root in (disk.graves, disk.folder):
        for parent, _, names in os.walk(root):
            for name in names:
                path = Path(parent, name)
                if path.is_file() and not path.is_symlink():
                    places[path.stat().st_ino] = path
    return places


# Contents.


@dataclass(slots=True)
class _Unsure:
    """The changes of one file that no flush has covered yet.

    Attributes:
        changes: those that the next flush covers.
        dropped: those that a failed flush was to write.
        flushing: how many of the changes each flush covers that has begun, by its number.
    """

    changes: list[Record] = field(default_factory=list)
    dropped: list[Record] = field(default_factory=list)
    flushing: dict[int, int] = field(default_factory=dict)

    def flush_failed(self) -> None:
        self.dropped += self.changes
        self.changes = []
        self.flushing.clear()

    def flushed(self, number: int) -> None:
        count = self.flushing.pop(number, 0)
        sure, self.changes = self.changes[:count], self.changes[count:]
        # What was written again is no longer missing.
        self.dropped = [lost for lost in self.dropped if not any(_meet(lost, change) for change in sure)]
        self.flushing = {other: max(0, more - count) for other, more in self.flushing.items()}


def _meet(one: Record, other: Record) -> bool:
    """Whether both changed the same bytes."""

    def reach(record: Record) -> tuple[int, float]:
        if record.kind == "write":
            return record.offset, record.offset + record.length
        return min(record.offset, record.file_size), math.inf

    (begin, end), (other_begin, other_end) = reach(one), reach(other)
    return begin < other_end and other_begin < end


def _unsure_writes(journal: Sequence[Record]) -> dict[int, list[Record]]:
    """Of each file the writes and truncations that are not sure, in their order."""
    succeeded = {record.number for record in journal if record.kind == "flushed"}
    files: defaultdict[int, _Unsure] = defaultdict(_Unsure)
    for record in journal:
        file = files[record.inode]
        match record.kind:
            case "write" | "truncate":
                file.changes.append(record)
            case "flush" if record.number in succeeded:
                file.flushing[record.number] = len(file.changes)
            case "flush":
                file.flush_failed()
            case "flushed":
                file.flushed(record.number)
    return {
        inode: [*file.dropped, *file.changes] for inode, file in files.items() if file.dropped or file.changes
    }


def _cut_file(path: Path, unsure: Sequence[Record], chance: random.Random) -> str:
    """Choose what became of a file's unsure writes; the file is then so."""
    status = path.stat()
    content, changes = _undo(path.read_bytes(), unsure)
    name, choose = chance.choice(_FATES)
    for change in choose(changes, chance):
        content = _redo(content, change)
    path.write_bytes(content)
    # Sizes and times are the file system's own: they may be on the disk when the contents are not.
    kept = chance.random() < 0.7
    if kept:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return f"{name}, {status.st_size} -> {len(content)} bytes{', time kept' if kept else ''}"


def _undo(content: bytes, unsure: Sequence[Record]) -> tuple[bytes, list[_Change]]:
    """The content without the unsure changes, and these, so that each can be done again."""
    changes: list[_Change] = []
    for record in reversed(unsure):
        if record.kind == "write":
            changes.append(_Change(record.offset, content[record.offset : record.offset + record.length]))
        else:
            changes.append(_Change(record.offset, None))
        content = _overwrite(content, record.offset, record.before)
        content = content[: record.file_size].ljust(record.file_size, b"\0")
    return content, changes[::-1]


def _redo(content: bytes, change: _Change) -> bytes:
    if change.data is None:
        return content[: change.offset].ljust(change.offset, b"\0")
    return _overwrite(content, change.offset, change.data)


def _overwrite(content: bytes, offset: int, data: bytes) -> bytes:
    if not data:
        return content
    return content[:offset].ljust(offset, b"\0") + data + content[offset + len(data) :]


_Choice = Callable[[list[_Change], random.Random], Iterable[_Change]]


def _all(changes: list[_Change], chance: random.Random) -> Iterable[_Change]:
    return changes


def _none(changes: list[_Change], chance: random.Random) -> Iterable[_Change]:
    return ()


def _first_ones(changes: list[_Change], chance: random.Random) -> Iterable[_Change]:
    """Up to one, which is torn."""
    count = chance.randrange(len(changes))
    return [*changes[:count], _torn(changes[count], chance)]


def _any(changes: list[_Change], chance: random.Random) -> Iterable[_Change]:
    """Each for itself."""
    spoil = (_torn, _zeros, _noise)
    return [
        change if fate < 0.5 else chance.choice(spoil)(change, chance)
        for change in changes
        if (fate := chance.random()) > 0.25
    ]


def _all_zeros(changes: list[_Change], chance: random.Random) -> Iterable[_Change]:
    """The space is there, the bytes are not."""
    return [_zeros(change, chance) for change in changes]


def _last_zeros(changes: list[_Change], chance: random.Random) -> Iterable[_Change]:
    """All but the last block."""
    return [*changes[:-1], _zeros(changes[-1], chance)]


def _last_noise(changes: list[_Change], chance: random.Random) -> Iterable[_Change]:
    return [*changes[:-1], _noise(changes[-1], chance)]


_FATES: Sequence[tuple[str, _Choice]] = (
    ("all there", _all),
    ("all lost", _none),
    ("the end lost", _first_ones),
    ("any of them spoiled", _any),
    ("all zeros", _all_zeros),
    ("zeros at the end", _last_zeros),
    ("noise at the end", _last_noise),
)


def _torn(change: _Change, chance: random.Random) -> _Change:
    if change.data is None:
        return change
    size = chance.randint(0, len(change.data))
    if chance.random() < 0.5:
        end = (change.offset + size) // SECTOR * SECTOR
        size = max(0, end - change.offset)
    return _Change(change.offset, change.data[:size])


def _zeros(change: _Change, chance: random.Random) -> _Change:
    return change if change.data is None else _Change(change.offset, bytes(len(change.data)))


def _noise(change: _Change, chance: random.Random) -> _Change:
    return change if change.data is None else _Change(change.offset, chance.randbytes(len(change.data)))


# Names.


def _parent(path: str) -> str:
    return str(PurePosixPath(path).parent)


def _folders(record: Record) -> set[str]:
    """The folders that the change is written in."""
    return {_parent(path) for path in (record.path, record.target) if path}


def _undone_names(journal: Sequence[Record], chance: random.Random) -> list[Record]:
    """The changes of names that did not reach the disk, the last one first."""
    named = [(place, record) for place, record in enumerate(journal) if record.kind in _NAMING]
    sure = {place for place, record in named if _is_sure(journal, place, record)}
    undone = {place for place, record in named if place not in sure and _lost(record, chance)}
    by_place: Mapping[int, Record] = dict(named)
    while True:
        more = {
            later
            for place in undone
            for later, record in named
            if later > place and later not in undone and _goes_with(record, by_place[place], later in sure)
        }
        if not more:
            break
        undone |= more
    return [by_place[place] for place in sorted(undone, reverse=True)]


def _lost(record: Record, chance: random.Random) -> bool:
    # A folder that is lost takes everything with it: rarer, so that the rest is seen too.
    return chance.random() < (0.3 if record.kind == "mkdir" else 0.4)


def _is_sure(journal: Sequence[Record], place: int, record: Record) -> bool:
    folders = _folders(record)
    begun = {
        later.number for later in journal[place + 1 :] if later.kind == "flush" and later.path in folders
    }
    return any(later.kind == "flushed" and later.number in begun for later in journal[place + 1 :])


def _goes_with(record: Record, lost: Record, sure: bool) -> bool:
    """Whether a later change cannot be there without the lost one."""
    made = PurePosixPath(record.target or record.path)
    if lost.kind == "mkdir" and PurePosixPath(lost.path) in made.parents:
        return True
    return not sure and bool(_folders(record) & _folders(lost))


def _undo_name(disk: FaultyDisk, record: Record) -> None:
    path, target = disk.folder / record.path, disk.folder / record.target
    grave = disk.graves / str(record.number)
    match record.kind:
        case "create":
            path.unlink(missing_ok=True)
        case "mkdir":
            shutil.rmtree(path, ignore_errors=True)
        case "rename":
            if target.exists():
                target.rename(path)
            if record.number:
                os.link(grave, target)
        case "unlink":
            if record.number and not path.exists():
                os.link(grave, path)
        case "rmdir":
            path.mkdir(exist_ok=True)
