"""The client of a simulated world, and the wire for one's own."""

from __future__ import annotations

import pytest
import trio

from spoold.client import Client
from spoold.testing import SimulatedClient, SimulatedDaemon, World


async def test_a_question_can_be_answered_with_an_error(client: SimulatedClient) -> None:
    thread = await client.start_thread()
    turn = await client.start_turn(thread, "esc make install | say Well then.")
    asked = await client.server_request("item/commandExecution/requestApproval")
    client.answer(asked, error={"code": -32000, "message": "nobody is there"})
    assert (await client.turn_ended(turn))["status"] == "completed"
    assert client.threads[thread].text(turn) == "Well then."


async def test_an_error_about_what_was_no_request_is_in_the_log_and_the_client_goes_on(
    client: SimulatedClient,
) -> None:
    assert client._channel is not None
    client._channel.raw(b"{nonsense")
    told = await client.wait_for(lambda each: "error" in each)
    assert (told["id"], told["error"]["code"]) == (None, -32700)
    assert await client.start_thread()


async def test_a_wire_ends_with_the_daemon_and_there_is_none_to_one_that_is_gone(
    simulated_daemon: SimulatedDaemon, world: World
) -> None:
    wire = simulated_daemon.open_wire("mine")
    mine = Client(wire)
    world.daemon.nursery.start_soon(mine.read)
    await mine.initialize("mine")
    assert wire.close_code is None
    await simulated_daemon.crash()
    await mine.closed.wait()
    assert wire.close_code == 1006
    with pytest.raises(trio.BrokenResourceError):
        await mine.notify("initialized")
    with pytest.raises(ConnectionRefusedError):
        simulated_daemon.open_wire("another")
    await simulated_daemon.restart()
    await Client(simulated_daemon.open_wire("another")).notify("initialized")
    assert 'mine > {"id":1,"method":"initialize"' in world.trace.text()


async def test_who_closes_a_wire_hears_no_more(simulated_daemon: SimulatedDaemon, world: World) -> None:
    wire = simulated_daemon.open_wire("mine")
    mine = Client(wire)
    world.daemon.nursery.start_soon(mine.read)
    await mine.initialize("mine")
    await wire.aclose()
    await mine.closed.wait()
    with pytest.raises(trio.ClosedResourceError):
        await mine.call("thread/list")
