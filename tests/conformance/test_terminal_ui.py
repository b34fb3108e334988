"""The reference's own terminal UI, driven in a real terminal, works on the daemon as on its own server.

Nobody logs in and nothing but loopback can be reached: its configuration turns off what would look for the
network, and what looks all the same meets a proxy that is not there. All that the UI gets over its websocket
passes a relay and is held against the schemas; a method it needs that is answered "not supported" fails the
test, as does a screen that never shows what it must.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from tests.support.daemon_process import DaemonProcess, clean_environment, open_daemon
from tests.support.scripted_model import ScriptedModel
from tests.support.terminal import Terminal, has_tmux, open_terminal
from tests.support.wire_tap import Tap, open_tap

pytestmark = [
    pytest.mark.conformance,
    pytest.mark.skipif(not has_tmux(), reason="needs tmux (Debian's package tmux) to run a terminal UI in"),
]

TYPED = "\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}"
"""Stands before what the user has said."""
QUESTION = "Would you like to run the following command?"
READY = "Ask Codex to do anything"
NOT_SUPPORTED = -32601
MAY_BE_REFUSED = {"thread/turns/list"}
"""Of a thread without a message; the reference refuses it in the same words."""

_NO_NETWORK = {
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "NO_PROXY": "127.0.0.1",
}
_QUIET = {"check_for_update_on_startup": False, "disable_paste_burst": True}
SETTINGS: Mapping[str, str | bool] = {"approval_policy": "on-request", **_QUIET}
_QUIET_TABLES = """
[analytics]
enabled = false

[features]
plugins = false
apps = false

[tui]
animations = false
show_tooltips = false

[projects."{work}"]
trust_level = "trusted"
"""


@dataclass
class Stage:
    """A daemon that asks before it runs commands, and a UI that may be started on it any number of times."""

    program: Path
    folder: Path
    daemon: DaemonProcess
    tap: Tap

    @property
    def model(self) -> ScriptedModel:
        return self.daemon.model

    def ui(self, *arguments: str) -> AbstractAsyncContextManager[Terminal]:
        """The UI, attached over TCP."""
        return self.alone("--remote", self.tap.url, *arguments, home=self._own_home())

    def alone(self, *arguments: str, home: Path) -> AbstractAsyncContextManager[Terminal]:
        """The UI with this home, told nothing of any server."""
        command = [str(self.program), *arguments]
        return open_terminal(command, self._environment(home), self.daemon.work)

    async def command(self, *arguments: str, home: Path | None = None) -> str:
        """One of the program's commands to its end; what it said. It must succeed."""
        first, *others = arguments
        where = [] if home else ["--remote", self.tap.url]
        done = await trio.run_process(
            [str(self.program), *where, first, *others],
            env=self._environment(home or self._own_home()),
            cwd=self.daemon.work,
            stdin=subprocess.DEVNULL,
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
        )
        said = done.stdout.decode()
        assert done.returncode == 0, f"{arguments} failed: {said}"
        return said

    def refused(self) -> set[str]:
        """Methods that were answered "not supported"."""
        return {
            answer.method or "?"
            for traffic in self.tap.traffic
            for answer in traffic
            if answer.kind == "error" and answer.message["error"]["code"] == NOT_SUPPORTED
        }

    def _environment(self, home: Path) -> dict[str, str]:
        return clean_environment(self.folder, CODEX_HOME=str(home), **_NO_NETWORK)

    def _own_home(self) -> Path:
        home = self.folder / "home-of-the-ui"
        home.mkdir(exist_ok=True)
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in _QUIET.items())
        (home / "config.toml").write_text(lines + _tables(self.daemon.work))
        return home


def _tables(work: Path) -> str:
    return _QUIET_TABLES.format(work=work)


@asynccontextmanager
async def open_stage(program: Path, folder: Path) -> AsyncGenerator[Stage, None]:
    async with open_daemon(folder, settings=SETTINGS, config=_tables(folder / "work")) as daemon:
        async with open_tap(daemon.url) as tap:
            stage = Stage(program, folder, daemon, tap)
            yield stage
        daemon.traffic += tap.traffic
        assert stage.refused() <= MAY_BE_REFUSED


def finished(answer: str) -> str:
    """What the screen has when a turn with this answer is over; until then what is typed steers it."""
    return f"• {answer} Worked for"


def the_thread(home: Path, below: str = "sessions") -> str:
    """The id of the one thread there."""
    [rollout] = (home / below).rglob("rollout-*.jsonl")
    found = re.search(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", rollout.name)
    assert found
    return found[0]


async def test_a_typed_prompt_shows_its_answer_while_it_is_written(reference: Path, tmp_path: Path) -> None:
    async with open_stage(reference, tmp_path) as stage, stage.ui() as ui:
        await ui.shows(READY, "scripted-model")
        await ui.enter("hold one first and then the rest")
        await stage.model.held("one")
        assert "• first and" not in await ui.shows("• first")
        stage.model.release("one")
        await ui.shows(finished("first and then the rest"), READY)
        await ui.enter("say a second answer")
        await ui.shows(finished("a second answer"))


async def test_an_approved_command_runs_and_a_declined_one_does_not(reference: Path, tmp_path: Path) -> None:
    async with open_stage(reference, tmp_path) as stage, stage.ui() as ui:
        await ui.shows(READY)
        await ui.enter("esc echo MARK-$((40+2)) | say it was approved")
        await ui.shows(QUESTION, "$ echo MARK-$((40+2))")
        await ui.answer("y", QUESTION)
        await ui.shows("└ MARK-42", finished("it was approved"))
        await ui.enter("esc touch never | say not told")
        await ui.shows("$ touch never")
        await ui.answer("Escape", QUESTION)
        await ui.shows("Conversation interrupted", READY)
        assert list(stage.daemon.work.iterdir()) == []
        await ui.enter("say it goes on")
        await ui.shows(finished("it goes on"))


async def test_enter_steers_a_running_turn_and_escape_interrupts_one(reference: Path, tmp_path: Path) -> None:
    async with open_stage(reference, tmp_path) as stage, stage.ui() as ui:
        await ui.shows(READY)
        await ui.enter("hold one first thoughts")
        await ui.shows("• first")
        await ui.enter("say the other way round")
        await ui.shows(finished("the other way round"))
        await ui.enter("hold two a long story")
        await ui.shows("• a")
        await ui.press("Escape")
        await ui.shows("Conversation interrupted", READY)
        await ui.enter("say still here")
        await ui.shows(finished("still here"))
        history = await stage.daemon.client.call(
            "thread/turns/list", {"threadId": the_thread(stage.daemon.home), "sortDirection": "asc"}
        )
        assert [turn["status"] for turn in history["data"]] == ["completed", "interrupted", "completed"]


async def test_the_picker_lists_a_thread_and_resumes_it_with_its_history_after_a_restart(
    reference: Path, tmp_path: Path
) -> None:
    async with open_stage(reference, tmp_path) as stage, stage.ui() as ui:
        await ui.shows(READY)
        await ui.enter("esc echo MARK-$((40+2)) | say all that was said")
        await ui.shows(QUESTION)
        await ui.answer("y", QUESTION)
        await ui.shows(finished("all that was said"))
    async with open_stage(reference, tmp_path) as stage, stage.ui("resume") as ui:
        await ui.shows("Resume a previous session", "esc echo MARK-$((40+2))")
        await ui.answer("Enter", "Resume a previous session")
        await ui.shows("Ran echo MARK-$((40+2))", "└ MARK-42", finished("all that was said"), READY)
        await ui.enter("say and more")
        await ui.shows(finished("and more"))
        told = json.dumps(stage.model.requests[0].body["input"])
        assert "all that was said" in told, "the model is told what a former daemon had heard"


async def test_a_thread_is_renamed_archived_brought_back_and_deleted(reference: Path, tmp_path: Path) -> None:
    async with open_stage(reference, tmp_path) as stage:
        home = stage.daemon.home
        async with stage.ui() as ui:
            await ui.shows(READY)
            await ui.enter("say hello there")
            await ui.shows(finished("hello there"))
            await ui.enter("/rename The Long Way")
            await ui.shows("· The Long Way", READY)
            thread_id = the_thread(home)
            await ui.enter("/archive")
            await ui.shows("Archive this session?")
            await ui.answer("2", "Archive this session?")
            await stage.daemon.client.wait_for("thread/archived")
        assert the_thread(home, "archived_sessions") == thread_id
        assert "The Long Way" in await stage.command("unarchive", "The Long Way")
        assert the_thread(home) == thread_id
        assert "The Long Way" in await stage.command("archive", "The Long Way")
        assert "Deleted session" in await stage.command("delete", "--force", thread_id)
        assert not list(home.rglob("rollout-*.jsonl"))
        listed = await stage.daemon.client.call("thread/list", {"archived": True})
        assert listed["data"] == []


async def test_a_second_ui_attaches_in_the_middle_of_a_turn_and_both_show_the_rest(
    reference: Path, tmp_path: Path
) -> None:
    async with open_stage(reference, tmp_path) as stage, stage.ui() as one:
        await one.shows(READY)
        await one.enter("shell echo ONE-$((1+1)) | hold one first and then the rest")
        await one.shows("└ ONE-2", "• first")
        async with stage.ui("resume", the_thread(stage.daemon.home)) as two:
            await two.shows("└ ONE-2", READY)
            stage.model.release("one")
            for ui in (one, two):
                await ui.shows(finished("first and then the rest"))
            await two.enter("say from the second")
            for ui in (one, two):
                await ui.shows(f"{TYPED} say from the second", finished("from the second"))
            await one.enter("say from the first")
            for ui in (one, two):
                await ui.shows(f"{TYPED} say from the first", finished("from the first"))


async def test_a_question_is_shown_by_every_ui_and_answered_by_one(reference: Path, tmp_path: Path) -> None:
    async with open_stage(reference, tmp_path) as stage, stage.ui() as one:
        await one.shows(READY)
        await one.enter("say first of all")
        await one.shows(finished("first of all"))
        async with stage.ui("resume", the_thread(stage.daemon.home)) as two:
            await two.shows(finished("first of all"), READY)
            await one.enter("esc echo TWO-$((1+1)) | esc echo THREE-$((1+2)) | say the end")
            for ui in (one, two):
                await ui.shows(QUESTION, "$ echo TWO-$((1+1))")
            await two.answer("y", "$ echo TWO-$((1+1))")
            for ui in (one, two):
                await ui.shows("└ TWO-2", QUESTION, "$ echo THREE-$((1+2))")
            # The third comes when the question has long been put.
            async with stage.ui("resume", the_thread(stage.daemon.home)) as three:
                await three.shows("└ TWO-2", QUESTION, "$ echo THREE-$((1+2))")
                await three.answer("y", "$ echo THREE-$((1+2))")
                for ui in (one, two, three):
                    await ui.shows("└ THREE-3", finished("the end"), READY)
                    await ui.hides(QUESTION)


async def test_a_thread_is_forked_and_another_begun_and_both_are_in_the_picker(
    reference: Path, tmp_path: Path
) -> None:
    async with open_stage(reference, tmp_path) as stage:
        async with stage.ui() as ui:
            await ui.shows(READY)
            await ui.enter("say the beginning of both")
            await ui.shows(finished("the beginning of both"))
            await ui.enter("/fork")
            await ui.shows("Thread forked from", finished("the beginning of both"), READY)
            await ui.enter("say only in the fork")
            await ui.shows(finished("only in the fork"))
            await ui.enter("/new")
            await ui.hides("only in the fork")
            await ui.shows(READY)
            await ui.enter("say something else")
            await ui.shows(finished("something else"))
        listed = await stage.daemon.client.call("thread/list", {})
        assert [thread["preview"] for thread in listed["data"]].count("say the beginning of both") == 2
        [fork] = [thread for thread in listed["data"] if thread["forkedFromId"]]
        async with stage.ui("resume") as ui:
            await ui.shows("say something else", "say the beginning of both")
        async with stage.ui("resume", fork["id"]) as ui:
            await ui.shows(finished("the beginning of both"), finished("only in the fork"), READY)


async def test_a_ui_whose_daemon_was_killed_goes_on_with_the_next(reference: Path, tmp_path: Path) -> None:
    async with open_stage(reference, tmp_path) as stage, stage.ui() as ui:
        await ui.shows(READY)
        await ui.enter("say before it")
        await ui.shows(finished("before it"))
        await ui.enter("hold one word that is lost")
        await ui.shows("• word")
        stage.tap.server = None
        await stage.daemon.end()
        await ui.shows("Reconnecting to server")
        async with open_daemon(tmp_path, model=stage.model, settings=SETTINGS) as successor:
            stage.tap.server = successor.url
            await ui.hides("Reconnecting to server")
            await ui.shows(finished("before it"), "Conversation interrupted", READY)
            await ui.enter("say after it")
            await ui.shows(finished("after it"))
            stage.tap.server = None


async def test_without_a_flag_the_program_finds_the_daemon_of_its_home(
    reference: Path, tmp_path: Path
) -> None:
    async with open_stage(reference, tmp_path) as stage:
        home = stage.daemon.home
        async with stage.alone(home=home) as ui:
            await ui.shows(READY)
            await ui.enter("hold one first and then the rest")
            await ui.shows("• first")
            thread_id = the_thread(home)
            listed = await stage.daemon.client.call("thread/loaded/list", {})
            assert thread_id in listed["data"], "it is the daemon that runs it"
            async with stage.alone("resume", thread_id, home=home) as another:
                await another.shows(READY, f"{TYPED} hold one")
                stage.model.release("one")
                for each in (ui, another):
                    await each.shows(finished("first and then the rest"))
        await stage.daemon.client.call("thread/name/set", {"threadId": thread_id, "name": "The Long Way"})
        assert "The Long Way" in await stage.command("archive", "The Long Way", home=home)
        await stage.daemon.client.wait_for("thread/archived")
        assert the_thread(home, "archived_sessions") == thread_id


async def test_a_command_in_the_background_is_shown_and_stopped(reference: Path, tmp_path: Path) -> None:
    async with open_stage(reference, tmp_path) as stage, stage.ui() as ui:
        await ui.shows(READY)
        call = json.dumps({"cmd": "sleep 71", "yield_time_ms": 250})
        await ui.enter(f"call exec_command {call} | say it runs")
        await ui.shows(finished("it runs"), READY)
        of_thread = {"threadId": the_thread(stage.daemon.home)}
        listed = await stage.daemon.client.call("thread/backgroundTerminals/list", of_thread)
        assert [entry["command"] for entry in listed["data"]] == ["sleep 71"]
        await ui.enter("/ps")
        await ui.shows("Background terminals", "sleep 71")
        await ui.enter("/stop")
        await ui.shows("Stopping all background terminals")
        [entry] = listed["data"]
        while await trio.Path(f"/proc/{entry['osPid']}").exists():  # noqa: ASYNC110 - it is not our child
            await trio.sleep(0.01)
