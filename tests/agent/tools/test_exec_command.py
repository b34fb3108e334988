"""The tool exec_command through whole turns, with real processes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import trio

from agent.events import ApprovalFailed, ItemCompleted, ItemDelta, ItemStarted, TurnOutcome
from agent.tools.exec_command import REJECTED
from agent.tools.sandbox import SandboxProbe, SandboxStatus
from protocol.items import CommandExecutionItem
from protocol.server_requests import AcceptWithAmendment, ExecpolicyAmendment
from protocol.settings import ReadOnly, WorkspaceWrite
from tests.agent.stage import FixedProbe, Port, ScriptedModel, Stage, call, completed, named_call, say

UNTRUSTED: Any = {"approval_policy": "untrusted"}
PRINT = "python3 -c 'print(42)'"
BROKEN = FixedProbe(
    SandboxStatus(works=False, problem="no namespaces. Install it with: apt install bubblewrap")
)


def body(output: str) -> str:
    """What comes after the heading lines."""
    return output.partition("\nOutput:\n")[2]


@pytest.fixture
async def works() -> None:
    status = await SandboxProbe().run()
    if not status.works:
        pytest.skip(f"bubblewrap does not work on this machine: {status.problem}")


async def test_the_model_is_told_in_exactly_this_form(stage: Stage) -> None:
    output = await stage.command("echo hi")
    assert re.fullmatch(
        r"Chunk ID: [0-9a-f]{6}\nWall time: \d+\.\d{4} seconds\nProcess exited with code 0\n"
        r"Original token count: 1\nOutput:\nhi\n",
        output,
    )


async def test_the_item_of_a_command(stage: Stage) -> None:
    await stage.command("echo 'it works'; exit 3", workdir="..")
    started = next(
        event.item
        for event in stage.port.events
        if isinstance(event, ItemStarted) and isinstance(event.item, CommandExecutionItem)
    )
    (item,) = stage.port.commands()
    assert started.process_id is not None
    assert started.process_id.isdigit()
    assert started == item.model_copy(
        update={
            "status": "inProgress",
            "aggregated_output": None,
            "exit_code": None,
            "duration_ms": None,
            "completed_at_ms": None,
        }
    )
    assert (item.id, item.source, item.status, item.exit_code) == (
        "call-1",
        "unifiedExecStartup",
        "failed",
        3,
    )
    assert item.command == "/bin/bash -lc \"echo 'it works'; exit 3\""
    assert item.cwd == str(Path(stage.cwd).parent)
    assert item.command_actions == [{"type": "unknown", "command": "echo 'it works'; exit 3"}]
    assert item.aggregated_output == "it works\n"
    assert item.duration_ms is not None


async def test_no_output_is_null_for_clients(stage: Stage) -> None:
    assert body(await stage.command("true")) == ""
    assert stage.port.commands()[0].aggregated_output is None


async def test_later_output_is_streamed_and_the_first_is_not(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine a shell may need longer than the real quiet time to say its first word.
    monkeypatch.setattr("agent.tools.exec_command._QUIET", 1.0)
    wait = "until [ -e {} ]; do sleep 0.01; done"
    model = ScriptedModel(
        [call("call-1", cmd=f"echo a; {wait.format('b')}; echo b; {wait.format('c')}; echo c"), completed()],
        say("done"),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.run, model)
        await stage.port.until(lambda event: isinstance(event, ItemStarted) and event.item.id == "call-1")
        (terminal,) = stage.terminals.running.values()
        while not terminal._streaming:
            await trio.lowlevel.checkpoint()
        await (trio.Path(stage.cwd) / "b").touch()
        await stage.port.until(lambda event: isinstance(event, ItemDelta) and event.delta == "b\n")
        await (trio.Path(stage.cwd) / "c").touch()
    deltas = [
        event.delta
        for event in stage.port.events
        if isinstance(event, ItemDelta) and event.item_id == "call-1"
    ]
    assert deltas == ["b\n", "c\n"]
    assert stage.port.commands()[0].aggregated_output == "a\nb\nc\n"


async def test_a_timeout_is_told_and_the_item_fails(stage: Stage) -> None:
    output = await stage.command("echo before; sleep 1000", timeout_ms=200)
    assert body(output) == "command timed out after 200 milliseconds\nbefore\n"
    assert stage.port.commands()[0].status == "failed"
    assert stage.terminals.running == {}


async def test_a_command_that_yields_is_completed_when_it_ends_while_the_turn_runs(stage: Stage) -> None:
    go, gate = trio.Path(stage.cwd) / "go", trio.Event()
    model = ScriptedModel(
        [call("call-1", cmd="echo on; until [ -e go ]; do sleep 0.01; done", yield_time_ms=250), completed()],
        [gate, *say("done")],
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.run, model)
        await stage.port.until(lambda event: type(event).__name__ == "ModelResponded")
        assert stage.port.commands() == []
        (terminal,) = stage.terminals.running.values()
        await go.touch()
        await stage.port.until(lambda event: isinstance(event, ItemCompleted) and event.item.id == "call-1")
        gate.set()
    assert f"\nProcess running with session ID {terminal.session_id}\n" in model.outputs()[0]
    (item,) = stage.port.commands()
    assert (item.status, item.aggregated_output) == ("completed", "on\n")


async def test_a_command_that_outlives_its_turn_goes_on_without_it(stage: Stage) -> None:
    output = await stage.command("sleep 1000", yield_time_ms=250)
    assert "Process running with session ID" in output
    assert stage.port.commands() == []
    assert len(stage.terminals.running) == 1


async def test_long_output_is_shortened_for_the_model_but_its_size_is_told(stage: Stage) -> None:
    output = await stage.command("head -c 10000000 /dev/zero | tr '\\0' x")
    assert "Original token count: 2500000\n" in output
    assert "tokens truncated" in output
    assert len(output) < 41_000
    text = stage.port.commands()[0].aggregated_output
    assert text is not None
    assert len(text) < 1_100_000


async def test_binary_output_reaches_the_model_as_text(stage: Stage) -> None:
    assert body(await stage.command("printf '\\377\\000a'")) == "\ufffd\0a"


async def test_a_missing_working_directory_fails_the_item(stage: Stage) -> None:
    output = await stage.command("true", workdir="/no/such/place")
    assert output.startswith("exec_command failed: ")
    assert "/no/such/place" in output
    (item,) = stage.port.commands()
    assert (item.status, item.process_id, item.source) == ("failed", None, "agent")
    assert item.aggregated_output == output


async def test_a_login_shell_is_used_unless_told_otherwise(stage: Stage) -> None:
    script = "shopt -q login_shell && echo login || echo plain"
    assert body(await stage.command(script)) == "login\n"
    assert body(await stage.command(script, login=False, shell="/bin/zsh")) == "plain\n"


# Approvals


async def test_an_accepted_command_runs_and_is_not_started_twice(stage: Stage) -> None:
    stage.port = Port("accept")
    assert body(await stage.command(PRINT, settings=UNTRUSTED)) == "42\n"
    (question,) = stage.port.questions
    assert question.item.command == "/bin/bash -lc \"python3 -c 'print(42)'\""
    assert (question.item.process_id, question.item.source) == (None, "agent")
    assert question.amendment == ["python3", "-c", "print(42)"]
    assert question.argv == ("/bin/bash", "-lc", PRINT)
    assert question.reason is None
    starts = [
        event for event in stage.port.events if isinstance(event, ItemStarted) and event.item.id == "call-1"
    ]
    assert len(starts) == 1
    (item,) = stage.port.commands()
    assert (item.status, item.source) == ("completed", "unifiedExecStartup")
    assert item.process_id is not None


async def test_a_declined_command_does_not_run_and_is_not_kept(stage: Stage) -> None:
    stage.port = Port("decline")
    assert await stage.command("touch here", settings=UNTRUSTED) == REJECTED
    assert REJECTED == 'exec_command failed: CreateProcess { message: "Rejected(\\"rejected by user\\")" }'
    assert not (Path(stage.cwd) / "here").exists()
    (item,) = stage.port.commands()
    assert item.status == "declined"
    finished = [
        event for event in stage.port.events if isinstance(event, ItemCompleted) and event.item.id == "call-1"
    ]
    assert not finished[0].persist


async def test_cancel_ends_the_turn_without_asking_the_model(stage: Stage) -> None:
    stage.port = Port("cancel")
    model = ScriptedModel([call("call-1", cmd="touch here"), completed()])
    assert await stage.run(model, **UNTRUSTED) == TurnOutcome(cancelled_by_user=True)
    assert len(model.requests) == 1
    assert stage.port.log()[-1] == "completed commandExecution declined"
    assert not (Path(stage.cwd) / "here").exists()


async def test_cancel_also_ends_the_stream_and_withdraws_the_other_questions(stage: Stage) -> None:
    never = trio.Event()
    stage.port = Port(never, "cancel")
    asked = stage.port.ask

    async def first_waits(question: Any) -> Any:
        if question.item.id == "call-1":
            await never.wait()
        stage.port._answers.clear()
        stage.port._answers.append("cancel")
        return await asked(question)

    stage.port.ask = first_waits  # type: ignore[method-assign]
    model = ScriptedModel([call("call-1", cmd="touch one"), call("call-2", cmd="touch two"), trio.Event()])
    assert await stage.run(model, **UNTRUSTED) == TurnOutcome(cancelled_by_user=True)
    assert model.closed == 1
    assert [item.id for item in stage.port.commands()] == ["call-2"]


async def test_a_failed_question_fails_the_command_and_the_turn_goes_on(stage: Stage) -> None:
    stage.port = Port(ApprovalFailed("nonsense"))
    output = await stage.command("touch here", settings=UNTRUSTED)
    assert output == "exec_command failed: the approval request failed: nonsense"
    assert stage.port.commands()[0].status == "failed"
    assert not (Path(stage.cwd) / "here").exists()


def twice(cmd: str, other: str, **arguments: Any) -> ScriptedModel:
    """A command and then another one, in two responses."""
    return ScriptedModel(
        [call("call-1", cmd=cmd, **arguments), completed()],
        [call("call-2", cmd=other, **arguments), completed()],
        say("done"),
    )


async def test_a_plain_accept_is_asked_again(stage: Stage) -> None:
    stage.port = Port("accept", "accept")
    await stage.run(twice("echo a", "echo a"), **UNTRUSTED)
    assert len(stage.port.questions) == 2


async def test_accepted_for_the_session_is_not_asked_again_in_the_turn(stage: Stage) -> None:
    stage.port = Port("acceptForSession", "decline")
    await stage.run(twice("echo a", "echo a"), **UNTRUSTED)
    assert len(stage.port.questions) == 1
    assert [item.status for item in stage.port.commands()] == ["completed", "completed"]


async def test_accepted_for_the_session_is_that_command_only(stage: Stage) -> None:
    stage.port = Port("acceptForSession", "decline")
    await stage.run(twice("echo a", "echo a b"), **UNTRUSTED)
    assert [item.status for item in stage.port.commands()] == ["completed", "declined"]


async def test_an_accepted_prefix_is_not_asked_again(stage: Stage) -> None:
    answer = AcceptWithAmendment(
        accept_with_execpolicy_amendment=ExecpolicyAmendment(execpolicy_amendment=["echo"])
    )
    stage.port = Port(answer, "decline")
    await stage.run(twice("echo a", "echo b c"), **UNTRUSTED)
    assert [item.status for item in stage.port.commands()] == ["completed", "completed"]


async def test_what_was_accepted_in_earlier_turns_is_not_asked(stage: Stage) -> None:
    argv = ("/bin/bash", "-lc", "echo a")
    await stage.command("echo a", settings={**UNTRUSTED, "approved_commands": frozenset({argv})})
    await stage.command("echo b", settings={**UNTRUSTED, "approved_prefixes": (("echo",),)})
    assert stage.port.questions == []


async def test_an_interrupt_while_the_question_is_open_posts_nothing(stage: Stage) -> None:
    stage.port = Port(trio.Event())
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def run() -> None:
                await stage.run(ScriptedModel([call("call-1", cmd="touch here"), completed()]), **UNTRUSTED)

            nursery.start_soon(run)
            await stage.port.until(lambda event: isinstance(event, ItemStarted) and event.item.id == "call-1")
            before = len(stage.port.events)
            scope.cancel()
    assert len(stage.port.events) == before
    assert not (Path(stage.cwd) / "here").exists()


# The sandbox


@pytest.mark.usefixtures("works")
async def test_read_only_denies_writing_and_workspace_write_allows_it(stage: Stage) -> None:
    await stage.command("touch here", settings={"sandbox_policy": ReadOnly()})
    assert not (Path(stage.cwd) / "here").exists()
    await stage.command("touch here", settings={"sandbox_policy": WorkspaceWrite()})
    assert (Path(stage.cwd) / "here").exists()
    assert [item.status for item in stage.port.commands()] == ["failed", "completed"]
    assert stage.port.commands()[1].command == "/bin/bash -lc 'touch here'"


@pytest.mark.usefixtures("works")
async def test_an_accepted_untrusted_command_still_runs_in_the_sandbox(stage: Stage) -> None:
    stage.port = Port("accept")
    await stage.command("touch here", settings={**UNTRUSTED, "sandbox_policy": ReadOnly()})
    assert stage.port.commands()[0].status == "failed"
    assert not (Path(stage.cwd) / "here").exists()


async def test_an_accepted_escalation_runs_without_the_sandbox(stage: Stage) -> None:
    stage.port = Port("accept")
    settings = {"approval_policy": "on-request", "sandbox_policy": ReadOnly()}
    await stage.command(
        "touch here",
        settings=settings,
        sandbox_permissions="require_escalated",
        justification="mock wants this",
    )
    assert stage.port.questions[0].reason == "mock wants this"
    assert (Path(stage.cwd) / "here").exists()


async def test_under_never_an_escalation_is_refused_to_the_model_only(stage: Stage) -> None:
    settings = {"sandbox_policy": ReadOnly()}
    output = await stage.command("touch here", settings=settings, sandbox_permissions="require_escalated")
    assert output.startswith("exec_command failed: approval policy is Never")
    assert stage.port.commands() == []
    assert not (Path(stage.cwd) / "here").exists()


async def test_where_the_sandbox_cannot_work_a_command_is_refused_and_says_why(stage: Stage) -> None:
    stage.probe = BROKEN
    output = await stage.command("touch here", settings={"sandbox_policy": ReadOnly()})
    assert "no namespaces" in output
    assert "apt install bubblewrap" in output
    (item,) = stage.port.commands()
    assert (item.status, item.aggregated_output) == ("failed", output)
    assert not (Path(stage.cwd) / "here").exists()


async def test_where_the_sandbox_cannot_work_a_command_asks_when_it_may(stage: Stage) -> None:
    stage.probe, stage.port = BROKEN, Port("accept")
    settings = {"approval_policy": "on-request", "sandbox_policy": ReadOnly()}
    await stage.command("touch here", settings=settings)
    reason = stage.port.questions[0].reason
    assert reason is not None
    assert "no namespaces" in reason
    assert (Path(stage.cwd) / "here").exists()


@pytest.mark.usefixtures("works")
async def test_a_timeout_ends_a_sandboxed_command_with_its_children(stage: Stage) -> None:
    script = "(trap '' TERM; sleep 1000) & trap '' TERM; echo on; sleep 1000"
    output = await stage.command(script, settings={"sandbox_policy": ReadOnly()}, timeout_ms=300)
    assert body(output) == "command timed out after 300 milliseconds\non\n"


async def test_a_call_with_a_numeric_text_for_a_number_is_understood(stage: Stage) -> None:
    model = ScriptedModel(
        [named_call("call-1", "exec_command", '{"cmd": "echo hi", "timeout_ms": 5000.0}'), completed()],
        say("done"),
    )
    await stage.run(model)
    assert body(model.outputs()[0]) == "hi\n"
