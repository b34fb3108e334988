"""A disk that fails when the test says so, and a journal of what a process wrote and flushed.

    disk = FaultyDisk(faulty_disk_library, tmp_path / "home")
    async with open_daemon(tmp_path, variables=disk.variables) as daemon:
        disk.fail("full", only=["*.jsonl"])
        ...
        disk.heal()

The process loads ``faulty_disk.c`` before libc; see there for how it works. Only that process sees the
faults, the programs that it starts do not. The fixtures are in ``tests/conftest.py``.
"""

from __future__ import annotations

import errno
import mmap
import shutil
import struct
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

Mode = Literal["full", "io", "sync", "readonly", "read"]

# The numbers and layouts are those of faulty_disk.h and faulty_disk.c.
CLASSES = {
    "write": 1,
    "grow": 2,
    "sync": 4,
    "create": 8,
    "remove": 16,
    "truncate": 32,
    "read": 64,
    "open": 128,
    "attribute": 256,
}
"""What can fail: ``grow`` is a write beyond the end of the file, ``create`` a new name of file or folder,
``remove`` takes or changes a name, ``open`` is opening for writing."""

MODES: Mapping[Mode, tuple[int, Collection[str]]] = {
    "full": (errno.ENOSPC, ("grow", "create")),
    "io": (errno.EIO, ("write", "sync")),
    "sync": (errno.EIO, ("sync",)),
    "readonly": (errno.EROFS, ("write", "create", "remove", "truncate", "open", "attribute")),
    "read": (errno.EIO, ("read",)),
}

_CONTROL = struct.Struct("=IiqqQ1024s")
_CLASSES_ONLY = struct.Struct("=I")
_REFUSED = struct.Struct("=Q")
_REFUSED_AT = 24
_HEAD = struct.Struct("=QQQqqqIIQ")


def compile_library(folder: Path) -> Path:
    """Compile the library into a folder; skips the test where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("a faulty disk needs a C compiler, and there is no cc")
    library = folder / "faulty_disk.so"
    sources = [Path(__file__).with_name(name) for name in ("faulty_disk.c", "faulty_disk_calls.c")]
    options = ["-O1", "-Wall", "-Wextra", "-shared", "-fPIC", "-pthread"]
    subprocess.run([compiler, *options, "-o", library, *sources], check=True)
    return library


class FaultyDisk:
    """The disk below one folder, for processes that are started with ``variables``.

    Attributes:
        folder: what it holds. Need not exist before the process starts, but its parent must.
        variables: the environment that puts a process on this disk.
        graves: keeps files that have lost their last name, by number.
    """

    def __init__(self, library: Path, folder: Path, *, journal: bool = True) -> None:
        """Make a healthy disk; its own files lie beside the folder, and those of an earlier one go.

        Args:
            library: see ``compile_library``.
            folder: below it the disk is this one.
            journal: False remembers nothing, and costs less.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder.resolve()
        beside = self.folder.with_name(f"{self.folder.name}-disk")
        shutil.rmtree(beside, ignore_errors=True)
        self.graves = beside / "graves"
        self.graves.mkdir(parents=True)
        self._journal = beside / "journal"
        control = beside / "control"
        control.write_bytes(bytes(_CONTROL.size))
        with control.open("r+b") as file:
            self._control = mmap.mmap(file.fileno(), _CONTROL.size)
        self.variables = {
            "LD_PRELOAD": str(library),
            "FAULTY_DISK_FOLDER": str(self.folder),
            "FAULTY_DISK_CONTROL": str(control),
        }
        if journal:
            self.variables |= {
                "FAULTY_DISK_JOURNAL": str(self._journal),
                "FAULTY_DISK_GRAVE": str(self.graves),
            }

    def fail(
        self,
        mode: Mode,
        *,
        after_bytes: int = 0,
        times: int = -1,
        only: Sequence[str] = (),
        calls: Collection[str] | None = None,
    ) -> None:
        """Fail from the next call on.

        Args:
            mode: ``full`` (ENOSPC where a file would grow, or a file or folder begin; all else goes on),
                ``io`` (EIO from writes and flushes), ``sync`` (EIO from flushes), ``readonly`` (EROFS from
                all that changes), ``read`` (EIO from reads).
            after_bytes: so many are written first; the write that goes beyond is short.
            times: after so many failures the disk is well again; negative: never by itself.
            only: patterns of paths relative to the folder, as of ``fnmatch`` (``*`` takes ``/`` too); without
                one every file fails.
            calls: names of ``CLASSES``, other than those of the mode.
        """
        self.heal()
        error, usual = MODES[mode]
        classes = sum(CLASSES[name] for name in (usual if calls is None else calls))
        patterns = "\n".join(only).encode()
        assert len(patterns) < 1024, "too many patterns"
        page = _CONTROL.pack(0, error, after_bytes, times, self.refused, patterns)
        self._control[_CLASSES_ONLY.size :] = page[_CLASSES_ONLY.size :]
        _CLASSES_ONLY.pack_into(self._control, 0, classes)

    def heal(self) -> None:
        """Be healthy from the next call on."""
        _CLASSES_ONLY.pack_into(self._control, 0, 0)

    @property
    def refused(self) -> int:
        """How many calls have failed so far."""
        count: int = _REFUSED.unpack_from(self._control, _REFUSED_AT)[0]
        return count

    def journal(self) -> list[Record]:
        """What was done since the disk was made, in order."""
        if not self._journal.exists():
            return []
        return list(_records(self._journal.read_bytes()))

    def forget(self) -> None:
        """Begin the journal anew, as if all of it had been flushed. No process may use the disk."""
        self._journal.unlink(missing_ok=True)
        for grave in self.graves.iterdir():
            grave.unlink()


Kind = Literal[
    "write", "truncate", "flush", "flushed", "failed", "create", "mkdir", "rename", "unlink", "rmdir"
]

_KINDS: Mapping[int, Kind] = {
    ord("W"): "write",
    ord("T"): "truncate",
    ord("B"): "flush",
    ord("E"): "flushed",
    ord("F"): "failed",
    ord("C"): "create",
    ord("M"): "mkdir",
    ord("R"): "rename",
    ord("U"): "unlink",
    ord("D"): "rmdir",
}


@dataclass(frozen=True, slots=True)
class Record:
    """One thing that a process did.

    ``write`` and ``truncate`` come before it is done, and may not have been, or in part; ``create``,
    ``mkdir``, ``rename``, ``unlink`` and ``rmdir`` come after, so a kill may leave one that has no record.
    ``flush`` (fsync or fdatasync of a file or a folder) comes before, ``flushed`` or ``failed`` with the same
    number after; neither if the process was killed in it.

    Attributes:
        kind: what.
        path: of what, relative to the folder; the folder itself is ``.``.
        target: the new name in a ``rename``.
        inode: the file's number, whatever its name.
        offset: where a ``write`` begins, or the new size in a ``truncate``, in bytes.
        length: of a ``write``, in bytes.
        file_size: before a ``write`` or ``truncate``, in bytes.
        before: the bytes that a ``write`` replaces or a ``truncate`` cuts off.
        number: of the flush; of the grave of the file that an ``unlink`` or ``rename`` took the name from, 0
            where there is none.
    """

    kind: Kind
    path: str
    target: str = ""
    inode: int = 0
    offset: int = 0
    length: int = 0
    file_size: int = 0
    before: bytes = b""
    number: int = 0


def _records(data: bytes) -> Iterator[Record]:
    at = 0
    while at < len(data):
        size, code, inode, first, length, file_size, path_size, target_size, before_size = _HEAD.unpack_from(
            data, at
        )
        path_at = at + _HEAD.size
        target_at = path_at + path_size
        before_at = target_at + target_size
        kind = _KINDS[code]
        changes = kind in ("write", "truncate")
        yield Record(
            kind=kind,
            path=data[path_at:target_at].decode(),
            target=data[target_at:before_at].decode(),
            inode=inode,
            offset=first if changes else 0,
            length=length,
            file_size=file_size,
            before=data[before_at : before_at + before_size],
            number=0 if changes else first,
        )
        at += size
