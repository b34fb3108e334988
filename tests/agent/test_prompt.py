"""What the model is told besides the conversation."""

# ruff: noqa: ASYNC230, ASYNC240

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest
import trio

from agent.context import message_text
from agent.events import TurnSettings
from agent.model.events import ResponseItem
from agent.prompt import BASE_INSTRUCTIONS, MAX_IMAGE_BYTES, instructions, opening, user_content
from protocol.settings import DangerFullAccess, ReadOnly, WorkspaceWrite
from protocol.user_input import (
    AudioInput,
    ImageInput,
    LocalImageInput,
    MentionInput,
    SkillInput,
    TextInput,
    UserInput,
)
from tests.agent.stage import SeededRuntime

PNG = b"\x89PNG\r\n\x1a\n" + b"rest"


def settings(**changes: Any) -> TurnSettings:
    values: dict[str, Any] = {
        "model": "m",
        "cwd": "/work",
        "approval_policy": "on-request",
        "sandbox_policy": ReadOnly(),
        **changes,
    }
    return TurnSettings(**values)


def first(context: list[ResponseItem], chosen: TurnSettings, *, interrupted: bool = False) -> list[str]:
    messages = opening(context, chosen, SeededRuntime(), interrupted=interrupted)
    context.extend(messages)
    return [message_text(item) for item in messages]


def test_a_new_thread_is_told_its_permissions_and_environment_once() -> None:
    context: list[ResponseItem] = []
    permissions, environment = first(context, settings())
    assert permissions.startswith("<permissions instructions>")
    assert "nothing is writable" in permissions
    assert "There is no network access" in permissions
    assert "require_escalated" in permissions
    assert environment == (
        "<environment_context>\n  <cwd>/work</cwd>\n  <shell>bash</shell>\n"
        "  <current_date>2026-11-20</current_date>\n</environment_context>"
    )
    assert [item["role"] for item in context] == ["developer", "user"]
    assert first(context, settings()) == []


def test_a_change_is_told_and_only_the_change() -> None:
    context: list[ResponseItem] = []
    first(context, settings())
    (environment,) = first(context, settings(cwd="/other"))
    assert "<cwd>/other</cwd>" in environment
    (permissions,) = first(context, settings(cwd="/other", sandbox_policy=DangerFullAccess()))
    assert "without a sandbox" in permissions
    assert first(context, settings(cwd="/other", sandbox_policy=DangerFullAccess())) == []


def test_the_writable_places_are_named() -> None:
    policy = WorkspaceWrite(writable_roots=["/data"], exclude_slash_tmp=True)
    (permissions, _) = first([], settings(sandbox_policy=policy, approval_policy="never"))
    assert "/work, /data, $TMPDIR" in permissions
    assert "/tmp" not in permissions
    assert "never asked" in permissions


def test_the_users_own_instructions_are_passed_on() -> None:
    permissions, _ = first([], settings(developer_instructions="Speak like a sailor."))
    assert permissions.endswith("Speak like a sailor.")
    assert instructions(settings()) == BASE_INSTRUCTIONS
    assert instructions(settings(base_instructions="")) == ""


def test_an_interrupted_turn_is_told_before_everything_else() -> None:
    texts = first([], settings(), interrupted=True)
    assert texts[0].startswith("<turn_aborted>\nThe user interrupted the previous turn on purpose.")
    assert texts[0].endswith("</turn_aborted>")


async def one(part: UserInput) -> ResponseItem:
    (content,) = await user_content([part])
    return content


async def test_text_and_addresses_go_as_they_are() -> None:
    assert await one(TextInput(text="hi")) == {"type": "input_text", "text": "hi"}
    assert await one(ImageInput(url="https://x/y.png")) == {
        "type": "input_image",
        "image_url": "https://x/y.png",
    }
    assert await one(MentionInput(name="a.py", path="/w/a.py")) == {
        "type": "input_text",
        "text": "[@a.py](/w/a.py)",
    }
    assert await one(SkillInput(name="s", path="/s")) == {"type": "input_text", "text": "[$s](/s)"}


async def test_an_image_file_goes_as_a_data_url(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(PNG)
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    assert await one(LocalImageInput(path=str(path))) == {"type": "input_image", "image_url": url}


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "text", "huge", "nul"])
async def test_an_unreadable_image_becomes_a_text_that_says_why(tmp_path: Path, kind: str) -> None:
    path = str(tmp_path / "image")
    if kind == "folder":
        path = str(tmp_path)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "text":
        Path(path).write_text("no image")
    elif kind == "huge":
        with Path(path).open("wb") as file:
            file.write(PNG)
            file.truncate(MAX_IMAGE_BYTES + 1)
    elif kind == "nul":
        path = "a\0b"
    with trio.fail_after(10):
        part = await one(LocalImageInput(path=path))
    assert part["type"] == "input_text"
    said = {
        "missing": "No such file or directory",
        "folder": "Is a directory",
        "pipe": "not an ordinary file",
        "text": "not a PNG, JPEG, GIF or WebP image",
        "huge": "larger than 20971520 bytes",
        "nul": "embedded null byte",
    }
    assert part["text"] == f"[The image {path} could not be read: {said[kind]}]"


async def test_what_cannot_be_passed_on_is_named() -> None:
    assert "could not be passed on" in (await one(ImageInput()))["text"]
    assert "not given sound" in (await one(AudioInput(url="https://x/y.wav")))["text"]
