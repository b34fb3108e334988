"""The unix socket: the owner's door, closed to others by file permissions."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

import trio

BACKLOG = 128


async def open_unix_listener(path: Path, *, own_folder: bool) -> UnixListener:
    """Bind and listen. A socket that nobody listens on any more is replaced.

    Args:
        path: where the socket shall be; its folder is created (0700) when missing.
        own_folder: the folder is the daemon's alone: its permissions are set to 0700, too.

    Raises:
        OSError: the path is taken (EADDRINUSE when somebody listens there), too long, or not writable.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if own_folder:
        path.parent.chmod(0o700)
    if _is_socket(path):
        await _remove_stale(path)
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The process' umask would leave a moment in which others may connect.
    previous = os.umask(0o177)
    try:
        await sock.bind(str(path))
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(previous)
    sock.listen(BACKLOG)
    return UnixListener(sock, path)


class UnixListener(trio.abc.Listener[trio.SocketStream]):
    """Accepts connections; removes its socket file when it is closed."""

    def __init__(self, sock: trio.socket.SocketType, path: Path) -> None:
        self.path = path
        self._listener = trio.SocketListener(sock)
        self._identity = _identity(path)

    async def accept(self) -> trio.SocketStream:
        """As ``trio.SocketListener.accept``."""
        return await self._listener.accept()

    async def aclose(self) -> None:
        """Stop accepting; the file goes, unless another socket took its place."""
        if self._identity is not None and _identity(self.path) == self._identity:
            self.path.unlink(missing_ok=True)
        self._identity = None
        await self._listener.aclose()


def _is_socket(path: Path) -> bool:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "exists and is no socket", str(path))
    return True


async def _remove_stale(path: Path) -> None:
    probe = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        await probe.connect(str(path))
    except (ConnectionRefusedError, FileNotFoundError):
        _unlink(path)
    else:
        raise OSError(errno.EADDRINUSE, "another process listens there", str(path))
    finally:
        probe.close()


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
