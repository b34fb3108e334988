"""The official Python client drives the daemon as it drives its own server."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.daemon_process import LIMIT, clean_environment, write_config
from tests.support.scripted_model import open_scripted_model

SCRIPT = Path(__file__).with_name("official_client_script.py")


def write_shim(folder: Path) -> Path:
    """What the client starts in place of its own binary: the daemon of our environment, not of its own."""
    shim = folder / "codex"
    shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m spoold "$@"\n')
    shim.chmod(0o755)
    return shim


class Driver:
    """Runs parts of the script, each in a process of its own, all on one home."""

    def __init__(self, python: Path, folder: Path) -> None:
        self._python, self._folder = python, folder
        self._shim = write_shim(folder)

    async def run(self, *arguments: str) -> dict[str, Any]:
        """One part; what it printed."""
        work = self._folder / "work"
        work.mkdir(exist_ok=True)
        with trio.fail_after(LIMIT):
            done = await trio.run_process(
                [str(self._python), str(SCRIPT), str(self._shim), str(work), *arguments],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                cwd=work,
                env=clean_environment(self._folder),
            )
        assert done.returncode == 0, f"the client failed:\n{done.stderr.decode()}\n{done.stdout.decode()}"
        seen: dict[str, Any] = json.loads(done.stdout)
        return seen


def types(items: list[dict[str, Any]]) -> list[str]:
    return [item["type"] for item in items]


@pytest.mark.conformance
async def test_the_official_client_runs_streamed_turns_and_finds_them_again_after_a_restart(
    official_client: Path, tmp_path: Path, nursery: trio.Nursery
) -> None:
    driver = Driver(official_client, tmp_path)
    async with open_scripted_model(nursery) as model:
        write_config(tmp_path / "home", model.base_url)
        first = await driver.run("first")
        told, ran = first["turns"]
        assert (told["status"], told["deltas"]) == ("completed", "hello from the script")
        assert types(told["items"]) == ["userMessage", "agentMessage"]
        assert told["methods"][0] == "turn/started"
        assert told["methods"][-1] == "turn/completed"
        assert (ran["status"], ran["deltas"]) == ("completed", "it is done")
        assert types(ran["items"]) == ["userMessage", "commandExecution", "agentMessage"]
        assert ran["items"][1]["aggregatedOutput"] == "42\n"
        assert first["third"] == {"status": "completed", "text": "the third", "tokens": 1234}
        assert first["listed"] == [[first["thread"], "say hello from the script", "idle"]]
        assert first["models"][0] == "scripted-model"
        assert first["account"] is False
        assert tuple(map(int, first["server"].split()[0].split("."))) >= (0, 151, 0), (
            "older servers are refused"
        )

        again = await driver.run("again", first["thread"])
        assert again["listed"] == [[first["thread"], "say hello from the script", "notLoaded"]]
        assert [turn["status"] for turn in again["history"]] == ["completed"] * 3
        assert [types(turn["items"]) for turn in again["history"]] == [
            ["userMessage", "agentMessage"],
            ["userMessage", "commandExecution", "agentMessage"],
            ["userMessage", "agentMessage"],
        ]
        assert [turn["items"][-1]["text"] for turn in again["history"]] == [
            "hello from the script",
            "it is done",
            "the third",
        ]
        assert again["history"][1]["items"][1] == ran["items"][1]
        assert again["interrupted"] == "interrupted"
        assert (again["after"]["status"], again["after"]["deltas"]) == ("completed", "and on")

        # The model was told everything that had been said, by the process that had not heard it.
        said = json.dumps(model.requests[-1].body["input"])
        assert all(text in said for text in ("hello from the script", "42", "the third", "and on"))


@pytest.mark.conformance
async def test_the_official_client_s_whole_thread_api(
    official_client: Path, tmp_path: Path, nursery: trio.Nursery
) -> None:
    driver = Driver(official_client, tmp_path)
    async with open_scripted_model(nursery) as model:
        write_config(tmp_path / "home", model.base_url)
        seen = await driver.run("lifecycle")
        one, two = seen["one"], seen["two"]
        assert seen["name"] == "first of all"
        assert seen["lists"] == {
            "ascending": [one, two],
            "first page": [one],
            "second page": [two],
            "by term": [two],
            "by name": [one],
            "by folder": [one, two],
            "by another folder": [],
            "by provider": [],
            "archived": [],
        }
        assert seen["fork"] == {"from": one, "turns": 2, "ephemeral": True, "source turns": 1}
        assert (seen["steered"], seen["steered status"]) == (True, "completed")
        assert "expected active turn id `nope` but found" in seen["stale steer"]
        assert seen["interrupted status"] == "interrupted"
        assert seen["archived"] == [[one], False]
        assert f"session {one} is archived" in seen["resume of archived"]
        assert f"no rollout found for thread id {one}" in seen["archive again"]
        assert seen["unarchived"] == [True, "notLoaded"]
        assert seen["after"] == "apples again"
        assert "thread name must not be empty" in seen["empty name"]
        assert "no rollout found for thread id" in seen["unknown"]
        models = [request.body["model"] for request in model.requests]
        assert {"another-model", "third-model", "fourth-model"} <= set(models)
        told = json.dumps(model.requests[models.index("third-model")].body["input"])
        assert "apples" in told
        assert "plums" not in told


@pytest.mark.conformance
async def test_the_official_client_sees_the_turns_of_a_goal_as_one(
    official_client: Path, tmp_path: Path, nursery: trio.Nursery
) -> None:
    async with open_scripted_model(nursery) as model:
        write_config(tmp_path / "home", model.base_url)
        complete = 'call update_goal {"status": "complete"}'
        model.script("shell echo one", "say more to do", complete, "say all is done")
        seen = await Driver(official_client, tmp_path).run("goal")
        assert seen["status"] == "completed"
        assert seen["items"] == ["commandExecution", "agentMessage", "agentMessage"]
        assert [seen["methods"][0], seen["methods"][-1]] == ["turn/started", "turn/completed"]
        assert (seen["methods"].count("turn/started"), seen["methods"].count("turn/completed")) == (1, 1)


def test_the_shim_runs_our_environment_s_program(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(write_shim(tmp_path)), "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("spoold ")
