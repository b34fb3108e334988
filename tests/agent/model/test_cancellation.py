"""Nobody listens any more: the connection goes at once, so that the provider stops generating."""

from __future__ import annotations

import pytest
import trio

from agent.model.events import ResponseCompleted, TextDelta
from tests.agent.model.model_setup import Retried, answer, asking, client_for, provider
from tests.support.scripted_model import open_scripted_model

WIRES = ["responses", "chat"]


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("script", ["hold here one two", "wait here one two"])
async def test_cancelling_a_turn_closes_its_connection(nursery: trio.Nursery, script: str, wire: str) -> None:
    async with open_scripted_model(nursery) as model, client_for(model.base_url, wire_api=wire) as client:
        async with trio.open_nursery() as turn:
            turn.start_soon(answer, client, asking(script))
            await model.held("here")
            turn.cancel_scope.cancel()
        await model.hung_up()
        assert isinstance((await answer(client, asking("say still here")))[-1], ResponseCompleted)


async def test_cancelling_through_the_retries_closes_the_connection(nursery: trio.Nursery) -> None:
    async with open_scripted_model(nursery) as model, client_for(model.base_url) as client:
        turn = Retried()
        async with trio.open_nursery() as inner:
            inner.start_soon(turn.run, client, asking("hold here one two"), provider(model.base_url))
            await model.held("here")
            inner.cancel_scope.cancel()
        await model.hung_up()
        assert (turn.failure, turn.announced) == (None, [])


async def test_leaving_in_the_middle_closes_the_connection(nursery: trio.Nursery) -> None:
    async with open_scripted_model(nursery) as model, client_for(model.base_url) as client:
        async with client.stream(asking("hold here one two")) as events:
            await anext(events)
            assert isinstance(await anext(events), TextDelta)
        await model.hung_up()


async def test_leaving_in_a_flood_closes_the_connection(nursery: trio.Nursery) -> None:
    async with open_scripted_model(nursery) as model, client_for(model.base_url) as client:
        async with client.stream(asking("burst 200000 20")) as events:
            for _ in range(10):
                await anext(events)
        await model.hung_up()


@pytest.mark.parametrize("wire", WIRES)
async def test_a_response_read_to_its_end_leaves_its_connection_for_the_next(
    nursery: trio.Nursery, wire: str
) -> None:
    async with open_scripted_model(nursery) as model, client_for(model.base_url, wire_api=wire) as client:
        for number in range(5):
            await answer(client, asking(f"say {number}"))
        assert (model.connections, len(model.requests)) == (1, 5)


async def test_two_conversations_stream_at_once_over_one_client(nursery: trio.Nursery) -> None:
    async with open_scripted_model(nursery) as model, client_for(model.base_url) as client:
        async with trio.open_nursery() as turns:
            turns.start_soon(answer, client, asking("hold a one two"))
            turns.start_soon(answer, client, asking("hold b one two"))
            await model.held("a")
            await model.held("b")
            model.release("b")
            model.release("a")
        assert model.connections == 2


async def test_a_flood_lets_other_tasks_run(nursery: trio.Nursery) -> None:
    async with open_scripted_model(nursery) as model, client_for(model.base_url) as client:
        turns_of_another = 0

        async def other() -> None:
            nonlocal turns_of_another
            while True:
                turns_of_another += 1
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as inner:
            inner.start_soon(other)
            await answer(client, asking("burst 20000 8"))
            inner.cancel_scope.cancel()
        assert turns_of_another > 200
