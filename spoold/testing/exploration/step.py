"""What a step is: one thing that a client, the disk or the world does.

A step is a name and three numbers. What the numbers mean depends on what there is (the client, the thread,
the text...), so that a step that was cut out of a schedule leaves the others meaningful. A step that is
impossible now does nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from spoold.testing.exploration.scene import Scene
from spoold.testing.exploration.watched_client import WatchedClient

Step = tuple[str, int, int, int]
Act = Callable[[Scene, int, int, int], Awaitable[None]]


def of_client(act: Callable[[Scene, WatchedClient, int, int], Awaitable[None]]) -> Act:
    """A step of a client that is connected: the first number says which."""

    async def step(scene: Scene, a: int, b: int, c: int) -> None:
        if (client := scene.client(a)) is not None:
            await act(scene, client, b, c)

    return _named(step, act)


def of_thread(act: Callable[[Scene, WatchedClient, str, int], Awaitable[None]]) -> Act:
    """A step of a connected client with a thread: the first two numbers say which."""

    async def step(scene: Scene, a: int, b: int, c: int) -> None:
        client, thread = scene.client(a), scene.thread(b)
        if client is not None and thread is not None:
            await act(scene, client, thread, c)

    return _named(step, act)


def _named(step: Act, act: Callable[..., Awaitable[None]]) -> Act:
    step.__name__, step.__doc__ = act.__name__, act.__doc__
    return step
