"""How the program ends, by every cause, and what it leaves on the disk."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from spoold.client import ConnectionLost, RpcFailed
from tests.end_to_end.stdio import endings, open_raw, open_stdio, rollout
from tests.support.daemon_process import open_daemon
from tests.support.every_message import user_text
from tests.support.scripted_model import ScriptedModel, open_scripted_model

SHUTTING_DOWN = {"reason": "serverShuttingDown"}


@pytest.fixture
async def model(nursery: trio.Nursery) -> AsyncIterator[ScriptedModel]:
    async with open_scripted_model(nursery) as model:
        yield model


async def test_a_turn_cut_off_by_kill_9_reads_as_interrupted_and_the_thread_goes_on(
    tmp_path: Path, model: ScriptedModel
) -> None:
    async with open_daemon(tmp_path, model=model) as daemon:
        client = daemon.client
        thread_id = (await client.call("thread/start", {}))["thread"]["id"]
        await client.run_turn(thread_id, "say before")
        await client.call("turn/start", {"threadId": thread_id, "input": user_text("hold h half an answer")})
        await client.wait_for("item/agentMessage/delta")
        assert await daemon.end(signal.SIGKILL) == -signal.SIGKILL
    assert endings(tmp_path / "home") == ["task_complete"]

    async with open_daemon(tmp_path, model=model) as daemon:
        client = daemon.client
        (listed,) = (await client.call("thread/list", {}))["data"]
        assert (listed["id"], listed["status"]) == (thread_id, {"type": "notLoaded"})
        for read in (
            await client.call("thread/read", {"threadId": thread_id, "includeTurns": True}),
            await client.call("thread/resume", {"threadId": thread_id}),
        ):
            done, cut = read["thread"]["turns"]
            assert done["status"] == "completed"
            assert (cut["status"], cut["completedAt"], cut["error"]) == ("interrupted", None, None)
            assert [item["type"] for item in cut["items"]] == ["userMessage"]
        assert (await client.run_turn(thread_id, "say after"))["status"] == "completed"
        context = str(model.requests[-1].body["input"])
        assert "before" in context
        assert "half an answer" in context, "what the user said is remembered"


async def test_kill_9_while_a_question_is_open_leaves_nothing_pending(
    tmp_path: Path, model: ScriptedModel
) -> None:
    settings = {"approval_policy": "untrusted"}
    async with open_daemon(tmp_path, model=model, settings=settings) as daemon:
        client = daemon.client
        thread_id = (await client.call("thread/start", {}))["thread"]["id"]
        await client.call("turn/start", {"threadId": thread_id, "input": user_text("shell touch x")})
        await client.wait_for("item/commandExecution/requestApproval")
        await daemon.end(signal.SIGKILL)
    async with open_daemon(tmp_path, model=model, settings=settings) as daemon:
        resumed = await daemon.client.call("thread/resume", {"threadId": thread_id})
        assert resumed["thread"]["status"] == {"type": "idle"}
        assert [turn["status"] for turn in resumed["thread"]["turns"]] == ["interrupted"]
        assert (await daemon.client.run_turn(thread_id, "say on"))["status"] == "completed"
        assert "item/commandExecution/requestApproval" not in [each["method"] for each in daemon.client.seen]


# -- on a websocket -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_an_idle_daemon_politely(
    tmp_path: Path, model: ScriptedModel, number: signal.Signals
) -> None:
    async with open_daemon(tmp_path, model=model) as daemon:
        await daemon.client.call("thread/start", {})
        assert await daemon.end(number) == 0
        with pytest.raises(ConnectionLost) as lost:
            await daemon.client.wait_for("nothing")
        assert lost.value.code == 1001


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_a_running_turn_finish_and_refuses_new_work(
    tmp_path: Path, model: ScriptedModel, number: signal.Signals
) -> None:
    async with open_daemon(tmp_path, model=model) as daemon:
        client = daemon.client
        thread_id = (await client.call("thread/start", {}))["thread"]["id"]
        other_id = (await client.call("thread/start", {}))["thread"]["id"]
        turn = await client.call(
            "turn/start", {"threadId": thread_id, "input": user_text("hold h to the end")}
        )
        await client.wait_for("item/agentMessage/delta")
        daemon.process.send_signal(number)
        daemon.ended = True
        refused = [
            ("thread/start", {}),
            ("thread/resume", {"threadId": thread_id}),
            ("turn/start", {"threadId": other_id, "input": user_text("say no")}),
            ("turn/start", {"threadId": thread_id, "input": user_text("say no")}),
            (
                "turn/steer",
                {"threadId": thread_id, "expectedTurnId": turn["turn"]["id"], "input": user_text("no")},
            ),
        ]
        # The signal has arrived when this is there; until then the daemon still serves.
        while "waiting for 1 running turns" not in daemon.stderr:
            await client.call("thread/loaded/list", {})
        async with daemon.connect("late") as late:
            for method, params in refused:
                with pytest.raises(RpcFailed, match="Server is draining; retry after reconnecting") as caught:
                    await late.call(method, params)
                assert (caught.value.code, caught.value.data) == (-32600, SHUTTING_DOWN), method
            read = await late.call("thread/read", {"threadId": thread_id})
            assert read["thread"]["status"]["type"] == "active"
            model.release("h")
            ended = await client.wait_for("turn/completed")
            assert ended["params"]["turn"]["items"][0]["text"] == "to the end"
            assert await daemon.process.wait() == 0
    assert endings(tmp_path / "home") == ["task_complete"]


async def test_a_second_signal_interrupts_the_turn_and_ends_at_once(
    tmp_path: Path, model: ScriptedModel
) -> None:
    async with open_daemon(tmp_path, model=model) as daemon:
        client = daemon.client
        thread_id = (await client.call("thread/start", {}))["thread"]["id"]
        await client.call("turn/start", {"threadId": thread_id, "input": user_text("hold h never done")})
        await client.wait_for("item/agentMessage/delta")
        daemon.process.send_signal(signal.SIGTERM)
        while "waiting for 1 running turns" not in daemon.stderr:
            await client.call("thread/loaded/list", {})
        assert await daemon.end(signal.SIGTERM) == 0
        ended = await client.wait_for("turn/completed")
        assert ended["params"]["turn"]["status"] == "interrupted", "the clients are told before the farewell"
    assert endings(tmp_path / "home") == ["turn_aborted"]


async def test_a_turn_that_outlasts_the_grace_period_is_interrupted(
    tmp_path: Path, model: ScriptedModel
) -> None:
    async with open_daemon(tmp_path, model=model, config="[spoold]\nshutdown_grace_secs = 0.1\n") as daemon:
        client = daemon.client
        thread_id = (await client.call("thread/start", {}))["thread"]["id"]
        await client.call("turn/start", {"threadId": thread_id, "input": user_text("hold h never done")})
        await client.wait_for("item/agentMessage/delta")
        assert await daemon.end(signal.SIGTERM) == 0
    assert endings(tmp_path / "home") == ["turn_aborted"]


async def test_a_command_that_runs_dies_with_the_daemon(tmp_path: Path, model: ScriptedModel) -> None:
    async with open_daemon(tmp_path, model=model, config="[spoold]\nshutdown_grace_secs = 0\n") as daemon:
        client = daemon.client
        thread_id = (await client.call("thread/start", {}))["thread"]["id"]
        pipe = daemon.work / "pid"
        os.mkfifo(pipe)
        script = "shell echo $$ > pid; exec sleep 1000"
        await client.call("turn/start", {"threadId": thread_id, "input": user_text(script)})
        pid = int(await trio.to_thread.run_sync(pipe.read_text, abandon_on_cancel=True))
        assert await daemon.end(signal.SIGTERM) == 0
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


# -- on the standard streams --------------------------------------------------------------------------------

CAUSES = [("EOF", 0), (signal.SIGTERM, 0), (signal.SIGINT, -signal.SIGINT)]


@pytest.mark.parametrize(("cause", "code"), CAUSES)
@pytest.mark.parametrize("running", [False, True])
async def test_on_stdio_the_end_interrupts_what_runs_and_has_its_exit_code(
    tmp_path: Path, model: ScriptedModel, cause: object, code: int, running: bool
) -> None:
    async with open_stdio(tmp_path, model) as (client, process):
        thread_id = (await client.call("thread/start", {}))["thread"]["id"]
        await client.run_turn(thread_id, "say one")
        if running:
            await client.call("turn/start", {"threadId": thread_id, "input": user_text("hold h two")})
            await client.wait_for("item/agentMessage/delta")
        if isinstance(cause, signal.Signals):
            process.send_signal(cause)
        else:
            assert process.stdin is not None
            await process.stdin.aclose()
        assert await process.wait() == code
    lines = rollout(tmp_path / "home")
    assert endings(tmp_path / "home") == ["task_complete", *["turn_aborted"] * running]
    assert [line["ordinal"] for line in lines] == list(range(len(lines)))


async def test_requests_before_the_end_of_input_still_get_their_answers(tmp_path: Path) -> None:
    async with open_raw(tmp_path) as raw:
        await raw.shake_hands()
        requests = [b'{"id":%d,"method":"thread/start","params":{}}\n' % number for number in range(20)]
        await raw.stdin.send_all(b"".join(requests))
        await raw.stdin.aclose()
        answered = []
        while len(answered) < 20:
            line = await raw.line()
            if "id" in line and "result" in line:
                answered.append(line["id"])
        assert sorted(answered) == list(range(20))


async def test_a_last_line_without_a_newline_is_a_message(tmp_path: Path) -> None:
    async with open_raw(tmp_path) as raw:
        await raw.shake_hands()
        await raw.stdin.send_all(b'{"id":"last","method":"thread/loaded/list","params":{}}')
        await raw.stdin.aclose()
        assert (await raw.line())["id"] == "last"
