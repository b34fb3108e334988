"""Steps of the world: the model and commands go on, time passes, the disk fails, the daemon dies."""

from __future__ import annotations

import trio
import trio.testing

from persistence.fault_points import NAMES
from spoold.testing.exploration.comparison import check_unloaded, compare_all
from spoold.testing.exploration.scene import UNLOAD_SECONDS, Scene

JUMPS = (0.001, 0.2, 5.0, 70.0, 1900.0)
SETTLING = ("before a claim is settled", "after a claim is settled", "before COMMIT")
FAULTS = ("append", "half an append", "flush", "commit")


async def release(scene: Scene, a: int, b: int, c: int) -> None:
    """What waits for the test goes on: one answer of the model, or one command."""
    if scene.gates:
        gate = scene.gates.pop(a % len(scene.gates))
        scene.world.model.release(gate)
        scene.world.commands.release(gate)


async def switches(scene: Scene, a: int, b: int, c: int) -> None:
    """A few other tasks run."""
    for _ in range(a % 12):
        await trio.lowlevel.checkpoint()


async def settle(scene: Scene, a: int, b: int, c: int) -> None:
    """All that can happen without time passing has happened."""
    await scene.daemon.settled()


async def jump(scene: Scene, a: int, b: int, c: int) -> None:
    """Time passes: from a moment to more than the unload delay."""
    seconds = JUMPS[a % len(JUMPS)]
    alone = scene.alone()
    await trio.sleep(seconds)
    if seconds > UNLOAD_SECONDS:
        await check_unloaded(scene, alone)


async def leave_alone(scene: Scene, a: int, b: int, c: int) -> None:
    """Everybody leaves, and comes back when time has passed."""
    here = [client for client in scene.clients if client.connected]
    for client in here:
        await client.disconnect()
    await jump(scene, a, b, c)
    for client in here:
        if await scene.alive():
            await client.connect()


async def rush(scene: Scene, a: int, b: int, c: int) -> None:
    """Time passes while everything that could run waits for its turn: deadlines come early, for once."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    clock.jump(JUMPS[a % len(JUMPS)])
    for _ in range(b % 4):
        await trio.lowlevel.checkpoint()


async def compare(scene: Scene, a: int, b: int, c: int) -> None:
    """The rules that hold when all is quiet."""
    await compare_all(scene)


async def slow_disk(scene: Scene, a: int, b: int, c: int) -> None:
    """The disk takes this long from now on."""
    scene.daemon.disk.slowness = (0.002, 0.5, 20.0)[a % 3]
    _may_give_up(scene)


def _may_give_up(scene: Scene) -> None:
    """A daemon that ends does not wait for a very slow disk for ever."""
    if scene.stopping and scene.daemon.disk.slowness > 1:
        scene.ever_faulty = True


async def fault(scene: Scene, a: int, b: int, c: int) -> None:
    """Something of the disk fails, soon."""
    scene.faulty = scene.ever_faulty = True
    scene.daemon.disk.fail(FAULTS[a % len(FAULTS)], after=b % 6, times=1 + c % 2)  # type: ignore[arg-type]


async def crash_at(scene: Scene, a: int, b: int, c: int) -> None:
    """The daemon will die at a point of its way through a commit, or of its start."""
    scene.daemon.disk.crash_at(NAMES[a % len(NAMES)], b % 5, power=c % 2 == 0)


async def crash(scene: Scene, a: int, b: int, c: int) -> None:
    """It dies now."""
    if scene.daemon.running and not scene.daemon.dying:
        await scene.daemon.crash(power=a % 2 == 0)


async def stop(scene: Scene, a: int, b: int, c: int) -> None:
    """SIGTERM; a second one skips the grace period."""
    if scene.daemon.running and not scene.daemon.dying:
        scene.stopping = True
        _may_give_up(scene)
        scene.daemon.ask_to_stop()


async def restart(scene: Scene, a: int, b: int, c: int) -> None:
    """It is started again, where it has ended; and may die while it settles what it finds."""
    if not await scene.alive():
        scene.stopping = False
        if a % 2 == 1:
            scene.daemon.disk.crash_at(SETTLING[b % len(SETTLING)], power=c % 2 == 0)
        await scene.daemon.start()


STEPS = (
    release,
    switches,
    settle,
    jump,
    leave_alone,
    rush,
    compare,
    slow_disk,
    fault,
    crash_at,
    crash,
    stop,
    restart,
)
