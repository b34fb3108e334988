"""What a client's author would write: tests of one's own way to come back, with the plugin's fixtures."""

from __future__ import annotations

from typing import Any

import pytest

from spoold.testing import ClientState, InMemoryModel, SimulatedClient, SimulatedDaemon, World

APPROVAL = "item/commandExecution/requestApproval"


async def test_an_approval_survives_the_connection_over_which_it_was_asked(
    scripted_model: InMemoryModel, client: SimulatedClient
) -> None:
    scripted_model.script("esc echo installed", "say Installed.")
    thread = await client.start_thread()
    turn = await client.start_turn(thread, "install it")
    asked = await client.server_request(APPROVAL)
    await client.disconnect()
    await client.connect()
    since = len(client.log)
    await client.call("thread/resume", threadId=thread)
    again = await client.server_request(APPROVAL, since)
    client.answer(again, {"decision": "accept"})
    assert (again["id"], (await client.turn_ended(turn))["status"]) == (asked["id"], "completed")


@pytest.mark.world(seeds=10)
async def test_what_a_client_missed_comes_by_sequence_number(
    simulated_daemon: SimulatedDaemon, scripted_model: InMemoryModel, client: SimulatedClient
) -> None:
    thread = await client.start_thread()
    turn = await client.start_turn(thread, "hold gate one two three four")
    await scripted_model.held("gate")
    await simulated_daemon.settled()
    await client.disconnect()
    scripted_model.release("gate")
    await simulated_daemon.settled()
    await client.connect()
    seen = client.threads[thread]
    again = await client.call("thread/resume", threadId=thread, afterSeq=seen.seq, epoch=seen.epoch)
    await client.turn_ended(turn)
    assert again["replayed"] is True
    assert seen.text(turn) == "one two three four"


@pytest.mark.world(settings=["thread_unload_delay_secs=60"])
async def test_the_settings_of_the_marker_are_the_daemons(world: World, client: SimulatedClient) -> None:
    config = await client.call("config/read", includeLayers=False)
    assert config["config"]["thread_unload_delay_secs"] == 60
    assert world.daemon.running


@pytest.fixture
def beside(simulated_daemon: SimulatedDaemon) -> SimulatedClient:
    return SimulatedClient(simulated_daemon, "beside")


async def test_a_fixture_of_ones_own_is_built_on_the_world(beside: SimulatedClient) -> None:
    await beside.connect()
    thread = await beside.start_thread()
    assert isinstance(beside.threads[thread], ClientState)


def test_tests_without_a_world_are_left_alone(request: Any) -> None:
    assert "world" not in request.fixturenames
