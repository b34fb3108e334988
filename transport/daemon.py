"""What the transport needs of the daemon behind it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from actors.catalogue import Catalogue
    from actors.peer import Peer
    from actors.supervisor import Supervisor
    from protocol.daemon_methods import ConfigReadParams, ConfigReadResult, Model
    from protocol.jsonrpc import Response
    from protocol.runtime import Runtime


class BackgroundCommand(Protocol):
    """A command that goes on although its call is over.

    Attributes:
        session_id: the number by which it is named.
        item_id: the item that shows it.
        pid: its process group.
    """

    session_id: int
    item_id: str
    pid: int
    command: str
    cwd: str

    def stop(self) -> None:
        """End it: SIGTERM, and soon SIGKILL. Does not wait."""
        ...


class Daemon(Protocol):
    """The object that handlers get as ``call.daemon``. All methods are synchronous and return at once."""

    @property
    def version(self) -> str:
        """The program's own version."""
        ...

    @property
    def home(self) -> Path:
        """The home folder, absolute."""
        ...

    @property
    def runtime(self) -> Runtime:
        """Clock, ids, randomness."""
        ...

    @property
    def supervisor(self) -> Supervisor:
        """The loaded threads."""
        ...

    @property
    def catalogue(self) -> Catalogue:
        """Reads of threads, loaded or not."""
        ...

    def commands_in_background(self, thread_id: str) -> Sequence[BackgroundCommand]:
        """What still runs of a loaded thread's commands although nobody waits for it, by session id."""
        ...

    def provider_name(self, provider: str | None) -> tuple[str, str]:
        """A provider's id and its name; by default of the configured one.

        Raises:
            InvalidRequest: there is no such provider.
        """
        ...

    def models(self, provider: str | None) -> list[Model]:
        """The models of a provider, by default the configured one."""
        ...

    def read_config(self, params: ConfigReadParams) -> ConfigReadResult:
        """The effective configuration."""
        ...

    def peer_ready(self, peer: Peer) -> None:
        """The client's handshake succeeded and is answered: from now on it gets broadcasts."""
        ...

    def peer_gone(self, peer: Peer) -> None:
        """The client is gone. Called exactly once for every peer that was ready."""
        ...

    def answer(self, peer: Peer, response: Response) -> None:
        """The client answered a server request, or one that never was."""
        ...

    def request_shutdown(self, reason: str) -> None:
        """The stdio client is gone: the daemon that it started has nothing left to do."""
        ...
