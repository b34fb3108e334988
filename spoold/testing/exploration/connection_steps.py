"""Steps of a connection: clients come and go, do not read, and say what nobody understands."""

from __future__ import annotations

import trio

from protocol.base import encode
from spoold.testing.exploration.scene import CLIENTS, Scene
from spoold.testing.exploration.step import of_client, of_thread
from spoold.testing.exploration.watched_client import WatchedClient

NONSENSE = (
    b"no json",
    b"{",
    b"[]",
    b'"text"',
    b"\xff\xfe",
    encode({"id": "x", "method": "no/such/method"}),
    encode({"id": "x", "method": "turn/start", "params": {"threadId": 7, "input": "text"}}),
    encode({"id": "x", "method": "thread/resume", "params": {"threadId": "../../etc/passwd"}}),
    encode({"id": 987654, "result": {"decision": "accept"}}),
    encode({"method": "no/such/notification", "params": None}),
)
"""None of it may change anything, or be answered with anything but an error."""


async def connect(scene: Scene, a: int, b: int, c: int) -> None:
    """A client comes."""
    client = scene.clients[a % CLIENTS]
    if not client.connected and await scene.alive():
        await client.connect()


async def disconnect(scene: Scene, a: int, b: int, c: int) -> None:
    """A client goes; what it has said last may be lost."""
    await scene.clients[a % CLIENTS].disconnect(lose=b % 2 == 0)


@of_client
async def reconnect(scene: Scene, client: WatchedClient, b: int, c: int) -> None:
    """A client goes, and comes back to where it was, as a program does whose network has failed."""
    shown = sorted(client.attached)
    await client.disconnect(lose=b % 2 == 0)
    for _ in range(c % 5):
        await trio.lowlevel.checkpoint()
    if not await scene.alive():
        return
    await client.connect()
    for thread in shown:
        known = client.threads[thread]
        client.send("thread/resume", threadId=thread, afterSeq=known.seq, epoch=known.epoch)


@of_client
async def stop_reading(scene: Scene, client: WatchedClient, b: int, c: int) -> None:
    """A client reads nothing any more."""
    client.stop_reading()
    client.slow = True


@of_client
async def go_on_reading(scene: Scene, client: WatchedClient, b: int, c: int) -> None:
    """It reads again."""
    client.go_on_reading()
    client.slow = False


@of_client
async def nonsense(scene: Scene, client: WatchedClient, b: int, c: int) -> None:
    """A client sends what nobody understands."""
    client.say_raw(NONSENSE[b % len(NONSENSE)])


@of_thread
async def burst(scene: Scene, client: WatchedClient, thread: str, c: int) -> None:
    """More requests at once than the daemon takes from one client: each has its answer all the same."""
    for _ in range(8 + c % 64):
        client.send("thread/read", threadId=thread)


STEPS = (connect, disconnect, reconnect, stop_reading, go_on_reading, nonsense, burst)
