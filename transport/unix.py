"""The unix socket: the owner's door, closed to others by file permissions.

A socket's path may be 107 bytes long, and a home may lie deeper than that. The socket then lies in a private
folder of its own under the temporary one, and a symbolic link stands where clients look: whoever follows
links finds it.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import trio

BACKLOG = 128
LONGEST_PATH = 107
"""Bytes of a path that fit into a socket address."""

SOCKET_NAME = "control.sock"
_FOLDER_PREFIX = "spoold-"
_CREDENTIALS = struct.Struct("3i")


def bind_unix_listener(path: Path, *, own_folder: bool, link_when_long: bool = False) -> UnixListener:
    """Bind and listen. A socket that nobody listens on any more is replaced.

    Touches the disk a few times and waits for nothing. Clients may connect at once; they are served once
    somebody accepts.

    Args:
        path: where the socket shall be; its folder is created (0700) when missing.
        own_folder: the folder is the daemon's alone: its permissions are set to 0700, too.
        link_when_long: make a path that is too long for a socket a link to a short one.

    Raises:
        OSError: the path is taken (EADDRINUSE when somebody listens there), too long, or not writable.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if own_folder:
        path.parent.chmod(0o700)
    replaced = _remove_stale(path)
    if link_when_long and len(os.fsencode(path)) > LONGEST_PATH:
        import tempfile  # costs start-up time that only long paths need to spend

        place = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX)) / SOCKET_NAME
        sock = _bound(place)
        try:
            path.symlink_to(place)
        except BaseException:
            sock.close()
            _remove_private(place)
            raise
    else:
        sock = _bound(path)
    return UnixListener(sock, path, replaced=replaced)


def _bound(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The process' umask would leave a moment in which others may connect.
    previous = os.umask(0o177)
    try:
        sock.bind(str(path))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(previous)
    return sock


class UnixListener(trio.abc.Listener[trio.SocketStream]):
    """Accepts connections; removes its socket file when it is closed.

    Attributes:
        path: where clients connect.
        replaced: whether the socket of a process that has died was in its place.
    """

    def __init__(self, sock: socket.socket, path: Path, *, replaced: bool = False) -> None:
        self.path = path
        self.replaced = replaced
        self._bound_socket = sock
        self._listener: trio.SocketListener | None = None
        self._identity = _identity(path)

    async def accept(self) -> trio.SocketStream:
        """As ``trio.SocketListener.accept``."""
        if self._listener is None:
            self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._bound_socket))
        return await self._listener.accept()

    async def aclose(self) -> None:
        """Stop accepting; the file goes, unless another socket took its place."""
        self.close()
        if self._listener is not None:
            await self._listener.aclose()

    def close(self) -> None:
        """``aclose`` for where nothing accepts."""
        if self._identity is not None and _identity(self.path) == self._identity:
            _remove(self.path)
        self._identity = None
        if self._listener is None:
            self._bound_socket.close()


async def connect_unix(path: Path) -> trio.SocketStream:
    """Connect to a unix socket, however long its path is.

    Raises:
        OSError: nobody listens there (FileNotFoundError, ConnectionRefusedError), or it is not ours to use.
    """
    with _short(path) as address:
        return await trio.open_unix_socket(address)


def listener_pid(stream: trio.SocketStream) -> int:
    """The process that listens on a socket we have connected to; 0 where we cannot see it."""
    return _peer(stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))


def pid_listening_at(path: Path) -> int:
    """The process that listens on a socket; 0 where there is none, or we cannot see it. Waits for nothing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            with _short(path) as address:
                probe.connect(address)
            return _peer(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        except OSError:
            return 0


def _peer(credentials: bytes) -> int:
    pid: int = _CREDENTIALS.unpack(credentials)[0]
    return pid


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name of the path that fits into a socket address, while it is needed."""
    if len(os.fsencode(path)) <= LONGEST_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _remove_stale(path: Path) -> bool:
    """Make room at ``path``; whether something was there.

    Raises:
        OSError: somebody listens there (EADDRINUSE), or it is no socket (EEXIST).
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISLNK(mode):
        with suppress(FileNotFoundError):
            mode = path.stat().st_mode
    if not (stat.S_ISSOCK(mode) or stat.S_ISLNK(mode)):
        raise OSError(errno.EEXIST, "exists and is no socket", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, _short(path) as address:
        # A listener whose queue is full must not hold us up: that somebody listens is what we ask.
        probe.setblocking(False)
        with suppress(ConnectionRefusedError, FileNotFoundError):
            with suppress(BlockingIOError):
                probe.connect(address)
            raise OSError(errno.EADDRINUSE, "another process listens there", str(path))
    _remove(path)
    return True


def _remove(path: Path) -> None:
    """Remove a socket, or a link and the private folder it leads to."""
    with suppress(OSError):
        place = path.readlink()
        if place.name == SOCKET_NAME and place.parent.name.startswith(_FOLDER_PREFIX):
            _remove_private(place)
    path.unlink(missing_ok=True)


def _remove_private(place: Path) -> None:
    with suppress(OSError):
        place.unlink(missing_ok=True)
        place.parent.rmdir()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
