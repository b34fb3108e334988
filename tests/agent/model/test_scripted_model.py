"""The scripted model itself: every verb of its script, in both wire formats, and as a program."""

from __future__ import annotations

import json
import sys

import pytest
import trio

from agent.model.events import ModelRequest, OutputItemDone, ResponseCompleted, TextDelta
from tests.agent.model.model_setup import answer, asking, client_for, said
from tests.support.scripted_model import open_scripted_model

VERBS = [
    ("say a b", ["a b"]),
    ("deltas 3 abcdef", ["abcdef"]),
    ("deltas 5 ab", ["ab..."]),
    ("burst 3 2", ["xxxxxx"]),
    ("usage 99 a", ["a"]),
    ("reason why ;; a", ["reasoning", "a"]),
    ("think why ;; a", ["reasoning", "a"]),
    ("shell ls ;; pwd", ['{"cmd": "ls"}', '{"cmd": "pwd"}']),
    ("both a ;; ls", ["a", '{"cmd": "ls"}']),
    ('call f {"x": 1}', ['{"x": 1}']),
    ("badargs", ['{"cmd": ']),
    ("anything else", ["You said: anything else"]),
]


def told(events: list[object]) -> list[str]:
    out = []
    for event in events:
        if isinstance(event, OutputItemDone):
            item = event.item
            text = item["content"][0]["text"] if item["type"] == "message" else item["type"]
            out.append(item.get("arguments", text))
    return out


@pytest.mark.parametrize("wire", ["responses", "chat"])
@pytest.mark.parametrize(("script", "items"), VERBS, ids=[verb[0] for verb in VERBS])
async def test_a_verb_is_answered(nursery: trio.Nursery, script: str, items: list[str], wire: str) -> None:
    async with open_scripted_model(nursery) as model, client_for(model.base_url, wire_api=wire) as client:
        events = await answer(client, asking(script))
        assert told([*events]) == items
        assert isinstance(events[-1], ResponseCompleted)


async def test_messages_and_phases_come_apart(nursery: trio.Nursery) -> None:
    async with open_scripted_model(nursery) as model, client_for(model.base_url) as client:
        assert told([*await answer(client, asking("many a ;; b"))]) == ["a", "b"]
        events = await answer(client, asking("commentary a ;; b"))
        phases = [event.item.get("phase") for event in events if isinstance(event, OutputItemDone)]
        assert phases == ["commentary", None]


async def test_leaving_the_sandbox_is_asked_for_with_a_reason(nursery: trio.Nursery) -> None:
    async with open_scripted_model(nursery) as model, client_for(model.base_url) as client:
        [arguments] = told([*await answer(client, asking("esc ls"))])
        assert json.loads(arguments)["sandbox_permissions"] == "require_escalated"


async def test_the_steps_of_a_turn_follow_the_outputs_of_its_calls(nursery: trio.Nursery) -> None:
    async with open_scripted_model(nursery) as model, client_for(model.base_url) as client:
        items = [said("say earlier"), said("shell a ;; b | shell c | say end")]
        seen: list[list[str]] = []
        for _ in range(4):
            items.append(said("<context>say wrong</context>"))
            events = await answer(client, ModelRequest("m", "i", list(items)))
            seen.append(told([*events]))
            for event in events:
                if isinstance(event, OutputItemDone):
                    items.append(event.item)
                    if event.item["type"] == "function_call":
                        call_id = event.item["call_id"]
                        items.append({"type": "function_call_output", "call_id": call_id, "output": "ok"})
        assert seen == [['{"cmd": "a"}', '{"cmd": "b"}'], ['{"cmd": "c"}'], ["end"], ["end"]]


@pytest.mark.parametrize("script", ["hold h one two", "wait h one two", "holdsh h ls"])
async def test_a_hold_is_held_until_it_is_released(nursery: trio.Nursery, script: str) -> None:
    async with open_scripted_model(nursery) as model, client_for(model.base_url) as client:
        done: list[list[str]] = []

        async def turn() -> None:
            done.append(told([*await answer(client, asking(script))]))

        async with trio.open_nursery() as turns:
            turns.start_soon(turn)
            await model.held("h")
            assert done == []
            model.release("h")
        assert len(done) == 1
        model.release("h")
        assert [event for event in await answer(client, asking("hold h a b")) if isinstance(event, TextDelta)]


async def test_it_runs_as_a_program() -> None:
    command = [sys.executable, "-m", "tests.support.scripted_model", "0"]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(_run_quietly, command)
        assert process.stdout is not None
        base_url = (await process.stdout.receive_some(200)).decode().strip()
        async with client_for(base_url) as client:
            assert told([*await answer(client, asking("say from outside"))]) == ["from outside"]
        nursery.cancel_scope.cancel()


async def _run_quietly(command: list[str], task_status: trio.TaskStatus[trio.Process]) -> None:
    import subprocess

    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    try:
        task_status.started(process)
        await process.wait()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            assert process.stdout is not None
            await process.stdout.aclose()
