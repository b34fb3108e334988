"""What an actor needs of the supervisor that made it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from actors.effects import OpenFork
from actors.peer import Outgoing, Peer
from protocol.threads import ThreadStatus

if TYPE_CHECKING:
    from actors.thread_actor import ThreadActor


class ThreadHost(Protocol):
    """What an actor needs of its supervisor."""

    def broadcast(self, message: Outgoing, *, besides: Sequence[Peer] = ()) -> None:
        """Send to every initialised connection that is not one of ``besides``."""
        ...

    def own_request(self, request_id: int, actor: ThreadActor) -> None:
        """Route the answers to this server request to this actor."""
        ...

    def forget_request(self, request_id: int) -> None:
        """The request is settled."""
        ...

    def retire(self, actor: ThreadActor) -> bool:
        """Take the actor out of service, unless messages wait for it; says whether it did."""
        ...

    def leave(self, actor: ThreadActor) -> None:
        """Take the actor out of service; what waits for it goes to its next incarnation."""
        ...

    def announce_closed(self, thread_id: str, status: ThreadStatus | None) -> None:
        """Tell everybody that the thread is not loaded any more; ``status`` None: they know it already."""
        ...

    def open_fork(self, fork: OpenFork, source_id: str) -> None:
        """Start a thread that was just made from another, and give it its first message."""
        ...

    def turn_over(self) -> None:
        """A turn ended: a draining daemon may be able to leave now."""
        ...

    def runtime_used(self, actor: ThreadActor) -> None:
        """The actor holds a runtime and has used it just now."""
        ...

    def runtime_dropped(self, actor: ThreadActor) -> None:
        """The actor holds no runtime any more."""
        ...

    async def clear_away(self, actor: ThreadActor, thread_ids: list[str]) -> list[str]:
        """End the actors of these threads, wait until they are gone, and keep others from loading.

        Gives the ids of those that the actor's act may take along.
        """
        ...

    def give_back(self, actor: ThreadActor) -> None:
        """The actor's act is over: what it has cleared away may be loaded again."""
        ...
