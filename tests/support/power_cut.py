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

import os
import random
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
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


def cut_power(disk: FaultyDisk, chance: random.Random, *, lose_all: bool = False) -> list[str]:
    """Leave of the disk's folder what a power cut could have left. No process may use it.

    The journal begins anew: what is left is on the disk.

    Args:
        disk: whose folder.
        chance: chooses.
        lose_all: choose the worst instead: nothing that is not sure is left.

    Returns:
        What became of each file and name that was unsure, for the account of a failure.
    """
    journal = disk.journal()
    places = _places(disk)
    names = {record.inode: record.target or record.path for record in journal}
    account: list[str] = []
    for inode, last in _unsure_writes(journal).items():
        path = places.get(inode)
        if path is not None and not names[inode].endswith("-shm"):
            fate = _ALL_LOST if lose_all else chance.choice(_FATES)
            account.append(f"{names[inode]}: {_cut_file(path, last, fate, chance)}")
    for record in _undone_names(journal, (lambda record: True) if lose_all else _by_chance(chance)):
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


def _unsure_writes(journal: Sequence[Record]) -> dict[int, list[tuple[Record, bool]]]:
    """Of each file its changes from the first unsure one on, each with whether it is sure."""
    files: defaultdict[int, _File] = defaultdict(_File)
    for record in journal:
        file = files[record.inode]
        match record.kind:
            case "write" | "truncate":
                file.changes.append(record)
            case "flush":
                file.flushing[record.number] = len(file.changes)
            case "failed":
                file.dropped |= set(range(file.covered, file.flushing[record.number]))
            case "flushed":
                file.covered = max(file.covered, file.flushing[record.number])
    return {inode: last for inode, file in files.items() if (last := file.from_first_unsure())}


@dataclass(slots=True)
class _File:
    """What the journal says of one file.

    Attributes:
        changes: its writes and truncations.
        covered: of these, how many flushes that have succeeded were to write.
        dropped: the places of those that a failed flush was to write.
        flushing: how many changes each flush was to write, by its number.
    """

    changes: list[Record] = field(default_factory=list)
    covered: int = 0
    dropped: set[int] = field(default_factory=set)
    flushing: dict[int, int] = field(default_factory=dict)

    def from_first_unsure(self) -> list[tuple[Record, bool]]:
        first = min(self.dropped, default=self.covered)
        return [
            (self.changes[place], place < self.covered and place not in self.dropped)
            for place in range(first, len(self.changes))
        ]


def _cut_file(path: Path, last: Sequence[tuple[Record, bool]], fate: _Fate, chance: random.Random) -> str:
    """Make the file what its unsure writes have become."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    changes = _undo(content, [record for record, _ in last])
    name, choose = fate
    unsure = [change for change, (_, sure) in zip(changes, last, strict=True) if not sure]
    chosen = iter(choose(unsure, chance))
    for change, (_, sure) in zip(changes, last, strict=True):
        left = change if sure else next(chosen)
        if left is not None:
            _redo(content, left)
    path.write_bytes(content)
    # Sizes and times are the file system's own: they may be on the disk when the contents are not.
    kept = chance.random() < 0.7
    if kept:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    what = f"{len(unsure)} unsure writes, {name}, {status.st_size} -> {len(content)} bytes"
    return f"{what}, time kept" if kept else what


def _undo(content: bytearray, records: Sequence[Record]) -> list[_Change]:
    """Take the changes back; these, so that each can be done again."""
    changes: list[_Change] = []
    for record in reversed(records):
        end = record.offset + record.length
        data = bytes(content[record.offset : end]) if record.kind == "write" else None
        changes.append(_Change(record.offset, data))
        _overwrite(content, record.offset, record.before)
        _resize(content, record.file_size)
    return changes[::-1]


def _redo(content: bytearray, change: _Change) -> None:
    if change.data is None:
        _resize(content, change.offset)
    else:
        _overwrite(content, change.offset, change.data)


def _overwrite(content: bytearray, offset: int, data: bytes) -> None:
    if data:
        _resize(content, max(offset, len(content)))
        content[offset : offset + len(data)] = data


def _resize(content: bytearray, size: int) -> None:
    content.extend(bytes(max(0, size - len(content))))
    del content[size:]


# What can become of the unsure changes of a file: of each, in its place, what is left of it.

_Left = list[_Change | None]


def _all(changes: list[_Change], chance: random.Random) -> _Left:
    return [*changes]


def _none(changes: list[_Change], chance: random.Random) -> _Left:
    return [None] * len(changes)


def _first_ones(changes: list[_Change], chance: random.Random) -> _Left:
    """Up to one, which is torn."""
    count = chance.randrange(len(changes))
    return [*changes[:count], _torn(changes[count], chance), *[None] * (len(changes) - count - 1)]


def _any(changes: list[_Change], chance: random.Random) -> _Left:
    """Each for itself."""
    keep = (_whole, _whole, _whole, _lost, _lost, _torn, _zeros, _noise)
    return [chance.choice(keep)(change, chance) for change in changes]


def _all_zeros(changes: list[_Change], chance: random.Random) -> _Left:
    """The space is there, the bytes are not."""
    return [_zeros(change, chance) for change in changes]


def _last_zeros(changes: list[_Change], chance: random.Random) -> _Left:
    return [*changes[:-1], _zeros(changes[-1], chance)]


def _last_noise(changes: list[_Change], chance: random.Random) -> _Left:
    return [*changes[:-1], _noise(changes[-1], chance)]


_Fate = tuple[str, Callable[[list[_Change], random.Random], _Left]]

_ALL_LOST: _Fate = ("all lost", _none)
_FATES: Sequence[_Fate] = (
    ("all there", _all),
    _ALL_LOST,
    ("the end lost", _first_ones),
    ("any of them spoiled", _any),
    ("all zeros", _all_zeros),
    ("zeros at the end", _last_zeros),
    ("noise at the end", _last_noise),
)


def _whole(change: _Change, chance: random.Random) -> _Change | None:
    return change


def _lost(change: _Change, chance: random.Random) -> _Change | None:
    return None


def _torn(change: _Change, chance: random.Random) -> _Change | None:
    if change.data is None:
        return change
    size = chance.randint(0, len(change.data))
    if chance.random() < 0.5:
        end = (change.offset + size) // SECTOR * SECTOR
        size = max(0, end - change.offset)
    return _Change(change.offset, change.data[:size])


def _zeros(change: _Change, chance: random.Random) -> _Change | None:
    return change if change.data is None else _Change(change.offset, bytes(len(change.data)))


def _noise(change: _Change, chance: random.Random) -> _Change | None:
    return change if change.data is None else _Change(change.offset, chance.randbytes(len(change.data)))


# Names.


def _parent(path: str) -> str:
    return str(PurePosixPath(path).parent)


def _folders(record: Record) -> set[str]:
    """The folders that the change is written in."""
    return {_parent(path) for path in (record.path, record.target) if path}


def _undone_names(journal: Sequence[Record], is_lost: Callable[[Record], bool]) -> list[Record]:
    """The changes of names that did not reach the disk, the last one first."""
    named = [(place, record) for place, record in enumerate(journal) if record.kind in _NAMING]
    sure = _sure_names(journal)
    undone = {place for place, record in named if place not in sure and is_lost(record)}
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


def _by_chance(chance: random.Random) -> Callable[[Record], bool]:
    # A folder that is lost takes everything with it: rarer, so that the rest is seen too.
    return lambda record: chance.random() < (0.3 if record.kind == "mkdir" else 0.4)


def _sure_names(journal: Sequence[Record]) -> set[int]:
    """The places in the journal of the changes of names that a flush has made sure."""
    sure: set[int] = set()
    waiting: list[tuple[int, set[str]]] = []
    flushing: dict[int, set[int]] = {}
    for place, record in enumerate(journal):
        if record.kind in _NAMING:
            waiting.append((place, _folders(record)))
        elif record.kind == "flush":
            flushing[record.number] = {each for each, folders in waiting if record.path in folders}
        elif record.kind == "flushed":
            sure |= flushing[record.number]
            waiting = [each for each in waiting if each[0] not in sure]
    return sure


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
