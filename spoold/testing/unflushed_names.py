"""Names that a power cut takes back: those of files and folders that were made, moved or removed.

A name is on the disk when the folder that it is in was flushed; a move, when either of its folders was. Of
the changes that are not on the disk some of the last are lost; and with a folder what is in it, flushed or
not.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spoold.testing.runtime import Chance


@dataclass(slots=True)
class _Change:
    """One change.

    Attributes:
        kind: what was done.
        path: to which name; where it was moved, the new one.
        other: the name before it was moved, or another one of the file that was removed.
        folders: the inodes of the folders that it is written in.
    """

    kind: Literal["made", "moved", "removed"]
    path: Path
    other: Path
    folders: set[int]

    def undo(self, home: Path, copy: Path) -> None:
        """Take it back in a copy of the home."""
        path = copy / self.path.relative_to(home)
        match self.kind:
            case "made" if path.is_dir():
                shutil.rmtree(path)
            case "made":
                path.unlink(missing_ok=True)
            case "moved" if path.exists():
                path.rename(copy / self.other.relative_to(home))
            case "removed" if path.parent.is_dir():
                shutil.copy2(self.other, path)


class UnflushedNames:
    """The changes of names in a home that are not on the disk, in their order.

    Args:
        graves: where removed files are kept, on the file system of the home.
    """

    def __init__(self, graves: Path) -> None:
        self._graves = graves
        self._changes: list[_Change] = []
        self._removed = 0

    def made(self, path: Path) -> None:
        """There is a new file or folder."""
        self._changes.append(_Change("made", path, path, _folders(path)))

    def moved(self, path: Path, target: Path) -> None:
        """A file has another name now."""
        self._changes.append(_Change("moved", target, path, _folders(path, target)))

    def removing(self, path: Path) -> None:
        """A file is about to be removed, if it is there."""
        if path.exists():
            self._removed += 1
            self._graves.mkdir(exist_ok=True)
            grave = self._graves / str(self._removed)
            os.link(path, grave)
            self._changes.append(_Change("removed", path, grave, _folders(path)))

    def flushed(self, folder: int) -> None:
        """The folder with this inode is on the disk."""
        self._changes = [each for each in self._changes if folder not in each.folders]

    def lose(self, home: Path, copy: Path, chance: Chance) -> list[str]:
        """Leave in the copy of the home what a power cut could have left; what was lost."""
        told = []
        for _ in range(chance.randint(0, len(self._changes))):
            change = self._changes.pop()
            change.undo(home, copy)
            told.append(f"that {change.path} was {change.kind}")
        self._changes.clear()
        return told

    def now_in(self, folders: Mapping[int, int]) -> None:
        """The folders have these inodes now: a copy of the home has taken its place."""
        for each in self._changes:
            each.folders = {folders[folder] for folder in each.folders if folder in folders}


def _folders(*paths: Path) -> set[int]:
    return {path.parent.stat().st_ino for path in paths}
