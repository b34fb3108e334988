"""When a bad disk is called well again, by the daemon in its simulated world."""

from __future__ import annotations

import pytest
import trio

from actors.disk_watch import PROBE_SECONDS, WELL
from spoold.client import RpcFailed
from spoold.testing import World, simulate
from spoold.testing.disk import What

FAILURES = 20


@pytest.mark.parametrize("what", ["append", "commit"])
def test_a_disk_is_not_called_well_before_a_file_and_a_row_can_be_written(what: What) -> None:
    async def scenario(world: World) -> None:
        alice = await world.client("alice")
        thread = await alice.start_thread()
        await alice.turn_ended(await alice.start_turn(thread, "say one"))
        # The first is met by the turn, and the others by probes.
        world.daemon.disk.fail("append")
        world.daemon.disk.fail(what, after=1 if what == "append" else 0, times=FAILURES)
        begun = trio.current_time()
        with pytest.raises(RpcFailed, match="No space left on device"):
            await alice.start_turn(thread, "say two")
        await alice.notification("warning", message=WELL)
        assert trio.current_time() - begun >= PROBE_SECONDS * FAILURES
        await alice.turn_ended(await alice.start_turn(thread, "say three"))

    simulate(scenario, 1)
