"""Opening the listeners and serving them: the life of everything that clients connect to.

Binding comes first and is its own step, so that an address in use is an error at start and not a
background failure. The end is the caller's decision, in two synchronous steps that it may take apart:
``stop_accepting`` and ``close``.
"""

from __future__ import annotations

import errno
import logging
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from protocol.late_imports import one_import_at_a_time
from transport.channel import MessageChannel
from transport.connection import Gateway, serve_connection
from transport.listen_url import Listen, ListenOff, ListenStdio, ListenUnix, ListenWebSocket, parse_listen
from transport.stdio import StdioChannel, standard_streams
from transport.unix import UnixListener, bind_unix_listener

__all__ = ["Listen", "ListenError", "Listeners", "control_socket", "open_listeners", "parse_listen"]

if TYPE_CHECKING:
    from transport.http_front import Authenticator

log = logging.getLogger(__name__)

BACKLOG = 128
ACCEPT_PAUSE = 0.1
"""Seconds to wait when the process is out of file descriptors."""

_NO_CAPACITY = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}

SocketListener = trio.SocketListener | UnixListener


class ListenError(Exception):
    """A listener cannot be opened. The text is one line for the user."""


def control_socket(home: Path) -> Path:
    """Where ``unix://`` without a path listens."""
    return home / "app-server-control" / "app-server-control.sock"


class Listeners:
    """Bound sockets, and perhaps the standard streams, that are not served yet.

    Attributes:
        addresses: what clients connect to, as ``--listen`` values with the real port.
    """

    def __init__(self, stdio: MessageChannel | None = None) -> None:
        self.addresses: list[str] = []
        self.stdio = False
        self._sockets: list[tuple[SocketListener, Authenticator | None]] = []
        self._accepting = trio.CancelScope()
        self._closing = trio.Event()
        self._gateway: Gateway | None = None
        self._open_stdio = stdio

    async def _open(self, listen: Listen, home: Path, authenticator: Authenticator | None) -> None:
        match listen:
            case ListenOff():
                return
            case ListenStdio():
                if self.stdio:
                    raise ListenError("stdio:// can be listened on only once")
                self.stdio = True
                self.addresses.append("stdio://")
            case ListenWebSocket():
                tcp = await _open_tcp(listen, authenticator)
                self._sockets.append((tcp, authenticator))
                host, port = tcp.socket.getsockname()[:2]
                self.addresses.append(f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}")
            case ListenUnix():
                path = listen.path or control_socket(home)
                try:
                    unix = bind_unix_listener(
                        path, own_folder=listen.path is None, link_when_long=listen.path is None
                    )
                except OSError as error:
                    raise ListenError(f"cannot listen on unix://{path}: {error.strerror or error}") from error
                self._sockets.append((unix, None))
                self.addresses.append(f"unix://{path}")

    def open_control(self, home: Path) -> UnixListener:
        """Listen on the home's control socket, too, unless ``listens`` named it. For the owner of the home.

        It is no address of ours: nobody asked for it, and it does not keep the daemon running.

        Raises:
            ListenError: it cannot be opened, or another program listens there.
        """
        path = control_socket(home)
        for listener, _ in self._sockets:
            if isinstance(listener, UnixListener) and listener.path == path:
                return listener
        try:
            control = bind_unix_listener(path, own_folder=True, link_when_long=True)
        except OSError as error:
            raise ListenError(f"cannot listen on unix://{path}: {error.strerror or error}") from error
        self._sockets.append((control, None))
        return control

    async def serve(
        self, gateway: Gateway, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Accept and serve connections until ``close``; returns when the last connection has ended.

        Cancelled, it closes everything without a farewell.
        """
        self._gateway = gateway
        if self._closing.is_set():
            self._accepting.cancel()
        async with trio.open_nursery() as connections:
            if self.stdio:
                connections.start_soon(self._serve_stdio, gateway)
            connections.start_soon(self._accept_all, gateway, connections)
            task_status.started()
            await self._closing.wait()

    def stop_accepting(self) -> None:
        """Close the listening sockets; connections go on."""
        self._accepting.cancel()

    def close(self) -> None:
        """Stop accepting, and begin the orderly end of every connection: 1001 for websockets."""
        self.stop_accepting()
        self._closing.set()
        if self._gateway is not None:
            self._gateway.close_all()

    async def _accept_all(self, gateway: Gateway, connections: trio.Nursery) -> None:
        try:
            with self._accepting:
                async with trio.open_nursery() as nursery:
                    for listener, authenticator in self._sockets:
                        nursery.start_soon(_accept, listener, authenticator, gateway, connections)
        finally:
            await self.aclose()

    async def _serve_stdio(self, gateway: Gateway) -> None:
        if self._open_stdio is not None:
            await serve_connection(self._open_stdio, gateway)
        else:
            with standard_streams() as (in_fd, out_fd):
                await serve_connection(StdioChannel(in_fd, out_fd), gateway)
        if not self._closing.is_set():
            gateway.daemon.request_shutdown("the client on stdio is gone")

    async def aclose(self) -> None:
        """Close the listening sockets. Needed only where ``serve`` was never called."""
        with trio.CancelScope(shield=True):
            for listener, _ in self._sockets:
                await listener.aclose()


async def open_listeners(
    listens: Sequence[Listen],
    home: Path,
    authenticator: Authenticator | None = None,
    stdio: MessageChannel | None = None,
) -> Listeners:
    """Bind everything that ``listens`` names, or nothing.

    Args:
        listens: the values of ``--listen``.
        home: the home folder, for the control socket.
        authenticator: who may connect to the TCP listeners; unix sockets have file permissions.
        stdio: the standard streams, where they are in use already; closed when they have been served.

    Raises:
        ListenError: one of them cannot be opened.
    """
    listeners = Listeners(stdio)
    try:
        for listen in listens:
            await listeners._open(listen, home, authenticator)
    except BaseException:
        await listeners.aclose()
        raise
    return listeners


async def _open_tcp(listen: ListenWebSocket, authenticator: Authenticator | None) -> trio.SocketListener:
    url = f"ws://{listen.host}:{listen.port}"
    if not listen.loopback and authenticator is None:
        raise ListenError(f"refusing to listen on {url} without authentication; see --ws-auth")
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    sock = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        await sock.bind((listen.host, listen.port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ListenError(f"cannot listen on {url}: {error.strerror or error}") from error
    return trio.SocketListener(sock)


async def _accept(
    listener: SocketListener,
    authenticator: Authenticator | None,
    gateway: Gateway,
    connections: trio.Nursery,
) -> None:
    if isinstance(listener, trio.SocketListener):
        _websocket_server()
    count = 0
    while True:
        try:
            stream = await listener.accept()
        except OSError as error:
            if error.errno not in _NO_CAPACITY:
                raise
            log.error("cannot accept a connection: %s", error.strerror)
            await trio.sleep(ACCEPT_PAUSE)
            continue
        count += 1
        connections.start_soon(_serve, stream, gateway, authenticator, _name(listener, stream, count))


async def _serve(
    stream: trio.SocketStream, gateway: Gateway, authenticator: Authenticator | None, name: str
) -> None:
    if "transport.websocket" in sys.modules:
        serve = _websocket_server()
    else:
        # The control socket is always open and seldom used: its first client pays for the import, in a
        # thread, so that the other clients do not.
        try:
            serve = await trio.to_thread.run_sync(_websocket_server)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
    await serve(stream, gateway, authenticator, name)


def _websocket_server() -> Callable[..., Awaitable[None]]:
    with one_import_at_a_time:
        from transport.websocket import serve_websocket  # heavy: only for who serves sockets

    return serve_websocket


def _name(listener: SocketListener, stream: trio.SocketStream, count: int) -> str:
    if isinstance(listener, UnixListener):
        return f"unix:{count}"
    try:
        host, port = stream.socket.getpeername()[:2]
    except OSError:
        return f"ws:{count}"
    return f"{host}:{port}"
