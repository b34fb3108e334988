"""The home folder: which one it is, what lies where in it, and who holds it.

Everything spoold keeps is below one folder. Folders that spoold makes are 0700 and files 0600: they hold
conversations. One process owns a home at a time; ``Home.claim`` is the lock that says so.

A file is on the disk itself when it was flushed, and its name was, and the names of the folders above it. A
name is flushed with the folder that it is in. Who made a folder, and whether it was flushed then, nobody
knows afterwards: a process may have died in between. So whoever promises that a new name is on the disk
flushes every folder up to the home (``Home.folders_above``).
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from persistence.appending import made, sync_path

FOLDER_MODE = 0o700
FILE_MODE = 0o600

_VARIABLES = ("SPOOLD_HOME", "CODEX_HOME")
_DEFAULT = "~/.spoold"


class HomeError(Exception):
    """The home folder cannot be used. The text is one line for the person who started the program."""


class HomeInUse(HomeError):
    """Another process owns the home folder."""


def resolve_home(flag: str | None, environ: Mapping[str, str]) -> Path:
    """Choose the home folder: the flag, ``SPOOLD_HOME``, ``CODEX_HOME``, then ``~/.spoold``.

    An empty value counts as not given. Nothing on disk is touched.

    Returns:
        An absolute path; ``~`` is expanded with ``HOME`` of ``environ``.

    Raises:
        HomeError: ``~`` cannot be expanded.
    """
    chosen = flag or next((environ[name] for name in _VARIABLES if environ.get(name)), _DEFAULT)
    if chosen == "~" or chosen.startswith("~/"):
        user_home = environ.get("HOME")
        if not user_home:
            raise HomeError(f"home folder {chosen} cannot be found: HOME is not set")
        chosen = user_home + chosen[1:]
    return Path(chosen).absolute()


@dataclass(frozen=True, slots=True)
class Home:
    """A usable home folder and the places in it. Only ``root`` is sure to exist."""

    root: Path

    @classmethod
    def open(cls, root: Path) -> Home:
        """Make the folder if it is missing and check that it can be written.

        Raises:
            HomeError: it is no folder, cannot be made, or cannot be written.
        """
        try:
            folders = make_folders(root)
        except (FileExistsError, NotADirectoryError):
            raise HomeError(f"home {root} is not a folder") from None
        except OSError as error:
            raise HomeError(f"home {root} cannot be made: {error.strerror}") from None
        if not os.access(root, os.R_OK | os.W_OK | os.X_OK):
            raise HomeError(f"home {root} cannot be written: check its owner and permissions")
        for folder in folders:
            # What is above a home may be writable and not readable: such a folder cannot be flushed.
            with suppress(OSError):
                sync_path(folder.parent)
        return cls(root)

    def folders_above(self, path: Path) -> list[Path]:
        """The folders that the path is in, from its own up to the home."""
        folders = [path.parent]
        while folders[-1] != self.root:
            folders.append(folders[-1].parent)
        return folders

    @property
    def config_path(self) -> Path:
        """The settings file; it need not exist."""
        return self.root / "config.toml"

    @property
    def sessions(self) -> Path:
        """Rollouts of threads that are not archived, in folders by date."""
        return self.root / "sessions"

    @property
    def archived_sessions(self) -> Path:
        """Rollouts of archived threads, flat."""
        return self.root / "archived_sessions"

    @property
    def session_index(self) -> Path:
        """The names of threads, a line for every renaming; shared with the reference program."""
        return self.root / "session_index.jsonl"

    @property
    def database(self) -> Path:
        """The SQLite file: index, queue, goals."""
        return self.root / "spoold.sqlite"

    @property
    def control_socket(self) -> Path:
        """The owner's unix socket, in a folder of its own so that the folder's mode guards it."""
        return self.root / "app-server-control" / "app-server-control.sock"

    def claim(self) -> HomeClaim:
        """Take the home for this process. The kernel gives it back when the process ends, however it ends.

        Raises:
            HomeInUse: another process (or another claim of this one) holds it.
            HomeError: the file system cannot lock.
        """
        descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise HomeInUse(f"home {self.root} is in use by another spoold") from None
        except OSError as error:
            os.close(descriptor)
            raise HomeError(f"home {self.root} cannot be locked: {error.strerror}") from None
        return HomeClaim(descriptor)


def make_folders(folder: Path) -> list[Path]:
    """Make a folder and those above it, for their owner only.

    Returns:
        Those that were missing, the highest first.

    Raises:
        OSError: one cannot be made.
    """
    missing: list[Path] = []
    while not folder.exists():
        missing.insert(0, folder)
        folder = folder.parent
    for each in missing:
        each.mkdir(mode=FOLDER_MODE, exist_ok=True)
        made(each)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    return missing


class HomeClaim:
    """The lock on a home, held until ``release``. Locks the folder itself: there is no lock file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Give the home back; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
